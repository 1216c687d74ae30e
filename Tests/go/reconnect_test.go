package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"reconnect"
)

// withToken adds a session token to an offer.
func withToken(t *testing.T, offer []byte, token string) []byte {
	t.Helper()
	if token == "" {
		return offer
	}
	var message map[string]any
	if err := json.Unmarshal(offer, &message); err != nil {
		t.Fatal(err)
	}
	message["sessionToken"] = token
	changed, err := json.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

// pattern is a message whose bytes depend on its size.
func pattern(size int) []byte {
	message := make([]byte, size)
	state := uint32(size)*2654435761 + 1
	for i := range message {
		state ^= state << 13
		state ^= state >> 17
		state ^= state << 5
		message[i] = byte(state)
	}
	return message
}

func TestConnectsAndEchoes(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "::1"} {
		t.Run(address, func(t *testing.T) {
			c := connect(t, address)
			if got := c.offererChannel.Label(); got != "echo" {
				t.Errorf("label %q", got)
			}
			if got := c.offererChannel.ID(); got != 0 {
				t.Errorf("stream %d", got)
			}
			if c.offererPeer.Channels()[0] != c.offererChannel {
				t.Error("the negotiated channel is another one")
			}
			for _, size := range []int{0, 1, 1200, 16384, 65536, 262144} {
				sent := pattern(size)
				if err := c.offererChannel.Send(sent); err != nil {
					t.Fatalf("Send %d: %v", size, err)
				}
				got := until(c.answerer, any_[reconnect.MessageEvent])
				if got.Channel != c.answererChannel || got.Text || !bytes.Equal(got.Data, sent) {
					t.Fatalf("%d bytes arrived as %d, text %v", size, len(got.Data), got.Text)
				}
				if err := got.Channel.SendMessage(got.Data, got.Text); err != nil {
					t.Fatalf("echo %d: %v", size, err)
				}
				back := until(c.offerer, any_[reconnect.MessageEvent])
				if back.Text || !bytes.Equal(back.Data, sent) {
					t.Fatalf("%d bytes came back as %d", size, len(back.Data))
				}
			}
			for _, text := range []string{"", "a", "aé€😀", strings.Repeat("é", 131072)} {
				if err := c.offererChannel.SendText(text); err != nil {
					t.Fatalf("SendText: %v", err)
				}
				got := until(c.answerer, any_[reconnect.MessageEvent])
				if !got.Text || string(got.Data) != text {
					t.Fatalf("a text of %d bytes arrived as %d, text %v", len(text), len(got.Data), got.Text)
				}
			}
			statistics, err := c.offererPeer.Statistics(within(t))
			if err != nil {
				t.Fatal(err)
			}
			if host, _, err := net.SplitHostPort(statistics.RemoteAddress); err != nil || host != address {
				t.Errorf("remote address %q", statistics.RemoteAddress)
			}
			if statistics.MessagesSent != 10 || statistics.MessagesReceived != 6 || statistics.Channels != 1 {
				t.Errorf("statistics: %+v", statistics)
			}
		})
	}
}

func TestOpensChannelsInBand(t *testing.T) {
	c := connect(t, "127.0.0.1")
	retransmits := uint32(3)
	for _, config := range []reconnect.ChannelConfig{
		{},
		{Label: "chat ✓", Protocol: "v1.chat"},
		{Label: "loose", Unordered: true, MaxRetransmits: &retransmits},
		{Label: "short", MaxLifetime: 1500 * time.Millisecond},
	} {
		config := config
		opened, err := c.offererPeer.OpenChannel(&config)
		if err != nil {
			t.Fatal(err)
		}
		early := "sent before it is open: " + config.Label
		if err := opened.SendText(early); err != nil {
			t.Fatal(err)
		}
		remote := until(c.answerer, any_[reconnect.ChannelOpenEvent])
		channel := remote.Channel
		if !remote.Remote || channel.Label() != config.Label || channel.Protocol() != config.Protocol {
			t.Fatalf("opened %+v, got %q %q, remote %v", config, channel.Label(), channel.Protocol(), remote.Remote)
		}
		if channel.Ordered() == config.Unordered {
			t.Errorf("%q: ordered %v", config.Label, channel.Ordered())
		}
		if partial := config.MaxRetransmits != nil || config.MaxLifetime != 0; channel.Reliable() == partial {
			t.Errorf("%q: reliable %v", config.Label, channel.Reliable())
		}
		if got := until(c.answerer, any_[reconnect.MessageEvent]); got.Channel != channel || string(got.Data) != early {
			t.Fatalf("%q arrived", got.Data)
		}
		local := until(c.offerer, any_[reconnect.ChannelOpenEvent])
		if local.Remote || local.Channel != opened || opened.ID() != channel.ID() {
			t.Errorf("%q: streams %d and %d", config.Label, opened.ID(), channel.ID())
		}
	}
}

