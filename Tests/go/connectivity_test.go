package tests

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"reconnect"
)

func TestConfiguresPathsAndRefusesNonsense(t *testing.T) {
	good := reconnect.Config{
		Addresses: []string{"127.0.0.1"},
		TURNServers: []reconnect.TURNServer{
			{URL: "turn:127.0.0.1:1"},
			{URL: "turn:127.0.0.1:1?transport=tcp", Username: "ann", Password: "north", Lifetime: time.Hour},
			{URL: "turns:[::1]:1", Secret: "north"},
		},
		DeniedInterfaces: []string{"wlan*", "192.0.2.0/24"},
		ICEPolicy:        reconnect.ICEPolicyAll,
		DisableMDNS:      true,
		Timers: reconnect.Timers{
			CheckInterval: 5 * time.Millisecond, DisableStandby: true, DisableRestarts: true, RestartMax: time.Minute,
			Heartbeat: time.Second,
		},
	}
	startHost(t, "good", good)
	for name, each := range map[string]struct {
		change func(*reconnect.Config)
		words  string
	}{
		"a URL":               {func(c *reconnect.Config) { c.TURNServers[1].URL = "stun:a" }, "turn_servers[1].url"},
		"no URL":              {func(c *reconnect.Config) { c.TURNServers[2].URL = "" }, "turn_servers[2].url"},
		"half of credentials": {func(c *reconnect.Config) { c.TURNServers[1].Password = "" }, "turn_servers[1].username"},
		"both credentials":    {func(c *reconnect.Config) { c.TURNServers[1].Secret = "s" }, "exclude"},
		"a zero byte":         {func(c *reconnect.Config) { c.TURNServers[1].Password = "a\x00b" }, "zero byte"},
		"a lifetime":          {func(c *reconnect.Config) { c.TURNServers[0].Lifetime = -1 }, "Lifetime"},
		"too many": {func(c *reconnect.Config) {
			c.TURNServers = make([]reconnect.TURNServer, 33)
		}, "turn_servers"},
		"a pattern":         {func(c *reconnect.Config) { c.AllowedInterfaces = []string{"eth0/24"} }, "allowed_interfaces"},
		"an empty pattern":  {func(c *reconnect.Config) { c.DeniedInterfaces = []string{""} }, "denied_interfaces"},
		"a policy":          {func(c *reconnect.Config) { c.ICEPolicy = 3 }, "ice_policy"},
		"TCP":               {func(c *reconnect.Config) { c.TCP = 4 }, "tcp"},
		"a check interval":  {func(c *reconnect.Config) { c.Timers.CheckInterval = time.Millisecond }, "check_interval_ms"},
		"a heartbeat":       {func(c *reconnect.Config) { c.Timers.Heartbeat = 5 * time.Second }, "heartbeat_ms"},
		"a pause":           {func(c *reconnect.Config) { c.Timers.RestartMin = time.Hour }, "restart_min_ms"},
		"a negative time":   {func(c *reconnect.Config) { c.Timers.Suspect = -time.Second }, "Suspect"},
		"a file of nothing": {func(c *reconnect.Config) { c.TURNCAPath = "a\x00" }, "TURNCAPath"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := good
			bad.TURNServers = append([]reconnect.TURNServer(nil), good.TURNServers...)
			each.change(&bad)
			engine, err := reconnect.NewEngine(&bad)
			if err == nil {
				engine.Close()
			}
			wantError(t, err, reconnect.ErrInvalidArgument)
			if !strings.Contains(err.Error(), each.words) {
				t.Errorf("%v does not say %q", err, each.words)
			}
		})
	}
}

func TestReplacesServersAndTimersWhileRunning(t *testing.T) {
	h := startHost(t, "host", reconnect.Config{})
	server := reconnect.TURNServer{URL: "turn:127.0.0.1:1", Secret: "north"}
	if err := h.SetTURNServers(server, server); err != nil {
		t.Error(err)
	}
	err := h.SetTURNServers(server, reconnect.TURNServer{URL: "turn:127.0.0.1:1", Username: "ann\n", Password: "p"})
	wantError(t, err, reconnect.ErrInvalidArgument)
	if !strings.Contains(err.Error(), "servers[1].username") {
		t.Error(err)
	}
	if err := h.SetTURNServers(); err != nil {
		t.Error(err)
	}
	if err := h.SetTimers(reconnect.Timers{Suspect: 100 * time.Millisecond, FailedTimeout: time.Minute}); err != nil {
		t.Error(err)
	}
	wantError(t, h.SetTimers(reconnect.Timers{RestartMax: time.Microsecond}), reconnect.ErrInvalidArgument)
	if err := h.SetTimers(reconnect.Timers{}); err != nil {
		t.Error(err)
	}
}

