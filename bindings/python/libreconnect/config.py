"""How engines, peers and channels are configured. Zero, empty and None mean the default."""

from __future__ import annotations

import ctypes
import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import _abi
from .errors import InvalidArgumentError


class ICEMode(enum.IntEnum):
    """How answering peers take part in ICE."""

    FULL = _abi.ICE_FULL
    """Answers and sends checks: measures the path, keeps consent itself."""
    LITE = _abi.ICE_LITE
    """Only answers (RFC 8445 section 2.5); right where the address is public."""


class LogLevel(enum.IntEnum):
    """How much the engine tells in log events. DEFAULT is INFO."""

    DEFAULT = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    DEBUG = 4
    NONE = 5


class FastReload(enum.IntEnum):
    """The kill switch of fast reload."""

    OFF = 0
    """Every answer is normal, tickets are refused; known sessions stay, unused."""
    ON = 1
    PARTIAL = 2
    """Sessions and the certificate go on, every answer is normal, tickets are refused."""


class Interfaces(enum.IntFlag):
    """Addresses offered beyond the usual ones. Left out by default: temporary IPv6 addresses (RFC 8981) where the
    interface has a stable one, deprecated ones, and addresses of bridges and container networks."""

    NONE = 0
    TEMPORARY = _abi.INTERFACES_TEMPORARY
    DEPRECATED = _abi.INTERFACES_DEPRECATED
    BRIDGES = _abi.INTERFACES_BRIDGES
    LOOPBACK = _abi.INTERFACES_LOOPBACK


class ICEPolicy(enum.IntEnum):
    """What may be used as a path."""

    DEFAULT = _abi.ICE_POLICY_DEFAULT
    """The engine's; of an engine, ALL."""
    ALL = _abi.ICE_POLICY_ALL
    RELAY = _abi.ICE_POLICY_RELAY
    """No candidate but a relay's is made, sent, checked or used."""


class TCP(enum.IntFlag):
    """Candidates over TCP (RFC 6544)."""

    NONE = 0
    ACTIVE = _abi.TCP_ACTIVE
    """Connections are opened to passive candidates of the other side."""
    PASSIVE = _abi.TCP_PASSIVE
    """Listens, and offers passive candidates."""


class Negotiation(enum.IntEnum):
    """Who exchanges a peer's descriptions."""

    MANUAL = _abi.NEGOTIATION_MANUAL
    """The program, with one offer and one answer."""
    POLITE = _abi.NEGOTIATION_POLITE
    """The peer itself (W3C WebRTC section 10.7, "perfect negotiation"): it has messages for the other side, and those
    of the other side go to peer.signal(). Either side may begin, both at once included: then the polite one gives way.
    The peer restarts ICE when its path fails or its network changes, and keeps the connection through it."""
    IMPOLITE = _abi.NEGOTIATION_IMPOLITE
    """Likewise, for the other side of a polite peer."""


@dataclass(frozen=True)
class TURNServer:
    """A TURN server (RFC 8656) and how to be let in. Without username, password and secret: it asks for none."""

    url: str
    """As in RFC 7065: "turn:HOST[:PORT][?transport=udp]", "turn:...?transport=tcp", or "turns:HOST[:PORT]" for TLS over
    TCP; ports 3478 and 5349 if none is named. At most 512 bytes."""
    username: str | None = None
    """With the password, long-term credentials (RFC 8489 section 9.2); at most 508 and 512 bytes, without control
    characters."""
    password: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    """Instead of the password: the one that the server shares (coturn: use-auth-secret). Credentials for the username,
    which may be None, are made whenever they are needed."""
    lifetime: float = 0
    """For how many seconds the password is good from now on; a TURNEvent asks for another one before. 0: for ever."""


@dataclass(frozen=True)
class Timers:
    """When what is done. Times are seconds (counted in milliseconds); 0: the default."""

    check_interval: float = 0
    """Between new checks of a peer (Ta, RFC 8445 section 14.2); default 0.02, at least 0.005."""
    consent_interval: float = 0
    """RFC 7675 section 5.1; default 5."""
    heartbeat: float = 0
    """A path that carries nothing is asked at least this often; default half of disconnect_timeout, and always less than
    that."""
    suspect: float = 0
    """While data flows, a path that is silent for this long, or for two round trips and 0.05 if that is longer, is
    probed; default 0.15."""
    disconnect_timeout: float = 0
    """This and the next two are as in Config, whose values are their defaults."""
    failed_timeout: float = 0
    connect_timeout: float = 0
    standby_interval: float = 0
    """How often a second path is kept warm; default 2.5."""
    disable_standby: bool = False
    """No second path is kept warm."""
    restart_timeout: float = 0
    """An ICE restart that has no path by then is tried again; default 5."""
    restart_attempts: int = 0
    """In a row, before it is left to failed_timeout; default 10."""
    disable_restarts: bool = False
    """Peers restart only when they are told to."""
    restart_min: float = 0
    """The pause between attempts is drawn between this and the next; defaults 0.25 and 3."""
    restart_max: float = 0
    patience: float = 0
    """No path is given up earlier (RFC 8863); default 39.5."""


