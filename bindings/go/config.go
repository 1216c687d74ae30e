package reconnect

// #include <stdlib.h>
// #include <string.h>
// #include <reconnect.h>
import "C"

import (
	"math"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"
)

// ICEMode says how answering peers take part in ICE.
type ICEMode uint32

const (
	// ICEFull answers and sends checks: measures the path, keeps consent itself.
	ICEFull ICEMode = C.RECONNECT_ICE_FULL
	// ICELite only answers (RFC 8445 section 2.5); right where the address is public.
	ICELite ICEMode = C.RECONNECT_ICE_LITE
)

// LogLevel is how much the engine tells in [LogEvent]s.
type LogLevel uint32

// The levels. LogDefault is LogInfo.
const (
	LogDefault LogLevel = C.RECONNECT_LOG_DEFAULT
	LogError   LogLevel = C.RECONNECT_LOG_ERROR
	LogWarning LogLevel = C.RECONNECT_LOG_WARNING
	LogInfo    LogLevel = C.RECONNECT_LOG_INFO
	LogDebug   LogLevel = C.RECONNECT_LOG_DEBUG
	LogNone    LogLevel = C.RECONNECT_LOG_NONE
)

// String is the level's name, for example "info".
func (l LogLevel) String() string {
	switch l {
	case LogError:
		return "error"
	case LogWarning:
		return "warning"
	case LogDefault, LogInfo:
		return "info"
	case LogDebug:
		return "debug"
	case LogNone:
		return "none"
	}
	return "unknown"
}

// Config says how an engine works. Zero in a member means its default. Durations count in milliseconds:
// a fraction of one is rounded up.
type Config struct {
	// ICEMode is ICEFull or ICELite, for answering peers.
	ICEMode ICEMode
	// BindAddress is the IP address to bind; empty: all addresses, IPv6 and IPv4.
	BindAddress string
	// Addresses are the IP addresses to offer as host candidates; empty: those of the machine's interfaces
	// that are up, IPv6 first, loopback only if there is no other.
	Addresses []string
	// CertificatePath is the PEM file for key and certificate, made (mode 0600) if missing; empty: in memory
	// only.
	CertificatePath string
	// Port is the UDP port; 0: any free one.
	Port uint16
	// LogLevel limits what is told in LogEvents.
	LogLevel LogLevel
	// MaxPeers defaults to 10000. There may be as many connectors.
	MaxPeers uint32
	// MaxChannels is per peer; defaults to 1024.
	MaxChannels uint32
	// MaxMessageSize is the largest message accepted from others, in bytes; default 262144, at most 16777216.
	MaxMessageSize uint64
	// SendHighWater is per channel: at this many queued bytes Send returns ErrWouldBlock; default 4194304.
	SendHighWater uint64
	// ReceiveWindow is per peer: received bytes that the library holds for the program; default 2097152, never
	// less than MaxMessageSize.
	ReceiveWindow uint64
	// ConnectTimeout counts from the answer to the connected state; default 30 s.
	ConnectTimeout time.Duration
	// DisconnectTimeout is the silence before PeerDisconnected; default 5 s.
	DisconnectTimeout time.Duration
	// FailedTimeout is the silence before the peer is given up (RFC 7675: 30 s); default 30 s.
	FailedTimeout time.Duration
	// SessionTTL is how long after its last sign of life a session can return fast; default 5 min.
	SessionTTL time.Duration
	// MaxSessions is how many sessions are remembered; the oldest go first; default 100000.
	MaxSessions uint32
	// DisableFastReload makes every answer normal, as FastReloadOff.
	DisableFastReload bool

	// SessionStore says where sessions are kept. Empty: in memory. "sqlite:PATH": a file, made (mode 0600) if
	// missing. "redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]", "rediss://..." with TLS, "redis+unix:PATH": shared
	// by several engines. A store that is away, slow or broken means normal answers, never an error.
	SessionStore string
	// SessionPrefix is of keys in Redis; default "webrtc:reconnect:".
	SessionPrefix string
	// StoreTimeout is how long an answer waits for the store; default 100 ms.
	StoreTimeout time.Duration
	// DisableTickets: no tickets for zero-signaling are given out or accepted.
	DisableTickets bool
	// TicketSecret has 32 to 256 bytes from which the keys of tickets are derived. Engines that shall accept each
	// other's tickets share it, and the certificate too. Empty: derived from the certificate's private key.
	TicketSecret []byte
	// OldTicketSecret is accepted, not used for new tickets: for a change without a gap.
	OldTicketSecret []byte
	// ReturningPeer says how peers are made that come back with a ticket, without a call of the program. They
	// appear in a PeerStateEvent with Ticket set.
	ReturningPeer PeerConfig
	// STUNServers, "stun:HOST:PORT" or "HOST:PORT", are asked from the engine's own port for the address that it
	// has outside; all at once.
	STUNServers []string
	// PublicAddresses, "203.0.113.5", "203.0.113.5:4000" or "[2001:db8::1]:4000", are offered as server-reflexive
	// candidates; with the engine's port if none is named.
	PublicAddresses []string
	// Interfaces adds addresses to those offered usually.
	Interfaces Interfaces
	// CertificateDays: the certificate is replaced at this age; default 30; CertificateForever: never.
	CertificateDays uint32
	// FastTimeout: a fast answer that has not connected by then counts as failed; default 2 s.
	FastTimeout time.Duration
	// Trip is when fast reload switches itself off.
	Trip Trip

	// TURNServers are as in [Engine.SetTURNServers].
	TURNServers []TURNServer
	// TURNCAPath is a PEM file of the authorities that sign certificates of "turns:" servers; empty: the system's.
	TURNCAPath string
	// AllowedInterfaces: if there are any, only these interfaces' addresses are used: names as "eth0", beginnings of names
	// as "wlan*", networks as "192.0.2.0/24"; at most 32.
	AllowedInterfaces []string
	// DeniedInterfaces: likewise, never these; stronger than AllowedInterfaces.
	DeniedInterfaces []string
	// ICEPolicy is for peers that do not say otherwise.
	ICEPolicy ICEPolicy
	// TCP adds candidates over TCP (RFC 6544).
	TCP TCP
	// TCPPort is of the listening socket, one for all peers; 0: the UDP port's number, or any free one if that is taken.
	TCPPort uint16
	// DisableMDNS: names of the other side that end in ".local" are not looked up (RFC 6762).
	DisableMDNS bool
	// Timers say when what is done.
	Timers Timers

	// EventCapacity is the capacity of the channel of events; default 64. At most this many messages wait in
	// memory of Go; everything beyond waits in the library, within ReceiveWindow.
	EventCapacity int
}

