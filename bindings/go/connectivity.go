package reconnect

// #include <reconnect.h>
import "C"

import (
	"math"
	"strings"
	"time"
	"unsafe"
)

// ICEPolicy says what may be used as a path.
type ICEPolicy uint32

const (
	// ICEPolicyDefault is the engine's; of an engine, ICEPolicyAll.
	ICEPolicyDefault ICEPolicy = C.RECONNECT_ICE_POLICY_DEFAULT
	// ICEPolicyAll uses every path that works.
	ICEPolicyAll ICEPolicy = C.RECONNECT_ICE_POLICY_ALL
	// ICEPolicyRelay: no candidate but a relay's is made, sent, checked or used.
	ICEPolicyRelay ICEPolicy = C.RECONNECT_ICE_POLICY_RELAY
)

// TCP says which candidates over TCP there are (RFC 6544), as bits.
type TCP uint32

const (
	// TCPActive opens connections to passive candidates of the other side.
	TCPActive TCP = C.RECONNECT_TCP_ACTIVE
	// TCPPassive listens, and offers passive candidates.
	TCPPassive TCP = C.RECONNECT_TCP_PASSIVE
)

// Negotiation says who exchanges a peer's descriptions.
type Negotiation uint32

const (
	// NegotiationManual: the program, with one offer and one answer.
	NegotiationManual Negotiation = C.RECONNECT_NEGOTIATION_MANUAL
	// NegotiationPolite: the peer itself (W3C WebRTC section 10.7, "perfect negotiation"). Its messages are
	// PeerSignalEvents or go to OnSignal, those of the other side go to [Peer.Signal]. Either side may begin, both at once
	// included. The peer restarts ICE when its path fails or its network changes, and keeps the connection through it.
	// When both offer at once, the polite side gives way.
	NegotiationPolite Negotiation = C.RECONNECT_NEGOTIATION_POLITE
	// NegotiationImpolite: likewise, for the other side of a polite peer.
	NegotiationImpolite Negotiation = C.RECONNECT_NEGOTIATION_IMPOLITE
)

// TURNServer is a TURN server (RFC 8656) and how to be let in.
type TURNServer struct {
	// URL is as in RFC 7065: "turn:HOST[:PORT][?transport=udp]", "turn:...?transport=tcp", or "turns:HOST[:PORT]" for TLS
	// over TCP; ports 3478 and 5349 if none is named. At most 512 bytes.
	URL string
	// Username and Password are long-term credentials (RFC 8489 section 9.2); at most 508 and 512 bytes, without control
	// characters. All three empty: the server asks for none.
	Username string
	Password string
	// Secret is, instead of Password, the one that the server shares (coturn: use-auth-secret): credentials for Username,
	// which may be empty, are made whenever they are needed.
	Secret string
	// Lifetime is how long Password is good from now on; a TURNEvent asks for another one before. 0: for ever.
	Lifetime time.Duration
}

// Timers say when what is done. Zero in a member means its default. Durations count in milliseconds: a fraction of one
// is rounded up.
type Timers struct {
	// CheckInterval is between new checks of a peer (Ta, RFC 8445 section 14.2); default 20 ms, at least 5 ms.
	CheckInterval time.Duration
	// ConsentInterval is RFC 7675's; default 5 s.
	ConsentInterval time.Duration
	// Heartbeat: a path that carries nothing is asked at least this often; default half of DisconnectTimeout, and always
	// less than that.
	Heartbeat time.Duration
	// Suspect: while data flows, a path that is silent for this long, or for two round trips and 50 ms if that is longer,
	// is probed; default 150 ms.
	Suspect time.Duration
	// DisconnectTimeout, FailedTimeout and ConnectTimeout are as in Config, whose values are their defaults.
	DisconnectTimeout time.Duration
	FailedTimeout     time.Duration
	ConnectTimeout    time.Duration
	// StandbyInterval is how often a second path is kept warm; default 2.5 s.
	StandbyInterval time.Duration
	// DisableStandby: no second path is kept warm.
	DisableStandby bool
	// RestartTimeout: an ICE restart that has no path by then is tried again; default 5 s.
	RestartTimeout time.Duration
	// RestartAttempts are made in a row, before it is left to FailedTimeout; default 10.
	RestartAttempts uint32
	// DisableRestarts: peers restart only when they are told to.
	DisableRestarts bool
	// RestartMin and RestartMax: the pause between attempts is drawn between them; defaults 250 ms and 3 s.
	RestartMin time.Duration
	RestartMax time.Duration
	// Patience: no path is given up earlier (RFC 8863); default 39.5 s.
	Patience time.Duration
}

// unlimited is what stands for "none" in restart_attempts and standby_interval_ms.
const unlimited C.uint32_t = math.MaxUint32

