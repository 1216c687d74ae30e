package reconnect

// #cgo pkg-config: reconnect
// #include <stdlib.h>
// #include <reconnect.h>
import "C"

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// abiMajor is the major number of the ABI that this package is written for.
const abiMajor = 1

// Engine owns one UDP port, one certificate and one thread, and all peers on that port.
type Engine struct {
	handle     C.reconnect_engine_t
	port       uint16
	descriptor *os.File
	wait       syscall.RawConn
	events     chan Event
	closing    chan struct{} // closed first: nobody waits any more
	finished   chan struct{} // closed last, by the reader
	closeOnce  sync.Once
	closeError error
	lastTag    atomic.Uint64

	mutex      sync.Mutex
	pending    map[uint64]chan<- outcome // calls that wait for their event, by the call's tag
	peers      map[uint64]*Peer          // those the program made, by tag
	channels   map[uint64]*Channel       // those opened here, by tag
	templates  map[uint64]*template      // of peers that the library makes, by their common tag
	connectors map[uint64]*Connector     // by tag
	resumed    []*Channel                // channels to read again; the reader takes them

	paused atomic.Int64 // channels that are paused

	// Used by the reader only.
	batch         []C.reconnect_event_t // in C memory: the poll fills it
	peersByHandle map[uint64]*Peer
	remote        map[uint64]*Channel                // opened by the other sides, by handle
	held          map[*Channel][]C.reconnect_event_t // messages of paused channels, each a batch of its own
}

// outcome is what the event of a call says.
type outcome struct {
	status   C.reconnect_status_t
	data     []byte
	mode     Mode
	duration time.Duration
}

// NewEngine makes an engine: opens the port, loads or makes the certificate (ECDSA P-256, RFC 8827 section
// 6.5), starts the thread. config may be nil for all defaults. Blocks for the file and the key only.
//
// Fails with ErrPortInUse, ErrNoPermission, ErrNoAddress, ErrNoDescriptors, ErrCertificateUnusable, ErrStorage,
// ErrSystem, ErrInvalidArgument. Close ends the engine; one that is not closed lives as long as the process.
func NewEngine(config *Config) (*Engine, error) { return newEngine(config, false) }

// NewEngineFromEnv makes an engine as NewEngine, and what config leaves at its default is taken from the
// environment: ENABLE_FAST_RELOAD ("false", "0", "no" or "off"; "partial"), STUN_URLS (separated by commas), REDIS_URL
// (the SessionStore), ICE_MODE ("turn-only" or "relay": ICEPolicyRelay; "all"), and TURN_URLS (separated by commas) with
// TURN_USERNAME and TURN_PASSWORD, or with TURN_SECRET. A value that cannot be used gives ErrInvalidArgument with its
// name in the detail.
func NewEngineFromEnv(config *Config) (*Engine, error) { return newEngine(config, true) }

func newEngine(config *Config, fromEnvironment bool) (*Engine, error) {
	if major := uint32(C.reconnect_version()) >> 16; major != abiMajor {
		return nil, &Error{Status: StatusInvalidArgument, Detail: fmt.Sprintf(
			"the library's ABI has major number %d, this package is for %d", major, abiMajor)}
	}
	if config == nil {
		config = &Config{}
	}
	var memory arena
	defer memory.free()
	var native C.reconnect_engine_config_t
	if err := config.fill(&native, &memory); err != nil {
		return nil, err
	}
	capacity := config.EventCapacity
	switch {
	case capacity < 0:
		return nil, &Error{Status: StatusInvalidArgument, Detail: "EventCapacity is negative"}
	case capacity == 0:
		capacity = 64
	}
	e := &Engine{
		events:        make(chan Event, capacity),
		closing:       make(chan struct{}),
		finished:      make(chan struct{}),
		pending:       make(map[uint64]chan<- outcome),
		peers:         make(map[uint64]*Peer),
		channels:      make(map[uint64]*Channel),
		peersByHandle: make(map[uint64]*Peer),
		templates:     make(map[uint64]*template),
		connectors:    make(map[uint64]*Connector),
		remote:        make(map[uint64]*Channel),
		held:          make(map[*Channel][]C.reconnect_event_t),
	}
	var detail detailText
	returning, err := e.addTemplate(&config.ReturningPeer, &memory)
	if err != nil {
		return nil, err
	}
	native.returning_peer = returning.native
	var status C.reconnect_status_t
	if fromEnvironment {
		status = C.reconnect_engine_create_from_env(&native, &e.handle, &detail[0], C.size_t(len(detail)))
	} else {
		status = C.reconnect_engine_create(&native, &e.handle, &detail[0], C.size_t(len(detail)))
	}
	if status != C.RECONNECT_OK {
		return nil, failure(status, detail.String())
	}
	if err := e.watch(); err != nil {
		C.reconnect_engine_destroy(e.handle)
		return nil, err
	}
	go e.read()
	return e, nil
}