// CertificateForever as Config.CertificateDays: the certificate is never replaced by itself.
const CertificateForever uint32 = math.MaxUint32

// Interfaces are addresses offered beyond the usual ones, as bits. Left out by default: temporary IPv6 addresses
// (RFC 8981) where the interface has a stable one, deprecated ones, and addresses of bridges and container networks.
type Interfaces uint32

// The kinds of addresses.
const (
	InterfacesTemporary  Interfaces = C.RECONNECT_INTERFACES_TEMPORARY
	InterfacesDeprecated Interfaces = C.RECONNECT_INTERFACES_DEPRECATED
	InterfacesBridges    Interfaces = C.RECONNECT_INTERFACES_BRIDGES
	InterfacesLoopback   Interfaces = C.RECONNECT_INTERFACES_LOOPBACK
)

// Trip is when fast reload switches itself off, and for how long. Zero in a member means its default.
type Trip struct {
	// Disabled: it never switches itself off.
	Disabled bool
	// Window: failures are counted over this time; default 60 s.
	Window time.Duration
	// FailurePercent of fast connects fail: above it fast reload switches itself off; default 30.
	FailurePercent uint32
	// UnstablePercent of fast connections end by an error within 10 s; default 20.
	UnstablePercent uint32
	// MinAttempts are made in the window before it is judged; default 20.
	MinAttempts uint32
	// Rearm is how long it stays off before it is tried again; default 60 s, doubled at each further trip up to
	// sixteenfold.
	Rearm time.Duration
}

// arena frees the C memory of one call.
type arena []unsafe.Pointer

func (a *arena) free() {
	for _, pointer := range *a {
		C.free(pointer)
	}
}

func (a *arena) allocate(count int, size uintptr) unsafe.Pointer {
	pointer := C.calloc(C.size_t(count), C.size_t(size))
	*a = append(*a, pointer)
	return pointer
}

// text is a NUL-terminated copy, NULL for an empty text.
func (a *arena) text(text string) *C.char {
	if text == "" {
		return nil
	}
	pointer := C.CString(text)
	*a = append(*a, unsafe.Pointer(pointer))
	return pointer
}

func (a *arena) texts(texts []string) **C.char {
	if len(texts) == 0 {
		return nil
	}
	first := (**C.char)(a.allocate(len(texts), unsafe.Sizeof((*C.char)(nil))))
	slots := unsafe.Slice(first, len(texts))
	for i, text := range texts {
		slots[i] = C.CString(text)
		*a = append(*a, unsafe.Pointer(slots[i]))
	}
	return first
}

