package reconnect

// #include <reconnect.h>
import "C"

import (
	"context"
	"sync/atomic"
	"time"
	"unsafe"
)

// Peer is one WebRTC connection. It ends with its PeerStateEvent of state PeerClosed.
type Peer struct {
	engine     *Engine
	tag        uint64
	handle     atomic.Uint64
	made       bool // by the library, of a template
	negotiated []*Channel
	opened     map[uint64]*Channel // opened here, by tag; under the engine's mutex
	remote     map[uint64]*Channel // opened by the other side, by handle; the reader's
	negotiates bool                // by itself
	onSignal   func(*Peer, []byte)
	connector  *Connector // whose connect ends when the channels are open; the reader's
}

func (p *Peer) native() C.reconnect_peer_t {
	return C.reconnect_peer_t{id: C.uint64_t(p.handle.Load())}
}

// Engine is the engine that the peer belongs to.
func (p *Peer) Engine() *Engine { return p.engine }

// ID is a number that no other peer of the process has: for logs.
func (p *Peer) ID() uint64 { return p.tag }

// Channels are the negotiated channels of the peer's configuration, in its order. They can send once their
// ChannelOpenEvents have come.
func (p *Peer) Channels() []*Channel { return append([]*Channel(nil), p.negotiated...) }

// OpenChannel opens a data channel (RFC 8831, 8832). May be called before the peer is connected: a
// ChannelOpenEvent says when it is open; messages sent before are kept and go out first. config may be nil.
//
// Fails with ErrInvalidArgument, ErrLimit, ErrClosed or ErrInvalidHandle.
func (p *Peer) OpenChannel(config *ChannelConfig) (*Channel, error) {
	if config == nil {
		config = &ChannelConfig{}
	}
	e := p.engine
	c := newChannel(p, config, e.lastTag.Add(1))
	var memory arena
	defer memory.free()
	var native C.reconnect_channel_config_t
	if err := config.fill(&native, &memory, c.tag); err != nil {
		return nil, err
	}
	e.mutex.Lock()
	e.channels[c.tag] = c
	p.opened[c.tag] = c
	e.mutex.Unlock()
	var handle C.reconnect_channel_t
	if status := C.reconnect_channel_open(p.native(), &native, &handle); status != C.RECONNECT_OK {
		e.forgetChannel(c)
		return nil, failure(status, "")
	}
	c.handle.Store(uint64(handle.id))
	return c, nil
}

// Offer makes the offer, JSON {"type":"offer","sdp":...}, with all candidates in it. Not for a peer that negotiates by
// itself.
//
// Waits for it, usually less than a millisecond. Fails with ErrWrongState, ErrNoAddress, ErrInvalidHandle, or
// the context's error.
func (p *Peer) Offer(ctx context.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	tag, result := p.engine.expect()
	if status := C.reconnect_peer_offer(p.native(), C.uint64_t(tag)); status != C.RECONNECT_OK {
		p.engine.forgetCall(tag)
		return nil, failure(status, "")
	}
	out, err := p.engine.await(ctx, tag, result)
	if err != nil {
		return nil, err
	}
	return out.data, nil
}

// Accept takes the answer to the offer, JSON as in Answer.JSON; then the peer connects.
//
// Waits until the answer is found to fit the offer. Fails with ErrMalformedJSON, ErrMalformedSDP,
// ErrUnacceptable, ErrWrongState, ErrInvalidHandle, or the context's error.
func (p *Peer) Accept(ctx context.Context, answer []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	tag, result := p.engine.expect()
	var detail detailText
	status := C.reconnect_peer_accept(p.native(), characters(answer), C.size_t(len(answer)), C.uint64_t(tag),
		&detail[0], C.size_t(len(detail)))
	if status != C.RECONNECT_OK {
		p.engine.forgetCall(tag)
		return failure(status, detail.String())
	}
	_, err := p.engine.await(ctx, tag, result)
	return err
}

// AddCandidate adds a candidate of the other side, JSON {"candidate":{...}}, or {"candidate":null} for the end
// of them. Fails with ErrMalformedJSON, ErrMalformedSDP, ErrInvalidHandle.
func (p *Peer) AddCandidate(candidate []byte) error {
	var detail detailText
	status := C.reconnect_peer_add_candidate(p.native(), characters(candidate), C.size_t(len(candidate)), &detail[0],
		C.size_t(len(detail)))
	if status != C.RECONNECT_OK {
		return failure(status, detail.String())
	}
	return nil
}

