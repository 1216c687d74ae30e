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

// Mode is how a connection came to be.
type Mode int

const (
	// ModeNormal: a new session.
	ModeNormal Mode = C.RECONNECT_MODE_NORMAL
	// ModeFast: a session came back with one exchange of signaling.
	ModeFast Mode = C.RECONNECT_MODE_FAST
	// ModeZeroSignaling: it came back with a ticket, and nothing was exchanged beforehand.
	ModeZeroSignaling Mode = C.RECONNECT_MODE_ZERO_SIGNALING
)

// String is "normal", "fast" or "zero-signaling".
func (m Mode) String() string {
	switch m {
	case ModeFast:
		return "fast"
	case ModeZeroSignaling:
		return "zero-signaling"
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
	// Ticket: the peer came with a ticket, and the program did not make it. Its channels are those of
	// Config.ReturningPeer.
	Ticket bool
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
	// Mode is how the session came.
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

// SignalEvent: a connector has a message for the other side. It comes only while Connector.Connect is under way; of
// Connector.Dial the messages go to its Signaler.
type SignalEvent struct {
	Connector *Connector
	// Exchange is a number: what the other side says to this message goes to Connector.Message with it.
	Exchange int64
	// Message is JSON, an offer or a candidate.
	Message []byte
}

// AttemptState is what became of an attempt.
type AttemptState int

// The states of an attempt.
const (
	// AttemptSkipped: it was not made; the reason says why.
	AttemptSkipped AttemptState = C.RECONNECT_ATTEMPT_SKIPPED
	AttemptStarted AttemptState = C.RECONNECT_ATTEMPT_STARTED
	AttemptWon     AttemptState = C.RECONNECT_ATTEMPT_WON
	// AttemptFailed: the reason says why.
	AttemptFailed AttemptState = C.RECONNECT_ATTEMPT_FAILED
	// AttemptStopped: another one won.
	AttemptStopped AttemptState = C.RECONNECT_ATTEMPT_STOPPED
)

// String is the state's name, for example "started".
func (s AttemptState) String() string {
	switch s {
	case AttemptSkipped:
		return "skipped"
	case AttemptStarted:
		return "started"
	case AttemptWon:
		return "won"
	case AttemptFailed:
		return "failed"
	case AttemptStopped:
		return "stopped"
	}
	return "unknown"
}

// AttemptEvent tells what became of one of a connector's attempts.
type AttemptEvent struct {
	Connector *Connector
	State     AttemptState
	Mode      Mode
	// Reason is why, an *Error; nil if there is nothing to say.
	Reason error
	// Detail is a sentence, possibly empty.
	Detail string
	// Elapsed is the time since the connect began.
	Elapsed time.Duration
}

// ConnectorState is where a connector stands.
type ConnectorState int

// The states of a connector.
const (
	// ConnectorConnected: the peer's channels are open.
	ConnectorConnected ConnectorState = C.RECONNECT_CONNECTOR_CONNECTED
	// ConnectorFailed: no attempt worked; it may connect again.
	ConnectorFailed ConnectorState = C.RECONNECT_CONNECTOR_FAILED
	// ConnectorLost: its peer closed; it may connect again.
	ConnectorLost ConnectorState = C.RECONNECT_CONNECTOR_LOST
	// ConnectorClosed: the end.
	ConnectorClosed ConnectorState = C.RECONNECT_CONNECTOR_CLOSED
)

// String is the state's name, for example "connected".
func (s ConnectorState) String() string {
	switch s {
	case ConnectorConnected:
		return "connected"
	case ConnectorFailed:
		return "failed"
	case ConnectorLost:
		return "lost"
	case ConnectorClosed:
		return "closed"
	}
	return "unknown"
}

// ConnectorEvent: a connector has come to a state.
type ConnectorEvent struct {
	Connector *Connector
	State     ConnectorState
	// Mode is how the peer connected.
	Mode Mode
	// Peer is the connection; nil if none came to be.
	Peer *Peer
	// Reason is why it failed or was lost, an *Error.
	Reason error
	// Detail is a sentence, possibly empty.
	Detail string
	// Elapsed is the time since the connect began.
	Elapsed time.Duration
}

// Switch says who threw the kill switch of fast reload.
type Switch int

// Who threw the switch.
const (
	SwitchHost    Switch = C.RECONNECT_SWITCH_HOST    // Engine.SetFastReload
	SwitchTripped Switch = C.RECONNECT_SWITCH_TRIPPED // too many fast connects failed
	SwitchRearmed Switch = C.RECONNECT_SWITCH_REARMED // it is tried again
)

// String is "host", "tripped" or "rearmed".
func (s Switch) String() string {
	switch s {
	case SwitchHost:
		return "host"
	case SwitchTripped:
		return "tripped"
	case SwitchRearmed:
		return "rearmed"
	}
	return "unknown"
}

// FastReloadEvent: the kill switch of fast reload was thrown.
type FastReloadEvent struct {
	// Setting is how it acts now.
	Setting FastReload
	By      Switch
	// Detail is a sentence.
	Detail string
}

// CertificateEvent: the engine has a new certificate.
type CertificateEvent struct {
	// Fingerprint is its SHA-256 fingerprint as in SDP.
	Fingerprint string
}

// StoreEvent: the session store has come or gone. While it is away answers are normal.
type StoreEvent struct {
	Available bool
	// Detail is a sentence.
	Detail string
}

// PeerSignalEvent: a peer that negotiates by itself has a message for the other side, to be carried there in order. What
// comes back goes to [Peer.Signal].
type PeerSignalEvent struct {
	Peer *Peer
	// Message is JSON: an offer, an answer or a candidate.
	Message []byte
}

// SignalRefusedEvent: a message of the other side that was well-formed, or a restart, could not be taken by a peer that
// negotiates by itself, and has changed nothing.
type SignalRefusedEvent struct {
	Peer *Peer
	// Reason is why, an *Error.
	Reason error
}

// NetworkEvent: the machine's network is another. Peers have been told already.
type NetworkEvent struct {
	// Online: there is a network.
	Online bool
	// AddressesChanged, RouteChanged and OnlineChanged say what is not as it was.
	AddressesChanged bool
	RouteChanged     bool
	OnlineChanged    bool
	// Detail is a sentence.
	Detail string
}

// TURNState is what a TURN server is to an engine.
type TURNState int

// The states of a TURN server.
const (
	// TURNAllocated: there is a relay.
	TURNAllocated TURNState = C.RECONNECT_TURN_ALLOCATED
	// TURNFailed: there is none. It is tried again by itself where that makes sense.
	TURNFailed TURNState = C.RECONNECT_TURN_FAILED
	// TURNCredentialsNeeded: the credentials end soon, or were refused. Engine.SetTURNServers takes new ones.
	TURNCredentialsNeeded TURNState = C.RECONNECT_TURN_CREDENTIALS
)

// String is "allocated", "failed" or "credentials".
func (s TURNState) String() string {
	switch s {
	case TURNAllocated:
		return "allocated"
	case TURNFailed:
		return "failed"
	case TURNCredentialsNeeded:
		return "credentials"
	}
	return "unknown"
}

// TURNEvent tells what a TURN server is to the engine.
type TURNEvent struct {
	// URL is the server's, as it was given.
	URL   string
	State TURNState
	// Addresses are the relayed addresses, with TURNAllocated.
	Addresses []string
	// Reason is why it failed, an *Error; nil if there is nothing to say.
	Reason error
	// Detail is a sentence, possibly empty.
	Detail string
	// Elapsed is how long the allocation took, with TURNAllocated.
	Elapsed time.Duration
	// Remaining is how long the credentials are good, with TURNCredentialsNeeded.
	Remaining time.Duration
}

// PathChange is what a path is in relation to the one before.
type PathChange int

// The changes of paths.
const (
	// PathFirst: there was none before.
	PathFirst PathChange = C.RECONNECT_PATH_FIRST
	// PathBetter: another one of a higher priority.
	PathBetter PathChange = C.RECONNECT_PATH_BETTER
	// PathFailover: the earlier one was silent.
	PathFailover PathChange = C.RECONNECT_PATH_FAILOVER
	// PathRestarted: found by an ICE restart.
	PathRestarted PathChange = C.RECONNECT_PATH_RESTARTED
	// PathMoved: the other side moved.
	PathMoved PathChange = C.RECONNECT_PATH_MOVED
)

// String is the change's name, for example "failover".
func (c PathChange) String() string {
	switch c {
	case PathFirst:
		return "first"
	case PathBetter:
		return "better"
	case PathFailover:
		return "failover"
	case PathRestarted:
		return "restarted"
	case PathMoved:
		return "moved"
	}
	return "unknown"
}

// PathEvent: the path that a peer uses is another, or is the first.
type PathEvent struct {
	Peer *Peer
	// Local and Remote are the texts of the path's candidates (RFC 8839 section 5.1).
	Local  string
	Remote string
	Change PathChange
	// Paths is how many paths the peer has had, this one included.
	Paths int64
	// RoundTrip is the path's; 0: not measured.
	RoundTrip time.Duration
}

// RestartState is where an ICE restart stands.
type RestartState int

// The states of an ICE restart.
const (
	// RestartStarted: an attempt has begun.
	RestartStarted RestartState = C.RECONNECT_RESTART_STARTED
	// RestartRecovered: authenticated bytes arrived on a path of the new generation.
	RestartRecovered RestartState = C.RECONNECT_RESTART_RECOVERED
	// RestartFailed: this attempt. The path there was, if there was one, is still used.
	RestartFailed RestartState = C.RECONNECT_RESTART_FAILED
	// RestartPaused: offline. It goes on when the network is back.
	RestartPaused RestartState = C.RECONNECT_RESTART_PAUSED
	// RestartGivenUp: Timers.RestartAttempts failed. Peer.Restart begins again.
	RestartGivenUp RestartState = C.RECONNECT_RESTART_GIVEN_UP
)

// String is the state's name, for example "recovered".
func (s RestartState) String() string {
	switch s {
	case RestartStarted:
		return "started"
	case RestartRecovered:
		return "recovered"
	case RestartFailed:
		return "failed"
	case RestartPaused:
		return "paused"
	case RestartGivenUp:
		return "given up"
	}
	return "unknown"
}

// RestartEvent tells how an ICE restart goes.
type RestartEvent struct {
	Peer  *Peer
	State RestartState
	// Attempt counts from 1.
	Attempt uint32
	// Reason is why it failed, an *Error; nil if there is nothing to say.
	Reason error
	// Detail is a sentence, possibly empty.
	Detail string
	// Elapsed is the time since the first attempt began.
	Elapsed time.Duration
}

func (LogEvent) event()           {}
func (PeerStateEvent) event()     {}
func (SessionEvent) event()       {}
func (ChannelOpenEvent) event()   {}
func (MessageEvent) event()       {}
func (BufferedLowEvent) event()   {}
func (ChannelClosedEvent) event() {}
func (AddressesEvent) event()     {}
func (SignalEvent) event()        {}
func (AttemptEvent) event()       {}
func (ConnectorEvent) event()     {}
func (FastReloadEvent) event()    {}
func (CertificateEvent) event()   {}
func (StoreEvent) event()         {}
func (PeerSignalEvent) event()    {}
func (SignalRefusedEvent) event() {}
func (NetworkEvent) event()       {}
func (TURNEvent) event()          {}
func (PathEvent) event()          {}
func (RestartEvent) event()       {}
