package reconnect

// #include <reconnect.h>
import "C"

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// Channel is one data channel (RFC 8831). It ends with its ChannelClosedEvent.
type Channel struct {
	peer      *Peer
	tag       uint64 // 0: the other side opened it; of a template's channel the same in all its peers
	handle    atomic.Uint64
	label     string
	protocol  string
	unordered bool
	partial   bool
	stream    atomic.Int64 // the stream id, -1 while it is not known
	paused    bool         // under the engine's mutex
}

func newChannel(p *Peer, config *ChannelConfig, tag uint64) *Channel {
	c := &Channel{
		peer: p, tag: tag, label: config.Label, protocol: config.Protocol, unordered: config.Unordered,
		partial: config.MaxRetransmits != nil || config.MaxLifetime != 0,
	}
	c.stream.Store(-1)
	if config.Negotiated {
		c.stream.Store(int64(config.ID))
	}
	return c
}

func (e *Engine) forgetChannel(c *Channel) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if e.channels[c.tag] == c {
		delete(e.channels, c.tag)
	}
	delete(c.peer.opened, c.tag)
	if c.paused {
		c.paused = false
		e.paused.Add(-1)
	}
}

func (c *Channel) native() C.reconnect_channel_t {
	return C.reconnect_channel_t{id: C.uint64_t(c.handle.Load())}
}

// Peer is the peer that the channel belongs to.
func (c *Channel) Peer() *Peer { return c.peer }

// Label is the channel's name.
func (c *Channel) Label() string { return c.label }

// Protocol is the name of the channel's subprotocol.
func (c *Channel) Protocol() string { return c.protocol }

// ID is the channel's stream, -1 while it is not known.
func (c *Channel) ID() int { return int(c.stream.Load()) }

// Ordered: messages arrive in the order in which they were sent.
func (c *Channel) Ordered() bool { return !c.unordered }

// Reliable: messages are sent until they have arrived, without a limit of retransmissions or lifetime.
func (c *Channel) Reliable() bool { return !c.partial }

// Send sends one binary message, possibly empty; it is copied.
//
// ErrWouldBlock: nothing was taken, the queue is at its high-water mark; a BufferedLowEvent follows.
// ErrTooLarge: larger than the other side accepts. ErrClosed: the channel or peer is closing.
// ErrInvalidHandle: it is closed, or a negotiated channel of a PeerConfig that is not open yet.
func (c *Channel) Send(message []byte) error {
	var data unsafe.Pointer
	if len(message) > 0 {
		data = unsafe.Pointer(&message[0])
	}
	return failure(C.reconnect_send(c.native(), C.RECONNECT_BINARY, data, C.size_t(len(message))), "")
}

// SendText sends one text message, possibly empty; it is copied. The errors are those of Send, and
// ErrInvalidArgument for a text that is not valid UTF-8.
func (c *Channel) SendText(message string) error {
	var data unsafe.Pointer
	if len(message) > 0 {
		data = *(*unsafe.Pointer)(unsafe.Pointer(&message)) // a string begins with the pointer to its bytes
	}
	return failure(C.reconnect_send(c.native(), C.RECONNECT_TEXT, data, C.size_t(len(message))), "")
}

// SendMessage sends one message as text or binary: what a MessageEvent brought, for example. The errors are
// those of SendText.
func (c *Channel) SendMessage(message []byte, text bool) error {
	if !text {
		return c.Send(message)
	}
	var data unsafe.Pointer
	if len(message) > 0 {
		data = unsafe.Pointer(&message[0])
	}
	return failure(C.reconnect_send(c.native(), C.RECONNECT_TEXT, data, C.size_t(len(message))), "")
}

// Buffered is how many bytes are queued and not yet handed to the network.
func (c *Channel) Buffered() (uint64, error) {
	var bytes C.uint64_t
	if status := C.reconnect_channel_buffered(c.native(), &bytes); status != C.RECONNECT_OK {
		return 0, failure(status, "")
	}
	return uint64(bytes), nil
}

// SetLowWater sets the low-water mark; from now on every fall to it is a BufferedLowEvent.
func (c *Channel) SetLowWater(bytes uint64) error {
	return failure(C.reconnect_channel_set_low_water(c.native(), C.uint64_t(bytes)), "")
}

// Pause stops the delivery of the channel's messages, until Resume. What then arrives waits in the library;
// when the peer's ReceiveWindow is full, the other side stops sending. Messages already on their way through
// the channel of events may still come: at most its capacity and one batch of 64. Other events come as always.
// The end of the channel delivers what is waiting.
func (c *Channel) Pause() {
	e := c.peer.engine
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if !c.paused {
		c.paused = true
		e.paused.Add(1)
	}
}

// Resume takes up the delivery of the channel's messages, in their order, after Pause.
func (c *Channel) Resume() {
	e := c.peer.engine
	e.mutex.Lock()
	resumed := c.paused
	if resumed {
		c.paused = false
		e.paused.Add(-1)
		e.resumed = append(e.resumed, c)
	}
	e.mutex.Unlock()
	if resumed {
		e.descriptor.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
	}
}

// Close closes the channel once its queued messages are sent; the other side's end closes too. A
// ChannelClosedEvent follows. Closing a closed channel gives ErrInvalidHandle.
func (c *Channel) Close() error {
	return failure(C.reconnect_channel_close(c.native()), "")
}