// watch prepares a copy of the event descriptor for Go's network poller.
func (e *Engine) watch() error {
	var port C.uint16_t
	if status := C.reconnect_engine_port(e.handle, &port); status != C.RECONNECT_OK {
		return failure(status, "")
	}
	e.port = uint16(port)
	var original C.int
	if status := C.reconnect_event_fd(e.handle, &original); status != C.RECONNECT_OK {
		return failure(status, "")
	}
	var err error
	e.descriptor, e.wait, err = pollable(original)
	return err
}

// Close closes all peers (the other sides are told), stops the thread, closes the port and the channel of
// events. Calls that wait return ErrInvalidHandle. Events not yet received from the channel stay in it. A
// second Close does nothing. May be called from every goroutine, also the one that reads the events.
func (e *Engine) Close() error {
	e.closeOnce.Do(func() {
		close(e.closing)
		e.descriptor.Close() // wakes the reader
		<-e.finished
		e.closeError = failure(C.reconnect_engine_destroy(e.handle), "")
	})
	return e.closeError
}

// Events is the channel on which everything that happens arrives, in order. Close closes it. Several
// goroutines may receive from it; then the order between them is theirs.
func (e *Engine) Events() <-chan Event { return e.events }

// Port is the UDP port in use.
func (e *Engine) Port() uint16 { return e.port }

// Hash is a hash function for fingerprints (RFC 8122).
type Hash uint32

// The hash functions.
const (
	SHA256 Hash = C.RECONNECT_SHA256
	SHA384 Hash = C.RECONNECT_SHA384
	SHA512 Hash = C.RECONNECT_SHA512
)

// Fingerprint is the certificate's fingerprint as in SDP, for example "sha-256 AB:CD:...".
func (e *Engine) Fingerprint(hash Hash) (string, error) {
	return textOf(256, func(buffer *C.char, capacity C.size_t, length *C.size_t) C.reconnect_status_t {
		return C.reconnect_engine_fingerprint(e.handle, C.uint32_t(hash), buffer, capacity, length)
	})
}

// Metrics are all metrics of the engine in Prometheus' text format 0.0.4, to be served as MetricsContentType.
func (e *Engine) Metrics() (string, error) {
	return textOf(16<<10, func(buffer *C.char, capacity C.size_t, length *C.size_t) C.reconnect_status_t {
		return C.reconnect_engine_metrics(e.handle, buffer, capacity, length)
	})
}

// MetricsContentType is the Content-Type of Engine.Metrics in an HTTP response.
const MetricsContentType = "text/plain; version=0.0.4; charset=utf-8"

