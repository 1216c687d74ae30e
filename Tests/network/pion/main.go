// Command pion is one end of a connection with pion, driven as Tests/network/agent.py is:
//
//	pion '{"stun": [...], "turn": [{"url": ..., "username": ..., "password": ...}]}'
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/webrtc/v3"
)

type settings struct {
	STUN []string `json:"stun"`
	TURN []struct {
		URL      string `json:"url"`
		Username string `json:"username"`
		Password string `json:"password"`
	} `json:"turn"`
	Policy int `json:"policy"`
}

type command struct {
	Do      string          `json:"do"`
	Message json.RawMessage `json:"message"`
	Rate    float64         `json:"rate"`
	Count   int             `json:"count"`
}

type members map[string]any

var output sync.Mutex

func tell(event string, more members) {
	output.Lock()
	defer output.Unlock()
	if more == nil {
		more = members{}
	}
	more["event"], more["at"] = event, float64(time.Now().UnixMicro())/1e6
	line, _ := json.Marshal(more)
	fmt.Println(string(line))
}

func problem(what string, err error) {
	if err != nil {
		tell("problem", members{"text": what + ": " + err.Error()})
	}
}

// stream is the numbered messages of both directions.
type stream struct {
	sync.Mutex
	sent, received, expected int
	stop                     chan struct{}
}

func (s *stream) start(rate float64, channel *webrtc.DataChannel) {
	s.Lock()
	defer s.Unlock()
	s.stop = make(chan struct{})
	go func(stop chan struct{}) {
		ticker := time.NewTicker(time.Duration(float64(time.Second) / rate))
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
			}
			s.Lock()
			if s.stop != nil {
				s.sent++
				problem("send", channel.SendText(strconv.Itoa(s.sent)))
			}
			s.Unlock()
		}
	}(s.stop)
}

func (s *stream) halt() {
	s.Lock()
	defer s.Unlock()
	if s.stop != nil {
		close(s.stop)
		s.stop = nil
	}
	tell("halted", members{"sent": s.sent})
}

func (s *stream) take(text string) {
	s.Lock()
	defer s.Unlock()
	if text != strconv.Itoa(s.received+1) {
		tell("problem", members{"text": fmt.Sprintf("message %s came after %d", text, s.received)})
	}
	s.received++
	s.check()
}

func (s *stream) check() {
	if s.expected > 0 && s.received >= s.expected {
		s.expected = 0
		tell("reached", members{"received": s.received})
	}
}

func (s *stream) expect(count int) {
	s.Lock()
	defer s.Unlock()
	s.expected = count
	s.check()
}

type end struct {
	peer    *webrtc.PeerConnection
	channel *webrtc.DataChannel
	stream  stream
	early   []webrtc.ICECandidateInit
}

func (e *end) describe(description webrtc.SessionDescription, err error) {
	if err == nil {
		err = e.peer.SetLocalDescription(description)
	}
	problem("description", err)
	if err == nil {
		tell("signal", members{"message": description})
	}
}

func (e *end) signal(text json.RawMessage) {
	var message struct {
		Type      string                   `json:"type"`
		SDP       string                   `json:"sdp"`
		Candidate *webrtc.ICECandidateInit `json:"candidate"`
	}
	if err := json.Unmarshal(text, &message); err != nil {
		problem("signal", err)
		return
	}
	if message.Type == "" {
		if message.Candidate == nil {
			return
		}
		if e.peer.RemoteDescription() == nil {
			e.early = append(e.early, *message.Candidate)
			return
		}
		problem("candidate", e.peer.AddICECandidate(*message.Candidate))
		return
	}
	remote := webrtc.SessionDescription{Type: webrtc.NewSDPType(message.Type), SDP: message.SDP}
	problem("remote description", e.peer.SetRemoteDescription(remote))
	for _, candidate := range e.early {
		problem("candidate", e.peer.AddICECandidate(candidate))
	}
	e.early = nil
	if message.Type == "offer" {
		e.describe(e.peer.CreateAnswer(nil))
	}
}

func (e *end) statistics() {
	figures := members{"local_type": "", "remote_type": "", "transport": "", "relay_transport": ""}
	if pair, err := e.peer.SCTP().Transport().ICETransport().GetSelectedCandidatePair(); err == nil && pair != nil {
		figures["local_type"], figures["remote_type"] = pair.Local.Typ.String(), pair.Remote.Typ.String()
		figures["transport"] = pair.Local.Protocol.String()
	}
	tell("statistics", figures)
}

func (e *end) obey(c command) {
	switch c.Do {
	case "begin":
		e.describe(e.peer.CreateOffer(nil))
	case "restart":
		e.describe(e.peer.CreateOffer(&webrtc.OfferOptions{ICERestart: true}))
	case "signal":
		e.signal(c.Message)
	case "send":
		e.stream.start(c.Rate, e.channel)
	case "halt":
		e.stream.halt()
	case "expect":
		e.stream.expect(c.Count)
	case "statistics":
		e.statistics()
	}
}

func open(text string) (*end, error) {
	var wanted settings
	if err := json.Unmarshal([]byte(text), &wanted); err != nil {
		return nil, err
	}
	configuration := webrtc.Configuration{}
	for _, url := range wanted.STUN {
		configuration.ICEServers = append(configuration.ICEServers, webrtc.ICEServer{URLs: []string{url}})
	}
	for _, server := range wanted.TURN {
		configuration.ICEServers = append(configuration.ICEServers, webrtc.ICEServer{
			URLs: []string{server.URL}, Username: server.Username, Credential: server.Password,
		})
	}
	if wanted.Policy == 2 {
		configuration.ICETransportPolicy = webrtc.ICETransportPolicyRelay
	}
	var engine webrtc.SettingEngine
	engine.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	peer, err := webrtc.NewAPI(webrtc.WithSettingEngine(engine)).NewPeerConnection(configuration)
	if err != nil {
		return nil, err
	}
	e := &end{peer: peer}
	peer.OnICECandidate(func(candidate *webrtc.ICECandidate) {
		if candidate == nil {
			tell("signal", members{"message": members{"candidate": nil}})
		} else {
			tell("signal", members{"message": members{"candidate": candidate.ToJSON()}})
		}
	})
	peer.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		tell("state", members{"state": state.String()})
	})
	negotiated, id := true, uint16(0)
	e.channel, err = peer.CreateDataChannel("stream", &webrtc.DataChannelInit{Negotiated: &negotiated, ID: &id})
	if err != nil {
		return nil, err
	}
	e.channel.OnOpen(func() { tell("open", nil) })
	e.channel.OnClose(func() { tell("channel closed", nil) })
	e.channel.OnMessage(func(message webrtc.DataChannelMessage) { e.stream.take(string(message.Data)) })
	return e, nil
}

func main() {
	e, err := open(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	tell("ready", nil)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		e.obey(c)
	}
	_ = e.peer.Close()
}