func (t *Timers) fill(out *C.reconnect_timers_t) error {
	for _, each := range []struct {
		name  string
		value time.Duration
		out   *C.uint32_t
	}{
		{"CheckInterval", t.CheckInterval, &out.check_interval_ms},
		{"ConsentInterval", t.ConsentInterval, &out.consent_interval_ms},
		{"Heartbeat", t.Heartbeat, &out.heartbeat_ms},
		{"Suspect", t.Suspect, &out.suspect_ms},
		{"DisconnectTimeout", t.DisconnectTimeout, &out.disconnect_timeout_ms},
		{"FailedTimeout", t.FailedTimeout, &out.failed_timeout_ms},
		{"ConnectTimeout", t.ConnectTimeout, &out.connect_timeout_ms},
		{"StandbyInterval", t.StandbyInterval, &out.standby_interval_ms},
		{"RestartTimeout", t.RestartTimeout, &out.restart_timeout_ms},
		{"RestartMin", t.RestartMin, &out.restart_min_ms},
		{"RestartMax", t.RestartMax, &out.restart_max_ms},
		{"Patience", t.Patience, &out.patience_ms},
	} {
		count, err := milliseconds(each.name, each.value)
		if err != nil {
			return err
		}
		*each.out = count
	}
	out.struct_size = C.uint32_t(unsafe.Sizeof(*out))
	out.restart_attempts = C.uint32_t(t.RestartAttempts)
	if t.DisableStandby {
		out.standby_interval_ms = unlimited
	}
	if t.DisableRestarts {
		out.restart_attempts = unlimited
	}
	return nil
}

// turnServers is an array of the servers, NULL for none.
func (a *arena) turnServers(servers []TURNServer) (*C.reconnect_turn_server_t, error) {
	if len(servers) == 0 {
		return nil, nil
	}
	first := (*C.reconnect_turn_server_t)(a.allocate(len(servers), unsafe.Sizeof(C.reconnect_turn_server_t{})))
	slots := unsafe.Slice(first, len(servers))
	for i := range slots {
		server, out := &servers[i], &slots[i]
		if err := refuseZeroBytes("a TURN server", server.URL, server.Username, server.Password, server.Secret); err != nil {
			return nil, err
		}
		lifetime, err := milliseconds("Lifetime", server.Lifetime)
		if err != nil {
			return nil, err
		}
		out.struct_size = C.uint32_t(unsafe.Sizeof(*out))
		out.lifetime_ms = lifetime
		out.url = a.text(server.URL)
		out.username = a.text(server.Username)
		out.password = a.text(server.Password)
		out.secret = a.text(server.Secret)
	}
	return first, nil
}

// fillConnectivity writes what says how paths are found and kept.
func (c *Config) fillConnectivity(out *C.reconnect_engine_config_t, memory *arena) error {
	for _, each := range []struct {
		name  string
		texts []string
	}{
		{"TURNCAPath", []string{c.TURNCAPath}},
		{"AllowedInterfaces", c.AllowedInterfaces},
		{"DeniedInterfaces", c.DeniedInterfaces},
	} {
		if err := refuseZeroBytes(each.name, each.texts...); err != nil {
			return err
		}
	}
	servers, err := memory.turnServers(c.TURNServers)
	if err != nil {
		return err
	}
	out.turn_servers = servers
	out.turn_server_count = C.size_t(len(c.TURNServers))
	out.turn_ca_path = memory.text(c.TURNCAPath)
	out.allowed_interfaces = memory.texts(c.AllowedInterfaces)
	out.allowed_interface_count = C.size_t(len(c.AllowedInterfaces))
	out.denied_interfaces = memory.texts(c.DeniedInterfaces)
	out.denied_interface_count = C.size_t(len(c.DeniedInterfaces))
	out.ice_policy = C.uint32_t(c.ICEPolicy)
	out.tcp = C.uint32_t(c.TCP)
	out.tcp_port = C.uint16_t(c.TCPPort)
	out.disable_mdns = flag(c.DisableMDNS)
	timers := (*C.reconnect_timers_t)(memory.allocate(1, unsafe.Sizeof(*out.timers)))
	out.timers = timers
	return c.Timers.fill(timers)
}

// SetTURNServers replaces the TURN servers, at most 32, in order of preference between servers that are equally near;
// none at all: no relays. Relays of servers that stay are kept, new credentials are used from the next request on, and a
// server that is dead delays nothing. A TURNEvent tells what becomes of each. Fails with ErrInvalidArgument, which says
// what is wrong with which, and then nothing has changed.
func (e *Engine) SetTURNServers(servers ...TURNServer) error {
	var memory arena
	defer memory.free()
	native, err := memory.turnServers(servers)
	if err != nil {
		return err
	}
	var detail detailText
	status := C.reconnect_engine_set_turn_servers(e.handle, native, C.size_t(len(servers)), &detail[0],
		C.size_t(len(detail)))
	if status != C.RECONNECT_OK {
		return failure(status, detail.String())
	}
	return nil
}