// The password is base64(HMAC-SHA1(secret, user name)), as coturn computes it.
func TestMakesCredentialsThatCoturnTakes(t *testing.T) {
	for _, user := range []string{"", "ann", strings.Repeat("u", 256), "ä:b"} {
		before := time.Now()
		username, password, err := reconnect.TURNCredentials("north", user, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		digits, rest, _ := strings.Cut(username, ":")
		expiry, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || rest != user {
			t.Fatalf("user name %q", username)
		}
		if left := time.Unix(expiry, 0).Sub(before); left < time.Hour-time.Second || left > time.Hour+time.Minute {
			t.Errorf("good for %v", left)
		}
		sum := hmac.New(sha1.New, []byte("north"))
		sum.Write([]byte(username))
		if want := base64.StdEncoding.EncodeToString(sum.Sum(nil)); password != want {
			t.Errorf("password %q, want %q", password, want)
		}
	}
	for _, bad := range [][2]string{{"", "ann"}, {"north", "a\nb"}, {"north", "a\x00"}, {"north", strings.Repeat("u", 496)}} {
		_, _, err := reconnect.TURNCredentials(bad[0], bad[1], 0)
		wantError(t, err, reconnect.ErrInvalidArgument)
	}
	if _, _, err := reconnect.TURNCredentials("north", "", -time.Second); !errors.Is(err, reconnect.ErrInvalidArgument) {
		t.Error(err)
	}
}

func TestTellsTheTwoWaysOfNegotiatingApart(t *testing.T) {
	h := startHost(t, "host", reconnect.Config{})
	manual, err := h.NewPeer(nil)
	if err != nil {
		t.Fatal(err)
	}
	end := []byte(`{"candidate":null}`)
	wantError(t, manual.Signal(end), reconnect.ErrWrongState)
	wantError(t, manual.Restart(), reconnect.ErrWrongState)
	polite, err := h.NewPeer(&reconnect.PeerConfig{Negotiation: reconnect.NegotiationPolite})
	if err != nil {
		t.Fatal(err)
	}
	_, err = polite.Offer(within(t))
	wantError(t, err, reconnect.ErrWrongState)
	wantError(t, polite.Accept(within(t), []byte(`{}`)), reconnect.ErrWrongState)
	wantError(t, polite.Signal([]byte(`{"type":"offer"`)), reconnect.ErrMalformedJSON)
	wantError(t, polite.Signal(nil), reconnect.ErrMalformedJSON)
	wantError(t, polite.Signal([]byte(`{"type":"offer","sdp":"nonsense"}`)), reconnect.ErrMalformedSDP)
	if err := polite.Signal(end); err != nil {
		t.Error(err)
	}
	for _, config := range []reconnect.PeerConfig{{Negotiation: 3}, {ICEPolicy: 3}} {
		_, err := h.NewPeer(&config)
		wantError(t, err, reconnect.ErrInvalidArgument)
	}
	if err := polite.Close(); err != nil {
		t.Fatal(err)
	}
	until(h, func(e reconnect.PeerStateEvent) bool { return e.Peer == polite && e.State == reconnect.PeerClosed })
	wantError(t, polite.Signal(end), reconnect.ErrInvalidHandle)
	wantError(t, polite.Restart(), reconnect.ErrInvalidHandle)
}

func TestNamesWhatIsNewIn13(t *testing.T) {
	for status, name := range map[reconnect.Status]string{
		reconnect.StatusTURNUnreachable: "TURN_UNREACHABLE", reconnect.StatusTURNUnauthorized: "TURN_UNAUTHORIZED",
		reconnect.StatusTURNForbidden: "TURN_FORBIDDEN", reconnect.StatusTURNQuota: "TURN_QUOTA",
		reconnect.StatusTURNTLSFailed: "TURN_TLS_FAILED", reconnect.StatusTURNLost: "TURN_LOST",
		reconnect.StatusTURNMalformed: "TURN_MALFORMED", reconnect.StatusTURNRefused: "TURN_REFUSED",
	} {
		if status.String() != name || status.Text() == "unknown status" {
			t.Errorf("%d is %q: %q", int32(status), status, status.Text())
		}
	}
	if reconnect.PathFailover.String() != "failover" || reconnect.RestartGivenUp.String() != "given up" ||
		reconnect.TURNCredentialsNeeded.String() != "credentials" {
		t.Error("names of states")
	}
}

// pair is two peers that negotiate by themselves; the test carries their messages.
type pair struct {
	t                          *testing.T
	polite, impolite           *host
	politePeer, impolitePeer   *reconnect.Peer
	politeTexts, impoliteTexts []string
	paths                      map[*reconnect.Peer][]reconnect.PathEvent
	restarts                   map[*reconnect.Peer][]reconnect.RestartEvent
	open                       map[*reconnect.Peer]bool
}

func newPair(t *testing.T) *pair {
	p := &pair{
		t: t, polite: startHost(t, "polite", reconnect.Config{}), impolite: startHost(t, "impolite", reconnect.Config{}),
		paths: make(map[*reconnect.Peer][]reconnect.PathEvent), open: make(map[*reconnect.Peer]bool),
		restarts: make(map[*reconnect.Peer][]reconnect.RestartEvent),
	}
	var err error
	config := reconnect.PeerConfig{Channels: []reconnect.ChannelConfig{echoChannel}, Negotiation: reconnect.NegotiationPolite}
	if p.politePeer, err = p.polite.NewPeer(&config); err != nil {
		t.Fatal(err)
	}
	config.Negotiation = reconnect.NegotiationImpolite
	if p.impolitePeer, err = p.impolite.NewPeer(&config); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pair) other(peer *reconnect.Peer) *reconnect.Peer {
	if peer == p.politePeer {
		return p.impolitePeer
	}
	return p.politePeer
}

// turn takes one event of either side and serves it.
func (p *pair) turn() {
	p.t.Helper()
	var event reconnect.Event
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	select {
	case event = <-p.polite.Events():
	case event = <-p.impolite.Events():
	case <-deadline.C:
		p.t.Fatal("nothing happened")
	}
	switch event := event.(type) {
	case reconnect.PeerSignalEvent:
		var kind struct{ Type string }
		if err := json.Unmarshal(event.Message, &kind); err != nil {
			p.t.Fatalf("%v: %s", err, event.Message)
		}
		if err := p.other(event.Peer).Signal(event.Message); err != nil {
			p.t.Fatalf("Signal: %v: %s", err, event.Message)
		}
	case reconnect.ChannelOpenEvent:
		p.open[event.Channel.Peer()] = true
	case reconnect.PathEvent:
		p.paths[event.Peer] = append(p.paths[event.Peer], event)
	case reconnect.RestartEvent:
		p.restarts[event.Peer] = append(p.restarts[event.Peer], event)
	case reconnect.PeerStateEvent:
		if event.State == reconnect.PeerClosed {
			p.t.Fatalf("a peer closed: %v %s", event.Reason, event.Detail)
		}
	case reconnect.MessageEvent:
		if event.Channel.Peer() == p.politePeer {
			p.politeTexts = append(p.politeTexts, string(event.Data))
		} else {
			p.impoliteTexts = append(p.impoliteTexts, string(event.Data))
		}
	case nil:
		p.t.Fatal("the events have ended")
	}
}

func (p *pair) until(what string, done func() bool) {
	p.t.Helper()
	for end := time.Now().Add(patience); !done(); p.turn() {
		if time.Now().After(end) {
			p.t.Fatalf("%s: it did not come to that", what)
		}
	}
}

func (p *pair) connect(begin ...*reconnect.Peer) {
	p.t.Helper()
	for _, peer := range begin {
		if err := peer.Restart(); err != nil {
			p.t.Fatal(err)
		}
	}
	p.until("connected", func() bool { return p.open[p.politePeer] && p.open[p.impolitePeer] })
}

func (p *pair) recovered(peer *reconnect.Peer) bool {
	for _, event := range p.restarts[peer] {
		if event.State == reconnect.RestartRecovered {
			return true
		}
	}
	return false
}

func TestNegotiatesByItself(t *testing.T) {
	for name, begin := range map[string]func(*pair) []*reconnect.Peer{
		"the polite side begins":   func(p *pair) []*reconnect.Peer { return []*reconnect.Peer{p.politePeer} },
		"the impolite side begins": func(p *pair) []*reconnect.Peer { return []*reconnect.Peer{p.impolitePeer} },
		"both begin": func(p *pair) []*reconnect.Peer {
			return []*reconnect.Peer{p.politePeer, p.impolitePeer}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.connect(begin(p)...)
			if err := p.politePeer.Channels()[0].SendText("there"); err != nil {
				t.Fatal(err)
			}
			if err := p.impolitePeer.Channels()[0].SendText("back"); err != nil {
				t.Fatal(err)
			}
			p.until("messages", func() bool { return len(p.politeTexts) == 1 && len(p.impoliteTexts) == 1 })
			p.until("paths", func() bool { return len(p.paths[p.politePeer]) > 0 && len(p.paths[p.impolitePeer]) > 0 })
			path := p.paths[p.politePeer][0]
			if path.Change != reconnect.PathFirst || !strings.HasPrefix(path.Local, "candidate:") ||
				!strings.Contains(path.Remote, " typ ") || path.Paths != 1 {
				t.Errorf("the first path: %+v", path)
			}
		})
	}
}

