// Pionclient offers a data channel to an answerer host over HTTP and measures
// from the creation of the peer connection to the first echo. The HTTP
// connection is open and warm before the measurement begins.
//
// One JSON line for each connection, then one with the totals.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/webrtc/v3"

	"pionpeers/measure"
)

type client struct {
	api        *webrtc.API
	http       *http.Client
	base       string
	negotiated int
	gather     bool
	timeout    time.Duration
}

// Milliseconds since the peer connection was created.
type connection struct {
	OK       bool    `json:"ok"`
	Error    string  `json:"error,omitempty"`
	AnswerMS float64 `json:"answer_ms,omitempty"`
	ICEMS    float64 `json:"ice_ms,omitempty"`
	OpenMS   float64 `json:"open_ms,omitempty"`
	EchoMS   float64 `json:"ms,omitempty"`
	peer     *webrtc.PeerConnection
}

type summary struct {
	Summary     bool    `json:"summary"`
	Connects    int     `json:"connects"`
	Failures    int     `json:"failures"`
	Parallel    int     `json:"parallel"`
	Seconds     float64 `json:"seconds"`
	PerSecond   float64 `json:"connects_per_s"`
	MedianMS    float64 `json:"median_ms"`
	ClientCPUMS float64 `json:"client_cpu_ms_per_connect"`
}

func main() {
	base := flag.String("url", "http://127.0.0.1:8080", "`URL` of the host")
	count := flag.Int("count", 1, "number of connections")
	parallel := flag.Int("parallel", 1, "connections in progress at once")
	negotiated := flag.Int("negotiated", -1, "use a pre-negotiated channel with this `id`")
	gather := flag.Bool("gather", false, "send the offer only after gathering is complete")
	hold := flag.Bool("hold", false, "keep all connections open until standard input closes")
	quiet := flag.Bool("quiet", false, "print only the totals")
	timeout := flag.Duration("timeout", 15*time.Second, "for one connection")
	flag.Parse()

	c, err := newClient(strings.TrimSuffix(*base, "/"), *parallel)
	if err != nil {
		measure.Fail("%v", err)
	}
	c.negotiated, c.gather, c.timeout = *negotiated, *gather, *timeout
	if err := c.warmUp(*parallel); err != nil {
		measure.Fail("the host does not answer: %v", err)
	}
	c.run(*count, *parallel, *hold, *quiet)
}

func newClient(base string, parallel int) (*client, error) {
	location, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	settings := webrtc.SettingEngine{}
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	if address := net.ParseIP(location.Hostname()); address != nil && address.IsLoopback() {
		settings.SetIncludeLoopbackCandidate(true)
		settings.SetIPFilter(func(candidate net.IP) bool { return candidate.IsLoopback() })
	}
	return &client{
		api: webrtc.NewAPI(webrtc.WithSettingEngine(settings)),
		http: &http.Client{Transport: &http.Transport{
			MaxIdleConns: parallel, MaxIdleConnsPerHost: parallel, MaxConnsPerHost: parallel, IdleConnTimeout: time.Minute,
		}, Timeout: time.Minute},
		base: base,
	}, nil
}

