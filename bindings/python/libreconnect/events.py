"""What happens: events of an engine. Ignore kinds that you do not know."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Generic, TypeVar, Union

from .config import FastReload, LogLevel
from .errors import ReconnectError

PeerT = TypeVar("PeerT")
ChannelT = TypeVar("ChannelT")
ConnectorT = TypeVar("ConnectorT")

Message = Union[str, bytes]
"""A message: str if it was sent as text, otherwise bytes."""


class PeerState(enum.IntEnum):
    """Where a peer stands."""

    CONNECTING = 1
    """The first check came: ICE has a path, DTLS has begun."""
    CONNECTED = 2
    """DTLS is finished: the other side is authenticated. Again after DISCONNECTED."""
    DISCONNECTED = 3
    """Silent for disconnect_timeout; may come back by itself."""
    CLOSED = 4
    """The end."""


class Mode(enum.IntEnum):
    """How a connection came to be."""

    NORMAL = 0
    """A new session."""
    FAST = 1
    """A session came back with one exchange of signaling."""
    ZERO_SIGNALING = 2
    """It came back with a ticket: nothing was exchanged beforehand."""


class AttemptState(enum.IntEnum):
    """What became of an attempt of a connector."""

    SKIPPED = 0
    """It was not made; the reason says why."""
    STARTED = 1
    WON = 2
    FAILED = 3
    """The reason says why."""
    STOPPED = 4
    """Another one won."""


class ConnectorState(enum.IntEnum):
    """Where a connector stands."""

    CONNECTED = 1
    """The peer's channels are open."""
    FAILED = 2
    """No attempt worked; it may connect again."""
    LOST = 3
    """Its peer closed; it may connect again."""
    CLOSED = 4
    """The end."""


class Switch(enum.IntEnum):
    """Who threw the kill switch of fast reload."""

    HOST = 0
    """set_fast_reload()."""
    TRIPPED = 1
    """Too many fast connects failed."""
    REARMED = 2
    """It is tried again."""


class TURNState(enum.IntEnum):
    """What a TURN server is to an engine."""

    ALLOCATED = 1
    """There is a relay."""
    FAILED = 2
    """There is none. It is tried again by itself where that makes sense."""
    CREDENTIALS = 3
    """The credentials end soon, or were refused: set_turn_servers() takes new ones."""


class PathChange(enum.IntEnum):
    """What a path is in relation to the one before."""

    FIRST = 1
    BETTER = 2
    """Another one of a higher priority."""
    FAILOVER = 3
    """The earlier one was silent."""
    RESTARTED = 4
    """Found by an ICE restart."""
    MOVED = 5
    """The other side moved."""


class RestartState(enum.IntEnum):
    """Where an ICE restart stands."""

    STARTED = 1
    RECOVERED = 2
    """Authenticated bytes arrived on a path of the new generation."""
    FAILED = 3
    """This attempt. The path there was, if there was one, is still used."""
    PAUSED = 4
    """Offline. It goes on when the network is back."""
    GIVEN_UP = 5
    """As many attempts as the timers allow have failed. peer.restart() begins again."""


@dataclass(frozen=True)
class LogEvent:
    """A line of the engine's log, without its end of line."""

    level: LogLevel
    line: str


@dataclass(frozen=True)
class PeerStateEvent(Generic[PeerT]):
    """A peer has come to a state."""

    peer: PeerT
    state: PeerState
    reason: ReconnectError | None
    """Why the peer closed; None if the program closed it, and in all other states."""
    detail: str
    """A sentence, possibly empty."""
    age: float
    """Seconds since the peer was made."""
    ticket: bool = False
    """The peer came with a ticket, and the program did not make it. Its channels are those of the configuration's
    returning_peer."""


@dataclass(frozen=True)
class SessionEvent(Generic[PeerT]):
    """Who came: told once per peer, when the connection is authenticated."""

    peer: PeerT
    client_id: str
    """Stays the same over the session's life."""
    token: str
    """The beginning of the session token, 8 characters: the whole token is never told."""
    connections: int
    """How many times the session has connected, this one included."""
    mode: Mode
    returned: bool
    """The session had connected before."""
    away: float
    """For how many seconds it had been away; 0 if it has not returned, or took over while its earlier peer was still
    connected."""


