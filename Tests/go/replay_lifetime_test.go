package tests

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"reconnect"
)

func TestReplayEverythingFailsAfterClose(t *testing.T) {
	r := startReplay(t, reconnect.ReplayConfig{})
	if err := r.Subscribe(within(t), "room"); err != nil {
		t.Fatal(err)
	}
	bob := r.join("room", "bob")
	r.say("room", "", "unread")
	for i := 0; i < 2; i++ {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	for name, call := range map[string]func() error{
		"Publish":     func() error { _, err := r.Publish(ctx, &reconnect.Publication{Room: "room"}); return err },
		"PublishMany": func() error { _, err := r.PublishMany(ctx, make([]reconnect.Publication, 999)); return err },
		"Join":        func() error { _, err := r.Join(ctx, &reconnect.JoinRequest{Room: "room", User: "x"}); return err },
		"Recover":     func() error { _, err := r.Recover(ctx, bob.Member, bob.Position, nil); return err },
		"Acknowledge": func() error { return r.Acknowledge(ctx, bob.Member, bob.Position) },
		"Drop":        func() error { return r.Drop(ctx, bob.Member) },
		"Leave":       func() error { return r.Leave(ctx, bob.Member) },
		"State":       func() error { _, err := r.State(ctx, "room", "bob"); return err },
		"Quality":     func() error { _, err := r.Quality(ctx, "room", "bob", reconnect.Measurement{}); return err },
		"Subscribe":   func() error { return r.Subscribe(ctx, "room") },
		"Unsubscribe": func() error { return r.Unsubscribe(ctx, "room") },
		"Statistics":  func() error { _, err := r.Statistics(); return err },
		"Metrics":     func() error { _, err := r.Metrics(); return err },
	} {
		if err := call(); !errors.Is(err, reconnect.ErrInvalidHandle) {
			t.Errorf("%s: %v", name, err)
		}
	}
	messages := 0
	for event := range r.Events() { // what was not read is there, and then it ends
		if _, ok := event.(reconnect.ReplayMessageEvent); ok {
			messages++
		}
	}
	if messages != 1 {
		t.Errorf("%d messages", messages)
	}
}

// Goroutines use a buffer in every way while it closes: every call returns, and nothing stays behind.
func TestReplayCloseUnderWay(t *testing.T) {
	on(t, closeUnderWay)
}

func closeUnderWay(t *testing.T, store string) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	goroutines, descriptors := runtime.NumGoroutine(), openDescriptors(t)
	rounds := int64(30)
	if store != "" { // making one takes its time
		rounds = 6
	}
	for round := int64(0); round < rounds; round++ {
		buffer, err := reconnect.NewReplayBuffer(&reconnect.ReplayConfig{Store: store, StoreTimeout: patience, MaxPending: 100, EventCapacity: 1})
		if err != nil {
			t.Fatal(err)
		}
		var wait sync.WaitGroup
		var operations atomic.Int64
		for worker := int64(0); worker < 6; worker++ {
			random := rand.New(rand.NewSource(seed + round*100 + worker))
			wait.Add(1)
			go func() {
				defer wait.Done()
				for use(buffer, random, &operations) {
				}
			}()
		}
		for operations.Load() < 200 {
			runtime.Gosched()
		}
		if err := buffer.Close(); err != nil {
			t.Error(err)
		}
		wait.Wait()
		for range buffer.Events() {
		}
	}
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > goroutines; runtime.Gosched() {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, before %d\n%s", runtime.NumGoroutine(), goroutines,
				stacks[:runtime.Stack(stacks, true)])
		}
	}
	if now := openDescriptors(t); now > descriptors+2 {
		t.Errorf("%d descriptors, before %d", now, descriptors)
	}
}

// use does something; it ends when the buffer is closed.
func use(buffer *reconnect.ReplayBuffer, random *rand.Rand, operations *atomic.Int64) bool {
	room, user := fmt.Sprint("room", random.Intn(3)), fmt.Sprint("user", random.Intn(3))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if random.Intn(4) == 0 {
		go cancel()
	}
	var err error
	switch random.Intn(7) {
	case 0:
		_, err = buffer.Publish(ctx, &reconnect.Publication{Room: room, User: user, Data: []byte("x")})
	case 1:
		_, err = buffer.PublishMany(ctx, make([]reconnect.Publication, random.Intn(600)))
	case 2:
		var joined *reconnect.Joined
		if joined, err = buffer.Join(ctx, &reconnect.JoinRequest{Room: room, User: user}); err == nil {
			_, err = buffer.Recover(ctx, joined.Member, joined.Position, func(*reconnect.Recovery) {})
		}
	case 3:
		err = buffer.Subscribe(ctx, room)
	case 4:
		err = buffer.Unsubscribe(ctx, room)
	case 5:
		_, err = buffer.State(ctx, room, user)
	case 6:
		_, err = buffer.Statistics()
	}
	operations.Add(1)
	return !errors.Is(err, reconnect.ErrInvalidHandle)
}

