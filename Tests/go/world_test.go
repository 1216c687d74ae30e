package tests

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"reconnect"
)

// patience is for what must happen; nothing waits as long unless it is broken.
const patience = 20 * time.Second

// host is an engine whose events a test reads one after the other.
type host struct {
	*reconnect.Engine
	t        *testing.T
	name     string
	seen     []string // for the words of a failure
	sessions []reconnect.SessionEvent
	closed   []reconnect.PeerStateEvent
}

// startHost makes an engine on one address.
func startHost(t *testing.T, name string, config reconnect.Config) *host {
	t.Helper()
	if config.Addresses == nil {
		config.Addresses = []string{"127.0.0.1"}
	}
	engine, err := reconnect.NewEngine(&config)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Errorf("%s: Close: %v", name, err)
		}
	})
	return &host{Engine: engine, t: t, name: name}
}

// next is the next event that is no log line.
func (h *host) next() reconnect.Event {
	h.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		select {
		case event, ok := <-h.Events():
			if !ok {
				h.t.Fatalf("%s: the events have ended", h.name)
			}
			if h.seen = append(h.seen, describe(event)); len(h.seen) > 100 {
				h.seen = h.seen[1:]
			}
			switch event := event.(type) {
			case reconnect.LogEvent:
				continue
			case reconnect.SessionEvent:
				h.sessions = append(h.sessions, event)
			case reconnect.PeerStateEvent:
				if event.State == reconnect.PeerClosed {
					h.closed = append(h.closed, event)
				}
			}
			return event
		case <-deadline.C:
			h.t.Fatalf("%s: nothing happened; before:\n%s", h.name, strings.Join(h.seen, "\n"))
		}
	}
}

// describe is for the words of a failure.
func describe(event reconnect.Event) string {
	switch event := event.(type) {
	case reconnect.LogEvent:
		return event.Line
	case reconnect.MessageEvent:
		return fmt.Sprintf("message of %d bytes on %q", len(event.Data), event.Channel.Label())
	case reconnect.PeerStateEvent:
		return fmt.Sprintf("peer %d %v: %v", event.Peer.ID(), event.State, event.Reason)
	case reconnect.ChannelOpenEvent:
		return fmt.Sprintf("channel %q open", event.Channel.Label())
	case reconnect.ChannelClosedEvent:
		return fmt.Sprintf("channel %q closed: %v", event.Channel.Label(), event.Reason)
	}
	return fmt.Sprintf("%T", event)
}

// until skips events up to the first of type E that fits.
func until[E reconnect.Event](h *host, fits func(E) bool) E {
	h.t.Helper()
	for {
		if event, ok := h.next().(E); ok && fits(event) {
			return event
		}
	}
}

func any_[E reconnect.Event](E) bool { return true }

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// connected is an offerer and an answerer with an open channel "echo" (negotiated, stream 0) between them.
type connected struct {
	offerer, answerer               *host
	offererPeer, answererPeer       *reconnect.Peer
	offererChannel, answererChannel *reconnect.Channel
	answer                          *reconnect.Answer
}

var echoChannel = reconnect.ChannelConfig{Label: "echo", Negotiated: true}

func connect(t *testing.T, address string) *connected {
	t.Helper()
	requireAddress(t, address)
	addresses := []string{address}
	c := &connected{
		offerer:  startHost(t, "offerer", reconnect.Config{Addresses: addresses}),
		answerer: startHost(t, "answerer", reconnect.Config{Addresses: addresses}),
	}
	c.offer(t, "")
	return c
}

// offer connects a new pair of peers.
func (c *connected) offer(t *testing.T, token string) {
	t.Helper()
	config := &reconnect.PeerConfig{Channels: []reconnect.ChannelConfig{echoChannel}}
	peer, err := c.offerer.NewPeer(config)
	if err != nil {
		t.Fatalf("NewPeer: %v", err)
	}
	offer, err := peer.Offer(within(t))
	if err != nil {
		t.Fatalf("Offer: %v", err)
	}
	if c.answer, err = c.answerer.Answer(within(t), withToken(t, offer, token), config); err != nil {
		t.Fatalf("Answer: %v", err)
	}
	if err := peer.Accept(within(t), c.answer.JSON); err != nil {
		t.Fatalf("Accept: %v", err)
	}
	c.offererPeer, c.answererPeer = peer, c.answer.Peer
	c.offererChannel = until(c.offerer, func(e reconnect.ChannelOpenEvent) bool { return e.Channel.Peer() == peer }).Channel
	c.answererChannel = until(c.answerer, func(e reconnect.ChannelOpenEvent) bool {
		return e.Channel.Peer() == c.answererPeer
	}).Channel
}

func requireAddress(t *testing.T, address string) {
	t.Helper()
	socket, err := net.ListenPacket("udp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Skipf("this machine has no %s", address)
	}
	socket.Close()
}

// wantError checks an error's status, and that it says something.
func wantError(t *testing.T, err, want error) {
	t.Helper()
	var typed *reconnect.Error
	if !errors.Is(err, want) || !errors.As(err, &typed) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}
