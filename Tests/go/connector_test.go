package tests

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"reconnect"
)

var helloChannel = reconnect.ChannelConfig{Label: "hello", Negotiated: true, ID: 1}

var helloPeer = reconnect.PeerConfig{Channels: []reconnect.ChannelConfig{helloChannel}}

// startServer makes an engine to which clients can come back with a ticket.
func startServer(t *testing.T, config reconnect.Config) *host {
	t.Helper()
	config.ReturningPeer, config.EventCapacity = helloPeer, 1024
	return startHost(t, "server", config)
}

// line is a signaling connection to a server, which can be cut.
type line struct {
	server    *host
	cut       error
	exchanges atomic.Int64
}

func (l *line) Exchange(ctx context.Context, offer []byte) ([]byte, error) {
	l.exchanges.Add(1)
	if l.cut != nil {
		return nil, l.cut
	}
	answer, err := l.server.Answer(ctx, offer, &helloPeer)
	if err != nil {
		return nil, err
	}
	return answer.JSON, nil
}

func startClient(t *testing.T, config reconnect.Config) *host {
	t.Helper()
	config.EventCapacity = 1024
	return startHost(t, "client", config)
}

func newConnector(t *testing.T, client *host, config reconnect.ConnectorConfig) *reconnect.Connector {
	t.Helper()
	config.Peer = helloPeer
	connector, err := client.NewConnector(&config)
	if err != nil {
		t.Fatalf("NewConnector: %v", err)
	}
	return connector
}

// dial connects, checks how, and that messages go both ways.
func dial(t *testing.T, connector *reconnect.Connector, client *host, to *line, want reconnect.Mode) *reconnect.Connection {
	t.Helper()
	connection, err := connector.Dial(within(t), to)
	if err != nil {
		t.Fatalf("Dial: %v", err)
	}
	if connection.Mode != want || connection.Duration <= 0 || connector.Peer() != connection.Peer {
		t.Fatalf("%v in %v, not %v", connection.Mode, connection.Duration, want)
	}
	channels := connection.Peer.Channels()
	if len(channels) != 1 || channels[0].Label() != "hello" || channels[0].ID() != 1 {
		t.Fatalf("channels %v", channels)
	}
	text := "hello " + want.String()
	if err := channels[0].SendText(text); err != nil {
		t.Fatalf("SendText: %v", err)
	}
	got := until(to.server, any_[reconnect.MessageEvent])
	if string(got.Data) != text || got.Channel.Label() != "hello" {
		t.Fatalf("%q on %q arrived", got.Data, got.Channel.Label())
	}
	if err := got.Channel.SendText("welcome"); err != nil {
		t.Fatalf("the answer: %v", err)
	}
	for {
		if back := until(client, any_[reconnect.MessageEvent]); back.Channel == channels[0] {
			if string(back.Data) != "welcome" {
				t.Fatalf("%q came back", back.Data)
			}
			return connection
		}
	}
}

// end closes the client's connection and waits until both sides know.
func end(t *testing.T, connection *reconnect.Connection, client, server *host) {
	t.Helper()
	if err := connection.Peer.Close(); err != nil {
		t.Fatal(err)
	}
	closed := func(e reconnect.PeerStateEvent) bool { return e.State == reconnect.PeerClosed }
	until(server, closed)
	lost := until(client, func(e reconnect.ConnectorEvent) bool { return e.State == reconnect.ConnectorLost })
	if lost.Peer != connection.Peer || lost.Connector.Peer() != nil {
		t.Errorf("lost: %+v", lost)
	}
}

