package reconnect

// #include <reconnect.h>
import "C"

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"time"
	"unsafe"
)

// Policy says when a connector's attempts are made.
type Policy uint32

const (
	// Race: the signaling exchange starts with the ticket attempt; whichever is connected first wins.
	Race Policy = C.RECONNECT_RACE
	// Fallback: one attempt at a time; the next begins when the one before has failed, or had FastTimeout.
	Fallback Policy = C.RECONNECT_FALLBACK
)

// ConnectorConfig describes a connector. Zero in a member means its default.
type ConnectorConfig struct {
	// Policy is Race or Fallback.
	Policy Policy
	// Key names the server in the cache, 1 to 256 bytes; empty: "default".
	Key string
	// CachePath is a JSON file for what is kept, made (mode 0600) if missing, for many keys; a second file
	// CachePath.tickets holds the tickets. Empty: in the engine's memory.
	CachePath string
	// FastTimeout is for an attempt by ticket or session; default 2 s.
	FastTimeout time.Duration
	// NormalTimeout is for one in normal mode, the answer included; default 20 s.
	NormalTimeout time.Duration
	// MaxCacheAge defaults to 5 min.
	MaxCacheAge time.Duration
	// DisableTickets: never without signaling.
	DisableTickets bool
	// Peer says how the peers are made: their negotiated channels.
	Peer PeerConfig
}

// Connector makes and remakes the connection of a client to one server, the fastest way that works: with the ticket
// that the server gave out during the last connection, nothing being exchanged beforehand; with one exchange and the
// session token; or with one exchange in normal mode. What is needed to come back is kept in its cache, only from
// connections that worked.
//
// Its peers are made by the library: they appear in PeerStateEvents, and Connect and Dial return the one that won.
type Connector struct {
	engine *Engine
	tag    uint64
	handle atomic.Uint64
	made   *template

	opening dialed // told once the channels are open; the reader's
	current *Peer  // that is up; under the engine's mutex
	dial    *dial  // the connect under way; under the engine's mutex
}

// dial is one connect.
type dial struct {
	signaler Signaler // nil: the messages are events
	ctx      context.Context
	cancel   context.CancelFunc
	cause    error // the signaler's last one; under the engine's mutex
	result   chan dialed
}

type dialed struct {
	connection *Connection
	err        error
}

// Connection is what a connector's connect has led to.
type Connection struct {
	// Peer is connected and its channels are open. They are in Peer.Channels.
	Peer *Peer
	// Mode is how it came back.
	Mode Mode
	// Duration is the time from the call to the open channels.
	Duration time.Duration
}

// Signaler carries an offer to the server.
type Signaler interface {
	// Exchange sends an offer, JSON {"type":"offer",...}, and returns the server's answer. It is called in a goroutine
	// of its own; ctx ends when the answer is not needed any more.
	Exchange(ctx context.Context, offer []byte) (answer []byte, err error)
}

// SignalerFunc is a function that is a Signaler.
type SignalerFunc func(ctx context.Context, offer []byte) (answer []byte, err error)

// Exchange calls the function.
func (f SignalerFunc) Exchange(ctx context.Context, offer []byte) ([]byte, error) {
	return f(ctx, offer)
}

// NewConnector makes a connector, which does nothing until Connect or Dial. A cache file that cannot be used is a
// warning in the log, never an error. config may be nil. Fails with ErrInvalidArgument or ErrLimit.
func (e *Engine) NewConnector(config *ConnectorConfig) (*Connector, error) {
	if config == nil {
		config = &ConnectorConfig{}
	}
	if err := refuseZeroBytes("Key", config.Key); err != nil {
		return nil, err
	}
	if err := refuseZeroBytes("CachePath", config.CachePath); err != nil {
		return nil, err
	}
	var memory arena
	defer memory.free()
	var native C.reconnect_connector_config_t
	for _, each := range []struct {
		name  string
		value time.Duration
		out   *C.uint32_t
	}{
		{"FastTimeout", config.FastTimeout, &native.fast_timeout_ms},
		{"NormalTimeout", config.NormalTimeout, &native.normal_timeout_ms},
		{"MaxCacheAge", config.MaxCacheAge, &native.max_cache_age_ms},
	} {
		count, err := milliseconds(each.name, each.value)
		if err != nil {
			return nil, err
		}
		*each.out = count
	}
	made, err := e.addTemplate(&config.Peer, &memory)
	if err != nil {
		return nil, err
	}
	c := &Connector{engine: e, tag: e.lastTag.Add(1), made: made}
	native.struct_size = C.uint32_t(unsafe.Sizeof(native))
	native.policy = C.uint32_t(config.Policy)
	native.key = memory.text(config.Key)
	native.cache_path = memory.text(config.CachePath)
	native.disable_tickets = flag(config.DisableTickets)
	native.peer = made.native
	native.tag = C.uint64_t(c.tag)
	e.mutex.Lock()
	e.connectors[c.tag] = c
	e.mutex.Unlock()
	var handle C.reconnect_connector_t
	var detail detailText
	status := C.reconnect_connector_create(e.handle, &native, &handle, &detail[0], C.size_t(len(detail)))
	if status != C.RECONNECT_OK {
		e.forgetConnector(c)
		return nil, failure(status, detail.String())
	}
	c.handle.Store(uint64(handle.id))
	return c, nil
}