CERTIFICATE_FOREVER = 0xFFFFFFFF
"""As certificate_days: the certificate is never replaced by itself."""


class Policy(enum.IntEnum):
    """When a connector's attempts are made."""

    RACE = 0
    """The signaling exchange starts with the ticket attempt; whichever is connected first wins."""
    FALLBACK = 1
    """One attempt at a time: the next begins when the one before has failed, or had fast_timeout."""


@dataclass(frozen=True)
class ChannelConfig:
    """A data channel (RFC 8831, RFC 8832): ordered, reliable and announced to the other side unless said otherwise."""

    label: str = ""
    """At most 65535 bytes."""
    protocol: str = ""
    """At most 65535 bytes."""
    ordered: bool = True
    """False: messages may overtake each other."""
    max_retransmits: int | None = None
    """How often a message is sent again at most (RFC 3758)."""
    max_lifetime: float | None = None
    """For how many seconds a message is sent again at most (RFC 3758); not together with max_retransmits."""
    negotiated: bool = False
    """Both sides open the channel with the same id, and RFC 8832 is not used."""
    id: int = 0
    """The stream, 0 to 65534; only if negotiated."""
    low_water: int = 0
    """An event says when the queue falls to this many bytes; default: a quarter of send_high_water, and only after
    sending would have blocked."""


@dataclass(frozen=True)
class PeerConfig:
    """A peer."""

    dtls_active: bool = False
    """Answering: take the DTLS client's part where the offer lets us choose."""
    channels: Sequence[ChannelConfig] = ()
    """Negotiated channels to open with the peer; they are in `peer.channels`, in this order."""
    ice_policy: ICEPolicy = ICEPolicy.DEFAULT
    """What may be used as a path."""
    negotiation: Negotiation = Negotiation.MANUAL
    """Who exchanges descriptions; always MANUAL for peers that create_peer() does not make."""