func TestConnectorComesBackTheFastestWay(t *testing.T) {
	server, client := startServer(t, reconnect.Config{}), startClient(t, reconnect.Config{})
	to := &line{server: server}
	connector := newConnector(t, client, reconnect.ConnectorConfig{Policy: reconnect.Fallback, Key: "server"})
	careful := newConnector(t, client, reconnect.ConnectorConfig{Key: "without tickets", DisableTickets: true})

	end(t, dial(t, careful, client, to, reconnect.ModeNormal), client, server)
	end(t, dial(t, careful, client, to, reconnect.ModeFast), client, server)
	connection := dial(t, connector, client, to, reconnect.ModeNormal)
	first := server.sessions[len(server.sessions)-1]
	end(t, connection, client, server)
	if count := to.exchanges.Load(); count != 3 {
		t.Errorf("%d exchanges", count)
	}

	to.cut = errors.New("nobody may ask")
	connection = dial(t, connector, client, to, reconnect.ModeZeroSignaling)
	if count := to.exchanges.Load(); count != 3 {
		t.Errorf("%d exchanges, the last one without need", count)
	}
	last := server.sessions[len(server.sessions)-1]
	if last.Mode != reconnect.ModeZeroSignaling || !last.Returned || last.ClientID != first.ClientID ||
		last.Connections != first.Connections+1 {
		t.Errorf("session: %+v, the first one: %+v", last, first)
	}
	end(t, connection, client, server)

	to.cut = nil
	if err := connector.Forget(); err != nil {
		t.Fatal(err)
	}
	if entry, err := connector.Cache(); entry != "" || err != nil {
		t.Errorf("after Forget: %q, %v", entry, err)
	}
	dial(t, connector, client, to, reconnect.ModeNormal)
	entry, err := connector.Cache()
	if err != nil || !strings.Contains(entry, `"sessionId"`) || !strings.Contains(entry, `"timestamp"`) {
		t.Errorf("cache: %q, %v", entry, err)
	}
}

// A peer that comes with a ticket is one that the server's program never made.
func TestReturningPeerIsToldToTheServer(t *testing.T) {
	server, client := startServer(t, reconnect.Config{}), startClient(t, reconnect.Config{})
	to := &line{server: server}
	connector := newConnector(t, client, reconnect.ConnectorConfig{Policy: reconnect.Fallback})
	end(t, dial(t, connector, client, to, reconnect.ModeNormal), client, server)
	for i := 0; i < 2; i++ { // the second one takes over from the first
		connection, err := connector.Dial(within(t), to)
		if err != nil {
			t.Fatal(err)
		}
		came := until(server, func(e reconnect.PeerStateEvent) bool { return e.State == reconnect.PeerConnected })
		if !came.Ticket || len(came.Peer.Channels()) != 1 {
			t.Fatalf("%+v", came)
		}
		opened := until(server, any_[reconnect.ChannelOpenEvent])
		if opened.Channel != came.Peer.Channels()[0] || opened.Channel.Peer() != came.Peer {
			t.Fatal("another channel opened")
		}
		more, err := came.Peer.OpenChannel(&reconnect.ChannelConfig{Label: "in-band"})
		if err != nil {
			t.Fatal(err)
		}
		if err := more.SendText("from the server"); err != nil {
			t.Fatal(err)
		}
		got := until(client, any_[reconnect.MessageEvent])
		if got.Channel.Peer() != connection.Peer || got.Channel.Label() != "in-band" {
			t.Fatalf("%q on %q", got.Data, got.Channel.Label())
		}
	}
	replaced := until(server, func(e reconnect.PeerStateEvent) bool { return e.State == reconnect.PeerClosed })
	wantError(t, replaced.Reason, reconnect.ErrReplaced)
}

func TestConnectorRacesTheTicketAgainstSignaling(t *testing.T) {
	server, client := startServer(t, reconnect.Config{}), startClient(t, reconnect.Config{})
	to := &line{server: server}
	connector := newConnector(t, client, reconnect.ConnectorConfig{Policy: reconnect.Race})
	end(t, dial(t, connector, client, to, reconnect.ModeNormal), client, server)
	to.cut = errors.New("signaling is down")
	dial(t, connector, client, to, reconnect.ModeZeroSignaling)
	if err := connector.Close(); err != nil {
		t.Fatal(err)
	}
	until(client, func(e reconnect.ConnectorEvent) bool { return e.State == reconnect.ConnectorClosed })
	_, err := connector.Dial(within(t), to)
	wantError(t, err, reconnect.ErrInvalidHandle)
	wantError(t, connector.Close(), reconnect.ErrInvalidHandle)
}

