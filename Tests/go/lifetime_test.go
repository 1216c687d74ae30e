package tests

import (
	"context"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"reconnect"
)

func TestErrorsCompareByStatus(t *testing.T) {
	err := &reconnect.Error{Status: reconnect.StatusMalformedSDP, Detail: "line 3"}
	wantError(t, err, reconnect.ErrMalformedSDP)
	if got := err.Error(); !strings.Contains(got, "MALFORMED_SDP") || !strings.Contains(got, "line 3") {
		t.Errorf("text %q", got)
	}
	if reconnect.Status(-9999).String() != "UNKNOWN" || reconnect.Version() == "" {
		t.Error("names")
	}
	if text := reconnect.ErrWouldBlock.Error(); len(text) < 20 {
		t.Errorf("text %q", text)
	}
}

func TestEverythingFailsAfterClose(t *testing.T) {
	c := connect(t, "127.0.0.1")
	offer, err := func() ([]byte, error) {
		peer, err := c.offerer.NewPeer(nil)
		if err != nil {
			return nil, err
		}
		return peer.Offer(within(t))
	}()
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 2; i++ {
		if err := c.answerer.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.answerer.Answer(within(t), offer, nil)
	wantError(t, err, reconnect.ErrInvalidHandle)
	_, err = c.answerer.NewPeer(nil)
	wantError(t, err, reconnect.ErrInvalidHandle)
	_, err = c.answerer.Statistics()
	wantError(t, err, reconnect.ErrInvalidHandle)
	wantError(t, c.answererChannel.Send(nil), reconnect.ErrInvalidHandle)
	wantError(t, c.answererPeer.Close(), reconnect.ErrInvalidHandle)
	c.answererChannel.Pause()
	c.answererChannel.Resume()
	for range c.answerer.Events() { // ends
	}
	closed := until(c.offerer, func(e reconnect.PeerStateEvent) bool { return e.State == reconnect.PeerClosed })
	wantError(t, closed.Reason, reconnect.ErrPeerGone)
}

// A full channel of events stops the reader: Close must end it all the same.
func TestCloseWithUnreadEvents(t *testing.T) {
	h := startHost(t, "host", reconnect.Config{EventCapacity: 1, LogLevel: reconnect.LogDebug})
	for i := 0; i < 20; i++ {
		if err := h.SetAddresses("127.0.0.1", "127.0.0.2"); err != nil {
			t.Fatal(err)
		}
		if err := h.SetAddresses("127.0.0.1"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCallsThatWaitEndWithTheEngine(t *testing.T) {
	// Nobody reads the events, so the answers cannot come once the Go channel is full.
	engine, err := reconnect.NewEngine(&reconnect.Config{
		Addresses: []string{"127.0.0.1"}, EventCapacity: 1, LogLevel: reconnect.LogDebug,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	for i := 0; i < 20; i++ {
		engine.SetAddresses("127.0.0.1", "127.0.0.2")
		engine.SetAddresses("127.0.0.1")
	}
	peer, err := engine.NewPeer(nil)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := peer.Offer(context.Background())
		failed <- err
	}()
	select {
	case err := <-failed:
		t.Fatalf("Offer ended before the engine: %v", err)
	case <-time.After(20 * time.Millisecond): // gives the call a chance to begin; not needed for the verdict
	}
	engine.Close()
	wantError(t, <-failed, reconnect.ErrInvalidHandle)
}

// Engines leave no goroutine, no thread parked and no descriptor behind.
func TestCloseLeavesNothing(t *testing.T) {
	once := func() {
		c := connect(t, "127.0.0.1")
		c.offererChannel.Pause()
		c.offererChannel.Resume()
		c.answerer.Close()
		c.offerer.Close()
	}
	once()
	goroutines, descriptors := runtime.NumGoroutine(), openDescriptors(t)
	for i := 0; i < 10; i++ {
		once()
	}
	// The goroutines that Close waited for may still be on their last instruction.
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > goroutines; runtime.Gosched() {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, before %d\n%s", runtime.NumGoroutine(), goroutines,
				stacks[:runtime.Stack(stacks, true)])
		}
	}
	if now := openDescriptors(t); now > descriptors {
		t.Errorf("%d descriptors, before %d", now, descriptors)
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc")
	}
	return len(entries)
}

// Waiting for events parks no thread of the system: with many engines there are no more threads than the engines' own
// and Go's few.
func TestWaitingParksNoThread(t *testing.T) {
	const engines = 24
	before := threads(t)
	var hosts []*host
	for i := 0; i < engines; i++ {
		hosts = append(hosts, startHost(t, "host", reconnect.Config{LogLevel: reconnect.LogNone}))
	}
	for _, h := range hosts { // each reader has been at work, and waits now
		if err := h.SetAddresses("127.0.0.2"); err != nil {
			t.Fatal(err)
		}
		until(h, any_[reconnect.AddressesEvent])
	}
	if more := threads(t) - before; more > engines+8 {
		t.Errorf("%d more threads for %d engines", more, engines)
	}
}

func threads(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Skip("no /proc")
	}
	return len(entries)
}

// Many goroutines use one engine at once.
func TestManyGoroutines(t *testing.T) {
	c := connect(t, "127.0.0.1")
	const workers, each = 8, 200
	var wait sync.WaitGroup
	errors := make(chan error, workers)
	for i := 0; i < workers; i++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for j := 0; j < each; j++ {
				if err := c.offererChannel.SendText("x"); err != nil {
					errors <- err
					return
				}
				c.offerer.Statistics()
			}
		}()
	}
	for i := 0; i < workers*each; i++ {
		until(c.answerer, any_[reconnect.MessageEvent])
	}
	wait.Wait()
	select {
	case err := <-errors:
		t.Fatal(err)
	default:
	}
}

// One event at a time, thousands of times: a wake-up that got lost would stop it.
func TestEveryEventWakesTheReader(t *testing.T) {
	c := connect(t, "127.0.0.1")
	for i := 0; i < 5000; i++ {
		for _, side := range []struct {
			from *reconnect.Channel
			to   *host
		}{{c.offererChannel, c.answerer}, {c.answererChannel, c.offerer}} {
			if err := side.from.Send(nil); err != nil {
				t.Fatal(err)
			}
			until(side.to, any_[reconnect.MessageEvent])
		}
	}
}
