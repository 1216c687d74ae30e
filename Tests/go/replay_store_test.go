package tests

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"reconnect"
)

// redis is a redis-server on loopback.
type redis struct {
	t       *testing.T
	port    int
	process *exec.Cmd
}

func startRedis(t *testing.T) *redis {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("there is no redis-server")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &redis{t: t, port: listener.Addr().(*net.TCPAddr).Port}
	listener.Close()
	t.Cleanup(r.kill)
	r.start()
	return r
}

func (r *redis) store() string { return fmt.Sprint("redis://127.0.0.1:", r.port) }

func (r *redis) start() {
	r.t.Helper()
	r.process = exec.Command("redis-server", "--port", fmt.Sprint(r.port), "--bind", "127.0.0.1", "--save", "",
		"--appendonly", "no")
	r.process.Dir = r.t.TempDir()
	if err := r.process.Start(); err != nil {
		r.t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		connection, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", r.port))
		if err == nil {
			connection.Close()
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatal(err)
		}
	}
}

func (r *redis) kill() {
	r.process.Process.Kill()
	r.process.Wait()
}

func (r *redis) signal(signal syscall.Signal) {
	r.t.Helper()
	if err := r.process.Process.Signal(signal); err != nil {
		r.t.Fatal(err)
	}
}

// on runs a test on every kind of store.
func on(t *testing.T, test func(t *testing.T, store string)) {
	t.Run("memory", func(t *testing.T) { test(t, "") })
	t.Run("sqlite", func(t *testing.T) { test(t, "sqlite:"+filepath.Join(t.TempDir(), "rooms")) })
	t.Run("redis", func(t *testing.T) { test(t, startRedis(t).store()) })
}

// Calls that give up while the store does not answer return at once, and those that wait get what is theirs when it
// does.
func TestReplayPausedStore(t *testing.T) {
	server := startRedis(t)
	r := startReplay(t, reconnect.ReplayConfig{Store: server.store(), StoreTimeout: time.Minute, MaxPending: 20})
	watcher := r.join("room", "watcher")
	server.signal(syscall.SIGSTOP)
	ended, cancel := context.WithCancel(context.Background())
	const waiting, givingUp = 40, 40 // more than MaxPending
	var wait, gaveUp sync.WaitGroup
	numbers := make(chan uint64, waiting)
	for i := 0; i < waiting+givingUp; i++ {
		i := i
		wait.Add(1)
		if i >= waiting {
			gaveUp.Add(1)
		}
		go func() {
			defer wait.Done()
			ctx := within(t)
			if i >= waiting {
				defer gaveUp.Done()
				ctx = ended
			}
			published, err := r.Publish(ctx, &reconnect.Publication{Room: "room", Data: []byte(fmt.Sprint(i))})
			switch {
			case i >= waiting && err != context.Canceled:
				t.Errorf("call %d: %v", i, err)
			case i < waiting && err != nil:
				t.Errorf("call %d: %v", i, err)
			case i < waiting:
				numbers <- published.Sequence
			}
		}()
	}
	joined := make(chan error)
	go func() {
		_, err := r.Join(ended, &reconnect.JoinRequest{Room: "room", User: "gone"})
		joined <- err
	}()
	cancel()
	gaveUp.Wait()
	if err := <-joined; err != context.Canceled {
		t.Error(err)
	}
	server.signal(syscall.SIGCONT)
	wait.Wait()
	close(numbers)
	seen := map[uint64]bool{}
	for number := range numbers {
		if seen[number] || number == 0 {
			t.Errorf("%d was given out twice", number)
		}
		seen[number] = true
	}
	again := r.resume(watcher, watcher.Position, watcher.Token)
	if again.Verdict != reconnect.Recovered || len(again.Messages) < waiting {
		t.Errorf("%v, %d messages", again.Verdict, len(again.Messages))
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		state, err := r.State(within(t), "room", "gone")
		if errors.Is(err, reconnect.ErrUnknownUser) || err == nil && !state.Connected {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("who gave up is there for ever: %+v %v", state, err)
		}
	}
}