func TestConnectorsCacheOutlivesTheEngine(t *testing.T) {
	server, folder := startServer(t, reconnect.Config{}), t.TempDir()
	to := &line{server: server}
	cache := filepath.Join(folder, "cache.json")
	for _, mode := range []reconnect.Mode{reconnect.ModeNormal, reconnect.ModeZeroSignaling} {
		client := startClient(t, reconnect.Config{CertificatePath: filepath.Join(folder, "client.pem")})
		connector := newConnector(t, client, reconnect.ConnectorConfig{Policy: reconnect.Fallback, CachePath: cache})
		dial(t, connector, client, to, mode)
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{cache, cache + ".tickets"} {
		if status, err := os.Stat(path); err != nil || status.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, status, err)
		}
	}
}

func TestSignalsAreEvents(t *testing.T) {
	server, client := startServer(t, reconnect.Config{}), startClient(t, reconnect.Config{})
	connector := newConnector(t, client, reconnect.ConnectorConfig{})
	connected := make(chan error, 1)
	go func() {
		_, err := connector.Connect(within(t))
		connected <- err
	}()
	signal := until(client, any_[reconnect.SignalEvent])
	if signal.Connector != connector || !strings.Contains(string(signal.Message), `"offer"`) {
		t.Fatalf("%+v", signal)
	}
	_, err := connector.Connect(within(t))
	wantError(t, err, reconnect.ErrWrongState)
	wantError(t, connector.Message(signal.Exchange, []byte("{")), reconnect.ErrMalformedJSON)
	answer, err := server.Answer(within(t), signal.Message, &helloPeer)
	if err != nil {
		t.Fatal(err)
	}
	if err := connector.Message(signal.Exchange, answer.JSON); err != nil {
		t.Fatal(err)
	}
	if err := <-connected; err != nil {
		t.Fatal(err)
	}
	if err := connector.Message(signal.Exchange, answer.JSON); err != nil {
		t.Errorf("a message of an exchange that is over: %v", err)
	}
	won := until(client, func(e reconnect.AttemptEvent) bool { return e.State == reconnect.AttemptWon })
	if won.Mode != reconnect.ModeNormal || won.Connector != connector || won.Elapsed <= 0 {
		t.Errorf("%+v", won)
	}
}

