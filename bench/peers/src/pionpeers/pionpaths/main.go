// Pionpaths is one end of a connection whose path dies, or whose path is a relay. It follows lines on standard input
// and writes lines to standard output; bench/paths.py has the other end, carries the signaling and breaks the path.
//
//	--role offer|answer   who begins, and restarts ICE
//	--echo                measure a connect instead of sending numbered messages: the offerer sends one message as
//	                      soon as it can, the answerer sends it back
//	--disconnected, --failed, --keepalive   pion's ICE timeouts (0: its defaults, 5 s, 25 s, 2 s)
//	--turn URL --user NAME --password TEXT  a TURN server, and the policy "relay"
//	--relay-wait          how long a relay's pair waits for better ones before it is nominated (0 or pion's default, 2 s)
//
// Lines in: G begin; S JSON: a message of the other end; ?: how many were received and sent; T: stop sending; D: all
// measurements; X: close and forget. Lines out: S JSON; "E TIME NAME": an event; the answers to ?, T and D.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/transport/v2"
	"github.com/pion/transport/v2/stdnet"
	"github.com/pion/webrtc/v3"

	"pionpeers/measure"
)

const (
	interval     = 10 * time.Millisecond
	messageBytes = 100
)

type signal struct {
	Description *webrtc.SessionDescription `json:"description,omitempty"`
	Candidate   *webrtc.ICECandidateInit   `json:"candidate,omitempty"`
}

type record struct {
	Arrivals []float64       `json:"arrivals"`
	Events   [][]interface{} `json:"events"`
	Sent     int             `json:"sent"`
	Received int             `json:"received"`
	Wrong    int             `json:"wrong"`
	Pair     string          `json:"pair"`
}

// end has one connection at a time.
type end struct {
	api           *webrtc.API
	configuration webrtc.Configuration
	offers, echo  bool

	lock    sync.Mutex // of everything below
	peer    *webrtc.PeerConnection
	waiting []webrtc.ICECandidateInit
	isOver  bool
	record  record
}

// freshNet asks for the interfaces whenever they are needed. Pion's own network keeps those of the beginning: a restart
// would look for a path from addresses that are gone.
type freshNet struct{ *stdnet.Net }

func (freshNet) Interfaces() ([]*transport.Interface, error) {
	now, err := stdnet.NewNet()
	if err != nil {
		return nil, err
	}
	return now.Interfaces()
}

var output sync.Mutex

func say(format string, arguments ...interface{}) {
	line := fmt.Sprintf(format, arguments...)
	output.Lock()
	defer output.Unlock()
	os.Stdout.WriteString(line + "\n")
}

func main() {
	role := flag.String("role", "answer", "offer or answer")
	echo := flag.Bool("echo", false, "measure a connect")
	disconnected := flag.Duration("disconnected", 0, "until a silent path is told of")
	failed := flag.Duration("failed", 0, "until it is given up")
	keepalive := flag.Duration("keepalive", 0, "between requests on the path in use")
	server := flag.String("turn", "", "`URL` of a TURN server: relay only")
	user := flag.String("user", "", "its user")
	password := flag.String("password", "", "and password")
	relayWait := flag.Duration("relay-wait", 2*time.Second, "before a relay's pair is nominated")
	flag.Parse()

	network, err := stdnet.NewNet()
	if err != nil {
		measure.Fail("%v", err)
	}
	settings := webrtc.SettingEngine{}
	settings.SetNet(freshNet{network})
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	settings.SetRelayAcceptanceMinWait(*relayWait)
	if *disconnected > 0 {
		settings.SetICETimeouts(*disconnected, *failed, *keepalive)
	}
	this := &end{offers: *role == "offer", echo: *echo}
	this.api = webrtc.NewAPI(webrtc.WithSettingEngine(settings))
	if *server != "" {
		this.configuration.ICETransportPolicy = webrtc.ICETransportPolicyRelay
		this.configuration.ICEServers = []webrtc.ICEServer{{URLs: []string{*server}, Username: *user, Credential: *password}}
	}
	say("ready")
	this.obey()
}

func (e *end) obey() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<16), 1<<20)
	for lines.Scan() {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "G":
			e.begin()
		case "S":
			e.receive([]byte(rest))
		case "?":
			e.lock.Lock()
			say("? %d %d", e.record.Received, e.record.Sent)
			e.lock.Unlock()
		case "T":
			e.lock.Lock()
			e.isOver = true
			say("T %d", e.record.Sent)
			e.lock.Unlock()
		case "D":
			e.dump()
		case "X":
			e.close()
		}
	}
}

// --------------------------------------------------------------------------- the connection

func (e *end) begin() {
	e.lock.Lock()
	e.record = record{Arrivals: []float64{}, Events: [][]interface{}{}}
	e.isOver = false
	e.lock.Unlock()
	e.event("begin")
	if e.offers {
		e.makePeer()
		channel, err := e.peer.CreateDataChannel("numbers", nil)
		if err != nil {
			measure.Fail("%v", err)
		}
		e.use(e.peer, channel)
		e.offer(e.peer, nil)
	}
}