@dataclass(frozen=True)
class Config:
    """How an engine works. Sizes are bytes, times are seconds (counted in milliseconds)."""

    ice_mode: ICEMode = ICEMode.FULL
    """For answering peers."""
    bind_address: str | None = None
    """IP address to bind; None: all addresses, IPv6 and IPv4."""
    addresses: Sequence[str] = ()
    """IP addresses to offer as host candidates; empty: those of the machine's interfaces that are up, IPv6 first,
    loopback only if there is no other."""
    certificate_path: str | None = None
    """PEM file for key and certificate, made (mode 0600) if missing; None: in memory only."""
    port: int = 0
    """UDP port; 0: any free one."""
    log_level: LogLevel = LogLevel.DEFAULT
    max_peers: int = 0
    """Default 10000. There may be as many connectors."""
    max_channels: int = 0
    """Per peer; default 1024."""
    max_message_size: int = 0
    """Largest message accepted from others; default 262144, at most 16777216."""
    send_high_water: int = 0
    """Per channel: at this many queued bytes sending would block; default 4194304."""
    receive_window: int = 0
    """Per peer: received bytes that the library holds for the program; default 2097152, never less than
    max_message_size."""
    connect_timeout: float = 0
    """From the answer to the connected state; default 30."""
    disconnect_timeout: float = 0
    """Silence before the state DISCONNECTED; default 5."""
    failed_timeout: float = 0
    """Silence before the peer is given up (RFC 7675: 30); default 30."""
    session_ttl: float = 0
    """How long after its last sign of life a session can return fast; default 300."""
    max_sessions: int = 0
    """Remembered sessions; the oldest go first; default 100000."""
    disable_fast_reload: bool = False
    """Every answer is normal, as FastReload.OFF."""
    session_store: str | None = None
    """Where sessions are kept. None: in memory. "sqlite:PATH": a file, made (mode 0600) if missing.
    "redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]", "rediss://..." with TLS, "redis+unix:PATH": shared by several
    engines. A store that is away, slow or broken means normal answers, never an error."""
    session_prefix: str | None = None
    """Of keys in Redis; default "webrtc:reconnect:"."""
    store_timeout: float = 0
    """How long an answer waits for the store; default 0.1."""
    disable_tickets: bool = False
    """No tickets for zero-signaling are given out or accepted."""
    ticket_secret: bytes | None = field(default=None, repr=False)
    """32 to 256 bytes from which the keys of tickets are derived. Engines that shall accept each other's tickets share
    it, and the certificate too. None: derived from the certificate's private key."""
    old_ticket_secret: bytes | None = field(default=None, repr=False)
    """Accepted, not used for new tickets: for a change without a gap."""
    returning_peer: PeerConfig = PeerConfig()
    """How peers are made that come back with a ticket, without a call of the program. They appear in a PeerStateEvent
    with `ticket` set."""
    stun_servers: Sequence[str] = ()
    """"stun:HOST:PORT" or "HOST:PORT": asked from the engine's own port for the address that it has outside; all at
    once."""
    public_addresses: Sequence[str] = ()
    """"203.0.113.5", "203.0.113.5:4000" or "[2001:db8::1]:4000": offered as server-reflexive candidates, with the
    engine's port if none is named."""
    interfaces: Interfaces = Interfaces.NONE
    """Adds addresses to those offered usually."""
    certificate_days: int = 0
    """The certificate is replaced at this age; default 30; CERTIFICATE_FOREVER: never."""
    fast_timeout: float = 0
    """A fast answer that has not connected by then counts as failed; default 2."""
    trip_window: float = 0
    """Failures are counted over this time; default 60."""
    trip_failure_percent: int = 0
    """Of fast connects that fail: above it fast reload switches itself off; default 30."""
    trip_unstable_percent: int = 0
    """Of fast connections that end by an error within 10 s; default 20."""
    trip_min_attempts: int = 0
    """Fast attempts in the window before it is judged; default 20."""
    trip_rearm: float = 0
    """How long it stays off before it is tried again; default 60, doubled at each further trip up to sixteenfold."""
    disable_trip: bool = False
    """It never switches itself off."""
    turn_servers: Sequence[TURNServer] = ()
    """As in set_turn_servers()."""
    turn_ca_path: str | None = None
    """PEM file of the authorities that sign certificates of "turns:" servers; None: the system's."""
    allowed_interfaces: Sequence[str] = ()
    """If there are any, only these interfaces' addresses are used: names as "eth0", beginnings of names as "wlan*",
    networks as "192.0.2.0/24"; at most 32."""
    denied_interfaces: Sequence[str] = ()
    """Likewise: never these; stronger than allowed_interfaces."""
    ice_policy: ICEPolicy = ICEPolicy.DEFAULT
    """For peers that do not say otherwise."""
    tcp: TCP = TCP.NONE
    """Adds candidates over TCP."""
    tcp_port: int = 0
    """Of the listening socket, one for all peers; 0: the UDP port's number, or any free one if that is taken."""
    disable_mdns: bool = False
    """Names of the other side that end in ".local" are not looked up (RFC 6762)."""
    timers: Timers = Timers()
    """When what is done."""


@dataclass(frozen=True)
class ConnectorConfig:
    """A connector. Times are seconds."""

    policy: Policy = Policy.RACE
    key: str | None = None
    """Names the server in the cache, 1 to 256 bytes; None: "default"."""
    cache_path: str | None = None
    """JSON file for what is kept, made (mode 0600) if missing, for many keys; a second file PATH.tickets holds the
    tickets. None: in the engine's memory."""
    fast_timeout: float = 0
    """For an attempt by ticket or session; default 2."""
    normal_timeout: float = 0
    """For one in normal mode, the answer included; default 20."""
    max_cache_age: float = 0
    """Default 300."""
    disable_tickets: bool = False
    """Never without signaling."""
    peer: PeerConfig = PeerConfig()
    """For the peers that it makes: their negotiated channels."""


UNLIMITED = 0xFFFFFFFF
"""Stands for "none" in restart_attempts and standby_interval_ms."""


def native_text(what: str, text: str | None) -> bytes | None:
    """UTF-8 for a C text, which ends at the first zero byte."""
    if text is None:
        return None
    encoded = text.encode()
    if 0 in encoded:
        raise InvalidArgumentError(f"{what} contains a zero byte")
    return encoded