// Numbered messages run both ways while ICE restarts from either side: none is lost, doubled or out of order.
func TestRestartsUnderAStreamOfMessages(t *testing.T) {
	p := newPair(t)
	p.connect(p.impolitePeer)
	const count = 600
	for i := 0; i < count; i++ {
		for _, peer := range []*reconnect.Peer{p.politePeer, p.impolitePeer} {
			if err := peer.Channels()[0].SendText(strconv.Itoa(i)); err != nil {
				t.Fatal(err)
			}
		}
		switch i {
		case 100:
			if err := p.politePeer.Restart(); err != nil {
				t.Fatal(err)
			}
		case 300:
			if err := p.impolitePeer.Restart(); err != nil {
				t.Fatal(err)
			}
			if err := p.politePeer.Restart(); err != nil { // at once: glare
				t.Fatal(err)
			}
		}
		if i%100 == 99 {
			p.until("messages on the way", func() bool { return len(p.impoliteTexts) > i-50 && len(p.politeTexts) > i-50 })
		}
	}
	p.until("all messages", func() bool { return len(p.politeTexts) >= count && len(p.impoliteTexts) >= count })
	for i := 0; i < count; i++ {
		if want := strconv.Itoa(i); p.politeTexts[i] != want || p.impoliteTexts[i] != want {
			t.Fatalf("message %d: %q and %q", i, p.politeTexts[i], p.impoliteTexts[i])
		}
	}
	p.until("recovered", func() bool { return p.recovered(p.politePeer) && p.recovered(p.impolitePeer) })
	// The answers need somebody who reads the events.
	figures := make(chan reconnect.PeerStatistics, 1)
	go func() {
		result, err := p.politePeer.Statistics(within(t))
		if err != nil {
			t.Error(err)
		}
		figures <- result
		p.polite.SetTimers(reconnect.Timers{})
	}()
	for {
		select {
		case got := <-figures:
			if got.Generation == 0 || got.Restarts == 0 || got.Transport != "udp" || got.LocalType == "" {
				t.Errorf("statistics: %+v", got)
			}
			return
		case <-p.polite.Events():
		case <-p.impolite.Events():
		}
	}
}