func TestFailedSignalingIsTheReason(t *testing.T) {
	server, client := startServer(t, reconnect.Config{}), startClient(t, reconnect.Config{})
	connector := newConnector(t, client, reconnect.ConnectorConfig{})
	cut := errors.New("the line is cut")
	_, err := connector.Dial(within(t), &line{cut: cut})
	wantError(t, err, reconnect.ErrSignalingFailed)
	if !errors.Is(err, cut) || !strings.HasSuffix(err.Error(), ": the line is cut") {
		t.Errorf("%v is not because %v", err, cut)
	}
	nonsense := reconnect.SignalerFunc(func(context.Context, []byte) ([]byte, error) { return []byte("{}"), nil })
	_, err = connector.Dial(within(t), nonsense)
	wantError(t, err, reconnect.ErrSignalingFailed)
	if !errors.Is(err, reconnect.ErrMalformedJSON) {
		t.Errorf("%v", err)
	}
	failed := until(client, func(e reconnect.ConnectorEvent) bool { return e.State == reconnect.ConnectorFailed })
	if failed.Reason == nil || failed.Peer != nil {
		t.Errorf("%+v", failed)
	}

	// Who gives up ends the exchange; the connector fails, and goes on.
	ctx, cancel := context.WithCancel(context.Background())
	started, ended := make(chan bool, 1), make(chan error, 1)
	slow := reconnect.SignalerFunc(func(ctx context.Context, _ []byte) ([]byte, error) {
		started <- true
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	go func() {
		<-started
		cancel()
	}()
	if _, err := connector.Dial(ctx, slow); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial: %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the exchange: %v", err)
	}
	for i := 0; i < 2; i++ {
		until(client, func(e reconnect.ConnectorEvent) bool { return e.State == reconnect.ConnectorFailed })
	}
	dial(t, connector, client, &line{server: server}, reconnect.ModeNormal)
	_, err = connector.Dial(within(t), nil)
	wantError(t, err, reconnect.ErrInvalidArgument)
}

func TestConnectorsEndWithTheEngine(t *testing.T) {
	client := startClient(t, reconnect.Config{})
	connector := newConnector(t, client, reconnect.ConnectorConfig{})
	started := make(chan bool, 1)
	ended := make(chan bool, 1)
	go func() {
		<-started
		client.Close()
	}()
	_, err := connector.Dial(within(t), reconnect.SignalerFunc(func(ctx context.Context, _ []byte) ([]byte, error) {
		started <- true
		<-ctx.Done()
		ended <- true
		return nil, ctx.Err()
	}))
	wantError(t, err, reconnect.ErrInvalidHandle)
	<-ended
	client.Close() // waits for the other one
	_, err = client.NewConnector(nil)
	wantError(t, err, reconnect.ErrInvalidHandle)
	wantError(t, connector.Forget(), reconnect.ErrInvalidHandle)
	_, err = connector.Cache()
	wantError(t, err, reconnect.ErrInvalidHandle)
	wantError(t, connector.SignalingFailed(1), reconnect.ErrInvalidHandle)
}

func TestBadConnectors(t *testing.T) {
	client := startClient(t, reconnect.Config{})
	for _, config := range []reconnect.ConnectorConfig{
		{Policy: 2},
		{Key: strings.Repeat("k", 257)},
		{Key: "a\x00b"},
		{CachePath: "a\x00b"},
		{FastTimeout: -1},
		{Peer: reconnect.PeerConfig{Channels: []reconnect.ChannelConfig{{Label: "a\x00b"}}}},
		{Peer: reconnect.PeerConfig{Channels: []reconnect.ChannelConfig{{Negotiated: true, ID: 65535}}}},
	} {
		config := config
		_, err := client.NewConnector(&config)
		wantError(t, err, reconnect.ErrInvalidArgument)
	}
}

func TestKillSwitchMakesEverythingNormal(t *testing.T) {
	server, client := startServer(t, reconnect.Config{}), startClient(t, reconnect.Config{})
	to := &line{server: server}
	connector := newConnector(t, client, reconnect.ConnectorConfig{Policy: reconnect.Fallback})
	end(t, dial(t, connector, client, to, reconnect.ModeNormal), client, server)
	for _, setting := range []reconnect.FastReload{reconnect.FastReloadOff, reconnect.FastReloadPartial} {
		if err := server.SetFastReload(setting); err != nil {
			t.Fatal(err)
		}
		thrown := until(server, any_[reconnect.FastReloadEvent])
		if thrown.Setting != setting || thrown.By != reconnect.SwitchHost {
			t.Errorf("%+v", thrown)
		}
		end(t, dial(t, connector, client, to, reconnect.ModeNormal), client, server)
	}
	wantError(t, server.SetFastReload(3), reconnect.ErrInvalidArgument)
}

func TestTicketsOutliveTheCertificate(t *testing.T) {
	server, client := startServer(t, reconnect.Config{}), startClient(t, reconnect.Config{})
	to := &line{server: server}
	connector := newConnector(t, client, reconnect.ConnectorConfig{Policy: reconnect.Fallback})
	end(t, dial(t, connector, client, to, reconnect.ModeNormal), client, server)
	before, err := server.Fingerprint(reconnect.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.RotateCertificate(); err != nil {
		t.Fatal(err)
	}
	changed := until(server, any_[reconnect.CertificateEvent])
	after, err := server.Fingerprint(reconnect.SHA256)
	if err != nil || after == before || changed.Fingerprint != after {
		t.Errorf("%q, then %q, told %q, %v", before, after, changed.Fingerprint, err)
	}
	dial(t, connector, client, to, reconnect.ModeZeroSignaling)
}

func TestMetricsAreText(t *testing.T) {
	c := connect(t, "127.0.0.1")
	metrics, err := c.answerer.Metrics()
	if err != nil || !strings.Contains(metrics, "# TYPE ") || !strings.HasSuffix(metrics, "\n") {
		t.Errorf("%.200q, %v", metrics, err)
	}
	c.answerer.Close()
	_, err = c.answerer.Metrics()
	wantError(t, err, reconnect.ErrInvalidHandle)
	wantError(t, c.answerer.RotateCertificate(), reconnect.ErrInvalidHandle)
}

func TestEnvironmentIsReadWhereAskedFor(t *testing.T) {
	t.Setenv("ENABLE_FAST_RELOAD", "perhaps")
	engine, err := reconnect.NewEngine(nil)
	if err != nil {
		t.Fatal(err)
	}
	engine.Close()
	_, err = reconnect.NewEngineFromEnv(nil)
	wantError(t, err, reconnect.ErrInvalidArgument)
	if !strings.Contains(err.Error(), "ENABLE_FAST_RELOAD") {
		t.Errorf("%v", err)
	}
	t.Setenv("ENABLE_FAST_RELOAD", "false")
	if engine, err = reconnect.NewEngineFromEnv(&reconnect.Config{Addresses: []string{"127.0.0.1"}}); err != nil {
		t.Fatal(err)
	}
	engine.Close()
}

func TestBadSettings(t *testing.T) {
	for _, config := range []reconnect.Config{
		{SessionStore: "ftp://127.0.0.1"},
		{SessionStore: "a\x00b"},
		{SessionPrefix: "\xff"},
		{TicketSecret: make([]byte, 31)},
		{OldTicketSecret: make([]byte, 257)},
		{STUNServers: []string{"127.0.0.1:x"}},
		{STUNServers: make([]string, 33)},
		{PublicAddresses: []string{"a\x00b"}},
		{Interfaces: 16},
		{Trip: reconnect.Trip{FailurePercent: 101}},
		{Trip: reconnect.Trip{Window: -1}},
		{FastTimeout: -1},
		{ReturningPeer: reconnect.PeerConfig{Channels: []reconnect.ChannelConfig{{MaxLifetime: -1}}}},
	} {
		config := config
		_, err := reconnect.NewEngine(&config)
		wantError(t, err, reconnect.ErrInvalidArgument)
	}
	_, err := reconnect.NewEngine(&reconnect.Config{PublicAddresses: []string{"localhost"}})
	wantError(t, err, reconnect.ErrNoAddress)
	engine, err := reconnect.NewEngine(&reconnect.Config{
		SessionStore: "sqlite:" + filepath.Join(t.TempDir(), "sessions.db"), SessionPrefix: "p:", StoreTimeout: time.Second,
		TicketSecret: make([]byte, 32), OldTicketSecret: make([]byte, 256), STUNServers: []string{"127.0.0.1:1"},
		PublicAddresses: []string{"203.0.113.5:4000"}, Interfaces: reconnect.InterfacesLoopback,
		CertificateDays: reconnect.CertificateForever, FastTimeout: time.Second,
		Trip: reconnect.Trip{
			Disabled: true, Window: time.Second, FailurePercent: 1, UnstablePercent: 1, MinAttempts: 1, Rearm: time.Second,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	engine.Close()
}

func TestARevokedSessionIsOver(t *testing.T) {
	server, client := startServer(t, reconnect.Config{}), startClient(t, reconnect.Config{})
	to := &line{server: server}
	connector := newConnector(t, client, reconnect.ConnectorConfig{Policy: reconnect.Fallback})
	if _, err := connector.Dial(within(t), to); err != nil {
		t.Fatal(err)
	}
	session := until(server, any_[reconnect.SessionEvent])
	if err := server.Revoke(session.ClientID); err != nil {
		t.Fatal(err)
	}
	until(client, func(e reconnect.ConnectorEvent) bool { return e.State == reconnect.ConnectorLost })
	connection, err := connector.Dial(within(t), to)
	if err != nil || connection.Mode != reconnect.ModeNormal {
		t.Fatal(connection, err)
	}
	if again := until(server, any_[reconnect.SessionEvent]); again.ClientID == session.ClientID || again.Returned {
		t.Errorf("%+v", again)
	}
	wantError(t, server.Revoke("nobody"), reconnect.ErrInvalidArgument)
}