func TestWouldBlockUntilTheQueueIsLow(t *testing.T) {
	addresses := []string{"127.0.0.1"}
	c := &connected{
		offerer:  startHost(t, "offerer", reconnect.Config{Addresses: addresses, SendHighWater: 300000}),
		answerer: startHost(t, "answerer", reconnect.Config{Addresses: addresses}),
	}
	c.offer(t, "")
	message := pattern(60000)
	const count = 200
	received := make(chan error, 1)
	go func() {
		for i := 0; i < count; i++ {
			event, ok := nextMessage(c.answerer.Engine)
			if !ok || !bytes.Equal(event.Data[4:], message[4:]) || binaryNumber(event.Data) != i {
				received <- fmt.Errorf("message %d is wrong", i)
				return
			}
		}
		received <- nil
	}()
	blocked := 0
	for i := 0; i < count; {
		setBinaryNumber(message, i)
		err := c.offererChannel.Send(message)
		switch {
		case err == nil:
			i++
		case errors.Is(err, reconnect.ErrWouldBlock):
			blocked++
			if low := until(c.offerer, any_[reconnect.BufferedLowEvent]); low.Channel != c.offererChannel {
				t.Fatal("another channel is low")
			}
			if buffered, err := c.offererChannel.Buffered(); err != nil || buffered > 300000+60000 {
				t.Fatalf("buffered %d, %v", buffered, err)
			}
		default:
			t.Fatal(err)
		}
	}
	if blocked == 0 {
		t.Error("12 MB fitted into a queue of 300 kB")
	}
	select {
	case err := <-received:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("the messages did not arrive")
	}
}

func binaryNumber(message []byte) int { return int(message[0])<<8 | int(message[1]) }

func setBinaryNumber(message []byte, number int) {
	message[0], message[1] = byte(number>>8), byte(number)
}

func nextMessage(engine *reconnect.Engine) (reconnect.MessageEvent, bool) {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		select {
		case event, ok := <-engine.Events():
			if message, is := event.(reconnect.MessageEvent); is || !ok {
				return message, ok
			}
		case <-deadline.C:
			return reconnect.MessageEvent{}, false
		}
	}
}

// A paused channel's messages wait, those of another peer's channel come; nothing is lost or out of order.
func TestPausesOneChannelOnly(t *testing.T) {
	addresses := []string{"127.0.0.1"}
	answerer := startHost(t, "answerer", reconnect.Config{
		Addresses: addresses, ReceiveWindow: 262144, EventCapacity: 16,
	})
	slow := &connected{offerer: startHost(t, "slow", reconnect.Config{Addresses: addresses}), answerer: answerer}
	slow.offer(t, "")
	quick := &connected{offerer: startHost(t, "quick", reconnect.Config{Addresses: addresses}), answerer: answerer}
	quick.offer(t, "")

	slow.answererChannel.Pause()
	message := pattern(10000)
	const count = 400
	sent := 0
	for ; sent < count; sent++ {
		setBinaryNumber(message, sent)
		if err := slow.offererChannel.Send(message); err != nil {
			t.Fatal(err)
		}
	}
	next, early := 0, 0
	take := func(event reconnect.MessageEvent) {
		if number := binaryNumber(event.Data); event.Channel != slow.answererChannel || number != next {
			t.Fatalf("message %d came instead of %d", number, next)
		}
		next++
	}
	for i := 0; i < 100; i++ {
		text := fmt.Sprint("quick ", i)
		if err := quick.offererChannel.SendText(text); err != nil {
			t.Fatal(err)
		}
		for {
			event := until(answerer, any_[reconnect.MessageEvent])
			if event.Channel == quick.answererChannel {
				if string(event.Data) != text {
					t.Fatalf("%q came instead of %q", event.Data, text)
				}
				break
			}
			take(event)
			early++
		}
	}
	if early > 81 { // the capacity of the Go channel, one batch of 64, and one on its way
		t.Errorf("%d messages came although the channel is paused", early)
	}
	slow.answererChannel.Resume()
	for next < count {
		take(until(answerer, any_[reconnect.MessageEvent]))
	}
}