func TestCarriesMessagesByCallback(t *testing.T) {
	one, other := startHost(t, "one", reconnect.Config{}), startHost(t, "other", reconnect.Config{})
	to := make(map[*reconnect.Engine]chan []byte)
	to[one.Engine], to[other.Engine] = make(chan []byte, 64), make(chan []byte, 64)
	carry := func(peer *reconnect.Peer, message []byte) {
		if peer.Engine() == one.Engine {
			to[other.Engine] <- message
		} else {
			to[one.Engine] <- message
		}
	}
	config := reconnect.PeerConfig{
		Channels: []reconnect.ChannelConfig{echoChannel}, Negotiation: reconnect.NegotiationPolite, OnSignal: carry,
	}
	polite, err := one.NewPeer(&config)
	if err != nil {
		t.Fatal(err)
	}
	config.Negotiation = reconnect.NegotiationImpolite
	impolite, err := other.NewPeer(&config)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	defer close(done)
	for _, peer := range []*reconnect.Peer{polite, impolite} {
		go func(peer *reconnect.Peer) {
			for {
				select {
				case message := <-to[peer.Engine()]:
					if err := peer.Signal(message); err != nil {
						t.Error(err)
					}
				case <-done:
					return
				}
			}
		}(peer)
	}
	if err := polite.Restart(); err != nil {
		t.Fatal(err)
	}
	until(one, any_[reconnect.ChannelOpenEvent])
	until(other, any_[reconnect.ChannelOpenEvent])
}

// A message that is well-formed and cannot be accepted is told, and the peer goes on as if it had not come.
func TestTellsWhatAPeerRefuses(t *testing.T) {
	p := newPair(t)
	if err := p.impolitePeer.Restart(); err != nil {
		t.Fatal(err)
	}
	offer := until(p.impolite, any_[reconnect.PeerSignalEvent]).Message
	var message map[string]any
	if err := json.Unmarshal(offer, &message); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, line := range strings.Split(message["sdp"].(string), "\r\n") {
		if !strings.HasPrefix(line, "a=fingerprint:") {
			lines = append(lines, line)
		}
	}
	message["sdp"] = strings.Join(lines, "\r\n")
	bad, err := json.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.politePeer.Signal(bad); err != nil {
		t.Fatal(err)
	}
	refused := until(p.polite, any_[reconnect.SignalRefusedEvent])
	wantError(t, refused.Reason, reconnect.ErrUnacceptable)
	if refused.Peer != p.politePeer {
		t.Error("another peer refuses")
	}
	if err := p.politePeer.Signal(offer); err != nil {
		t.Fatal(err)
	}
	p.until("connected", func() bool { return p.open[p.politePeer] && p.open[p.impolitePeer] })
}