// Many goroutines, some of which give up at any moment: everybody else gets its own outcome, once, and each one's order
// is kept.
func TestReplayManyGoroutines(t *testing.T) {
	on(t, func(t *testing.T, store string) {
		const workers, each = 16, 250
		r := startReplay(t, reconnect.ReplayConfig{Store: store, StoreTimeout: patience, Window: 65536, MaxBatch: 1 << 20, MaxPending: 8, MaxRoomBytes: 1 << 30})
		watcher := r.join("room", "watcher")
		type sent struct{ worker, number uint32 }
		var mutex sync.Mutex
		known := map[uint64]sent{}
		var unknown []sent
		var wait sync.WaitGroup
		for worker := uint32(0); worker < workers; worker++ {
			worker := worker
			wait.Add(1)
			go func() {
				defer wait.Done()
				for number := uint32(0); number < each; number++ {
					message := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, worker), number)
					ctx, cancel := context.WithCancel(context.Background())
					if worker%2 == 1 && number%3 == 0 {
						go cancel()
					}
					published, err := r.Publish(ctx, &reconnect.Publication{Room: "room", Data: message, Binary: true})
					for i := range message {
						message[i] = 0xff // it was copied
					}
					mutex.Lock()
					switch {
					case err == nil:
						if _, twice := known[published.Sequence]; twice {
							t.Errorf("%d was given out twice", published.Sequence)
						}
						known[published.Sequence] = sent{worker, number}
					case errors.Is(err, context.Canceled):
						unknown = append(unknown, sent{worker, number})
					default:
						t.Error(err)
					}
					mutex.Unlock()
					cancel()
				}
			}()
		}
		wait.Wait()
		again := r.resume(watcher, watcher.Position, watcher.Token)
		next := map[uint32]uint32{}
		for i, message := range again.Messages {
			got := sent{binary.BigEndian.Uint32(message.Data), binary.BigEndian.Uint32(message.Data[4:])}
			if message.Sequence != uint64(i)+1 {
				t.Fatalf("message %d has number %d", i, message.Sequence)
			}
			if got.number < next[got.worker] {
				t.Errorf("worker %d: %d after %d", got.worker, got.number, next[got.worker]-1)
			}
			next[got.worker] = got.number + 1
			if want, ok := known[message.Sequence]; ok && want != got {
				t.Errorf("%d is %v, its sender was told of %v", message.Sequence, got, want)
			}
			delete(known, message.Sequence)
		}
		if len(known) > 0 || len(again.Messages) > workers*each {
			t.Errorf("%d messages, %d are missing", len(again.Messages), len(known))
		}
		t.Logf("%d of %d calls gave up", len(unknown), workers*each)
	})
}

// A join that nobody waited for does not leave a connection behind.
func TestReplayAbandonedJoins(t *testing.T) {
	on(t, func(t *testing.T, store string) {
		r := startReplay(t, reconnect.ReplayConfig{Store: store, StoreTimeout: patience})
		gaveUp := 0
		for i := 0; i < 300; i++ {
			ctx, cancel := context.WithCancel(context.Background())
			go cancel()
			user := fmt.Sprint("user", i)
			joined, err := r.Join(ctx, &reconnect.JoinRequest{Room: "room", User: user})
			cancel()
			if err == nil {
				if err := r.Leave(within(t), joined.Member); err != nil {
					t.Error(err)
				}
				continue
			}
			gaveUp++
			for deadline := time.Now().Add(patience); ; runtime.Gosched() {
				state, err := r.State(within(t), "room", user)
				if errors.Is(err, reconnect.ErrUnknownRoom) || errors.Is(err, reconnect.ErrUnknownUser) || !state.Connected {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("it is connected for ever")
				}
			}
		}
		t.Logf("%d gave up", gaveUp)
	})
}

func TestReplayAllocations(t *testing.T) {
	r := startReplay(t, reconnect.ReplayConfig{})
	r.join("room", "bob")
	ctx := context.Background()
	publication := &reconnect.Publication{Room: "room", User: "bob", Data: pattern(200), Binary: true}
	each := testing.AllocsPerRun(1000, func() {
		if _, err := r.Publish(ctx, publication); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%.2f allocations per publish", each)
	if each > 2 && !raceDetector {
		t.Errorf("%.2f allocations per publish", each)
	}
}

func BenchmarkReplayPublish(b *testing.B) {
	buffer, err := reconnect.NewReplayBuffer(nil)
	if err != nil {
		b.Fatal(err)
	}
	defer buffer.Close()
	ctx := context.Background()
	joined, err := buffer.Join(ctx, &reconnect.JoinRequest{Room: "room", User: "bob"})
	if err != nil {
		b.Fatal(err)
	}
	publication := &reconnect.Publication{Room: "room", User: "bob", Data: pattern(200), Binary: true}
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; i < b.N; i++ {
			if _, err := buffer.Publish(ctx, publication); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				buffer.Publish(ctx, publication)
			}
		})
	})
	b.Run("many", func(b *testing.B) {
		b.ReportAllocs()
		many := make([]reconnect.Publication, 100)
		for i := range many {
			many[i] = *publication
		}
		for i := 0; i < b.N; i += len(many) {
			if _, err := buffer.PublishMany(ctx, many); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("recover20", func(b *testing.B) {
		b.ReportAllocs()
		published, err := buffer.Publish(ctx, &reconnect.Publication{Room: "room"})
		if err != nil {
			b.Fatal(err)
		}
		for i := 0; i < 20; i++ {
			buffer.Publish(ctx, &reconnect.Publication{Room: "room", Data: pattern(200), Binary: true})
		}
		b.ResetTimer()
		for i := 0; i < b.N; i++ {
			if recovery, err := buffer.Recover(ctx, joined.Member, published.Position, nil); err != nil || len(recovery.Messages) != 20 {
				b.Fatal(recovery, err)
			}
		}
	})
}