def native_texts(what: str, texts: Sequence[str]) -> Any:
    """An array of C texts, None if there are none."""
    if isinstance(texts, str):
        raise InvalidArgumentError(f"{what} must be a sequence of texts, not one text")
    if not texts:
        return None
    return (ctypes.c_char_p * len(texts))(*[native_text(what, text) for text in texts])


def native_number(what: str, value: int, bits: int) -> int:
    """A number that fits: ctypes itself would cut it without a word."""
    if not 0 <= value < 1 << bits:
        raise InvalidArgumentError(f"{what} is out of range: {value}")
    return value


def native_milliseconds(what: str, seconds: float) -> int:
    """Milliseconds, a fraction of one rounded up."""
    if not (math.isfinite(seconds) and 0 <= seconds * 1000 < 1 << 32):
        raise InvalidArgumentError(f"{what} is out of range: {seconds}")
    # The product of a decimal fraction and 1000 is seldom exact: 0.055 * 1000 is 55.00000000000001.
    return min(math.ceil(round(seconds * 1000, 6)), (1 << 32) - 1)


def native_secret(what: str, secret: bytes | None) -> bytes | None:
    """Bytes whose number is given with them."""
    if secret is not None and not isinstance(secret, bytes):
        raise InvalidArgumentError(f"{what} must be bytes")
    return secret


def native_engine(config: Config, returning: _abi.PeerConfig) -> _abi.EngineConfig:
    native = _abi.EngineConfig()
    native.struct_size = ctypes.sizeof(native)
    native.ice_mode = native_number("ice_mode", config.ice_mode, 32)
    native.bind_address = native_text("bind_address", config.bind_address)
    native.addresses = native_texts("addresses", config.addresses)
    native.address_count = len(config.addresses)
    native.certificate_path = native_text("certificate_path", config.certificate_path)
    native.port = native_number("port", config.port, 16)
    native.log_level = native_number("log_level", config.log_level, 32)
    native.max_peers = native_number("max_peers", config.max_peers, 32)
    native.max_channels = native_number("max_channels", config.max_channels, 32)
    native.max_message_size = native_number("max_message_size", config.max_message_size, 64)
    native.send_high_water = native_number("send_high_water", config.send_high_water, 64)
    native.receive_window = native_number("receive_window", config.receive_window, 64)
    native.connect_timeout_ms = native_milliseconds("connect_timeout", config.connect_timeout)
    native.disconnect_timeout_ms = native_milliseconds("disconnect_timeout", config.disconnect_timeout)
    native.failed_timeout_ms = native_milliseconds("failed_timeout", config.failed_timeout)
    native.session_ttl_ms = native_milliseconds("session_ttl", config.session_ttl)
    native.max_sessions = native_number("max_sessions", config.max_sessions, 32)
    native.disable_fast_reload = bool(config.disable_fast_reload)
    native.session_store = native_text("session_store", config.session_store)
    native.session_prefix = native_text("session_prefix", config.session_prefix)
    native.store_timeout_ms = native_milliseconds("store_timeout", config.store_timeout)
    native.disable_tickets = bool(config.disable_tickets)
    native.ticket_secret = native_secret("ticket_secret", config.ticket_secret)
    native.ticket_secret_size = len(config.ticket_secret or b"")
    native.old_ticket_secret = native_secret("old_ticket_secret", config.old_ticket_secret)
    native.old_ticket_secret_size = len(config.old_ticket_secret or b"")
    native.returning_peer = ctypes.pointer(returning)
    native.stun_servers = native_texts("stun_servers", config.stun_servers)
    native.stun_server_count = len(config.stun_servers)
    native.public_addresses = native_texts("public_addresses", config.public_addresses)
    native.public_address_count = len(config.public_addresses)
    native.interfaces = native_number("interfaces", config.interfaces, 32)
    native.certificate_days = native_number("certificate_days", config.certificate_days, 32)
    native.fast_timeout_ms = native_milliseconds("fast_timeout", config.fast_timeout)
    native.trip_window_ms = native_milliseconds("trip_window", config.trip_window)
    native.trip_failure_percent = native_number("trip_failure_percent", config.trip_failure_percent, 32)
    native.trip_unstable_percent = native_number("trip_unstable_percent", config.trip_unstable_percent, 32)
    native.trip_min_attempts = native_number("trip_min_attempts", config.trip_min_attempts, 32)
    native.trip_rearm_ms = native_milliseconds("trip_rearm", config.trip_rearm)
    native.disable_trip = bool(config.disable_trip)
    native.turn_servers = native_turn_servers(config.turn_servers)
    native.turn_server_count = len(config.turn_servers)
    native.turn_ca_path = native_text("turn_ca_path", config.turn_ca_path)
    native.allowed_interfaces = native_texts("allowed_interfaces", config.allowed_interfaces)
    native.allowed_interface_count = len(config.allowed_interfaces)
    native.denied_interfaces = native_texts("denied_interfaces", config.denied_interfaces)
    native.denied_interface_count = len(config.denied_interfaces)
    native.ice_policy = native_number("ice_policy", config.ice_policy, 32)
    native.tcp = native_number("tcp", config.tcp, 32)
    native.tcp_port = native_number("tcp_port", config.tcp_port, 16)
    native.disable_mdns = bool(config.disable_mdns)
    native.timers = ctypes.pointer(native_timers(config.timers))
    return native