@dataclass(frozen=True)
class ChannelOpenEvent(Generic[ChannelT]):
    """A channel is open for sending."""

    channel: ChannelT
    remote: bool
    """The other side opened it."""


@dataclass(frozen=True)
class MessageEvent(Generic[ChannelT]):
    """A message."""

    channel: ChannelT
    data: Message


@dataclass(frozen=True)
class BufferedLowEvent(Generic[ChannelT]):
    """The queued bytes of a channel fell to its low-water mark."""

    channel: ChannelT
    buffered: int
    """Bytes queued now."""


@dataclass(frozen=True)
class ChannelClosedEvent(Generic[ChannelT]):
    """The channel is gone, and every call on it raises InvalidHandleError."""

    channel: ChannelT
    reason: ReconnectError | None
    """None if either side closed the channel."""


@dataclass(frozen=True)
class AddressesEvent:
    """The addresses that answers offer have changed."""

    addresses: tuple[str, ...]


@dataclass(frozen=True)
class SignalEvent(Generic[ConnectorT]):
    """A connector without a signaling function has a message for the other side."""

    connector: ConnectorT
    exchange: int
    """What the other side says to this message goes to connector.message() with this number."""
    message: str
    """JSON, an offer or a candidate."""


@dataclass(frozen=True)
class AttemptEvent(Generic[ConnectorT]):
    """What became of one of a connector's attempts."""

    connector: ConnectorT
    state: AttemptState
    mode: Mode
    reason: ReconnectError | None
    """Why; None if there is nothing to say."""
    detail: str
    """A sentence, possibly empty."""
    elapsed: float
    """Seconds since the connect began."""


@dataclass(frozen=True)
class ConnectorEvent(Generic[ConnectorT, PeerT]):
    """A connector has come to a state."""

    connector: ConnectorT
    state: ConnectorState
    mode: Mode
    """How the peer connected."""
    peer: PeerT | None
    """The connection; None if there is none."""
    reason: ReconnectError | None
    """Why it failed or was lost."""
    detail: str
    """A sentence, possibly empty."""
    elapsed: float
    """Seconds since the connect began."""


@dataclass(frozen=True)
class FastReloadEvent:
    """The kill switch of fast reload was thrown."""

    setting: FastReload
    """How it acts now."""
    by: Switch
    detail: str
    """A sentence."""


@dataclass(frozen=True)
class CertificateEvent:
    """The engine has a new certificate."""

    fingerprint: str
    """Its SHA-256 fingerprint as in SDP."""


@dataclass(frozen=True)
class StoreEvent:
    """The session store has come or gone. While it is away answers are normal."""

    available: bool
    detail: str
    """A sentence."""


@dataclass(frozen=True)
class PeerSignalEvent(Generic[PeerT]):
    """A peer that negotiates by itself has a message for the other side, to be carried there in order. What comes back
    goes to peer.signal()."""

    peer: PeerT
    message: str
    """JSON: an offer, an answer or a candidate."""


@dataclass(frozen=True)
class SignalRefusedEvent(Generic[PeerT]):
    """A message of the other side that was well-formed, or a restart, could not be taken by a peer that negotiates by
    itself, and has changed nothing."""

    peer: PeerT
    reason: ReconnectError


@dataclass(frozen=True)
class NetworkEvent:
    """The machine's network is another. Peers have been told already."""

    online: bool
    """There is a network."""
    addresses_changed: bool
    route_changed: bool
    online_changed: bool
    detail: str
    """A sentence."""


@dataclass(frozen=True)
class TURNEvent:
    """What a TURN server is to the engine."""

    url: str
    """The server's, as it was given."""
    state: TURNState
    addresses: tuple[str, ...]
    """The relayed addresses, with ALLOCATED."""
    reason: ReconnectError | None
    """Why it failed; None if there is nothing to say."""
    detail: str
    """A sentence, possibly empty."""
    elapsed: float
    """With ALLOCATED, seconds that the allocation took."""
    remaining: float
    """With CREDENTIALS, for how many seconds the credentials are good."""