// bytes is a copy, NULL for none.
func (a *arena) bytes(bytes []byte) unsafe.Pointer {
	if len(bytes) == 0 {
		return nil
	}
	pointer := C.CBytes(bytes)
	*a = append(*a, pointer)
	return pointer
}

// refuseZeroBytes: C texts end at the first zero byte, so one inside would cut the text without a word.
func refuseZeroBytes(what string, texts ...string) error {
	for _, text := range texts {
		if strings.IndexByte(text, 0) >= 0 {
			return &Error{Status: StatusInvalidArgument, Detail: what + " contains a zero byte"}
		}
	}
	return nil
}

func milliseconds(what string, duration time.Duration) (C.uint32_t, error) {
	if duration < 0 {
		return 0, &Error{Status: StatusInvalidArgument, Detail: what + " is negative"}
	}
	count := int64(duration / time.Millisecond)
	if duration%time.Millisecond > 0 {
		count++
	}
	if count > math.MaxUint32 {
		return 0, &Error{Status: StatusInvalidArgument, Detail: what + " is too long"}
	}
	return C.uint32_t(count), nil
}

func flag(on bool) C.uint32_t {
	if on {
		return 1
	}
	return 0
}

// fill writes the configuration as the library takes it. Its pointers live as long as the arena.
func (c *Config) fill(out *C.reconnect_engine_config_t, memory *arena) error {
	for _, each := range []struct {
		name  string
		texts []string
	}{
		{"BindAddress", []string{c.BindAddress}},
		{"CertificatePath", []string{c.CertificatePath}},
		{"SessionStore", []string{c.SessionStore}},
		{"SessionPrefix", []string{c.SessionPrefix}},
		{"an address", c.Addresses},
		{"a STUN server", c.STUNServers},
		{"a public address", c.PublicAddresses},
	} {
		if err := refuseZeroBytes(each.name, each.texts...); err != nil {
			return err
		}
	}
	for _, each := range []struct {
		name  string
		value time.Duration
		out   *C.uint32_t
	}{
		{"ConnectTimeout", c.ConnectTimeout, &out.connect_timeout_ms},
		{"DisconnectTimeout", c.DisconnectTimeout, &out.disconnect_timeout_ms},
		{"FailedTimeout", c.FailedTimeout, &out.failed_timeout_ms},
		{"SessionTTL", c.SessionTTL, &out.session_ttl_ms},
		{"StoreTimeout", c.StoreTimeout, &out.store_timeout_ms},
		{"FastTimeout", c.FastTimeout, &out.fast_timeout_ms},
		{"Trip.Window", c.Trip.Window, &out.trip_window_ms},
		{"Trip.Rearm", c.Trip.Rearm, &out.trip_rearm_ms},
	} {
		count, err := milliseconds(each.name, each.value)
		if err != nil {
			return err
		}
		*each.out = count
	}
	out.struct_size = C.uint32_t(unsafe.Sizeof(*out))
	out.ice_mode = C.uint32_t(c.ICEMode)
	out.bind_address = memory.text(c.BindAddress)
	out.addresses = memory.texts(c.Addresses)
	out.address_count = C.size_t(len(c.Addresses))
	out.certificate_path = memory.text(c.CertificatePath)
	out.port = C.uint16_t(c.Port)
	out.log_level = C.uint32_t(c.LogLevel)
	out.max_peers = C.uint32_t(c.MaxPeers)
	out.max_channels = C.uint32_t(c.MaxChannels)
	out.max_message_size = C.uint64_t(c.MaxMessageSize)
	out.send_high_water = C.uint64_t(c.SendHighWater)
	out.receive_window = C.uint64_t(c.ReceiveWindow)
	out.max_sessions = C.uint32_t(c.MaxSessions)
	out.disable_fast_reload = flag(c.DisableFastReload)
	out.session_store = memory.text(c.SessionStore)
	out.session_prefix = memory.text(c.SessionPrefix)
	out.disable_tickets = flag(c.DisableTickets)
	out.ticket_secret = memory.bytes(c.TicketSecret)
	out.ticket_secret_size = C.size_t(len(c.TicketSecret))
	out.old_ticket_secret = memory.bytes(c.OldTicketSecret)
	out.old_ticket_secret_size = C.size_t(len(c.OldTicketSecret))
	out.stun_servers = memory.texts(c.STUNServers)
	out.stun_server_count = C.size_t(len(c.STUNServers))
	out.public_addresses = memory.texts(c.PublicAddresses)
	out.public_address_count = C.size_t(len(c.PublicAddresses))
	out.interfaces = C.uint32_t(c.Interfaces)
	out.certificate_days = C.uint32_t(c.CertificateDays)
	out.trip_failure_percent = C.uint32_t(c.Trip.FailurePercent)
	out.trip_unstable_percent = C.uint32_t(c.Trip.UnstablePercent)
	out.trip_min_attempts = C.uint32_t(c.Trip.MinAttempts)
	out.disable_trip = flag(c.Trip.Disabled)
	return c.fillConnectivity(out, memory)
}