def native_turn_servers(servers: Sequence[TURNServer]) -> Any:
    """An array of servers, None if there are none."""
    if not servers:
        return None
    native = (_abi.TURNServer * len(servers))()
    for slot, server in zip(native, servers):
        slot.struct_size = ctypes.sizeof(slot)
        slot.lifetime_ms = native_milliseconds("lifetime", server.lifetime)
        slot.url = native_text("url", server.url)
        slot.username = native_text("username", server.username)
        slot.password = native_text("password", server.password)
        slot.secret = native_text("secret", server.secret)
    return native


def native_timers(timers: Timers) -> _abi.Timers:
    native = _abi.Timers()
    native.struct_size = ctypes.sizeof(native)
    for name, _ in _abi.Timers._fields_[1:]:  # type: ignore[misc]
        if name.endswith("_ms"):
            own = name[: -len("_ms")]
            setattr(native, name, native_milliseconds(own, getattr(timers, own)))
    native.restart_attempts = native_number("restart_attempts", timers.restart_attempts, 32)
    if timers.disable_standby:
        native.standby_interval_ms = UNLIMITED
    if timers.disable_restarts:
        native.restart_attempts = UNLIMITED
    return native


def native_connector(config: ConnectorConfig, tag: int, peer: _abi.PeerConfig) -> _abi.ConnectorConfig:
    native = _abi.ConnectorConfig()
    native.struct_size = ctypes.sizeof(native)
    native.policy = native_number("policy", config.policy, 32)
    native.key = native_text("key", config.key)
    native.cache_path = native_text("cache_path", config.cache_path)
    native.fast_timeout_ms = native_milliseconds("fast_timeout", config.fast_timeout)
    native.normal_timeout_ms = native_milliseconds("normal_timeout", config.normal_timeout)
    native.max_cache_age_ms = native_milliseconds("max_cache_age", config.max_cache_age)
    native.disable_tickets = bool(config.disable_tickets)
    native.peer = ctypes.pointer(peer)
    native.tag = tag
    return native


def native_channel(config: ChannelConfig, tag: int) -> _abi.ChannelConfig:
    native = _abi.ChannelConfig()
    native.struct_size = ctypes.sizeof(native)
    native.unordered = not config.ordered
    native.label = native_text("label", config.label)
    native.protocol = native_text("protocol", config.protocol)
    if config.max_retransmits is not None:
        if config.max_lifetime is not None:
            raise InvalidArgumentError("max_retransmits and max_lifetime exclude each other")
        native.reliability = _abi.MAX_RETRANSMITS
        native.reliability_value = native_number("max_retransmits", config.max_retransmits, 32)
    elif config.max_lifetime is not None:
        native.reliability = _abi.MAX_LIFETIME
        native.reliability_value = native_milliseconds("max_lifetime", config.max_lifetime)
    native.negotiated = bool(config.negotiated)
    native.id = native_number("id", config.id, 16)
    native.low_water = native_number("low_water", config.low_water, 64)
    native.tag = tag
    return native


def native_peer(config: PeerConfig, tag: int, channels: list[_abi.ChannelConfig]) -> _abi.PeerConfig:
    native = _abi.PeerConfig()
    native.struct_size = ctypes.sizeof(native)
    native.dtls_active = bool(config.dtls_active)
    native.tag = tag
    native.ice_policy = native_number("ice_policy", config.ice_policy, 32)
    native.negotiation = native_number("negotiation", config.negotiation, 32)
    if channels:
        native.channels = (_abi.ChannelConfig * len(channels))(*channels)
        native.channel_count = len(channels)
    return native
