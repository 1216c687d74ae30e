// Pionflood measures pion against pion over loopback: one process sends
// messages on a reliable ordered channel as fast as it can, a second one (this
// program again) receives them. Prints one JSON line for each message size
// and high-water mark.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/webrtc/v3"

	"pionpeers/measure"
)

type counts struct {
	Bytes    uint64  `json:"bytes"`
	Messages uint64  `json:"messages"`
	Seconds  float64 `json:"seconds"`
	CPU      float64 `json:"cpu_s"`
}

type result struct {
	Bench        string  `json:"bench"`
	Who          string  `json:"who"`
	MessageBytes int     `json:"message_bytes"`
	HighWater    uint64  `json:"high_water"`
	Seconds      float64 `json:"seconds"`
	Bytes        uint64  `json:"bytes"`
	Messages     uint64  `json:"messages"`
	SenderCPU    float64 `json:"cpu_sender_s"`
	ReceiverCPU  float64 `json:"cpu_receiver_s"`
}

func main() {
	sizes := flag.String("sizes", "65535,100", "message sizes in bytes, comma-separated (pion receives less than 65536)")
	seconds := flag.Float64("seconds", 4, "measured time for each size")
	highWaters := flag.String("high-water", "1048576", "`bytes` waiting at which the sender pauses, comma-separated; it goes on at half of them")
	receiver := flag.Bool("receiver", false, "be the receiving process (used by the sending one)")
	flag.Parse()
	if *receiver {
		receive()
		return
	}
	for _, size := range numbers("--sizes", *sizes, 65535) {
		for _, highWater := range numbers("--high-water", *highWaters, 1<<30) {
			if err := flood(size, uint64(highWater), time.Duration(*seconds*float64(time.Second))); err != nil {
				measure.Fail("%v", err)
			}
		}
	}
}

func numbers(option, list string, maximum int) []int {
	var result []int
	for _, text := range strings.Split(list, ",") {
		number, err := strconv.Atoi(text)
		if err != nil || number < 1 || number > maximum {
			measure.Fail("%s takes numbers from 1 to %d, not %q", option, maximum, text)
		}
		result = append(result, number)
	}
	return result
}

func newPeer() (*webrtc.PeerConnection, error) {
	settings := webrtc.SettingEngine{}
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetIPFilter(func(address net.IP) bool { return address.IsLoopback() })
	return webrtc.NewAPI(webrtc.WithSettingEngine(settings)).NewPeerConnection(webrtc.Configuration{})
}

func describe(peer *webrtc.PeerConnection, description webrtc.SessionDescription) ([]byte, error) {
	gathered := webrtc.GatheringCompletePromise(peer)
	if err := peer.SetLocalDescription(description); err != nil {
		return nil, err
	}
	<-gathered
	line, err := json.Marshal(peer.LocalDescription())
	return append(line, '\n'), err
}

// receiverProcess speaks one line at a time: offer and answer, then "start",
// then "stop" answered by the counts.
type receiverProcess struct {
	command *exec.Cmd
	input   io.WriteCloser
	output  *bufio.Reader
}

func startReceiver() (*receiverProcess, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	child := &receiverProcess{command: exec.Command(program, "--receiver")}
	child.command.Stderr = os.Stderr
	if child.input, err = child.command.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := child.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	child.output = bufio.NewReaderSize(output, 1<<20)
	return child, child.command.Start()
}

func (child *receiverProcess) end() {
	child.input.Close()
	child.command.Wait()
}

func (child *receiverProcess) ask(line []byte, answer interface{}) error {
	if _, err := child.input.Write(line); err != nil {
		return err
	}
	text, err := child.output.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the receiving process ended: %w", err)
	}
	return json.Unmarshal(text, answer)
}