func TestCloseOfAPausedChannelDeliversWhatWaits(t *testing.T) {
	c := connect(t, "127.0.0.1")
	c.answererChannel.Pause()
	for i := 0; i < 10; i++ {
		if err := c.offererChannel.SendText(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.offererChannel.Close(); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 10; i++ {
		if got := c.answerer.next().(reconnect.MessageEvent); string(got.Data) != fmt.Sprint(i) {
			t.Fatalf("%q came instead of %d", got.Data, i)
		}
	}
	if closed := c.answerer.next().(reconnect.ChannelClosedEvent); closed.Reason != nil {
		t.Errorf("closed: %v", closed.Reason)
	}
}

func TestChannelsCloseFromBothSides(t *testing.T) {
	c := connect(t, "127.0.0.1")
	for _, byOfferer := range []bool{true, false} {
		opened, err := c.offererPeer.OpenChannel(&reconnect.ChannelConfig{Label: "short-lived"})
		if err != nil {
			t.Fatal(err)
		}
		remote := until(c.answerer, any_[reconnect.ChannelOpenEvent]).Channel
		until(c.offerer, any_[reconnect.ChannelOpenEvent])
		closing := remote
		if byOfferer {
			closing = opened
		}
		if err := closing.Close(); err != nil {
			t.Fatal(err)
		}
		for _, side := range []struct {
			host    *host
			channel *reconnect.Channel
		}{{c.offerer, opened}, {c.answerer, remote}} {
			closed := until(side.host, any_[reconnect.ChannelClosedEvent])
			if closed.Channel != side.channel || closed.Reason != nil {
				t.Errorf("%s: closed %q: %v", side.host.name, closed.Channel.Label(), closed.Reason)
			}
			wantError(t, side.channel.Send(nil), reconnect.ErrInvalidHandle)
			wantError(t, side.channel.Close(), reconnect.ErrInvalidHandle)
		}
	}
}

func TestPeerCloseIsToldToBothSides(t *testing.T) {
	c := connect(t, "127.0.0.1")
	if err := c.offererPeer.Close(); err != nil {
		t.Fatal(err)
	}
	closed := func(event reconnect.PeerStateEvent) bool { return event.State == reconnect.PeerClosed }
	until(c.offerer, any_[reconnect.ChannelClosedEvent])
	if event := until(c.offerer, closed); event.Peer != c.offererPeer || event.Reason != nil {
		t.Errorf("offerer: %v", event.Reason)
	}
	channel := until(c.answerer, any_[reconnect.ChannelClosedEvent])
	wantError(t, channel.Reason, reconnect.ErrPeerGone)
	event := until(c.answerer, closed)
	if event.Peer != c.answererPeer {
		t.Error("another peer closed")
	}
	wantError(t, event.Reason, reconnect.ErrPeerGone)
	wantError(t, c.answererPeer.Close(), reconnect.ErrInvalidHandle)
	if _, err := c.answererPeer.OpenChannel(nil); !errors.Is(err, reconnect.ErrInvalidHandle) {
		t.Errorf("OpenChannel: %v", err)
	}
}

func TestReturningSessionIsFast(t *testing.T) {
	c := connect(t, "127.0.0.1")
	if c.answer.Mode != reconnect.ModeNormal {
		t.Fatalf("first: %v", c.answer.Mode)
	}
	token := sessionToken(t, c.answer.JSON)
	old := c.answererPeer

	// It comes back while the earlier connection still stands: the new one takes over.
	c.offer(t, token)
	if c.answer.Mode != reconnect.ModeFast {
		t.Fatalf("second: %v", c.answer.Mode)
	}
	statistics, err := c.answerer.Statistics()
	if err != nil || statistics.AnswersFast != 1 || statistics.AnswersNormal != 1 || statistics.SessionsReturned != 1 {
		t.Errorf("statistics: %+v, %v", statistics, err)
	}
	if got := sessionToken(t, c.answer.JSON); got == "" {
		t.Error("the second answer has no token")
	}
	sessions := c.answerer.sessions
	if len(sessions) != 2 || sessions[0].Peer != old || sessions[1].Peer != c.answererPeer {
		t.Fatalf("sessions: %+v", sessions)
	}
	first, second := sessions[0], sessions[1]
	if first.Returned || first.Connections != 1 || first.Mode != reconnect.ModeNormal || first.Away != 0 {
		t.Errorf("first: %+v", first)
	}
	if !second.Returned || second.Connections != 2 || second.Mode != reconnect.ModeFast {
		t.Errorf("second: %+v", second)
	}
	if first.ClientID == "" || first.ClientID != second.ClientID || len(second.Token) != 8 {
		t.Errorf("clients %q and %q, token %q", first.ClientID, second.ClientID, second.Token)
	}
	for len(c.answerer.closed) == 0 {
		c.answerer.next()
	}
	replaced := c.answerer.closed[0]
	if replaced.Peer != old {
		t.Error("another peer was replaced")
	}
	wantError(t, replaced.Reason, reconnect.ErrReplaced)

	if err := c.answerer.SetFastReload(reconnect.FastReloadOff); err != nil {
		t.Fatal(err)
	}
	c.offer(t, sessionToken(t, c.answer.JSON))
	if c.answer.Mode != reconnect.ModeNormal {
		t.Errorf("with fast reload off: %v", c.answer.Mode)
	}
}

func sessionToken(t *testing.T, answer []byte) string {
	t.Helper()
	var message struct {
		Type, SDP, ConnectionMode, SessionToken string
	}
	if err := json.Unmarshal(answer, &message); err != nil {
		t.Fatal(err)
	}
	return message.SessionToken
}

func TestBadInputGivesTypedErrors(t *testing.T) {
	h := startHost(t, "host", reconnect.Config{})
	ctx := within(t)
	for _, bad := range []struct {
		offer  string
		want   error
		detail string
	}{
		{"", reconnect.ErrMalformedJSON, ""},
		{"{", reconnect.ErrMalformedJSON, ""},
		{"[]", reconnect.ErrMalformedJSON, ""},
		{`{"type":"offer"}`, reconnect.ErrMalformedJSON, "sdp"},
		{`{"type":"offer","sdp":1}`, reconnect.ErrMalformedJSON, "sdp"},
		{`{"type":"answer","sdp":"v=0"}`, reconnect.ErrMalformedJSON, "type"},
		{`{"type":"offer","sdp":"nonsense"}`, reconnect.ErrMalformedSDP, "1"},
		{`{"type":"offer","sdp":"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"}`, reconnect.ErrUnacceptable, ""},
	} {
		_, err := h.Answer(ctx, []byte(bad.offer), nil)
		wantError(t, err, bad.want)
		if !strings.Contains(err.Error(), bad.detail) {
			t.Errorf("%s: %q does not name %q", bad.offer, err, bad.detail)
		}
	}
	statistics, err := h.Statistics()
	if err != nil || statistics.Peers != 0 {
		t.Errorf("bad offers made %d peers, %v", statistics.Peers, err)
	}

	peer, err := h.NewPeer(nil)
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, peer.Accept(ctx, []byte("{")), reconnect.ErrMalformedJSON)
	wantError(t, peer.AddCandidate([]byte("null")), reconnect.ErrMalformedJSON)
	for _, config := range []reconnect.ChannelConfig{
		{Label: "a\x00b"},
		{Protocol: strings.Repeat("x", 65536)},
		{Negotiated: true, ID: 65535},
		{MaxLifetime: -1},
	} {
		config := config
		_, err := peer.OpenChannel(&config)
		wantError(t, err, reconnect.ErrInvalidArgument)
	}

	for _, config := range []reconnect.Config{
		{SessionTTL: -time.Second},
		{BindAddress: "a\x00b"},
		{MaxMessageSize: 1 << 40},
		{EventCapacity: -1},
	} {
		config := config
		_, err := reconnect.NewEngine(&config)
		wantError(t, err, reconnect.ErrInvalidArgument)
	}
	_, err = reconnect.NewEngine(&reconnect.Config{Addresses: []string{"localhost"}})
	wantError(t, err, reconnect.ErrNoAddress)
	_, err = reconnect.NewEngine(&reconnect.Config{Port: h.Port()})
	wantError(t, err, reconnect.ErrPortInUse)
	file := filepath.Join(t.TempDir(), "bad.pem")
	if err := os.WriteFile(file, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = reconnect.NewEngine(&reconnect.Config{CertificatePath: file})
	wantError(t, err, reconnect.ErrCertificateUnusable)
}

func TestWrongFingerprintIsAReason(t *testing.T) {
	addresses := []string{"127.0.0.1"}
	offerer := startHost(t, "offerer", reconnect.Config{Addresses: addresses})
	answerer := startHost(t, "answerer", reconnect.Config{Addresses: addresses})
	other := startHost(t, "other", reconnect.Config{Addresses: addresses})
	fingerprint := func(h *host) string {
		text, err := h.Fingerprint(reconnect.SHA256)
		if err != nil || !strings.HasPrefix(text, "sha-256 ") || len(text) != 8+32*3-1 {
			t.Fatalf("fingerprint %q, %v", text, err)
		}
		return strings.TrimPrefix(text, "sha-256 ")
	}
	peer, err := offerer.NewPeer(&reconnect.PeerConfig{Channels: []reconnect.ChannelConfig{echoChannel}})
	if err != nil {
		t.Fatal(err)
	}
	offer, err := peer.Offer(within(t))
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.ReplaceAll(offer, []byte(fingerprint(offerer)), []byte(fingerprint(other)))
	if bytes.Equal(forged, offer) {
		t.Fatalf("the offer does not hold the fingerprint: %s", offer)
	}
	answer, err := answerer.Answer(within(t), forged, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := peer.Accept(within(t), answer.JSON); err != nil {
		t.Fatal(err)
	}
	closed := until(answerer, func(e reconnect.PeerStateEvent) bool { return e.State == reconnect.PeerClosed })
	wantError(t, closed.Reason, reconnect.ErrFingerprintMismatch)
}

func TestCancelledAnswerClosesItsPeer(t *testing.T) {
	h := startHost(t, "host", reconnect.Config{})
	peer, err := h.NewPeer(&reconnect.PeerConfig{Channels: []reconnect.ChannelConfig{echoChannel}})
	if err != nil {
		t.Fatal(err)
	}
	offer, err := peer.Offer(within(t))
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := h.Answer(ended, offer, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Answer: %v", err)
	}
	if _, err := peer.Offer(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Offer: %v", err)
	}
	if err := peer.Accept(ended, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Accept: %v", err)
	}
	if _, err := peer.Statistics(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Statistics: %v", err)
	}
}

func TestLogsAndLevels(t *testing.T) {
	h := startHost(t, "host", reconnect.Config{LogLevel: reconnect.LogDebug})
	if err := h.SetLogLevel(reconnect.LogNone); err != nil {
		t.Fatal(err)
	}
	wantError(t, h.SetLogLevel(77), reconnect.ErrInvalidArgument)
	if err := h.SetAddresses("::1", "127.0.0.2"); err != nil {
		t.Fatal(err)
	}
	changed := until(h, any_[reconnect.AddressesEvent])
	if fmt.Sprint(changed.Addresses) != "[::1 127.0.0.2]" {
		t.Errorf("addresses %v", changed.Addresses)
	}
	wantError(t, h.SetAddresses("nowhere"), reconnect.ErrNoAddress)
}