// textOf calls a function that fills a buffer, again with a larger one if it has to.
func textOf(capacity int, fill func(*C.char, C.size_t, *C.size_t) C.reconnect_status_t) (string, error) {
	buffer := make([]byte, capacity)
	for {
		var length C.size_t
		status := fill((*C.char)(unsafe.Pointer(&buffer[0])), C.size_t(len(buffer)), &length)
		switch {
		case status == C.RECONNECT_OK && int(length) <= len(buffer):
			return string(buffer[:length]), nil
		case status == C.RECONNECT_TOO_SMALL && int(length) > len(buffer):
			buffer = make([]byte, length)
		default:
			return "", failure(status, "")
		}
	}
}

// SetAddresses replaces the IP addresses offered from now on. None: back to the machine's own.
func (e *Engine) SetAddresses(addresses ...string) error {
	if err := refuseZeroBytes("an address", addresses...); err != nil {
		return err
	}
	var memory arena
	defer memory.free()
	return failure(C.reconnect_engine_set_addresses(e.handle, memory.texts(addresses), C.size_t(len(addresses))), "")
}

// FastReload is a position of the kill switch of fast reload.
type FastReload uint32

const (
	// FastReloadOff: every answer is normal, tickets are refused; known sessions stay, unused.
	FastReloadOff FastReload = C.RECONNECT_FAST_RELOAD_OFF
	// FastReloadOn is the default.
	FastReloadOn FastReload = C.RECONNECT_FAST_RELOAD_ON
	// FastReloadPartial: sessions and the certificate go on, every answer is normal, tickets are refused.
	FastReloadPartial FastReload = C.RECONNECT_FAST_RELOAD_PARTIAL
)

// String is "off", "on" or "partial".
func (f FastReload) String() string {
	switch f {
	case FastReloadOff:
		return "off"
	case FastReloadOn:
		return "on"
	case FastReloadPartial:
		return "partial"
	}
	return "unknown"
}

// SetFastReload throws the kill switch while running; answers and connects under way are finished as they were
// begun. FastReloadOn also re-arms a tripped switch. A FastReloadEvent tells what became of it.
func (e *Engine) SetFastReload(setting FastReload) error {
	return failure(C.reconnect_engine_set_fast_reload(e.handle, C.uint32_t(setting)), "")
}

// RotateCertificate replaces the certificate now, on disk too if CertificatePath was given. The previous one stays
// in use for peers that are up and for tickets that were issued with it, until they expire. A CertificateEvent
// follows. Blocks for the file and the key only. Fails with ErrNoPermission or ErrStorage, and then nothing has
// changed.
func (e *Engine) RotateCertificate() error {
	var detail detailText
	status := C.reconnect_engine_rotate_certificate(e.handle, &detail[0], C.size_t(len(detail)))
	if status != C.RECONNECT_OK {
		return failure(status, detail.String())
	}
	return nil
}

// Revoke forgets a session for good, by the ClientID that SessionEvent told: its peers are closed, its tokens are unknown
// from now on and its tickets are refused by this engine. For clients that must not come back without being asked.
// ErrInvalidArgument if it is no client id; an unknown one is not an error.
func (e *Engine) Revoke(clientID string) error {
	text := C.CString(clientID)
	defer C.free(unsafe.Pointer(text))
	return failure(C.reconnect_engine_revoke(e.handle, text), "")
}

// SetLogLevel changes the level of LogEvents.
func (e *Engine) SetLogLevel(level LogLevel) error {
	return failure(C.reconnect_engine_set_log_level(e.handle, C.uint32_t(level)), "")
}

// EngineStatistics are counters since the engine's start; those marked "now" are gauges.
type EngineStatistics struct {
	Peers             uint32 // now
	Sessions          uint64 // now
	AnswersFast       uint64
	AnswersNormal     uint64
	PeersConnected    uint64 // ever
	PeersFailed       uint64 // closed before they connected, or by an error
	SessionsReturned  uint64 // connections that came back to their session
	DatagramsReceived uint64
	DatagramsSent     uint64
	BytesReceived     uint64 // UDP payload
	BytesSent         uint64
	DatagramsDropped  uint64        // from strangers, malformed, failed integrity; counted and dropped
	SendErrors        uint64        // datagrams the operating system refused
	CertificateAge    time.Duration // now
	EventsQueued      uint64        // now, in the library
}

