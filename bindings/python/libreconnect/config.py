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
    if channels:
        native.channels = (_abi.ChannelConfig * len(channels))(*channels)
        native.channel_count = len(channels)
    return native
