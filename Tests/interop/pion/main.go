// Command pion tries one scenario with pion as the offerer against an example host:
//
//	pion -url http://127.0.0.1:8080/ sizes|order|channels|unordered|unreliable|close|returns
//
// It ends with status 0, or with 1 and a sentence on what went wrong.
package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/webrtc/v3"
)

const deadline = 20 * time.Second

type offer struct {
	Type         string `json:"type"`
	SDP          string `json:"sdp"`
	SessionToken string `json:"sessionToken,omitempty"`
}

type answer struct {
	Type           string `json:"type"`
	SDP            string `json:"sdp"`
	ConnectionMode string `json:"connectionMode"`
	SessionToken   string `json:"sessionToken"`
}

// channel is a data channel whose messages and states can be waited for.
type channel struct {
	*webrtc.DataChannel
	got    chan webrtc.DataChannelMessage
	opened chan struct{}
	closed chan struct{}
}

func watch(dc *webrtc.DataChannel) *channel {
	c := &channel{dc, make(chan webrtc.DataChannelMessage, 4096), make(chan struct{}), make(chan struct{})}
	dc.OnOpen(func() { close(c.opened) })
	dc.OnClose(func() { close(c.closed) })
	dc.OnMessage(func(m webrtc.DataChannelMessage) { c.got <- m })
	return c
}

func wait(signal <-chan struct{}, what string) error {
	select {
	case <-signal:
		return nil
	case <-time.After(deadline):
		return fmt.Errorf("waited too long for %s", what)
	}
}

func (c *channel) next() (webrtc.DataChannelMessage, error) {
	select {
	case m := <-c.got:
		return m, nil
	case <-time.After(deadline):
		return webrtc.DataChannelMessage{}, fmt.Errorf("waited too long for a message on %q", c.Label())
	}
}

func (c *channel) send(m webrtc.DataChannelMessage) error {
	if m.IsString {
		return c.SendText(string(m.Data))
	}
	return c.Send(m.Data)
}

func (c *channel) echo(m webrtc.DataChannelMessage) error {
	if err := c.send(m); err != nil {
		return err
	}
	got, err := c.next()
	if err != nil {
		return err
	}
	return compare(m, got)
}

func compare(sent, got webrtc.DataChannelMessage) error {
	if sent.IsString != got.IsString || !bytes.Equal(sent.Data, got.Data) {
		return fmt.Errorf("%d bytes (text: %v) came back as %d bytes (text: %v)",
			len(sent.Data), sent.IsString, len(got.Data), got.IsString)
	}
	return nil
}

func text(s string) webrtc.DataChannelMessage {
	return webrtc.DataChannelMessage{IsString: true, Data: []byte(s)}
}

func message(size int, isString bool) webrtc.DataChannelMessage {
	if isString {
		return text(strings.Repeat("aé€😀", size/10) + strings.Repeat("x", size%10))
	}
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i*31 + size)
	}
	return webrtc.DataChannelMessage{Data: data}
}

type client struct {
	peer    *webrtc.PeerConnection
	channel *channel
	answer  answer
}

func newCertificate() (*webrtc.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return webrtc.GenerateCertificate(key)
}

// connect gives a client whose negotiated channel 1 is open.
func connect(url string, certificate *webrtc.Certificate, token string) (*client, error) {
	var settings webrtc.SettingEngine
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	configuration := webrtc.Configuration{}
	if certificate != nil {
		configuration.Certificates = []webrtc.Certificate{*certificate}
	}
	peer, err := webrtc.NewAPI(webrtc.WithSettingEngine(settings)).NewPeerConnection(configuration)
	if err != nil {
		return nil, err
	}
	c := &client{peer: peer}
	if err := c.connect(url, token); err != nil {
		peer.Close()
		return nil, err
	}
	return c, nil
}

func (c *client) connect(url, token string) error {
	negotiated, id := true, uint16(1)
	dc, err := c.peer.CreateDataChannel("echo", &webrtc.DataChannelInit{Negotiated: &negotiated, ID: &id})
	if err != nil {
		return err
	}
	c.channel = watch(dc)
	local, err := c.peer.CreateOffer(nil)
	if err != nil {
		return err
	}
	// Candidates are not waited for: the host learns the address from the checks.
	if err := c.peer.SetLocalDescription(local); err != nil {
		return err
	}
	body, err := json.Marshal(offer{"offer", local.SDP, token})
	if err != nil {
		return err
	}
	response, err := http.Post(url+"offer", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP %d: %s", response.StatusCode, body)
	}
	if err := json.Unmarshal(body, &c.answer); err != nil {
		return err
	}
	remote := webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: c.answer.SDP}
	if err := c.peer.SetRemoteDescription(remote); err != nil {
		return err
	}
	return wait(c.channel.opened, "the negotiated channel")
}

func (c *client) open(label string, init *webrtc.DataChannelInit) (*channel, error) {
	dc, err := c.peer.CreateDataChannel(label, init)
	if err != nil {
		return nil, err
	}
	made := watch(dc)
	return made, wait(made.opened, "channel "+strconv.Quote(label))
}

