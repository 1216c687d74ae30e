// The answerer host: serves the example page, answers its offers and echoes every message.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"reconnect"
)

// inTree reads a file of the source tree, looked for upwards from this file and from the executable.
func inTree(path string) ([]byte, error) {
	var starts []string
	if _, source, _, ok := runtime.Caller(0); ok && filepath.IsAbs(source) {
		starts = append(starts, filepath.Dir(source))
	}
	if executable, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(executable))
	}
	for _, folder := range starts {
		for {
			if content, err := os.ReadFile(filepath.Join(folder, path)); err == nil {
				return content, nil
			}
			parent := filepath.Dir(folder)
			if parent == folder {
				break
			}
			folder = parent
		}
	}
	return nil, fmt.Errorf("%s was not found", path)
}

// readPage reads the page: the file that was named, or the one of the source tree.
func readPage(named string) ([]byte, error) {
	if named != "" {
		return os.ReadFile(named)
	}
	page, err := inTree("examples/page/index.html")
	if err != nil {
		return nil, fmt.Errorf("%w; name it with --page FILE", err)
	}
	return page, nil
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

// obey does what signals ask for, until the context ends.
func obey(ctx context.Context, engine *reconnect.Engine, signals <-chan os.Signal) {
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case received := <-signals:
			switch received {
			case syscall.SIGHUP:
				err = engine.RotateCertificate()
			case syscall.SIGUSR1:
				err = engine.SetFastReload(reconnect.FastReloadOff)
			case syscall.SIGUSR2:
				err = engine.SetFastReload(reconnect.FastReloadOn)
			}
			if err != nil {
				fmt.Fprintf(os.Stderr, "%v: %v\n", received, err)
			}
		}
	}
}

func run(o *options) error {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	page, err := readPage(o.page)
	if err != nil {
		return fmt.Errorf("the page: %w", err)
	}
	engine, err := reconnect.NewEngineFromEnv(&o.config)
	if err != nil {
		return fmt.Errorf("the engine: %w", err)
	}
	defer engine.Close()
	if o.fastReload != nil { // stronger than the environment
		if err := engine.SetFastReload(*o.fastReload); err != nil {
			return fmt.Errorf("the engine: %w", err)
		}
	}
	listener, address, err := listen(o.http)
	if err != nil {
		return fmt.Errorf("HTTP: %w", err)
	}
	module, _ := inTree("bindings/web/reconnect.js") // without it there is no /reconnect.js
	server := &http.Server{
		Handler: &web{
			engine: engine, page: page, module: module, tag: fmt.Sprintf("\"%x\"", sha256.Sum256(module)),
			origins: o.origins, channels: o.config.ReturningPeer.Channels,
		},
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	go obey(stop, engine, signals)
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
