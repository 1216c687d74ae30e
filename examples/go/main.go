// The answerer host: serves the example page, answers its offers and echoes every message.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"reconnect"
)

const usage = `usage: answerer-go [--http HOST:PORT] [--udp PORT] [--address ADDR]... [--certificate FILE]
                   [--cors ORIGIN] [--page FILE] [--lite] [--negotiated ID]

Serves the example page, answers WebRTC offers and echoes every message.

  --http HOST:PORT     where to serve HTTP (default 127.0.0.1:8080); IPv6 as [::1]:8080; port 0: any free one
  --udp PORT           UDP port for all peers (default 0: any free one)
  --address ADDR       IP address to offer, repeatable (default: those of the machine's interfaces)
  --certificate FILE   PEM file for key and certificate, made if missing (default: a new one at every start)
  --cors ORIGIN        the one other origin whose pages may send offers
  --page FILE          the page (default: examples/page/index.html of the source tree)
  --lite               ICE Lite: only answer checks; for public addresses
  --negotiated ID      also open a pre-negotiated channel with this id on each peer
  --help               this text
`

type options struct {
	http, cors, page string
	config           reconnect.Config
	channels         []reconnect.ChannelConfig // of each peer
}

// addresses is a flag that may be given several times.
type addresses []string

func (a *addresses) String() string { return strings.Join(*a, ",") }

func (a *addresses) Set(text string) error {
	if _, err := netip.ParseAddr(text); err != nil {
		return errors.New("it is not an IP address")
	}
	*a = append(*a, text)
	return nil
}

func parse(arguments []string) (*options, error) {
	set := flag.NewFlagSet("answerer-go", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	o := &options{}
	set.StringVar(&o.http, "http", "127.0.0.1:8080", "")
	udp := set.String("udp", "0", "")
	set.Var((*addresses)(&o.config.Addresses), "address", "")
	set.StringVar(&o.config.CertificatePath, "certificate", "", "")
	set.StringVar(&o.cors, "cors", "", "")
	set.StringVar(&o.page, "page", "", "")
	lite := set.Bool("lite", false, "")
	negotiated := set.String("negotiated", "", "")
	if err := set.Parse(arguments); err != nil {
		return nil, err
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("there is nothing to do with %q", set.Arg(0))
	}
	port, err := strconv.ParseUint(*udp, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("--udp takes a port from 0 to 65535, not %q", *udp)
	}
	o.config.Port = uint16(port)
	if *lite {
		o.config.ICEMode = reconnect.ICELite
	}
	o.channels = []reconnect.ChannelConfig{{Label: "echo", Negotiated: true, ID: 1}}
	if *negotiated != "" {
		id, err := strconv.ParseUint(*negotiated, 10, 16)
		if err != nil || id == 1 || id == 65535 {
			return nil, fmt.Errorf("--negotiated takes an id from 0 to 65534 other than 1, not %q", *negotiated)
		}
		o.channels = append(o.channels, reconnect.ChannelConfig{Label: "negotiated", Negotiated: true, ID: uint16(id)})
	}
	_, text, err := net.SplitHostPort(o.http)
	if err == nil {
		_, err = strconv.ParseUint(text, 10, 16)
	}
	if err != nil {
		return nil, fmt.Errorf("--http takes HOST:PORT, not %q", o.http)
	}
	return o, nil
}

// readPage reads the page: the file that was named, or the one of the source tree, looked for upwards from this
// file and from the executable.
func readPage(named string) ([]byte, error) {
	if named != "" {
		return os.ReadFile(named)
	}
	var starts []string
	if _, source, _, ok := runtime.Caller(0); ok && filepath.IsAbs(source) {
		starts = append(starts, filepath.Dir(source))
	}
	if executable, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(executable))
	}
	for _, folder := range starts {
		for {
			if page, err := os.ReadFile(filepath.Join(folder, "examples", "page", "index.html")); err == nil {
				return page, nil
			}
			parent := filepath.Dir(folder)
			if parent == folder {
				break
			}
			folder = parent
		}
	}
	return nil, errors.New("examples/page/index.html was not found; name it with --page FILE")
}

// listen opens the HTTP port and gives the address as people write it.
func listen(address string) (net.Listener, string, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, "", err
	}
	host, _, _ := net.SplitHostPort(address)
	if host == "" {
		host = "localhost"
	}
	port := listener.Addr().(*net.TCPAddr).Port
	return listener, net.JoinHostPort(host, strconv.Itoa(port)), nil
}

func run(o *options) error {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	page, err := readPage(o.page)
	if err != nil {
		return fmt.Errorf("the page: %w", err)
	}
	engine, err := reconnect.NewEngine(&o.config)
	if err != nil {
		return fmt.Errorf("the engine: %w", err)
	}
	defer engine.Close()
	listener, address, err := listen(o.http)
	if err != nil {
		return fmt.Errorf("HTTP: %w", err)
	}
	server := &http.Server{
		Handler:           &web{engine: engine, page: page, origin: o.cors, channels: o.channels},
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	echoed := make(chan struct{})
	go func() {
		defer close(echoed)
		echo(engine.Events())
	}()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Printf("listening on http://%s/\n", address)

	select {
	case err = <-served:
		return fmt.Errorf("HTTP: %w", err)
	case <-stop.Done():
	}
	patience, done := context.WithTimeout(context.Background(), time.Second)
	defer done()
	if server.Shutdown(patience) != nil {
		server.Close()
	}
	err = engine.Close()
	<-echoed
	return err
}

func main() {
	o, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
		return
	case err != nil:
		fmt.Fprintf(os.Stderr, "answerer-go: %v; --help tells more\n", err)
		os.Exit(2)
	}
	if err := run(o); err != nil {
		fmt.Fprintf(os.Stderr, "answerer-go: %v\n", err)
		os.Exit(1)
	}
}
