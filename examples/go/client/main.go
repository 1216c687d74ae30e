// A client that comes back: connects to an answerer host, gets an echo, and does so again, the fastest way that works.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"reconnect"
)

// post is the signaling: one HTTP request for each offer.
func post(url string) reconnect.SignalerFunc {
	return func(ctx context.Context, offer []byte) ([]byte, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(offer))
		if err != nil {
			return nil, err
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return nil, err
		}
		defer response.Body.Close()
		answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s: %s", url, response.Status, answer)
		}
		return answer, err
	}
}

// read gives echoes to whoever waits for them, and says what the connector does.
func read(events <-chan reconnect.Event, echoes chan<- string) {
	for event := range events {
		switch event := event.(type) {
		case reconnect.MessageEvent:
			echoes <- string(event.Data)
		case reconnect.AttemptEvent:
			reason := ""
			if event.Reason != nil {
				reason = ": " + event.Reason.Error()
			}
			fmt.Fprintf(os.Stderr, "%v %v after %v%s\n", event.Mode, event.State, event.Elapsed, reason)
		}
	}
}

func run(url, cache, address string, times int) error {
	config := &reconnect.Config{LogLevel: reconnect.LogWarning}
	if address != "" {
		config.Addresses = []string{address}
	}
	if cache != "" { // what is kept can be used with the same certificate only
		config.CertificatePath = cache + ".pem"
	}
	engine, err := reconnect.NewEngineFromEnv(config)
	if err != nil {
		return err
	}
	defer engine.Close()
	echoes := make(chan string, 16)
	go read(engine.Events(), echoes)

	connector, err := engine.NewConnector(&reconnect.ConnectorConfig{
		Key: url, CachePath: cache,
		Peer: reconnect.PeerConfig{Channels: []reconnect.ChannelConfig{{Label: "echo", Negotiated: true, ID: 1}}},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(times)*30*time.Second)
	defer cancel()
	for i := 0; i < times; i++ {
		started := time.Now()
		connection, err := connector.Dial(ctx, post(url+"/offer"))
		if err != nil {
			return err
		}
		if err := connection.Peer.Channels()[0].SendText("hello"); err != nil {
			return err
		}
		select {
		case echo := <-echoes:
			fmt.Printf("%v: open after %.1f ms, %q after %.1f ms\n", connection.Mode,
				connection.Duration.Seconds()*1000, echo, time.Since(started).Seconds()*1000)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return connector.Close()
}

func main() {
	url := flag.String("url", "http://127.0.0.1:8080", "the answerer host")
	cache := flag.String("cache", "", "`file` for what is needed to come back after a restart; FILE.pem is the certificate (default: in memory)")
	address := flag.String("address", "", "IP `address` to offer (default: those of the machine's interfaces)")
	times := flag.Int("times", 3, "how often to connect")
	flag.Parse()
	if err := run(*url, *cache, *address, *times); err != nil {
		fmt.Fprintf(os.Stderr, "client: %v\n", err)
		os.Exit(1)
	}
}