// Statistics reads the engine's counters.
func (e *Engine) Statistics() (EngineStatistics, error) {
	var native C.reconnect_engine_statistics_t
	native.struct_size = C.uint32_t(unsafe.Sizeof(native))
	if status := C.reconnect_engine_statistics(e.handle, &native); status != C.RECONNECT_OK {
		return EngineStatistics{}, failure(status, "")
	}
	return EngineStatistics{
		Peers:             uint32(native.peers),
		Sessions:          uint64(native.sessions),
		AnswersFast:       uint64(native.answers_fast),
		AnswersNormal:     uint64(native.answers_normal),
		PeersConnected:    uint64(native.peers_connected),
		PeersFailed:       uint64(native.peers_failed),
		SessionsReturned:  uint64(native.sessions_returned),
		DatagramsReceived: uint64(native.datagrams_received),
		DatagramsSent:     uint64(native.datagrams_sent),
		BytesReceived:     uint64(native.bytes_received),
		BytesSent:         uint64(native.bytes_sent),
		DatagramsDropped:  uint64(native.datagrams_dropped),
		SendErrors:        uint64(native.send_errors),
		CertificateAge:    time.Duration(native.certificate_age_seconds) * time.Second,
		EventsQueued:      uint64(native.events_queued),
	}, nil
}

// Answer is an answered offer.
type Answer struct {
	// Peer is the connection that comes to be. It closes by itself if nobody connects within ConnectTimeout.
	Peer *Peer
	// JSON is the answer to give to the other side:
	// {"type":"answer","sdp":...,"connectionMode":"fast"|"normal","sessionToken":...}.
	JSON []byte
	// Mode says whether a session came back.
	Mode Mode
	// Duration is the time from the call to the finished answer.
	Duration time.Duration
}

// Answer answers an offer, JSON {"type":"offer","sdp":...,"sessionToken":...}, and makes a peer. The token of a
// live session, from the client to whom it was given, gives ModeFast. config may be nil.
//
// Waits for the answer, usually less than a millisecond; if ctx ends first, the peer is closed. Fails with
// ErrMalformedJSON, ErrMalformedSDP, ErrUnacceptable, ErrLimit, ErrNoAddress, ErrInvalidHandle after Close, or
// the context's error.
func (e *Engine) Answer(ctx context.Context, offer []byte, config *PeerConfig) (*Answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, native, memory, err := e.preparePeer(config)
	defer memory.free()
	if err != nil {
		return nil, err
	}
	tag, result := e.expect()
	var handle C.reconnect_peer_t
	var detail detailText
	status := C.reconnect_answer(e.handle, characters(offer), C.size_t(len(offer)), &native, C.uint64_t(tag),
		&handle, &detail[0], C.size_t(len(detail)))
	if status != C.RECONNECT_OK {
		e.forgetCall(tag)
		e.forgetPeer(p)
		return nil, failure(status, detail.String())
	}
	p.handle.Store(uint64(handle.id))
	answer, err := e.await(ctx, tag, result)
	if err != nil {
		e.forgetPeer(p)
		p.Close()
		return nil, err
	}
	return &Answer{Peer: p, JSON: answer.data, Mode: answer.mode, Duration: answer.duration}, nil
}

// NewPeer makes a peer that will offer. Open its channels, then call Peer.Offer. config may be nil.
func (e *Engine) NewPeer(config *PeerConfig) (*Peer, error) {
	p, native, memory, err := e.preparePeer(config)
	defer memory.free()
	if err != nil {
		return nil, err
	}
	var handle C.reconnect_peer_t
	if status := C.reconnect_peer_create(e.handle, &native, &handle); status != C.RECONNECT_OK {
		e.forgetPeer(p)
		return nil, failure(status, "")
	}
	p.handle.Store(uint64(handle.id))
	return p, nil
}