// A buffer that is closed while its store does not answer ends all calls.
func TestReplayCloseWhilePaused(t *testing.T) {
	server := startRedis(t)
	r := startReplay(t, reconnect.ReplayConfig{Store: server.store(), StoreTimeout: time.Minute, MaxPending: 5})
	r.join("room", "bob")
	server.signal(syscall.SIGSTOP)
	const calls = 20
	failed := make(chan error, calls)
	for i := 0; i < calls; i++ {
		many := make([]reconnect.Publication, i*30)
		go func() {
			_, err := r.Publish(context.Background(), &reconnect.Publication{Room: "room"})
			if len(many) > 0 {
				_, err = r.PublishMany(context.Background(), many)
			}
			failed <- err
		}()
	}
	time.Sleep(20 * time.Millisecond) // gives the calls a chance to begin; not needed for the verdict
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < calls; i++ {
		wantError(t, <-failed, reconnect.ErrInvalidHandle)
	}
}

// The store goes away and comes back: the flow goes on, and everybody is told.
func TestReplayStoreGoesAndComes(t *testing.T) {
	server := startRedis(t)
	r := startReplay(t, reconnect.ReplayConfig{
		Store: server.store(), Breaker: reconnect.Breaker{Operations: 1, Open: 10 * time.Millisecond},
	})
	ann := r.join("room", "ann")
	if published := r.say("room", "ann", "stored"); published.Degraded {
		t.Error("degraded from the start")
	}
	// wait does something until an event of the kind comes.
	wait := func(fits func(reconnect.Event) bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; {
			select {
			case event := <-r.Events():
				if fits(event) {
					return
				}
			case <-time.After(time.Millisecond):
				r.State(within(t), "room", "ann")
			}
			if time.Now().After(deadline) {
				t.Fatal("the event did not come")
			}
		}
	}
	is := func(state reconnect.StoreState) func(reconnect.Event) bool {
		return func(event reconnect.Event) bool {
			store, ok := event.(reconnect.ReplayStoreEvent)
			return ok && store.State == state && store.Detail != ""
		}
	}
	server.kill()
	wait(is(reconnect.StoreAway))
	bob := r.join("room", "bob")
	if !bob.Degraded {
		t.Errorf("bob joined as %+v", bob)
	}
	again := r.resume(ann, ann.Position, ann.Token)
	if again.Verdict != reconnect.Lost || again.Reason != reconnect.LostDegraded && again.Reason != reconnect.LostStore {
		t.Errorf("ann came back with %v %v", again.Verdict, again.Reason)
	}
	if published := r.say("room", "bob", "around the store"); !published.Degraded || published.Sequence == 0 {
		t.Errorf("%+v", published)
	}
	if statistics, err := r.Statistics(); err != nil || statistics.WithoutStore == 0 || statistics.StoreFailures == 0 {
		t.Errorf("%+v %v", statistics, err)
	}
	server.start()
	var returned reconnect.ReplayReturnedEvent
	wait(func(event reconnect.Event) bool {
		each, ok := event.(reconnect.ReplayReturnedEvent)
		if ok && each.Member.User == "bob" {
			returned = each
		}
		return ok && each.Member.User == "bob"
	})
	if returned.Err != nil || returned.Member.Room != "room" || returned.Replaced != bob.Member.Generation ||
		returned.Verdict != reconnect.Lost || returned.Token == "" || len(returned.Position) != 32 {
		t.Errorf("bob returned as %+v, joined as %+v", returned, bob)
	}
	if published := r.say("room", "bob", "stored again"); published.Degraded {
		t.Errorf("%+v", published)
	}
	if err := r.Drop(within(t), returned.Member); err != nil {
		t.Error(err)
	}
}
