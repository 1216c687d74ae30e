// A client that comes back: connects to an answerer host, gets an echo, and does so again, the fastest way that works.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"reconnect"
)

// signaling is one HTTP request for each offer. The connector says only that it failed, not why.
func signaling(url string) reconnect.SignalerFunc {
	return func(ctx context.Context, offer []byte) ([]byte, error) {
		answer, err := post(ctx, url, offer)
		if err != nil && ctx.Err() == nil {
			fmt.Fprintf(os.Stderr, "client-go: %v\n", err)
		}
		return answer, err
	}
}

func post(ctx context.Context, url string, offer []byte) ([]byte, error) {
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
			fmt.Fprintf(os.Stderr, "%v %v after %.1f ms%s\n", event.Mode, event.State, event.Elapsed.Seconds()*1000, reason)
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
		connection, err := connector.Dial(ctx, signaling(url+"/offer"))
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

const usage = `usage: client-go [--url http://HOST:PORT] [--cache FILE] [--address ADDR] [--times N]

Connects to an answerer host, again and again.

  --url URL      the answerer host (default http://127.0.0.1:8080)
  --cache FILE   for what is needed to come back after a restart; FILE.pem is the certificate (default: in memory)
  --address ADDR IP address to offer (default: those of the machine's interfaces)
  --times N      how often to connect (default 3)
  --help         this text
`

func main() {
	set := flag.NewFlagSet("client-go", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	url := set.String("url", "http://127.0.0.1:8080", "")
	cache := set.String("cache", "", "")
	address := set.String("address", "", "")
	times := set.Int("times", 3, "")
	switch err := set.Parse(os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
		return
	case err != nil:
		fmt.Fprintf(os.Stderr, "client-go: %v\n", err)
		os.Exit(2)
	case set.NArg() > 0:
		fmt.Fprintf(os.Stderr, "client-go: there is nothing to do with %q\n", set.Arg(0))
		os.Exit(2)
	}
	if err := run(*url, *cache, *address, *times); err != nil {
		fmt.Fprintf(os.Stderr, "client-go: %v\n", err)
		os.Exit(1)
	}
}