// preparePeer makes the Go side of a peer and its negotiated channels, known by their tags before the library
// can say anything about them.
func (e *Engine) preparePeer(config *PeerConfig) (*Peer, C.reconnect_peer_config_t, arena, error) {
	var native C.reconnect_peer_config_t
	var memory arena
	if config == nil {
		config = &PeerConfig{}
	}
	tag := e.lastTag.Add(1)
	tags, err := config.fill(&native, &memory, tag, &e.lastTag)
	if err != nil {
		return nil, native, memory, err
	}
	p := newPeer(e, tag, config, tags)
	e.mutex.Lock()
	e.peers[p.tag] = p
	for _, c := range p.negotiated {
		e.channels[c.tag] = c
	}
	e.mutex.Unlock()
	return p, native, memory, nil
}

// template is how peers are made that the library makes by itself. They have one tag, and their channels' tags, in
// common: what tells them apart is their handles.
type template struct {
	config PeerConfig
	tag    uint64
	tags   []uint64 // of the channels
	native *C.reconnect_peer_config_t
}

// addTemplate makes a template. Its native configuration lives as long as the arena.
func (e *Engine) addTemplate(config *PeerConfig, memory *arena) (*template, error) {
	t := &template{config: *config, tag: e.lastTag.Add(1)}
	t.config.Channels = append([]ChannelConfig(nil), config.Channels...)
	t.native = (*C.reconnect_peer_config_t)(memory.allocate(1, unsafe.Sizeof(*t.native)))
	var err error
	if t.tags, err = config.fill(t.native, memory, t.tag, &e.lastTag); err != nil {
		return nil, err
	}
	e.mutex.Lock()
	e.templates[t.tag] = t
	e.mutex.Unlock()
	return t, nil
}

// newPeer makes the Go side of a peer. tags are those of its channels.
func newPeer(e *Engine, tag uint64, config *PeerConfig, tags []uint64) *Peer {
	p := &Peer{
		engine: e, tag: tag, negotiates: config.Negotiation != NegotiationManual, onSignal: config.OnSignal,
		opened: make(map[uint64]*Channel), remote: make(map[uint64]*Channel),
	}
	for i := range tags {
		c := newChannel(p, &config.Channels[i], tags[i])
		p.negotiated = append(p.negotiated, c)
		p.opened[c.tag] = c
	}
	return p
}

// forgetPeer: events with the peer's tags concern nobody any more.
func (e *Engine) forgetPeer(p *Peer) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	delete(e.peers, p.tag)
	for tag, c := range p.opened {
		if e.channels[tag] == c {
			delete(e.channels, tag)
		}
		delete(p.opened, tag)
	}
}

// expect prepares for the event of a call.
func (e *Engine) expect() (uint64, <-chan outcome) {
	tag := e.lastTag.Add(1)
	result := make(chan outcome, 1)
	e.mutex.Lock()
	e.pending[tag] = result
	e.mutex.Unlock()
	return tag, result
}

func (e *Engine) forgetCall(tag uint64) {
	e.mutex.Lock()
	delete(e.pending, tag)
	e.mutex.Unlock()
}

// await waits for the event of a call.
func (e *Engine) await(ctx context.Context, tag uint64, result <-chan outcome) (outcome, error) {
	select {
	case out := <-result:
		if out.status != C.RECONNECT_OK {
			return out, failure(out.status, string(out.data))
		}
		return out, nil
	case <-ctx.Done():
		e.forgetCall(tag)
		return outcome{}, ctx.Err()
	case <-e.finished:
		e.forgetCall(tag)
		return outcome{}, &Error{Status: StatusInvalidHandle, Detail: "the engine was closed"}
	}
}

func characters(bytes []byte) *C.char {
	if len(bytes) == 0 {
		return nil
	}
	return (*C.char)(unsafe.Pointer(&bytes[0]))
}