// forgetConnector: nothing more comes from it, and it makes no more peers.
func (e *Engine) forgetConnector(c *Connector) {
	e.mutex.Lock()
	delete(e.connectors, c.tag)
	delete(e.templates, c.made.tag)
	e.mutex.Unlock()
}

func (c *Connector) native() C.reconnect_connector_t {
	return C.reconnect_connector_t{id: C.uint64_t(c.handle.Load())}
}

// Engine is the engine that the connector belongs to.
func (c *Connector) Engine() *Engine { return c.engine }

// Peer is the connection that is up; nil if there is none.
func (c *Connector) Peer() *Peer {
	c.engine.mutex.Lock()
	defer c.engine.mutex.Unlock()
	return c.current
}

// Connect connects, or connects again: a peer that is up stays so until its successor is, then closes with
// ErrReplaced. Waits until the channels of the configuration are open. Meanwhile whoever reads the engine's events
// serves its SignalEvents, by Message and SignalingFailed; Dial does that by itself.
//
// If ctx ends first, the attempts go on, and a ConnectorEvent tells what becomes of them. Fails with ErrWrongState
// while a connect is under way, ErrInvalidHandle after Close, or the reason why no attempt worked.
func (c *Connector) Connect(ctx context.Context) (*Connection, error) { return c.start(ctx, nil) }

// Dial connects as Connect, and gives offers to the signaler, whose answers it takes. If ctx ends first, the
// exchanges end too. An error that came of the signaler's unwraps to it.
func (c *Connector) Dial(ctx context.Context, signaler Signaler) (*Connection, error) {
	if signaler == nil {
		return nil, &Error{Status: StatusInvalidArgument, Detail: "the signaler is nil"}
	}
	return c.start(ctx, signaler)
}

func (c *Connector) start(ctx context.Context, signaler Signaler) (*Connection, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	e := c.engine
	d := &dial{signaler: signaler, result: make(chan dialed, 1)}
	d.ctx, d.cancel = context.WithCancel(ctx)
	defer d.cancel()
	e.mutex.Lock()
	if c.dial != nil {
		e.mutex.Unlock()
		return nil, &Error{Status: StatusWrongState, Detail: "a connect is under way"}
	}
	c.dial = d // before the library can say anything about it
	e.mutex.Unlock()
	if status := C.reconnect_connector_connect(c.native()); status != C.RECONNECT_OK {
		e.mutex.Lock()
		c.dial = nil
		e.mutex.Unlock()
		return nil, failure(status, "")
	}
	select {
	case result := <-d.result:
		return result.connection, result.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-e.finished:
		return nil, &Error{Status: StatusInvalidHandle, Detail: "the engine was closed"}
	}
}

// Message hands in a message of the other side: the answer to the offer of an exchange, or a candidate. One of an
// exchange that is over is ignored. Fails with ErrMalformedJSON, ErrMalformedSDP, ErrUnacceptable,
// ErrInvalidHandle; a malformed message changes nothing.
func (c *Connector) Message(exchange int64, message []byte) error {
	var detail detailText
	status := C.reconnect_connector_message(c.native(), C.int64_t(exchange), characters(message),
		C.size_t(len(message)), &detail[0], C.size_t(len(detail)))
	if status != C.RECONNECT_OK {
		return failure(status, detail.String())
	}
	return nil
}

// SignalingFailed says that an exchange will have no answer: the attempt fails at once.
func (c *Connector) SignalingFailed(exchange int64) error {
	return failure(C.reconnect_connector_signaling_failed(c.native(), C.int64_t(exchange)), "")
}

// Cache is the cache entry of the connector's key as JSON; empty if there is none.
func (c *Connector) Cache() (string, error) {
	return textOf(4096, func(buffer *C.char, capacity C.size_t, length *C.size_t) C.reconnect_status_t {
		return C.reconnect_connector_cache(c.native(), buffer, capacity, length)
	})
}

// Forget drops what is kept under the connector's key: the next connect is normal.
func (c *Connector) Forget() error { return failure(C.reconnect_connector_forget(c.native()), "") }

