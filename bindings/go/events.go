package reconnect

// #include <reconnect.h>
import "C"

import "time"

// Event is something that happened. Use a type switch; ignore types that you do not know.
type Event interface{ event() }

// PeerState is where a peer stands.
type PeerState int

// The states of a peer.
const (
	// PeerConnecting: the first check came, ICE has a path, DTLS has begun.
	PeerConnecting PeerState = C.RECONNECT_PEER_CONNECTING
	// PeerConnected: DTLS is finished, the other side is authenticated. Again after PeerDisconnected.
	PeerConnected PeerState = C.RECONNECT_PEER_CONNECTED
	// PeerDisconnected: silent for DisconnectTimeout; may come back by itself.
	PeerDisconnected PeerState = C.RECONNECT_PEER_DISCONNECTED
	// PeerClosed: the end.
	PeerClosed PeerState = C.RECONNECT_PEER_CLOSED
)

// String is the state's name, for example "connected".
func (s PeerState) String() string {
	switch s {
	case PeerConnecting:
		return "connecting"
	case PeerConnected:
		return "connected"
	case PeerDisconnected:
		return "disconnected"
	case PeerClosed:
		return "closed"
	}
	return "unknown"
}

// Mode is how an offer was answered.
type Mode int

const (
	// ModeNormal: a new session.
	ModeNormal Mode = C.RECONNECT_MODE_NORMAL
	// ModeFast: a session came back.
	ModeFast Mode = C.RECONNECT_MODE_FAST
)

// String is "fast" or "normal", as in the answer's connectionMode.
func (m Mode) String() string {
	if m == ModeFast {
		return "fast"
	}
	return "normal"
}

// LogEvent is a line of the engine's log, without its end of line.
type LogEvent struct {
	Level LogLevel
	Line  string
}

// PeerStateEvent: a peer has come to a state.
type PeerStateEvent struct {
	Peer  *Peer
	State PeerState
	// Reason is why the peer closed, an *Error; nil if the program closed it, and in all other states.
	Reason error
	// Detail is a sentence, possibly empty.
	Detail string
	// Age is the time since the peer was made.
	Age time.Duration
}

// SessionEvent tells who came, once per peer, when the connection is authenticated.
type SessionEvent struct {
	Peer *Peer
	// ClientID is a text that stays the same over the session's life.
	ClientID string
	// Token is the beginning of the session token: 8 characters. The whole token is never told.
	Token string
	// Connections is how many times the session has connected, this one included.
	Connections int64
	// Mode is how the offer was answered.
	Mode Mode
	// Returned: the session had connected before.
	Returned bool
	// Away is how long it had been away: 0 if it has not returned, or took over while its earlier peer was
	// still connected.
	Away time.Duration
}

// ChannelOpenEvent: a channel is open for sending.
type ChannelOpenEvent struct {
	Channel *Channel
	// Remote: the other side opened it.
	Remote bool
}

// MessageEvent is a message.
type MessageEvent struct {
	Channel *Channel
	// Data is the message; it belongs to the receiver of the event. It may be empty.
	Data []byte
	// Text: the sender sent it as text (RFC 8831 section 8); otherwise it is binary.
	Text bool
}

// BufferedLowEvent: the queued bytes of a channel fell to its low-water mark.
type BufferedLowEvent struct {
	Channel *Channel
	// Buffered is how many bytes are queued now.
	Buffered uint64
}

// ChannelClosedEvent: the channel is gone, and every call on it gives ErrInvalidHandle.
type ChannelClosedEvent struct {
	Channel *Channel
	// Reason is why, an *Error; nil if either side closed the channel.
	Reason error
}

// AddressesEvent: the addresses that answers offer have changed.
type AddressesEvent struct {
	// Addresses are the new ones.
	Addresses []string
}

func (LogEvent) event()           {}
func (PeerStateEvent) event()     {}
func (SessionEvent) event()       {}
func (ChannelOpenEvent) event()   {}
func (MessageEvent) event()       {}
func (BufferedLowEvent) event()   {}
func (ChannelClosedEvent) event() {}
func (AddressesEvent) event()     {}