// sizes: pion v3 cannot receive a message of 65536 bytes or more.
func sizes(c *client) error {
	inBand, err := c.open("sizes", nil)
	if err != nil {
		return err
	}
	for _, on := range []*channel{c.channel, inBand} {
		for _, size := range []int{0, 1, 1200, 16384, 65535} {
			for _, isString := range []bool{true, false} {
				if err := on.echo(message(size, isString)); err != nil {
					return fmt.Errorf("%s, size %d: %w", on.Label(), size, err)
				}
			}
		}
	}
	return nil
}

func order(c *client) error {
	var sent []webrtc.DataChannelMessage
	for i := 0; i < 300; i++ {
		sent = append(sent, message(i*53%9000, i%2 == 0))
	}
	for _, m := range sent {
		if err := c.channel.send(m); err != nil {
			return err
		}
	}
	for i, m := range sent {
		got, err := c.channel.next()
		if err == nil {
			err = compare(m, got)
		}
		if err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
	}
	return nil
}

func channels(c *client) error {
	for i := 0; i < 20; i++ {
		protocol := strings.Repeat("p", i)
		made, err := c.open(fmt.Sprintf("Größe %d", i), &webrtc.DataChannelInit{Protocol: &protocol})
		if err != nil {
			return err
		}
		if err := made.echo(text(fmt.Sprintf("on %d", i))); err != nil {
			return err
		}
	}
	return c.channel.echo(text("and on the first"))
}

func unordered(c *client) error {
	ordered := false
	made, err := c.open("unordered", &webrtc.DataChannelInit{Ordered: &ordered})
	if err != nil {
		return err
	}
	var sent, got []string
	for i := 0; i < 100; i++ {
		m := text(fmt.Sprintf("%d %s", i, strings.Repeat("x", i%7*1000)))
		sent = append(sent, string(m.Data))
		if err := made.send(m); err != nil {
			return err
		}
	}
	for range sent {
		m, err := made.next()
		if err != nil {
			return err
		}
		got = append(got, string(m.Data))
	}
	sort.Strings(sent)
	sort.Strings(got)
	if strings.Join(sent, "\n") != strings.Join(got, "\n") {
		return fmt.Errorf("other messages came back than were sent")
	}
	return nil
}

func unreliable(c *client) error {
	ordered, retransmits := false, uint16(0)
	init := &webrtc.DataChannelInit{Ordered: &ordered, MaxRetransmits: &retransmits}
	made, err := c.open("unreliable", init)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	// Messages may be lost, the last ones too: more are sent until one of those has come back.
	for i := 0; i < 400; i++ {
		if err := made.SendText(strconv.Itoa(i)); err != nil {
			return err
		}
		if i < 200 {
			continue
		}
		again := time.After(100 * time.Millisecond)
	receive:
		for {
			select {
			case m := <-made.got:
				number, err := strconv.Atoi(string(m.Data))
				if err != nil || seen[string(m.Data)] {
					return fmt.Errorf("%q came twice or was never sent", m.Data)
				}
				seen[string(m.Data)] = true
				if number >= 200 {
					return nil
				}
			case <-again:
				break receive
			}
		}
	}
	return fmt.Errorf("nothing came back")
}

func closes(c *client) error {
	for i := 0; i < 3; i++ {
		made, err := c.open("short", nil)
		if err != nil {
			return err
		}
		if err := made.echo(text("hello")); err != nil {
			return err
		}
		if err := made.Close(); err != nil {
			return err
		}
		if err := wait(made.closed, "the close of the channel"); err != nil {
			return err
		}
	}
	return c.channel.echo(text("the first channel lives"))
}

// returns makes its connections itself: only the same certificate makes a token worth something.
func returns(url string) error {
	own, err := newCertificate()
	if err != nil {
		return err
	}
	other, err := newCertificate()
	if err != nil {
		return err
	}
	token := ""
	for _, visit := range []struct {
		certificate *webrtc.Certificate
		mode        string
	}{{own, "normal"}, {own, "fast"}, {own, "fast"}, {other, "normal"}} {
		c, err := connect(url, visit.certificate, token)
		if err != nil {
			return err
		}
		defer c.peer.Close()
		if c.answer.ConnectionMode != visit.mode {
			return fmt.Errorf("mode %q, expected %q", c.answer.ConnectionMode, visit.mode)
		}
		if c.answer.SessionToken == "" {
			return fmt.Errorf("an answer without a session token")
		}
		if err := c.channel.echo(text(visit.mode)); err != nil {
			return err
		}
		token = c.answer.SessionToken
	}
	return nil
}

func run(url, scenario string) error {
	scenarios := map[string]func(*client) error{
		"sizes": sizes, "order": order, "channels": channels, "unordered": unordered,
		"unreliable": unreliable, "close": closes,
	}
	if scenario == "returns" {
		return returns(url)
	}
	try, known := scenarios[scenario]
	if !known {
		return fmt.Errorf("no such scenario: %q", scenario)
	}
	c, err := connect(url, nil, "")
	if err != nil {
		return err
	}
	defer c.peer.Close()
	return try(c)
}

func main() {
	url := flag.String("url", "http://127.0.0.1:8080/", "address of the host's page")
	flag.Parse()
	if err := run(*url, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