func (e *end) makePeer() {
	peer, err := e.api.NewPeerConnection(e.configuration)
	if err != nil {
		measure.Fail("%v", err)
	}
	peer.OnICECandidate(func(candidate *webrtc.ICECandidate) {
		if candidate != nil {
			init := candidate.ToJSON()
			e.send(signal{Candidate: &init})
		}
	})
	peer.OnICEConnectionStateChange(func(state webrtc.ICEConnectionState) {
		e.event(state.String())
		// What pion's users do: the side that offered restarts as soon as it is told.
		lost := state == webrtc.ICEConnectionStateDisconnected || state == webrtc.ICEConnectionStateFailed
		if lost && e.offers && peer.SignalingState() == webrtc.SignalingStateStable {
			e.event("restart")
			e.offer(peer, &webrtc.OfferOptions{ICERestart: true})
		}
	})
	peer.OnDataChannel(func(channel *webrtc.DataChannel) { e.use(peer, channel) })
	e.lock.Lock()
	e.peer = peer
	e.waiting = nil
	e.lock.Unlock()
}

func (e *end) close() {
	e.lock.Lock()
	peer := e.peer
	e.peer = nil
	e.isOver = true
	e.lock.Unlock()
	if peer != nil {
		peer.Close()
	}
	say("X")
}

func (e *end) offer(peer *webrtc.PeerConnection, options *webrtc.OfferOptions) {
	description, err := peer.CreateOffer(options)
	if err == nil {
		err = peer.SetLocalDescription(description)
	}
	if err != nil {
		e.event("error " + err.Error())
		return
	}
	e.send(signal{Description: &description})
}

func (e *end) send(message signal) {
	text, err := json.Marshal(message)
	if err != nil {
		measure.Fail("%v", err)
	}
	say("S %s", text)
}

func (e *end) receive(text []byte) {
	var message signal
	if err := json.Unmarshal(text, &message); err != nil {
		measure.Fail("%v", err)
	}
	if e.peer == nil && message.Description != nil && message.Description.Type == webrtc.SDPTypeOffer {
		e.makePeer()
	}
	if e.peer == nil {
		return
	}
	if err := e.take(message); err != nil {
		e.event("error " + err.Error())
	}
}

func (e *end) take(message signal) error {
	if message.Candidate != nil {
		if e.peer.RemoteDescription() == nil {
			e.waiting = append(e.waiting, *message.Candidate)
			return nil
		}
		return e.peer.AddICECandidate(*message.Candidate)
	}
	if err := e.peer.SetRemoteDescription(*message.Description); err != nil {
		return err
	}
	for _, candidate := range e.waiting {
		if err := e.peer.AddICECandidate(candidate); err != nil {
			return err
		}
	}
	e.waiting = nil
	if message.Description.Type != webrtc.SDPTypeOffer {
		return nil
	}
	answer, err := e.peer.CreateAnswer(nil)
	if err != nil {
		return err
	}
	// Candidates come while this runs: the answer must be ahead of them.
	if err := e.peer.SetLocalDescription(answer); err != nil {
		return err
	}
	e.send(signal{Description: &answer})
	return nil
}

// --------------------------------------------------------------------------- messages

func (e *end) use(peer *webrtc.PeerConnection, channel *webrtc.DataChannel) {
	channel.OnOpen(func() {
		e.event("open")
		if !e.echo {
			go e.stream(peer, channel)
		} else if e.offers {
			channel.SendText("x")
		}
	})
	channel.OnMessage(func(message webrtc.DataChannelMessage) {
		now := measure.Now()
		switch {
		case !e.echo:
			e.count(message.Data, now)
		case e.offers:
			e.event("echo")
		default:
			channel.SendText("x")
		}
	})
}

func (e *end) count(data []byte, now float64) {
	e.lock.Lock()
	defer e.lock.Unlock()
	if len(data) != messageBytes || binary.BigEndian.Uint32(data) != uint32(e.record.Received) {
		e.record.Wrong++
	}
	e.record.Received++
	e.record.Arrivals = append(e.record.Arrivals, now)
}

func (e *end) stream(peer *webrtc.PeerConnection, channel *webrtc.DataChannel) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	message := make([]byte, messageBytes)
	start := time.Now()
	for range ticker.C {
		// As many as are due: a tick that was late is made up for.
		for due := int(time.Since(start) / interval); ; {
			e.lock.Lock()
			number, stops := e.record.Sent, e.isOver || e.peer != peer
			if !stops && number < due {
				e.record.Sent++
			}
			e.lock.Unlock()
			if stops {
				return
			}
			if number >= due {
				break
			}
			binary.BigEndian.PutUint32(message, uint32(number))
			if err := channel.Send(message); err != nil {
				e.event("error " + err.Error())
				return
			}
		}
	}
}

// --------------------------------------------------------------------------- measurements

func (e *end) event(name string) {
	now := measure.Now()
	e.lock.Lock()
	e.record.Events = append(e.record.Events, []interface{}{now, name})
	e.lock.Unlock()
	say("E %.6f %s", now, name)
}

func (e *end) dump() {
	e.lock.Lock()
	defer e.lock.Unlock()
	if e.peer != nil && e.peer.SCTP() != nil {
		if pair, err := e.peer.SCTP().Transport().ICETransport().GetSelectedCandidatePair(); err == nil && pair != nil {
			e.record.Pair = fmt.Sprintf("%s %s:%d %s %s:%d", pair.Local.Typ, pair.Local.Address, pair.Local.Port,
				pair.Remote.Typ, pair.Remote.Address, pair.Remote.Port)
		}
	}
	text, err := json.Marshal(e.record)
	if err != nil {
		measure.Fail("%v", err)
	}
	say("D %s", text)
}
