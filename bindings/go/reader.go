package reconnect

// #include <stdlib.h>
// #include <reconnect.h>
import "C"

import (
	"errors"
	"os"
	"strings"
	"time"
	"unsafe"
)

// batchSize is how many events one poll takes at most.
const batchSize = 64

// read takes events from the library until the engine closes. It is the engine's only goroutine.
func (e *Engine) read() {
	defer close(e.finished)
	defer close(e.events)
	memory := C.calloc(batchSize, C.size_t(unsafe.Sizeof(C.reconnect_event_t{})))
	defer C.free(memory)
	e.batch = unsafe.Slice((*C.reconnect_event_t)(memory), batchSize)
	for e.deliverResumed() {
		count, ok := e.take()
		if !ok {
			return
		}
		if count == 1 && e.hold(&e.batch[0]) {
			continue
		}
		for i := range e.batch[:count] {
			if !e.dispatch(&e.batch[i]) {
				return
			}
		}
		if count > 0 {
			C.reconnect_release(e.handle, e.batch[0].batch)
		}
	}
}

// take waits for events and takes a batch of them. 0 events: a channel was resumed.
//
// Go's poller reports the descriptor only when it becomes readable (EPOLLET), so nothing may be waiting in the
// library when the goroutine goes to wait. Hence the order: Read first arms the poller, then calls the function,
// and waits only if that has found the library's queue empty. An event that comes in between makes the
// descriptor readable anew after the arming, which ends the wait at once.
func (e *Engine) take() (int, bool) {
	var count C.size_t
	var status C.reconnect_status_t
	err := e.wait.Read(func(uintptr) bool {
		maximum := C.size_t(batchSize)
		if e.paused.Load() > 0 {
			maximum = 1 // a message of a paused channel is kept by not releasing its batch: no other event may share it
		}
		status = C.reconnect_poll(e.handle, &e.batch[0], maximum, 0, &count)
		return status != C.RECONNECT_OK || count > 0
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = e.descriptor.SetReadDeadline(time.Time{})
		return 0, err == nil
	}
	return int(count), err == nil && status == C.RECONNECT_OK
}

// hold keeps the message of a paused channel in the library, where it counts for the peer's receive window.
func (e *Engine) hold(event *C.reconnect_event_t) bool {
	if event._type != C.RECONNECT_EVENT_MESSAGE {
		return false
	}
	c := e.channel(event)
	if c == nil {
		return false
	}
	e.mutex.Lock()
	paused := c.paused
	e.mutex.Unlock()
	if paused {
		e.held[c] = append(e.held[c], *event)
	}
	return paused
}

// deliverResumed delivers what was held back of channels that were resumed.
func (e *Engine) deliverResumed() bool {
	e.mutex.Lock()
	resumed := e.resumed
	e.resumed = nil
	e.mutex.Unlock()
	for _, c := range resumed {
		if !e.deliverHeld(c, false) {
			return false
		}
	}
	return true
}

// deliverHeld delivers the messages that were held back of a channel, until it is paused again, or all.
func (e *Engine) deliverHeld(c *Channel, all bool) bool {
	held := e.held[c]
	for len(held) > 0 {
		e.mutex.Lock()
		paused := c.paused
		e.mutex.Unlock()
		if paused && !all {
			break
		}
		if !e.deliver(message(c, &held[0])) {
			return false
		}
		C.reconnect_release(e.handle, held[0].batch)
		held = held[1:]
	}
	if len(held) > 0 {
		e.held[c] = held
	} else {
		delete(e.held, c)
	}
	return true
}

// deliver waits until the program takes the event, or the engine closes.
func (e *Engine) deliver(event Event) bool {
	select {
	case e.events <- event:
		return true
	case <-e.closing:
		return false
	}
}

// dispatch turns one event of the library into what the program sees of it.
func (e *Engine) dispatch(event *C.reconnect_event_t) bool {
	switch event._type {
	case C.RECONNECT_EVENT_MESSAGE:
		if c := e.channel(event); c != nil {
			return e.deliverHeld(c, true) && e.deliver(message(c, event))
		}
	case C.RECONNECT_EVENT_BUFFERED_LOW:
		if c := e.channel(event); c != nil {
			return e.deliver(BufferedLowEvent{Channel: c, Buffered: uint64(event.number)})
		}
	case C.RECONNECT_EVENT_CHANNEL_OPEN:
		return e.channelOpened(event)
	case C.RECONNECT_EVENT_CHANNEL_CLOSED:
		return e.channelClosed(event)
	case C.RECONNECT_EVENT_PEER_STATE:
		return e.peerState(event)
	case C.RECONNECT_EVENT_SESSION:
		return e.session(event)
	case C.RECONNECT_EVENT_ANSWER, C.RECONNECT_EVENT_OFFER, C.RECONNECT_EVENT_RESULT, C.RECONNECT_EVENT_STATISTICS:
		return e.finish(event)
	case C.RECONNECT_EVENT_LOG:
		return e.deliver(LogEvent{Level: LogLevel(event.number), Line: text(event.data, event.size)})
	case C.RECONNECT_EVENT_ADDRESSES:
		return e.deliver(AddressesEvent{Addresses: strings.Fields(text(event.data, event.size))})
	case C.RECONNECT_EVENT_SIGNAL:
		return e.signal(event)
	case C.RECONNECT_EVENT_ATTEMPT:
		return e.attempt(event)
	case C.RECONNECT_EVENT_CONNECTOR:
		return e.connectorState(event)
	case C.RECONNECT_EVENT_FAST_RELOAD:
		return e.deliver(FastReloadEvent{
			Setting: FastReload(event.number), By: Switch(event.kind), Detail: text(event.data, event.size),
		})
	case C.RECONNECT_EVENT_CERTIFICATE:
		return e.deliver(CertificateEvent{Fingerprint: text(event.data, event.size)})
	case C.RECONNECT_EVENT_STORE:
		return e.deliver(StoreEvent{Available: event.number != 0, Detail: text(event.data, event.size)})
	case C.RECONNECT_EVENT_PEER_SIGNAL:
		return e.signaled(event)
	case C.RECONNECT_EVENT_NETWORK:
		return e.deliver(networkChanged(event))
	case C.RECONNECT_EVENT_TURN:
		return e.deliver(turnChanged(event))
	case C.RECONNECT_EVENT_PATH:
		return e.pathChanged(event)
	case C.RECONNECT_EVENT_RESTART:
		return e.restarted(event)
	}
	return true // what this package does not know is ignored
}

// finish hands the result of a call to the goroutine that waits for it. A result with the tag of a peer is one that
// nobody waits for.
func (e *Engine) finish(event *C.reconnect_event_t) bool {
	tag := uint64(event.tag)
	e.mutex.Lock()
	result := e.pending[tag]
	delete(e.pending, tag)
	e.mutex.Unlock()
	if result != nil {
		result <- outcome{
			status: event.status, data: bytes(event.data, event.size), mode: Mode(event.number),
			duration: time.Duration(event.duration_ns),
		}
		return true
	}
	if event._type != C.RECONNECT_EVENT_RESULT || event.status == C.RECONNECT_OK {
		return true
	}
	if p := e.peer(event); p != nil && p.negotiates {
		return e.deliver(SignalRefusedEvent{Peer: p, Reason: failure(event.status, text(event.data, event.size))})
	}
	return true
}

// peer is the peer of an event with a peer's tag. One that the library made by itself is new with its first event.
func (e *Engine) peer(event *C.reconnect_event_t) *Peer {
	handle := uint64(event.peer.id)
	e.mutex.Lock()
	p, made := e.peers[uint64(event.tag)], e.templates[uint64(event.tag)]
	e.mutex.Unlock()
	switch known := e.peersByHandle[handle]; {
	case p != nil:
		p.handle.Store(handle)
		e.peersByHandle[handle] = p
		return p
	case made != nil:
		return e.peerOf(made, handle)
	case known != nil && known.made: // its connector is closed
		return known
	}
	return nil
}

// peerOf is the peer with a handle that the library made by itself.
func (e *Engine) peerOf(made *template, handle uint64) *Peer {
	p := e.peersByHandle[handle]
	if p == nil {
		p = newPeer(e, e.lastTag.Add(1), &made.config, made.tags)
		p.made = true
		p.handle.Store(handle)
		e.peersByHandle[handle] = p
	}
	return p
}

func (e *Engine) peerState(event *C.reconnect_event_t) bool {
	p := e.peer(event)
	if p == nil {
		delete(e.peersByHandle, uint64(event.peer.id))
		return true
	}
	state := PeerStateEvent{
		Peer: p, State: PeerState(event.number), Detail: text(event.data, event.size),
		Age: time.Duration(event.duration_ns), Ticket: event.flags&C.RECONNECT_FLAG_TICKET != 0,
	}
	if state.State == PeerClosed {
		state.Reason = failure(event.status, state.Detail)
		e.settle(p, lostReason(state.Reason))
		delete(e.peersByHandle, uint64(event.peer.id))
		if !e.endChannels(p, state.Reason) {
			return false
		}
		e.forgetPeer(p)
	}
	return e.deliver(state)
}

// endChannels ends the channels of a closed peer whose end the library has not told: those that never opened.
func (e *Engine) endChannels(p *Peer, reason error) bool {
	e.mutex.Lock()
	channels := make([]*Channel, 0, len(p.opened)+len(p.remote))
	for _, c := range p.opened {
		channels = append(channels, c)
	}
	e.mutex.Unlock()
	for _, c := range p.remote {
		channels = append(channels, c)
	}
	for _, c := range channels {
		if !e.endChannel(c, reason) {
			return false
		}
	}
	return true
}

// endChannel tells the end of a channel, after the messages that were held back.
func (e *Engine) endChannel(c *Channel, reason error) bool {
	if !e.deliverHeld(c, true) {
		return false
	}
	if c.tag == 0 {
		delete(e.remote, c.handle.Load())
		delete(c.peer.remote, c.handle.Load())
	}
	e.forgetChannel(c)
	e.settle(c.peer, nil)
	return e.deliver(ChannelClosedEvent{Channel: c, Reason: reason})
}

func (e *Engine) session(event *C.reconnect_event_t) bool {
	p := e.peer(event)
	if p == nil {
		return true
	}
	return e.deliver(SessionEvent{
		Peer: p, ClientID: text(event.data, event.size), Token: text(event.extra, event.extra_size),
		Connections: int64(event.number), Mode: Mode(event.kind), Returned: event.flags&C.RECONNECT_FLAG_RETURNED != 0,
		Away: time.Duration(event.duration_ns),
	})
}

// channel is the channel of an event.
func (e *Engine) channel(event *C.reconnect_event_t) *Channel {
	if event.tag == 0 {
		return e.remote[uint64(event.channel.id)]
	}
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if c := e.channels[uint64(event.tag)]; c != nil {
		return c
	}
	if p := e.peersByHandle[uint64(event.peer.id)]; p != nil && p.made {
		return p.opened[uint64(event.tag)]
	}
	return nil
}

func (e *Engine) channelOpened(event *C.reconnect_event_t) bool {
	c := e.channel(event)
	if c == nil {
		p := e.peersByHandle[uint64(event.peer.id)]
		if p == nil || event.tag != 0 {
			return true
		}
		c = &Channel{
			peer: p, label: text(event.data, event.size), protocol: text(event.extra, event.extra_size),
			unordered: event.flags&C.RECONNECT_FLAG_UNORDERED != 0, partial: event.flags&C.RECONNECT_FLAG_PARTIAL != 0,
		}
		e.remote[uint64(event.channel.id)] = c
		p.remote[uint64(event.channel.id)] = c
	}
	c.handle.Store(uint64(event.channel.id))
	c.stream.Store(int64(event.number))
	e.settle(c.peer, nil)
	return e.deliver(ChannelOpenEvent{Channel: c, Remote: event.flags&C.RECONNECT_FLAG_REMOTE != 0})
}

func (e *Engine) channelClosed(event *C.reconnect_event_t) bool {
	c := e.channel(event)
	if c == nil {
		return true
	}
	return e.endChannel(c, failure(event.status, text(event.data, event.size)))
}

func message(c *Channel, event *C.reconnect_event_t) MessageEvent {
	return MessageEvent{Channel: c, Data: bytes(event.data, event.size), Text: event.kind == C.RECONNECT_TEXT}
}

// bytes is a copy of a payload.
func bytes(data unsafe.Pointer, size C.size_t) []byte {
	copied := make([]byte, int(size))
	copy(copied, unsafe.Slice((*byte)(data), int(size)))
	return copied
}

func text(data unsafe.Pointer, size C.size_t) string {
	return string(unsafe.Slice((*byte)(data), int(size)))
}