// Close closes the peer and its channels; the other side is told. Messages not yet sent are lost. A
// PeerStateEvent of state PeerClosed follows. Closing a closed peer gives ErrInvalidHandle.
func (p *Peer) Close() error {
	return failure(C.reconnect_peer_close(p.native()), "")
}

// PeerStatistics are the figures of a peer.
type PeerStatistics struct {
	Channels          uint32        // open now
	ICE               time.Duration // from the peer's making to its first verified check; 0: not yet
	DTLS              time.Duration // to the finished handshake; 0: not yet
	SCTP              time.Duration // to the association; 0: not yet
	RoundTrip         time.Duration // smoothed; 0: not measured
	BytesSent         uint64        // UDP payload
	BytesReceived     uint64
	MessagesSent      uint64
	MessagesReceived  uint64
	Retransmissions   uint64 // SCTP chunks sent again
	CongestionWindow  uint64 // bytes
	Buffered          uint64 // bytes waiting in all channels
	LocalAddress      string // of the path in use, as "[::1]:9" or "127.0.0.1:9"
	RemoteAddress     string
	LocalType         string // of the path's candidates: "host", "srflx", "prflx" or "relay"
	RemoteType        string
	Transport         string // "udp" or "tcp"
	RelayTransport    string // to our TURN server: "udp", "tcp" or "tls"; empty without one
	RelayAddress      string // of our TURN server; empty without one
	PacketsSent       uint64
	PacketsReceived   uint64
	ChecksSent        uint64 // STUN requests, consent included
	ChecksReceived    uint64
	PathChanges       uint64
	Restarts          uint64 // ICE restarts begun by either side
	Generation        uint32 // of ICE: 0 until the first restart
	Standby           bool   // a second path is valid and kept warm
	CandidatesRefused uint64 // of the other side: malformed, unusable or beyond a limit
}

// Statistics asks for the peer's figures and waits for them. Fails with ErrInvalidHandle or the context's
// error.
func (p *Peer) Statistics(ctx context.Context) (PeerStatistics, error) {
	if err := ctx.Err(); err != nil {
		return PeerStatistics{}, err
	}
	tag, result := p.engine.expect()
	if status := C.reconnect_peer_query_statistics(p.native(), C.uint64_t(tag)); status != C.RECONNECT_OK {
		p.engine.forgetCall(tag)
		return PeerStatistics{}, failure(status, "")
	}
	out, err := p.engine.await(ctx, tag, result)
	if err != nil {
		return PeerStatistics{}, err
	}
	// A library that knows fewer members than this package leaves the others zero.
	var native C.reconnect_peer_statistics_t
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&native)), unsafe.Sizeof(native)), out.data)
	return PeerStatistics{
		Channels:          uint32(native.channels),
		ICE:               time.Duration(native.ice_ns),
		DTLS:              time.Duration(native.dtls_ns),
		SCTP:              time.Duration(native.sctp_ns),
		RoundTrip:         time.Duration(native.round_trip_ns),
		BytesSent:         uint64(native.bytes_sent),
		BytesReceived:     uint64(native.bytes_received),
		MessagesSent:      uint64(native.messages_sent),
		MessagesReceived:  uint64(native.messages_received),
		Retransmissions:   uint64(native.retransmissions),
		CongestionWindow:  uint64(native.congestion_window),
		Buffered:          uint64(native.buffered),
		LocalAddress:      arrayText(native.local_address[:]),
		RemoteAddress:     arrayText(native.remote_address[:]),
		LocalType:         arrayText(native.local_type[:]),
		RemoteType:        arrayText(native.remote_type[:]),
		Transport:         arrayText(native.transport[:]),
		RelayTransport:    arrayText(native.relay_transport[:]),
		RelayAddress:      arrayText(native.relay_address[:]),
		PacketsSent:       uint64(native.packets_sent),
		PacketsReceived:   uint64(native.packets_received),
		ChecksSent:        uint64(native.checks_sent),
		ChecksReceived:    uint64(native.checks_received),
		PathChanges:       uint64(native.path_changes),
		Restarts:          uint64(native.restarts),
		Generation:        uint32(native.generation),
		Standby:           native.standby != 0,
		CandidatesRefused: uint64(native.candidates_refused),
	}, nil
}

// arrayText is the text of an array that ends with its first zero, or with the array.
func arrayText(characters []C.char) string {
	text := make([]byte, 0, len(characters))
	for _, each := range characters {
		if each == 0 {
			break
		}
		text = append(text, byte(each))
	}
	return string(text)
}