func flood(size int, highWater uint64, duration time.Duration) error {
	child, err := startReceiver()
	if err != nil {
		return err
	}
	defer child.end()
	peer, err := newPeer()
	if err != nil {
		return err
	}
	defer peer.Close()
	channel, err := peer.CreateDataChannel("flood", nil)
	if err != nil {
		return err
	}
	open := make(chan struct{})
	channel.OnOpen(func() { close(open) })
	room := make(chan struct{}, 1)
	channel.SetBufferedAmountLowThreshold(highWater / 2)
	channel.OnBufferedAmountLow(func() {
		select {
		case room <- struct{}{}:
		default:
		}
	})

	description, err := peer.CreateOffer(nil)
	if err != nil {
		return err
	}
	line, err := describe(peer, description)
	if err != nil {
		return err
	}
	var answer webrtc.SessionDescription
	if err := child.ask(line, &answer); err != nil {
		return err
	}
	if err := peer.SetRemoteDescription(answer); err != nil {
		return err
	}
	select {
	case <-open:
	case <-time.After(15 * time.Second):
		return fmt.Errorf("the channel did not open")
	}

	var stopped int32
	sent := make(chan error, 1)
	go func() { sent <- send(channel, make([]byte, size), highWater, room, &stopped) }()
	var none struct{}
	if err := child.ask([]byte("start\n"), &none); err != nil {
		return err
	}
	cpu := measure.CPUSeconds()
	time.Sleep(duration)
	var received counts
	if err := child.ask([]byte("stop\n"), &received); err != nil {
		return err
	}
	senderCPU := measure.CPUSeconds() - cpu
	atomic.StoreInt32(&stopped, 1)
	if err := <-sent; err != nil {
		return err
	}
	measure.Print(result{
		Bench: "flood", Who: "pion", MessageBytes: size, HighWater: highWater, Seconds: received.Seconds, Bytes: received.Bytes,
		Messages: received.Messages, SenderCPU: senderCPU, ReceiverCPU: received.CPU,
	})
	return nil
}

func send(channel *webrtc.DataChannel, message []byte, highWater uint64, room <-chan struct{}, stopped *int32) error {
	for atomic.LoadInt32(stopped) == 0 {
		if channel.BufferedAmount() > highWater {
			select {
			case <-room:
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		if err := channel.Send(message); err != nil {
			return err
		}
	}
	return nil
}

func receive() {
	// Never longer than a measurement can take, whatever became of the sender.
	time.AfterFunc(10*time.Minute, func() { os.Exit(1) })
	peer, err := newPeer()
	if err != nil {
		measure.Fail("%v", err)
	}
	var bytes, messages uint64
	peer.OnDataChannel(func(channel *webrtc.DataChannel) {
		channel.OnMessage(func(message webrtc.DataChannelMessage) {
			atomic.AddUint64(&bytes, uint64(len(message.Data)))
			atomic.AddUint64(&messages, 1)
		})
	})
	input := bufio.NewReaderSize(os.Stdin, 1<<20)
	var start counts
	var began time.Time
	for {
		line, err := input.ReadBytes('\n')
		if err != nil {
			return
		}
		now := counts{
			Bytes: atomic.LoadUint64(&bytes), Messages: atomic.LoadUint64(&messages), CPU: measure.CPUSeconds(),
		}
		switch string(line) {
		case "start\n":
			start, began = now, time.Now()
			measure.Print(struct{}{})
		case "stop\n":
			measure.Print(counts{
				Bytes: now.Bytes - start.Bytes, Messages: now.Messages - start.Messages,
				Seconds: time.Since(began).Seconds(), CPU: now.CPU - start.CPU,
			})
		default:
			if err := answerOffer(peer, line); err != nil {
				measure.Fail("%v", err)
			}
		}
	}
}

func answerOffer(peer *webrtc.PeerConnection, line []byte) error {
	var offer webrtc.SessionDescription
	if err := json.Unmarshal(line, &offer); err != nil {
		return err
	}
	if err := peer.SetRemoteDescription(offer); err != nil {
		return err
	}
	description, err := peer.CreateAnswer(nil)
	if err != nil {
		return err
	}
	answer, err := describe(peer, description)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(answer)
	return err
}
