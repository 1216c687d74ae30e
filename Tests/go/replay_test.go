package tests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"reconnect"
)

// replay is a buffer with what tests do all the time.
type replay struct {
	*reconnect.ReplayBuffer
	t *testing.T
}

func startReplay(t *testing.T, config reconnect.ReplayConfig) *replay {
	t.Helper()
	buffer, err := reconnect.NewReplayBuffer(&config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := buffer.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return &replay{buffer, t}
}

func (r *replay) join(room, user string) *reconnect.Joined {
	r.t.Helper()
	joined, err := r.Join(within(r.t), &reconnect.JoinRequest{Room: room, User: user})
	if err != nil {
		r.t.Fatalf("Join %s: %v", user, err)
	}
	return joined
}

func (r *replay) resume(joined *reconnect.Joined, position reconnect.Position, token string) *reconnect.Joined {
	r.t.Helper()
	again, err := r.Join(within(r.t), &reconnect.JoinRequest{
		Room: joined.Member.Room, User: joined.Member.User, Resume: true, Position: position, Token: token,
	})
	if err != nil {
		r.t.Fatalf("Join %s again: %v", joined.Member.User, err)
	}
	return again
}

func (r *replay) publish(publication reconnect.Publication) reconnect.Published {
	r.t.Helper()
	published, err := r.Publish(within(r.t), &publication)
	if err != nil {
		r.t.Fatalf("Publish: %v", err)
	}
	return published
}

func (r *replay) say(room, user, text string) reconnect.Published {
	r.t.Helper()
	return r.publish(reconnect.Publication{Room: room, User: user, Data: []byte(text)})
}

// next is the next event that is no log line.
func (r *replay) next() reconnect.Event {
	r.t.Helper()
	for {
		select {
		case event, ok := <-r.Events():
			if !ok {
				r.t.Fatal("the events have ended")
			}
			if _, isLog := event.(reconnect.LogEvent); !isLog {
				return event
			}
		case <-time.After(patience):
			r.t.Fatal("no event came")
		}
	}
}

func texts(messages []reconnect.ReplayedMessage) string {
	var all []string
	for _, message := range messages {
		all = append(all, fmt.Sprintf("%d:%s", message.Sequence, message.Data))
	}
	return strings.Join(all, " ")
}

func wantRecovery(t *testing.T, got reconnect.Recovery, verdict reconnect.Verdict, reason reconnect.LossReason,
	problem reconnect.ResumeProblem, messages string) {
	t.Helper()
	if got.Verdict != verdict || got.Reason != reason || got.Problem != problem || texts(got.Messages) != messages {
		t.Errorf("got %v %v %v %q, want %v %v %v %q", got.Verdict, got.Reason, got.Problem, texts(got.Messages),
			verdict, reason, problem, messages)
	}
}

func TestReplayComesBackComplete(t *testing.T) {
	on(t, func(t *testing.T, store string) {
		r := startReplay(t, reconnect.ReplayConfig{Store: store, StoreTimeout: patience})
		ann, bob := r.join("room", "ann"), r.join("room", "bob")
		wantRecovery(t, bob.Recovery, reconnect.Fresh, 0, 0, "")
		if bob.Reconnection || bob.Replaced != 0 || bob.Token == "" || len(bob.Position) != 32 || bob.Member.Generation == 0 {
			t.Errorf("joined as %+v", bob)
		}
		r.say("room", "ann", "one")
		if err := r.Drop(within(t), bob.Member); err != nil {
			t.Fatal(err)
		}
		r.say("room", "ann", "two")
		r.say("room", "bob", "his own")
		r.publish(reconnect.Publication{Room: "room", User: "bob", To: "ann", Data: []byte("for ann")})
		binary := pattern(1000)
		r.publish(reconnect.Publication{
			Room: "room", To: "bob", Data: binary, Binary: true, Kind: reconnect.OfferMessage, Negotiation: 7,
		})
		last := r.publish(reconnect.Publication{Room: "room"}) // of the server, and empty

		again := r.resume(bob, bob.Position, bob.Token)
		if again.Verdict != reconnect.Recovered || len(again.Messages) != 4 || again.Sequence != last.Sequence ||
			again.Position != last.Position || !again.Reconnection || again.Away < 0 || again.Replaced != 0 {
			t.Fatalf("came back with %+v", again)
		}
		if got := texts(again.Messages[:2]); got != "1:one 2:two" {
			t.Errorf("messages %q", got)
		}
		offer := again.Messages[2]
		if !offer.Binary || offer.Kind != reconnect.OfferMessage || offer.Negotiation != 7 || !bytes.Equal(offer.Data, binary) {
			t.Errorf("offer %+v", offer)
		}
		if empty := again.Messages[3]; empty.Binary || len(empty.Data) != 0 || empty.Sequence != last.Sequence {
			t.Errorf("empty message %+v", empty)
		}
		// Twice, while its first return is still up: the newest wins.
		third := r.resume(again, again.Position, again.Token)
		wantRecovery(t, third.Recovery, reconnect.RecoveredEmpty, 0, 0, "")
		if third.Replaced != again.Member.Generation {
			t.Errorf("it replaces %d, not %d", third.Replaced, again.Member.Generation)
		}
		wantError(t, r.Drop(within(t), again.Member), reconnect.ErrStale)
		wantError(t, r.Leave(within(t), bob.Member), reconnect.ErrStale)
		_, err := r.Recover(within(t), again.Member, again.Position, nil)
		wantError(t, err, reconnect.ErrStale)
		recovery, err := r.Recover(within(t), ann.Member, ann.Position, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantRecovery(t, *recovery, reconnect.Recovered, 0, 0, fmt.Sprintf("3:his own 4:for ann %d:", last.Sequence))
	})
}

func TestReplayVerdicts(t *testing.T) {
	r := startReplay(t, reconnect.ReplayConfig{Window: 4, MaxBatch: 3})
	bob := r.join("room", "bob")
	r.join("room", "ann")
	r.say("room", "ann", "1")
	other := startReplay(t, reconnect.ReplayConfig{}).join("room", "bob")
	forged := []byte(bob.Position)
	forged[31] ^= 1
	for _, each := range []struct {
		name     string
		position reconnect.Position
		token    string
		reason   reconnect.LossReason
		problem  reconnect.ResumeProblem
	}{
		{"malformed", "?", bob.Token, reconnect.LostEpoch, reconnect.MalformedPosition},
		{"long", reconnect.Position(strings.Repeat("A", 1<<20)), bob.Token, reconnect.LostEpoch, reconnect.MalformedPosition},
		{"of another buffer", other.Position, bob.Token, reconnect.LostEpoch, reconnect.ForgedPosition},
		{"without a token", bob.Position, "", reconnect.LostEpoch, reconnect.WrongToken},
		{"with another's token", bob.Position, other.Token, reconnect.LostEpoch, reconnect.WrongToken},
		{"with a long token", bob.Position, strings.Repeat("x", 1<<20), reconnect.LostEpoch, reconnect.WrongToken},
	} {
		t.Run(each.name, func(t *testing.T) {
			fresh := r.join("room", "bob")
			token := each.token
			if token == bob.Token {
				token = fresh.Token
			}
			again := r.resume(fresh, each.position, token)
			wantRecovery(t, again.Recovery, reconnect.Lost, each.reason, each.problem, "")
		})
	}
	t.Run("limit and trimmed", func(t *testing.T) {
		bob := r.join("room", "bob")
		for i := 2; i < 6; i++ {
			r.say("room", "ann", fmt.Sprint(i))
		}
		again := r.resume(bob, bob.Position, bob.Token)
		wantRecovery(t, again.Recovery, reconnect.Lost, reconnect.LostLimit, 0, "")
		bob = r.join("room", "bob")
		for i := 6; i < 20; i++ {
			r.say("room", "ann", fmt.Sprint(i))
		}
		again = r.resume(bob, bob.Position, bob.Token)
		wantRecovery(t, again.Recovery, reconnect.Lost, reconnect.LostTrimmed, 0, "")
	})
	t.Run("of another room", func(t *testing.T) {
		elsewhere := r.join("elsewhere", "bob")
		recovery, err := r.Recover(within(t), elsewhere.Member, bob.Position, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantRecovery(t, *recovery, reconnect.Lost, reconnect.LostEpoch, reconnect.ForeignPosition, "")
	})
	t.Run("expired", func(t *testing.T) {
		r := startReplay(t, reconnect.ReplayConfig{MessageTTL: time.Nanosecond, StateTTL: time.Hour})
		bob := r.join("room", "bob")
		r.say("room", "", "short")
		for deadline := time.Now().Add(patience); ; {
			recovery, err := r.Recover(within(t), bob.Member, bob.Position, nil)
			if err != nil || time.Now().After(deadline) {
				t.Fatalf("no verdict: %v", err)
			}
			if recovery.Verdict == reconnect.Lost {
				wantRecovery(t, *recovery, reconnect.Lost, reconnect.LostExpired, 0, "")
				break
			}
		}
	})
	t.Run("lifetime", func(t *testing.T) {
		r := startReplay(t, reconnect.ReplayConfig{})
		bob := r.join("room", "bob")
		r.publish(reconnect.Publication{Room: "room", Data: []byte("short"), Lifetime: time.Millisecond})
		r.say("room", "", "long")
		for deadline := time.Now().Add(patience); ; {
			recovery, err := r.Recover(within(t), bob.Member, bob.Position, nil)
			if err != nil || time.Now().After(deadline) {
				t.Fatalf("no verdict: %v", err)
			}
			if len(recovery.Messages) == 1 {
				wantRecovery(t, *recovery, reconnect.Recovered, 0, 0, "2:long")
				if recovery.Skipped != 1 {
					t.Errorf("skipped %d", recovery.Skipped)
				}
				break
			}
		}
	})
	t.Run("superseded", func(t *testing.T) {
		r := startReplay(t, reconnect.ReplayConfig{})
		bob := r.join("room", "bob")
		r.join("room", "ann")
		for _, each := range []struct {
			kind reconnect.MessageKind
			text string
		}{{reconnect.OfferMessage, "o1"}, {reconnect.CandidateMessage, "c1"}, {reconnect.OfferMessage, "o2"}} {
			r.publish(reconnect.Publication{Room: "room", User: "ann", To: "bob", Kind: each.kind, Data: []byte(each.text)})
		}
		again := r.resume(bob, bob.Position, bob.Token)
		wantRecovery(t, again.Recovery, reconnect.Recovered, 0, 0, "3:o2")
	})
	t.Run("kept on loss", func(t *testing.T) {
		r := startReplay(t, reconnect.ReplayConfig{Window: 2, ReplayKeptOnLoss: true})
		bob := r.join("room", "bob")
		r.publish(reconnect.Publication{Room: "room", Data: []byte("important"), Priority: true})
		for i := 0; i < 20; i++ {
			r.say("room", "", "x")
		}
		again := r.resume(bob, bob.Position, bob.Token)
		wantRecovery(t, again.Recovery, reconnect.Lost, reconnect.LostTrimmed, 0, "1:important")
	})
	t.Run("trusted", func(t *testing.T) {
		r := startReplay(t, reconnect.ReplayConfig{TrustUsers: true})
		bob := r.join("room", "bob")
		again := r.resume(bob, bob.Position, "")
		wantRecovery(t, again.Recovery, reconnect.RecoveredEmpty, 0, 0, "")
	})
}

func TestReplayRefuses(t *testing.T) {
	r := startReplay(t, reconnect.ReplayConfig{MaxMessageSize: 10, MaxRooms: 1, RecoveriesPerSecond: 1, RecoveryBurst: 1})
	ctx := within(t)
	_, err := r.Publish(ctx, &reconnect.Publication{Room: "room", Data: []byte("x")})
	wantError(t, err, reconnect.ErrUnknownRoom)
	_, err = r.State(ctx, "room", "bob")
	wantError(t, err, reconnect.ErrUnknownRoom)
	wantError(t, r.Drop(ctx, reconnect.Member{Room: "room", User: "bob"}), reconnect.ErrUnknownRoom)
	bob := r.join("room", "bob")
	_, err = r.Join(ctx, &reconnect.JoinRequest{Room: "second", User: "bob"})
	wantError(t, err, reconnect.ErrLimit)
	for _, each := range []struct {
		publication reconnect.Publication
		want        error
	}{
		{reconnect.Publication{User: "bob"}, reconnect.ErrInvalidArgument},
		{reconnect.Publication{Room: "ro\x00om"}, reconnect.ErrInvalidArgument},
		{reconnect.Publication{Room: "room\n"}, reconnect.ErrInvalidArgument},
		{reconnect.Publication{Room: "{room}"}, reconnect.ErrInvalidArgument},
		{reconnect.Publication{Room: strings.Repeat("r", 257)}, reconnect.ErrInvalidArgument},
		{reconnect.Publication{Room: strings.Repeat("r", 1<<22)}, reconnect.ErrInvalidArgument},
		{reconnect.Publication{Room: "room", User: "\xff"}, reconnect.ErrInvalidArgument},
		{reconnect.Publication{Room: "room", To: "\x7f"}, reconnect.ErrInvalidArgument},
		{reconnect.Publication{Room: "room", Data: []byte("\xff")}, reconnect.ErrInvalidArgument},
		{reconnect.Publication{Room: "room", Kind: 99}, reconnect.ErrInvalidArgument},
		{reconnect.Publication{Room: "room", Lifetime: -1}, reconnect.ErrInvalidArgument},
		{reconnect.Publication{Room: "room", Lifetime: math.MaxInt64}, reconnect.ErrInvalidArgument},
		{reconnect.Publication{Room: "room", Key: make([]byte, 1<<20)}, reconnect.ErrInvalidArgument},
		{reconnect.Publication{Room: "room", User: "ann"}, reconnect.ErrUnknownUser},
		{reconnect.Publication{Room: "room", To: "ann"}, reconnect.ErrUnknownRecipient},
		{reconnect.Publication{Room: "room", Data: make([]byte, 11)}, reconnect.ErrTooLarge},
		{reconnect.Publication{Room: "nowhere"}, reconnect.ErrUnknownRoom},
	} {
		_, err := r.Publish(ctx, &each.publication)
		if !errors.Is(err, each.want) {
			t.Errorf("%.40q %.40q %.40q: %v, want %v", each.publication.Room, each.publication.User, each.publication.To,
				err, each.want)
		}
		many, err := r.PublishMany(ctx, []reconnect.Publication{{Room: "room"}, each.publication, {Room: "room"}})
		if !errors.Is(err, each.want) || len(many) != 3 || many[0].Err != nil || many[1].Err != err ||
			many[2].Err != nil || many[2].Sequence != many[0].Sequence+1 {
			t.Errorf("among others: %+v %v, want %v", many, err, each.want)
		}
	}
	for _, measured := range []reconnect.Measurement{
		{Loss: math.NaN()}, {Loss: 101}, {Bandwidth: math.Inf(1)}, {Latency: -1, Loss: math.Inf(-1)},
	} {
		_, err := r.Quality(ctx, "room", "bob", measured)
		if !errors.Is(err, reconnect.ErrInvalidArgument) && !math.IsInf(measured.Loss, -1) {
			t.Errorf("%+v: %v", measured, err)
		}
	}
	wantError(t, r.Acknowledge(ctx, bob.Member, "nonsense"), reconnect.ErrInvalidArgument)
	wantError(t, r.Acknowledge(ctx, bob.Member, ""), reconnect.ErrInvalidArgument)
	wantError(t, r.Unsubscribe(ctx, "room"), reconnect.ErrWrongState)
	wantError(t, r.Subscribe(ctx, ""), reconnect.ErrInvalidArgument)

	var throttled *reconnect.Error
	for i := 0; throttled == nil && i < 100; i++ {
		_, err := r.Join(ctx, &reconnect.JoinRequest{Room: "room", User: "bob", Resume: true})
		errors.As(err, &throttled)
	}
	if !errors.Is(throttled, reconnect.ErrThrottled) || throttled.RetryAfter <= 0 || throttled.RetryAfter > time.Minute {
		t.Errorf("throttled: %#v", throttled)
	}
	if err := r.Leave(ctx, r.join("room", "bob").Member); err != nil {
		t.Fatal(err)
	}
	_, err = r.Publish(ctx, &reconnect.Publication{Room: "room"})
	wantError(t, err, reconnect.ErrUnknownRoom)
}

func TestReplayBadConfigurations(t *testing.T) {
	for name, config := range map[string]reconnect.ReplayConfig{
		"window":     {Window: 1 << 20},
		"size":       {MaxMessageSize: 1 << 30},
		"store":      {Store: "postgres://nowhere"},
		"zero byte":  {Store: "sqlite:x\x00y"},
		"redis":      {Store: "redis://[::1"},
		"secret":     {Secret: []byte("short")},
		"durability": {Store: "sqlite:x", Durability: 9},
		"duration":   {MessageTTL: -1},
		"capacity":   {EventCapacity: -1},
		"limits":     {Quality: reconnect.QualityLimits{Loss: [2]float64{math.NaN(), 1}}},
	} {
		buffer, err := reconnect.NewReplayBuffer(&config)
		if !errors.Is(err, reconnect.ErrInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
		if buffer != nil {
			buffer.Close()
		}
	}
	buffer, err := reconnect.NewReplayBuffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	buffer.Close()
}

func TestReplayStoresAKeyOnce(t *testing.T) {
	on(t, func(t *testing.T, store string) {
		r := startReplay(t, reconnect.ReplayConfig{Store: store, StoreTimeout: patience})
		bob := r.join("room", "bob")
		r.join("room", "ann")
		publication := reconnect.Publication{Room: "room", User: "ann", Data: []byte("once"), Key: []byte{0, 1}}
		first := r.publish(publication)
		r.say("room", "ann", "between")
		second := r.publish(publication)
		if first.Duplicate || !second.Duplicate || second.Sequence != first.Sequence || second.Position != first.Position {
			t.Errorf("first %+v, second %+v", first, second)
		}
		publication.User = ""
		if r.publish(publication).Duplicate {
			t.Error("another's key is another key")
		}
		wantRecovery(t, r.resume(bob, bob.Position, bob.Token).Recovery, reconnect.Recovered, 0, 0, "1:once 2:between 3:once")
	})
}

func TestReplayPublishesMany(t *testing.T) {
	on(t, func(t *testing.T, store string) {
		const count = 1000
		r := startReplay(t, reconnect.ReplayConfig{Store: store, StoreTimeout: patience, Window: 4096, MaxBatch: 4096, MaxRoomBytes: 64 << 20, MaxBatchBytes: 32 << 20})
		bob := r.join("room", "bob")
		publications := make([]reconnect.Publication, count)
		for i := range publications {
			publications[i] = reconnect.Publication{Room: "room", Data: pattern(i * 20 % 70000 % 65536), Binary: true}
		}
		published, err := r.PublishMany(within(t), publications)
		if err != nil || len(published) != count {
			t.Fatalf("%d outcomes, %v", len(published), err)
		}
		again := r.resume(bob, bob.Position, bob.Token)
		if again.Verdict != reconnect.Recovered || len(again.Messages) != count {
			t.Fatalf("%v, %d messages", again.Verdict, len(again.Messages))
		}
		for i, message := range again.Messages {
			if message.Sequence != uint64(i)+1 || published[i].Sequence != message.Sequence ||
				!bytes.Equal(message.Data, publications[i].Data) {
				t.Fatalf("message %d is %d", i, message.Sequence)
			}
		}
		if again.Position != published[count-1].Position {
			t.Error("positions differ")
		}
		none, err := r.PublishMany(within(t), nil)
		if none != nil || err != nil {
			t.Error("none")
		}
	})
}

func TestReplayAcknowledgedStateAndQuality(t *testing.T) {
	on(t, func(t *testing.T, store string) {
		r := startReplay(t, reconnect.ReplayConfig{Store: store, StoreTimeout: patience})
		ctx := within(t)
		bob := r.join("room", "bob")
		r.say("room", "", "one")
		two := r.say("room", "", "two")
		r.say("room", "", "three")
		if err := r.Acknowledge(ctx, bob.Member, two.Position); err != nil {
			t.Fatal(err)
		}
		report, err := r.Quality(ctx, "room", "bob", reconnect.Measurement{
			Latency: time.Second, Loss: 20, Jitter: -1, Bandwidth: -1,
		})
		if err != nil || report.Quality != reconnect.QualityPoor || len(report.Recommendations) == 0 {
			t.Errorf("report %+v %v", report, err)
		}
		before := time.Now()
		state, err := r.State(ctx, "room", "bob")
		if err != nil || !state.Connected || state.LastSequence != 2 || state.Quality != reconnect.QualityPoor ||
			state.Connections != 1 || state.Away != 0 || before.Sub(state.LastSeen).Abs() > time.Hour {
			t.Errorf("state %+v %v", state, err)
		}
		if err := r.Drop(ctx, bob.Member); err != nil {
			t.Fatal(err)
		}
		state, err = r.State(ctx, "room", "bob")
		if err != nil || state.Connected || state.Away < 0 || state.Away > time.Hour {
			t.Errorf("state %+v %v", state, err)
		}
		// Without a position it goes on where it acknowledged.
		again := r.resume(bob, "", bob.Token)
		wantRecovery(t, again.Recovery, reconnect.Recovered, 0, 0, "3:three")
		good, err := r.Quality(ctx, "room", "bob", reconnect.Measurement{Latency: time.Millisecond, Bandwidth: 1e6})
		if err != nil || good.Quality != reconnect.QualityGood {
			t.Errorf("report %+v %v", good, err)
		}
	})
}

func TestReplayLiveMessages(t *testing.T) {
	on(t, func(t *testing.T, store string) {
		r := startReplay(t, reconnect.ReplayConfig{Store: store, StoreTimeout: patience})
		ctx := within(t)
		if err := r.Subscribe(ctx, "room"); err != nil {
			t.Fatal(err)
		}
		if err := r.Subscribe(ctx, "room"); err != nil {
			t.Fatal(err)
		}
		r.join("room", "bob")
		ann := r.join("room", "ann")
		sent := r.publish(reconnect.Publication{
			Room: "room", User: "ann", To: "bob", Data: []byte("hi"), Binary: true, Kind: reconnect.AnswerMessage, Negotiation: 3,
		})
		want := reconnect.ReplayMessageEvent{
			Room: "room", User: "ann", To: "bob", Data: []byte("hi"), Binary: true, Kind: reconnect.AnswerMessage,
			Negotiation: 3, Sequence: sent.Sequence, Position: sent.Position,
		}
		if got := r.next(); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if err := r.Unsubscribe(ctx, "room"); err != nil { // one of two
			t.Fatal(err)
		}
		r.say("room", "", "to all")
		got, _ := r.next().(reconnect.ReplayMessageEvent)
		if string(got.Data) != "to all" || got.User != "" || got.To != "" || got.Binary {
			t.Errorf("got %+v", got)
		}
		got.Data = append(got.Data, "!!!!!!!!!!"...) // its memory is the receiver's
		if got.Room != "room" || len(got.Position) != 32 {
			t.Errorf("got %+v", got)
		}
		if err := r.Unsubscribe(ctx, "room"); err != nil {
			t.Fatal(err)
		}
		r.say("room", "ann", "nobody listens")
		select {
		case event := <-r.Events():
			t.Errorf("got %+v", event)
		default: // with rooms in memory it would be there
		}
		if err := r.Leave(ctx, ann.Member); err != nil {
			t.Fatal(err)
		}
	})
}

// Clients that join while others talk miss nothing and get nothing twice, with a table that InOrder fills.
func TestReplayJoinsWithoutGap(t *testing.T) {
	on(t, func(t *testing.T, store string) {
		const talkers, each, clients = 4, 300, 40
		r := startReplay(t, reconnect.ReplayConfig{Store: store, StoreTimeout: patience, Window: 4096, MaxBatch: 4096, EventCapacity: talkers*each + 1})
		ctx := within(t)
		if err := r.Subscribe(ctx, "room"); err != nil {
			t.Fatal(err)
		}
		watcher := r.join("room", "watcher")
		var mutex sync.Mutex
		type client struct{ last, first uint64 }
		present := map[string]*client{}
		var wait sync.WaitGroup
		for i := 0; i < talkers; i++ {
			i := i
			wait.Add(1)
			go func() {
				defer wait.Done()
				for j := 0; j < each; j++ {
					if _, err := r.Publish(ctx, &reconnect.Publication{Room: "room", Data: []byte{byte(i)}, Binary: true}); err != nil {
						t.Error(err)
					}
				}
			}()
		}
		for i := 0; i < clients; i++ {
			name := fmt.Sprint("client", i)
			wait.Add(1)
			go func() {
				defer wait.Done()
				_, err := r.Join(ctx, &reconnect.JoinRequest{Room: "room", User: name, InOrder: func(joined *reconnect.Joined) {
					mutex.Lock()
					present[name] = &client{joined.Sequence, joined.Sequence}
					mutex.Unlock()
				}})
				if err != nil {
					t.Error(err)
				}
			}()
		}
		for i := 1; i <= talkers*each; i++ {
			message, ok := r.next().(reconnect.ReplayMessageEvent)
			if !ok || message.Sequence != uint64(i) {
				t.Fatalf("event %d is %+v", i, message)
			}
			mutex.Lock()
			for name, client := range present {
				if message.Sequence > client.last {
					if message.Sequence != client.last+1 {
						t.Fatalf("%s has %d and gets %d", name, client.last, message.Sequence)
					}
					client.last++
				}
			}
			mutex.Unlock()
		}
		wait.Wait()
		for name, client := range present {
			if client.last != talkers*each && client.first != talkers*each {
				t.Errorf("%s has %d", name, client.last)
			}
		}
		recovery, err := r.Recover(ctx, watcher.Member, watcher.Position, func(recovery *reconnect.Recovery) {
			if len(recovery.Messages) != talkers*each {
				t.Errorf("%d messages", len(recovery.Messages))
			}
		})
		if err != nil || recovery.Sequence != talkers*each {
			t.Errorf("%+v %v", recovery, err)
		}
	})
}

// Who does not read its events holds up nobody, and is told what it missed.
func TestReplayUnreadEventsBecomeGaps(t *testing.T) {
	r := startReplay(t, reconnect.ReplayConfig{EventCapacity: 2})
	ctx := within(t)
	for _, room := range []string{"a", "b"} {
		if err := r.Subscribe(ctx, room); err != nil {
			t.Fatal(err)
		}
		r.join(room, "bob")
	}
	for i := 0; i < 50; i++ {
		r.say("a", "", fmt.Sprint(i))
		r.say("b", "", fmt.Sprint(i))
	}
	for i, want := range []reconnect.Event{nil, nil, reconnect.ReplayGapEvent{Room: "a", Reason: reconnect.LostLimit},
		reconnect.ReplayGapEvent{Room: "b", Reason: reconnect.LostLimit}} {
		if got := r.next(); want != nil && got != want {
			t.Errorf("event %d: %+v", i, got)
		}
	}
	// After the gap messages come again; another gap may be told where one came while the first was on its way.
	r.say("a", "", "again")
	for {
		switch event := r.next().(type) {
		case reconnect.ReplayMessageEvent:
			if event.Sequence <= 50 {
				t.Errorf("got %d, from before the gap", event.Sequence)
			}
			return
		case reconnect.ReplayGapEvent:
			r.say("a", "", "again")
		}
	}
}

func TestReplayStatisticsAndMetrics(t *testing.T) {
	r := startReplay(t, reconnect.ReplayConfig{})
	bob := r.join("room", "bob")
	r.say("room", "", "one")
	r.resume(bob, bob.Position, bob.Token)
	r.resume(bob, "?", bob.Token)
	statistics, err := r.Statistics()
	if err != nil || statistics.Rooms != 1 || statistics.Members != 1 || statistics.Published != 1 ||
		statistics.Joins != 3 || statistics.Fresh != 1 || statistics.Recovered != 1 ||
		statistics.Lost[reconnect.LostEpoch] != 1 || statistics.MessagesReplayed != 1 || statistics.BytesHeld == 0 ||
		statistics.Store != reconnect.StorePresent {
		t.Errorf("%+v %v", statistics, err)
	}
	metrics, err := r.Metrics()
	if err != nil || !strings.Contains(metrics, "# TYPE ") {
		t.Errorf("%q %v", metrics, err)
	}
}

func TestReplayNames(t *testing.T) {
	for _, each := range []struct {
		value fmt.Stringer
		want  string
	}{
		{reconnect.RecoveredEmpty, "recovered-empty"}, {reconnect.Verdict(99), "unknown"},
		{reconnect.LostDegraded, "degraded"}, {reconnect.WrongToken, "wrong token"},
		{reconnect.CandidateMessage, "candidate"}, {reconnect.QualityPoor, "poor"}, {reconnect.StoreProbed, "probed"},
		{reconnect.StatusThrottled, "THROTTLED"}, {reconnect.StatusUnknownRecipient, "UNKNOWN_RECIPIENT"},
	} {
		if got := each.value.String(); got != each.want {
			t.Errorf("%q, want %q", got, each.want)
		}
	}
}

func TestReplayContextEnded(t *testing.T) {
	r := startReplay(t, reconnect.ReplayConfig{})
	r.join("room", "bob")
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.Publish(ended, &reconnect.Publication{Room: "room"}); err != context.Canceled {
		t.Errorf("got %v", err)
	}
	if _, err := r.PublishMany(ended, make([]reconnect.Publication, 3)); err != context.Canceled {
		t.Errorf("got %v", err)
	}
	if _, err := r.Join(ended, &reconnect.JoinRequest{Room: "room", User: "ann"}); err != context.Canceled {
		t.Errorf("got %v", err)
	}
	if statistics, _ := r.Statistics(); statistics.Published != 0 || statistics.Joins != 1 {
		t.Errorf("%+v", statistics)
	}
}