// SetTimers changes the timers of all peers, those that are up included. Zero in a member: back to its default. Fails
// with ErrInvalidArgument, which names what cannot be so, and then nothing has changed.
func (e *Engine) SetTimers(timers Timers) error {
	var native C.reconnect_timers_t
	if err := timers.fill(&native); err != nil {
		return err
	}
	var detail detailText
	if status := C.reconnect_engine_set_timers(e.handle, &native, &detail[0], C.size_t(len(detail))); status != C.RECONNECT_OK {
		return failure(status, detail.String())
	}
	return nil
}

// TURNCredentials makes time-limited credentials for a server with a shared secret (coturn: use-auth-secret), good for
// lifetime from now on (0: a day), for programs that give them to pages. The user name is the Unix time of their end,
// with ":" and user behind it if that is not empty. Fails with ErrInvalidArgument for a secret that is empty or longer
// than 512 bytes, a user longer than 495, and control characters.
func TURNCredentials(secret, user string, lifetime time.Duration) (username, password string, err error) {
	if err := refuseZeroBytes("a secret or user", secret, user); err != nil {
		return "", "", err
	}
	count, err := milliseconds("lifetime", lifetime)
	if err != nil {
		return "", "", err
	}
	var memory arena
	defer memory.free()
	var name, word [1024]C.char
	status := C.reconnect_turn_credentials(memory.text(secret), memory.text(user), count, &name[0],
		C.size_t(len(name)), &word[0], C.size_t(len(word)))
	if status != C.RECONNECT_OK {
		return "", "", failure(status, "")
	}
	return C.GoString(&name[0]), C.GoString(&word[0]), nil
}

// Signal hands in a message of the other side for a peer that negotiates by itself: an offer, an answer or a candidate as
// JSON, in the order in which they were sent. What it leads to is a PeerSignalEvent, or goes to OnSignal. An answer to an
// offer that is no longer there, and a candidate of an earlier generation, are ignored.
//
// Fails with ErrMalformedJSON or ErrMalformedSDP, and then nothing has changed; what cannot be accepted is told by a
// SignalRefusedEvent, and changes nothing either. ErrWrongState if the peer's negotiation
// is manual; ErrInvalidHandle.
func (p *Peer) Signal(message []byte) error {
	var detail detailText
	status := C.reconnect_peer_signal(p.native(), characters(message), C.size_t(len(message)), &detail[0],
		C.size_t(len(detail)))
	if status != C.RECONNECT_OK {
		return failure(status, detail.String())
	}
	return nil
}

// Restart restarts ICE (RFC 8445 section 9): a new path is looked for while the one there is stays in use until the new
// one is proven; all channels and messages live on. With a peer that has not connected yet, it begins the negotiation.
// RestartEvents tell how it goes. Fails with ErrWrongState if the peer's negotiation is manual, or ErrInvalidHandle.
func (p *Peer) Restart() error {
	return failure(C.reconnect_peer_restart(p.native()), "")
}

// signaled hands on what a peer that negotiates by itself has for the other side.
func (e *Engine) signaled(event *C.reconnect_event_t) bool {
	p := e.peer(event)
	if p == nil {
		return true
	}
	message := bytes(event.data, event.size)
	if p.onSignal != nil {
		p.onSignal(p, message)
		return true
	}
	return e.deliver(PeerSignalEvent{Peer: p, Message: message})
}

func (e *Engine) pathChanged(event *C.reconnect_event_t) bool {
	p := e.peer(event)
	if p == nil {
		return true
	}
	return e.deliver(PathEvent{
		Peer: p, Local: text(event.data, event.size), Remote: text(event.extra, event.extra_size),
		Change: PathChange(event.kind), Paths: int64(event.number), RoundTrip: time.Duration(event.duration_ns),
	})
}

func turnChanged(event *C.reconnect_event_t) TURNEvent {
	out := TURNEvent{URL: text(event.data, event.size), State: TURNState(event.number)}
	words, duration := text(event.extra, event.extra_size), time.Duration(event.duration_ns)
	if out.State == TURNAllocated {
		out.Addresses, out.Elapsed = strings.Fields(words), duration
		return out
	}
	out.Reason, out.Detail = failure(event.status, words), words
	if out.State == TURNCredentialsNeeded {
		out.Remaining = duration
	}
	return out
}

func networkChanged(event *C.reconnect_event_t) NetworkEvent {
	return NetworkEvent{
		Online: event.number != 0, Detail: text(event.data, event.size),
		AddressesChanged: event.kind&C.RECONNECT_NETWORK_ADDRESSES != 0,
		RouteChanged:     event.kind&C.RECONNECT_NETWORK_ROUTE != 0,
		OnlineChanged:    event.kind&C.RECONNECT_NETWORK_ONLINE != 0,
	}
}

func (e *Engine) restarted(event *C.reconnect_event_t) bool {
	p := e.peer(event)
	if p == nil {
		return true
	}
	detail := text(event.data, event.size)
	return e.deliver(RestartEvent{
		Peer: p, State: RestartState(event.number), Attempt: uint32(event.kind), Reason: failure(event.status, detail),
		Detail: detail, Elapsed: time.Duration(event.duration_ns),
	})
}