// ChannelConfig describes a data channel (RFC 8831, RFC 8832). The zero value is an ordered reliable channel
// without a label, announced to the other side.
type ChannelConfig struct {
	// Label names the channel; at most 65535 bytes.
	Label string
	// Protocol is the name of a subprotocol; at most 65535 bytes.
	Protocol string
	// Unordered lets messages overtake each other.
	Unordered bool
	// MaxRetransmits, if not nil, limits how often a message is sent again (RFC 3758).
	MaxRetransmits *uint32
	// MaxLifetime, if not zero, limits for how long a message is sent again (RFC 3758). Not together with
	// MaxRetransmits.
	MaxLifetime time.Duration
	// Negotiated: both sides open the channel with the same ID, and RFC 8832 is not used.
	Negotiated bool
	// ID is the stream, 0 to 65534; only if Negotiated.
	ID uint16
	// LowWater: a BufferedLowEvent says when the queue falls to this many bytes. Default: a quarter of
	// SendHighWater, and only after ErrWouldBlock.
	LowWater uint64
}

func (c *ChannelConfig) fill(out *C.reconnect_channel_config_t, memory *arena, tag uint64) error {
	if err := refuseZeroBytes("Label", c.Label); err != nil {
		return err
	}
	if err := refuseZeroBytes("Protocol", c.Protocol); err != nil {
		return err
	}
	out.struct_size = C.uint32_t(unsafe.Sizeof(*out))
	out.unordered = flag(c.Unordered)
	out.label = memory.text(c.Label)
	out.protocol = memory.text(c.Protocol)
	switch {
	case c.MaxRetransmits != nil && c.MaxLifetime != 0:
		return &Error{Status: StatusInvalidArgument, Detail: "MaxRetransmits and MaxLifetime exclude each other"}
	case c.MaxRetransmits != nil:
		out.reliability = C.RECONNECT_MAX_RETRANSMITS
		out.reliability_value = C.uint32_t(*c.MaxRetransmits)
	case c.MaxLifetime != 0:
		count, err := milliseconds("MaxLifetime", c.MaxLifetime)
		if err != nil {
			return err
		}
		out.reliability = C.RECONNECT_MAX_LIFETIME
		out.reliability_value = count
	}
	out.negotiated = flag(c.Negotiated)
	out.id = C.uint32_t(c.ID)
	out.low_water = C.uint64_t(c.LowWater)
	out.tag = C.uint64_t(tag)
	return nil
}

// PeerConfig describes a peer. The zero value is the default.
type PeerConfig struct {
	// DTLSActive, answering: take the DTLS client's part where the offer lets us choose.
	DTLSActive bool
	// Channels are negotiated channels to open with the peer. They are in Peer.Channels, in this order.
	Channels []ChannelConfig
	// ICEPolicy is what may be used as a path.
	ICEPolicy ICEPolicy
	// Negotiation says who exchanges descriptions; default: the program. Peers that Engine.NewPeer does not make are
	// always NegotiationManual.
	Negotiation Negotiation
	// OnSignal, if not nil, gets what a peer that negotiates by itself has for the other side, in order, instead of the
	// PeerSignalEvents. It is called in the engine's goroutine: it must not block, nor call what waits for an event.
	OnSignal func(peer *Peer, message []byte)
}

// fill writes the configuration as the library takes it, with a new tag for each channel, which it returns.
func (c *PeerConfig) fill(out *C.reconnect_peer_config_t, memory *arena, tag uint64, last *atomic.Uint64) ([]uint64, error) {
	out.struct_size = C.uint32_t(unsafe.Sizeof(*out))
	out.dtls_active = flag(c.DTLSActive)
	out.tag = C.uint64_t(tag)
	out.ice_policy = C.uint32_t(c.ICEPolicy)
	out.negotiation = C.uint32_t(c.Negotiation)
	count := len(c.Channels)
	if count == 0 {
		return nil, nil
	}
	first := (*C.reconnect_channel_config_t)(memory.allocate(count, unsafe.Sizeof(*out.channels)))
	out.channels = first
	out.channel_count = C.size_t(count)
	slots := unsafe.Slice(first, count)
	tags := make([]uint64, count)
	for i := range slots {
		tags[i] = last.Add(1)
		if err := c.Channels[i].fill(&slots[i], memory, tags[i]); err != nil {
			return nil, err
		}
	}
	return tags, nil
}