@dataclass(frozen=True)
class PathEvent(Generic[PeerT]):
    """The path that a peer uses is another, or is the first."""

    peer: PeerT
    local: str
    """The text of our candidate (RFC 8839 section 5.1)."""
    remote: str
    """The text of theirs."""
    change: PathChange
    paths: int
    """How many paths the peer has had, this one included."""
    round_trip: float
    """Of the path, in seconds; 0: not measured."""


@dataclass(frozen=True)
class RestartEvent(Generic[PeerT]):
    """How an ICE restart goes."""

    peer: PeerT
    state: RestartState
    attempt: int
    """Counts from 1."""
    reason: ReconnectError | None
    """Why it failed; None if there is nothing to say."""
    detail: str
    """A sentence, possibly empty."""
    elapsed: float
    """Seconds since the first attempt began."""


EngineEvent = Union[
    LogEvent,
    PeerStateEvent[PeerT],
    SessionEvent[PeerT],
    ChannelOpenEvent[ChannelT],
    BufferedLowEvent[ChannelT],
    ChannelClosedEvent[ChannelT],
    AddressesEvent,
    SignalEvent[ConnectorT],
    AttemptEvent[ConnectorT],
    ConnectorEvent[ConnectorT, PeerT],
    FastReloadEvent,
    CertificateEvent,
    StoreEvent,
    SignalRefusedEvent[PeerT],
    NetworkEvent,
    TURNEvent,
    PathEvent[PeerT],
    RestartEvent[PeerT],
]
"""Everything that can happen, except messages: those of channels and those for the other sides of peers."""


@dataclass(frozen=True)
class EngineStatistics:
    """Counters since the engine's start; those marked "now" are gauges."""

    peers: int
    """Now."""
    sessions: int
    """Now."""
    answers_fast: int
    answers_normal: int
    peers_connected: int
    """Ever."""
    peers_failed: int
    """Closed before they connected, or by an error."""
    sessions_returned: int
    """Connections that came back to their session."""
    datagrams_received: int
    datagrams_sent: int
    bytes_received: int
    """UDP payload."""
    bytes_sent: int
    datagrams_dropped: int
    """From strangers, malformed, failed integrity; counted and dropped."""
    send_errors: int
    """Datagrams that the operating system refused."""
    certificate_age_seconds: int
    """Now."""
    events_queued: int
    """Now, in the library."""


@dataclass(frozen=True)
class PeerStatistics:
    """The figures of a peer. Times are seconds; 0: not yet, or not measured."""

    channels: int
    """Open now."""
    ice: float
    """From the peer's making to its first verified check."""
    dtls: float
    """To the finished handshake."""
    sctp: float
    """To the association."""
    round_trip: float
    """Smoothed."""
    bytes_sent: int
    """UDP payload."""
    bytes_received: int
    messages_sent: int
    messages_received: int
    retransmissions: int
    """SCTP chunks sent again."""
    congestion_window: int
    buffered: int
    """Bytes waiting in all channels."""
    local_address: str
    """Of the path in use, as "[::1]:9" or "127.0.0.1:9"."""
    remote_address: str
    local_type: str = ""
    """Of the path's candidates: "host", "srflx", "prflx" or "relay"."""
    remote_type: str = ""
    transport: str = ""
    """"udp" or "tcp"."""
    relay_transport: str = ""
    """To our TURN server: "udp", "tcp" or "tls"; empty without one."""
    relay_address: str = ""
    """Of our TURN server; empty without one."""
    packets_sent: int = 0
    packets_received: int = 0
    checks_sent: int = 0
    """STUN requests, consent included."""
    checks_received: int = 0
    path_changes: int = 0
    restarts: int = 0
    """ICE restarts begun by either side."""
    generation: int = 0
    """Of ICE: 0 until the first restart."""
    standby: bool = False
    """A second path is valid and kept warm."""
    candidates_refused: int = 0
    """Of the other side: malformed, unusable or beyond a limit."""