// warmUp opens the HTTP connections.
func (c *client) warmUp(connections int) error {
	failures := make(chan error, connections)
	for index := 0; index < connections; index++ {
		go func() {
			response, err := c.http.Get(c.base + "/ping")
			if err == nil {
				_, err = io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
			failures <- err
		}()
	}
	for index := 0; index < connections; index++ {
		if err := <-failures; err != nil {
			return err
		}
	}
	return nil
}

func (c *client) run(count, parallel int, hold, quiet bool) {
	var (
		lock   sync.Mutex
		echoes []float64
		open   []*webrtc.PeerConnection
		failed int
		wait   sync.WaitGroup
	)
	turns := make(chan struct{}, count)
	for index := 0; index < count; index++ {
		turns <- struct{}{}
	}
	close(turns)
	start, cpu := time.Now(), measure.CPUSeconds()
	for lane := 0; lane < parallel; lane++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for range turns {
				result := c.connect()
				if !hold || !result.OK {
					result.peer.Close()
				}
				lock.Lock()
				if result.OK {
					echoes = append(echoes, result.EchoMS)
					if hold {
						open = append(open, result.peer)
					}
				} else {
					failed++
				}
				lock.Unlock()
				if !quiet {
					measure.Print(result)
				}
			}
		}()
	}
	wait.Wait()
	total := summary{Summary: true, Connects: len(echoes), Failures: failed, Parallel: parallel, Seconds: time.Since(start).Seconds()}
	total.PerSecond = float64(total.Connects) / total.Seconds
	if len(echoes) > 0 {
		sort.Float64s(echoes)
		total.MedianMS = echoes[len(echoes)/2]
		total.ClientCPUMS = (measure.CPUSeconds() - cpu) * 1000 / float64(len(echoes))
	}
	measure.Print(total)
	if hold {
		bufio.NewReader(os.Stdin).ReadString('\n')
		for _, peer := range open {
			peer.Close()
		}
	}
}

func (c *client) connect() connection {
	var result connection
	start := time.Now()
	elapsed := func() float64 { return float64(time.Since(start)) / float64(time.Millisecond) }
	peer, err := c.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		measure.Fail("%v", err)
	}
	result.peer = peer

	var lock sync.Mutex // the peer's callbacks come from its own goroutines
	echoed := make(chan float64, 1)
	lost := make(chan string, 1)
	peer.OnICEConnectionStateChange(func(state webrtc.ICEConnectionState) {
		if state == webrtc.ICEConnectionStateConnected {
			lock.Lock()
			result.ICEMS = elapsed()
			lock.Unlock()
		}
	})
	peer.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateFailed {
			select {
			case lost <- "the connection failed":
			default:
			}
		}
	})
	channel, err := peer.CreateDataChannel("connect", c.channelOptions())
	if err != nil {
		measure.Fail("%v", err)
	}
	channel.OnOpen(func() {
		lock.Lock()
		result.OpenMS = elapsed()
		lock.Unlock()
		channel.SendText("x")
	})
	channel.OnMessage(func(webrtc.DataChannelMessage) {
		select {
		case echoed <- elapsed():
		default:
		}
	})
	err = c.signal(peer)
	answered := elapsed()
	if err == nil {
		deadline := time.NewTimer(c.timeout - time.Since(start))
		defer deadline.Stop()
		select {
		case echo := <-echoed:
			lock.Lock()
			defer lock.Unlock()
			result.OK, result.AnswerMS, result.EchoMS = true, answered, echo
			return result
		case reason := <-lost:
			err = errors.New(reason)
		case <-deadline.C:
			err = fmt.Errorf("no echo after %v", c.timeout)
		}
	}
	lock.Lock()
	defer lock.Unlock()
	result.Error = err.Error()
	return result
}

func (c *client) channelOptions() *webrtc.DataChannelInit {
	if c.negotiated < 0 {
		return nil
	}
	yes, id := true, uint16(c.negotiated)
	return &webrtc.DataChannelInit{Negotiated: &yes, ID: &id}
}

func (c *client) signal(peer *webrtc.PeerConnection) error {
	offer, err := peer.CreateOffer(nil)
	if err != nil {
		return err
	}
	gathered := webrtc.GatheringCompletePromise(peer)
	if err := peer.SetLocalDescription(offer); err != nil {
		return err
	}
	if c.gather {
		<-gathered
		offer = *peer.LocalDescription()
	}
	body, err := json.Marshal(offer)
	if err != nil {
		return err
	}
	response, err := c.http.Post(c.base+"/offer", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP %d: %s", response.StatusCode, bytes.TrimSpace(text))
	}
	var answer webrtc.SessionDescription
	if err := json.Unmarshal(text, &answer); err != nil {
		return err
	}
	return peer.SetRemoteDescription(answer)
}