// Close stops attempts under way, closes the connected peer and ends the connector. What is kept stays. A
// ConnectorEvent of state ConnectorClosed follows. Closing a closed connector gives ErrInvalidHandle.
func (c *Connector) Close() error { return failure(C.reconnect_connector_close(c.native()), "") }

// ------------------------------------------------------------------ the reader's side

func (e *Engine) connector(event *C.reconnect_event_t) *Connector {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	return e.connectors[uint64(event.tag)]
}

func (e *Engine) signal(event *C.reconnect_event_t) bool {
	c := e.connector(event)
	if c == nil {
		return true
	}
	c.handle.Store(uint64(event.connector.id))
	e.mutex.Lock()
	d := c.dial
	e.mutex.Unlock()
	message := bytes(event.data, event.size)
	if d == nil || d.signaler == nil {
		return e.deliver(SignalEvent{Connector: c, Exchange: int64(event.number), Message: message})
	}
	// An offer holds all candidates: there is no need for those that come alone.
	var kind struct{ Type string }
	if json.Unmarshal(message, &kind) == nil && kind.Type == "offer" {
		go c.exchange(d, int64(event.number), message)
	}
	return true
}

// exchange carries one offer. What it says about an exchange that is over is ignored by the library.
func (c *Connector) exchange(d *dial, number int64, offer []byte) {
	answer, err := d.signaler.Exchange(d.ctx, offer)
	if err == nil {
		err = c.Message(number, answer)
	}
	if err != nil {
		c.engine.mutex.Lock()
		d.cause = err
		c.engine.mutex.Unlock()
		c.SignalingFailed(number)
	}
}

func (e *Engine) attempt(event *C.reconnect_event_t) bool {
	c := e.connector(event)
	if c == nil {
		return true
	}
	detail := text(event.data, event.size)
	return e.deliver(AttemptEvent{
		Connector: c, State: AttemptState(event.number), Mode: Mode(event.kind), Reason: failure(event.status, detail),
		Detail: detail, Elapsed: time.Duration(event.duration_ns),
	})
}

func (e *Engine) connectorState(event *C.reconnect_event_t) bool {
	c := e.connector(event)
	if c == nil {
		return true
	}
	c.handle.Store(uint64(event.connector.id))
	detail := text(event.data, event.size)
	out := ConnectorEvent{
		Connector: c, State: ConnectorState(event.number), Mode: Mode(event.kind), Reason: failure(event.status, detail),
		Detail: detail, Elapsed: time.Duration(event.duration_ns),
	}
	switch out.State {
	case ConnectorConnected:
		out.Peer = e.peerOf(c.made, uint64(event.peer.id))
		c.setPeer(out.Peer)
		c.opening = dialed{connection: &Connection{Peer: out.Peer, Mode: out.Mode, Duration: out.Elapsed}}
		out.Peer.connector = c
		e.settle(out.Peer, nil)
	case ConnectorFailed:
		out.Peer = c.Peer()
		c.end(dialed{err: out.Reason})
	case ConnectorLost:
		out.Peer = c.Peer()
		c.setPeer(nil)
	case ConnectorClosed:
		c.setPeer(nil)
		c.end(dialed{err: &Error{Status: StatusInvalidHandle, Detail: "the connector was closed"}})
		e.forgetConnector(c)
	}
	return e.deliver(out)
}

// settle ends the connect that has led to a peer once all its channels can send, or with the reason why it closed.
func (e *Engine) settle(p *Peer, reason error) {
	c := p.connector
	if c == nil {
		return
	}
	switch {
	case reason != nil:
		c.opening = dialed{err: reason}
	case !p.isOpen():
		return
	}
	p.connector = nil
	c.end(c.opening)
}

// lostReason is why a peer is of no use any more before it was told.
func lostReason(reason error) error {
	if reason == nil {
		return &Error{Status: StatusClosed, Detail: "the peer was closed"}
	}
	return reason
}

// isOpen says whether all negotiated channels can send; one that has ended counts as well.
func (p *Peer) isOpen() bool {
	p.engine.mutex.Lock()
	defer p.engine.mutex.Unlock()
	for _, c := range p.negotiated {
		if c.handle.Load() == 0 && p.opened[c.tag] == c {
			return false
		}
	}
	return true
}

func (c *Connector) setPeer(p *Peer) {
	c.engine.mutex.Lock()
	c.current = p
	c.engine.mutex.Unlock()
}

// end ends the connect under way.
func (c *Connector) end(result dialed) {
	c.engine.mutex.Lock()
	defer c.engine.mutex.Unlock()
	d := c.dial
	if d == nil {
		return
	}
	c.dial = nil
	if failed, ok := result.err.(*Error); ok && d.cause != nil {
		result.err = &Error{Status: failed.Status, Detail: failed.Detail, cause: d.cause}
	}
	d.result <- result
	d.cancel()
}
