"""An engine without waiting: calls, handles and events. The blocking and the asyncio interface stand on it."""

from __future__ import annotations

import ctypes
import itertools
import json
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Generic, NamedTuple, TypeVar, Union

from . import _abi, _library
from .config import (
    ChannelConfig,
    Config,
    ConnectorConfig,
    FastReload,
    LogLevel,
    PeerConfig,
    Timers,
    TURNServer,
    native_channel,
    native_connector,
    native_engine,
    native_milliseconds,
    native_number,
    native_peer,
    native_text,
    native_texts,
    native_timers,
    native_turn_servers,
)
from .errors import InvalidHandleError, ReconnectError, Status, error_for, reason_for
from .events import (
    AddressesEvent,
    AttemptEvent,
    AttemptState,
    BufferedLowEvent,
    CertificateEvent,
    ChannelClosedEvent,
    ChannelOpenEvent,
    ConnectorEvent,
    ConnectorState,
    EngineStatistics,
    FastReloadEvent,
    LogEvent,
    Message,
    MessageEvent,
    Mode,
    NetworkEvent,
    PathChange,
    PathEvent,
    PeerSignalEvent,
    PeerState,
    PeerStateEvent,
    PeerStatistics,
    RestartEvent,
    RestartState,
    SessionEvent,
    SignalEvent,
    SignalRefusedEvent,
    StoreEvent,
    Switch,
    TURNEvent,
    TURNState,
)

BATCH = 64
DETAIL = 512
RESULTS = (_abi.EVENT_ANSWER, _abi.EVENT_OFFER, _abi.EVENT_RESULT, _abi.EVENT_STATISTICS)

Data = Union[str, bytes, bytearray, memoryview]
"""What can be sent: str goes as text, everything else as binary."""


@dataclass(frozen=True)
class Result:
    """The event of a call."""

    status: int
    data: bytes
    number: int
    duration_ns: int
    cause: BaseException | None = None
    """What the program's own signaling raised, if that led to this."""

    def check(self) -> Result:
        if self.status != Status.OK:
            raise error_for(self.status, self.data.decode("utf-8", "replace")) from self.cause
        return self


def check(status: int, detail: Any | None = None) -> None:
    """Raises the exception of a status that is not OK."""
    if status != Status.OK:
        raise error_for(status, detail.value.decode("utf-8", "replace") if detail is not None else "")


def json_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(memoryview(text))


PeerT = TypeVar("PeerT", bound="BasePeer[Any]")
ChannelT = TypeVar("ChannelT", bound="BaseChannel[Any]")
ConnectorT = TypeVar("ConnectorT", bound="BaseConnector[Any]")


class BaseChannel(Generic[PeerT]):
    """One data channel (RFC 8831). It ends with its ChannelClosedEvent."""

    def __init__(self, core: Core[Any, Any], peer: PeerT, config: ChannelConfig, tag: int) -> None:
        self._core = core
        self._handle = _abi.ChannelHandle(0)
        self._tag = tag  # 0: the other side opened it
        self._paused = False
        self._has_ended = False
        self._send_native = core.library.reconnect_send
        self.peer: PeerT = peer
        """The peer that the channel belongs to."""
        self.label: str = config.label
        self.protocol: str = config.protocol
        self.id: int | None = config.id if config.negotiated else None
        """The stream, None while it is not known."""
        self.ordered: bool = config.ordered
        """Messages arrive in the order in which they were sent."""
        self.reliable: bool = config.max_retransmits is None and config.max_lifetime is None
        """Messages are sent until they have arrived."""

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} id={self.id} label={self.label!r}>"

    def _send(self, data: Data) -> int:
        if isinstance(data, str):
            payload, kind = data.encode(), _abi.TEXT
        else:
            payload, kind = data if type(data) is bytes else bytes(data), _abi.BINARY
        status: int = self._send_native(self._handle, kind, payload, len(payload))
        return status

    def buffered(self) -> int:
        """Bytes queued and not yet handed to the network."""
        count = ctypes.c_uint64()
        check(self._core.library.reconnect_channel_buffered(self._handle, ctypes.byref(count)))
        return count.value

    def set_low_water(self, size: int) -> None:
        """Sets the low-water mark; from now on every fall to it is a BufferedLowEvent."""
        size = native_number("low water", size, 64)
        check(self._core.library.reconnect_channel_set_low_water(self._handle, size))

    def close(self) -> None:
        """Closes the channel once its queued messages are sent; the other side's end closes too. A
        ChannelClosedEvent follows. Closing a closed channel does nothing."""
        status = self._core.library.reconnect_channel_close(self._handle)
        if status not in (Status.INVALID_HANDLE, Status.CLOSED):
            check(status)


class BasePeer(Generic[ChannelT]):
    """One WebRTC connection. It ends with its PeerStateEvent of state CLOSED."""

    def __init__(self, core: Core[Any, Any], tag: int) -> None:
        self._core = core
        self._handle = _abi.PeerHandle(0)
        self._tag = tag
        self._connector: BaseConnector[Any] | None = None  # whose connect ends when the channels are open
        self._own: dict[int, ChannelT] = {}  # channels opened here, by tag
        self._remote: dict[int, ChannelT] = {}  # opened by the other side, by handle
        self.channels: tuple[ChannelT, ...] = ()
        """The negotiated channels of the peer's configuration, in its order. They can send once their
        ChannelOpenEvents have come."""

    @property
    def id(self) -> int:
        """A number that no other peer of the engine has: for logs."""
        return self._tag

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} id={self.id}>"

    def open_channel(self, config: ChannelConfig | None = None) -> ChannelT:
        """Opens a data channel (RFC 8831, 8832). May be called before the peer is connected: a ChannelOpenEvent
        says when it is open; messages sent before are kept and go out first."""
        channel: ChannelT = self._core.open_channel(self, config or ChannelConfig())
        return channel

    def add_candidate(self, candidate: str | bytes) -> None:
        """Adds a candidate of the other side, JSON {"candidate":{...}}, or {"candidate":null} for the end of them."""
        text, detail = json_bytes(candidate), ctypes.create_string_buffer(DETAIL)
        check(self._core.library.reconnect_peer_add_candidate(self._handle, text, len(text), detail, DETAIL), detail)

    def signal(self, message: str | bytes) -> None:
        """Hands in a message of the other side for a peer that negotiates by itself: an offer, an answer or a candidate
        as JSON, in the order in which they were sent. An answer to an offer that is no longer there, and a candidate of
        an earlier generation, are ignored. Raises MalformedJSONError or MalformedSDPError, and then nothing has changed;
        what cannot be accepted is a SignalRefusedEvent, and changes nothing either. WrongStateError if the peer's negotiation is manual."""
        text, detail = json_bytes(message), ctypes.create_string_buffer(DETAIL)
        check(self._core.library.reconnect_peer_signal(self._handle, text, len(text), detail, DETAIL), detail)

    def restart(self) -> None:
        """Restarts ICE (RFC 8445 section 9): a new path is looked for while the one there is stays in use until the new
        one is proven; all channels and messages live on. With a peer that has not connected yet, it begins the
        negotiation. RestartEvents tell how it goes. Raises WrongStateError if the peer's negotiation is manual."""
        check(self._core.library.reconnect_peer_restart(self._handle))

    def close(self) -> None:
        """Closes the peer and its channels; the other side is told. Messages not yet sent are lost. A PeerStateEvent
        of state CLOSED follows. Closing a closed peer does nothing."""
        status = self._core.library.reconnect_peer_close(self._handle)
        if status not in (Status.INVALID_HANDLE, Status.CLOSED):
            check(status)

    def _start_offer(self) -> int:
        tag = self._core.expect()
        self._core.start(tag, self._core.library.reconnect_peer_offer(self._handle, tag))
        return tag

    def _start_accept(self, answer: str | bytes) -> int:
        tag = self._core.expect()
        text, detail = json_bytes(answer), ctypes.create_string_buffer(DETAIL)
        accept = self._core.library.reconnect_peer_accept
        self._core.start(tag, accept(self._handle, text, len(text), tag, detail, DETAIL), detail)
        return tag

    def _start_statistics(self) -> int:
        tag = self._core.expect()
        self._core.start(tag, self._core.library.reconnect_peer_query_statistics(self._handle, tag))
        return tag


@dataclass(frozen=True)
class BaseConnection(Generic[PeerT]):
    """What a connector's connect has led to."""

    peer: PeerT
    """Its channels are open."""
    mode: Mode
    """How it came back."""
    duration: float
    """Seconds from the call to the open channels."""


class BaseConnector(Generic[PeerT]):
    """Makes and remakes the connection of a client to one server, the fastest way that works: with the ticket that the
    server gave out during the last connection, nothing being exchanged beforehand; with one exchange and the session
    token; or with one exchange in normal mode. What is needed to come back is kept in its cache, only from connections
    that worked."""

    def __init__(self, core: Core[Any, Any], tag: int, template: Template, signals: bool) -> None:
        self._core = core
        self._signals = signals  # it carries its messages by itself: they are no events
        self._handle = _abi.ConnectorHandle(0)
        self._tag = tag
        self._template = template
        self._told: PeerT | None = None  # the peer of the last ConnectorEvent
        self._waiting: int | None = None  # the call that connects
        self._result: Result | None = None  # told once the channels are open
        self._cause: BaseException | None = None  # what the signaling raised last
        self.peer: PeerT | None = None
        """The connection that is up."""

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} id={self._tag}>"

    def message(self, exchange: int, message: str | bytes) -> None:
        """Hands in a message of the other side: the answer to the offer of an exchange, or a candidate. One of an
        exchange that is over is ignored. A connector with a signaling function does this by itself."""
        text, detail = json_bytes(message), ctypes.create_string_buffer(DETAIL)
        call = self._core.library.reconnect_connector_message
        check(call(self._handle, exchange, text, len(text), detail, DETAIL), detail)

    def signaling_failed(self, exchange: int) -> None:
        """Says that an exchange will have no answer: the attempt fails at once."""
        check(self._core.library.reconnect_connector_signaling_failed(self._handle, exchange))

    def cache(self) -> str:
        """The cache entry of the connector's key as JSON; empty if there is none."""
        return read_text(lambda *buffer: self._core.library.reconnect_connector_cache(self._handle, *buffer), 4096)

    def forget(self) -> None:
        """Drops what is kept under the connector's key: the next connect is normal."""
        check(self._core.library.reconnect_connector_forget(self._handle))

    def close(self) -> None:
        """Stops attempts under way, closes the connected peer and ends the connector. What is kept stays. Closing a
        closed connector does nothing."""
        status = self._core.library.reconnect_connector_close(self._handle)
        if status not in (Status.INVALID_HANDLE, Status.CLOSED):
            check(status)

    def _start_connect(self) -> int:
        if self._waiting is not None:
            raise error_for(Status.WRONG_STATE, "a connect is under way")
        tag = self._waiting = self._core.expect()
        self._cause = None
        status = self._core.library.reconnect_connector_connect(self._handle)
        if status != Status.OK:
            self._waiting = None
        self._core.start(tag, status)
        return tag

    def _signal(self, exchange: int, message: str) -> None:
        """Carries a message to the other side."""

    def _connected(self) -> None:
        """The connect under way has ended."""

    def _answered(self, exchange: int, answer: str | bytes) -> None:
        try:
            self.message(exchange, answer)
        except (ReconnectError, TypeError, ValueError) as error:
            self._failed(exchange, error)

    def _failed(self, exchange: int, error: BaseException) -> None:
        self._cause = error
        self._core.library.reconnect_connector_signaling_failed(self._handle, exchange)


def is_offer(message: str) -> bool:
    """An offer holds all candidates: there is no need for those that come alone."""
    try:
        parsed = json.loads(message)
    except ValueError:
        return False
    return isinstance(parsed, dict) and parsed.get("type") == "offer"


def read_text(fill: Callable[..., int], capacity: int) -> str:
    """Calls a function that fills a buffer, again with a larger one if it has to."""
    length = ctypes.c_size_t()
    while True:
        buffer = ctypes.create_string_buffer(capacity)
        status = fill(buffer, capacity, ctypes.byref(length))
        if status != Status.TOO_SMALL or length.value <= capacity:
            check(status)
            return buffer.raw[: length.value].decode("utf-8", "replace")
        capacity = length.value


@dataclass(frozen=True)
class Template:
    """How peers are made that the library makes by itself. They have one tag, and their channels' tags, in common: what
    tells them apart is their handles."""

    config: PeerConfig
    tag: int
    tags: tuple[int, ...]
    """Of the channels."""


def peer_statistics(result: Result) -> PeerStatistics:
    native = _abi.PeerStatistics()
    # A library that knows fewer members than this package leaves the others zero.
    ctypes.memmove(ctypes.byref(native), result.data, min(len(result.data), ctypes.sizeof(native)))
    return PeerStatistics(
        channels=native.channels,
        ice=native.ice_ns / 1e9,
        dtls=native.dtls_ns / 1e9,
        sctp=native.sctp_ns / 1e9,
        round_trip=native.round_trip_ns / 1e9,
        bytes_sent=native.bytes_sent,
        bytes_received=native.bytes_received,
        messages_sent=native.messages_sent,
        messages_received=native.messages_received,
        retransmissions=native.retransmissions,
        congestion_window=native.congestion_window,
        buffered=native.buffered,
        local_address=native.local_address.decode("ascii", "replace"),
        remote_address=native.remote_address.decode("ascii", "replace"),
        local_type=native.local_type.decode("ascii", "replace"),
        remote_type=native.remote_type.decode("ascii", "replace"),
        transport=native.transport.decode("ascii", "replace"),
        relay_transport=native.relay_transport.decode("ascii", "replace"),
        relay_address=native.relay_address.decode("ascii", "replace"),
        packets_sent=native.packets_sent,
        packets_received=native.packets_received,
        checks_sent=native.checks_sent,
        checks_received=native.checks_received,
        path_changes=native.path_changes,
        restarts=native.restarts,
        generation=native.generation,
        standby=native.standby != 0,
        candidates_refused=native.candidates_refused,
    )


class TURNCredentials(NamedTuple):
    """Time-limited credentials for a TURN server."""

    username: str
    password: str


def turn_credentials(secret: str, user: str | None = None, lifetime: float = 0) -> TURNCredentials:
    """Makes credentials for a server with a shared secret (coturn: use-auth-secret), good for `lifetime` seconds from now
    on (0: a day), for programs that give them to pages. The user name is the Unix time of their end, with ":" and `user`
    behind it. Raises InvalidArgumentError for a secret that is empty or longer than 512 bytes, a user longer than 495, and
    control characters."""
    name, word = ctypes.create_string_buffer(1024), ctypes.create_string_buffer(1024)
    native_secret, native_user = native_text("secret", secret), native_text("user", user)
    call = _library.load().reconnect_turn_credentials
    check(call(native_secret, native_user, native_milliseconds("lifetime", lifetime), name, 1024, word, 1024))
    return TURNCredentials(name.value.decode(), word.value.decode())


@dataclass(frozen=True)
class BaseAnswer(Generic[PeerT]):
    """An answered offer."""

    peer: PeerT
    """The connection that comes to be. It closes by itself if nobody connects within connect_timeout."""
    json: str
    """The answer to give to the other side."""
    mode: Mode
    """Whether a session came back."""
    duration: float
    """Seconds from the call to the finished answer."""


class BaseEngine(Generic[PeerT, ChannelT]):
    """What an engine does without waiting."""

    def __init__(self) -> None:
        self._native: Core[PeerT, ChannelT] | None = None
        self._port = 0

    @property
    def _core(self) -> Core[PeerT, ChannelT]:
        if self._native is None:
            raise InvalidHandleError("the engine is not open")
        return self._native

    @property
    def port(self) -> int:
        """The UDP port in use."""
        return self._port

    def fingerprint(self, hash_name: str = "sha-256") -> str:
        """The certificate's fingerprint as in SDP, for example "sha-256 AB:CD:..." (RFC 8122).

        The hash is "sha-256", "sha-384" or "sha-512"."""
        return self._core.fingerprint(hash_name)

    def set_addresses(self, addresses: Sequence[str]) -> None:
        """Replaces the IP addresses offered from now on. None at all: back to the machine's own."""
        self._core.set_addresses(addresses)

    def set_turn_servers(self, servers: Sequence[TURNServer]) -> None:
        """Replaces the TURN servers, at most 32, in order of preference between servers that are equally near; none at
        all: no relays. Relays of servers that stay are kept, new credentials are used from the next request on, and a
        server that is dead delays nothing. A TURNEvent tells what becomes of each. Raises InvalidArgumentError, which says
        what is wrong with which, and then nothing has changed."""
        self._core.set_turn_servers(servers)

    def set_timers(self, timers: Timers) -> None:
        """Changes the timers of all peers, those that are up included. What is 0 goes back to its default. Raises
        InvalidArgumentError, which names what cannot be so, and then nothing has changed."""
        self._core.set_timers(timers)

    def set_fast_reload(self, setting: FastReload | bool) -> None:
        """Throws the kill switch of fast reload while running; answers and connects under way are finished as they were
        begun. FastReload.ON (True) also re-arms a tripped switch. A FastReloadEvent tells what became of it."""
        self._core.set_fast_reload(setting)

    def rotate_certificate(self) -> None:
        """Replaces the certificate now, on disk too if certificate_path was given. The previous one stays in use for
        peers that are up and for tickets that were issued with it, until they expire. A CertificateEvent follows. Blocks
        for the file and the key only. Raises NoPermissionError or StorageError, and then nothing has changed."""
        self._core.rotate_certificate()

    def revoke(self, client_id: str) -> None:
        """Forgets a session for good, by the client_id that SessionEvent told: its peers are closed, its tokens are
        unknown from now on and its tickets are refused by this engine. For clients that must not come back without being
        asked. Raises InvalidArgumentError if it is no client id; an unknown one is not an error."""
        self._core.revoke(client_id)

    def metrics(self) -> str:
        """All metrics of the engine in Prometheus' text format 0.0.4, to be served as METRICS_CONTENT_TYPE."""
        return self._core.metrics()

    def set_log_level(self, level: LogLevel) -> None:
        """Changes the level of log events."""
        self._core.set_log_level(level)

    def statistics(self) -> EngineStatistics:
        """Reads the engine's counters."""
        return self._core.statistics()


class Core(Generic[PeerT, ChannelT]):
    """An engine. `take` must not be called by two threads at once; everything else may."""

    def __init__(
        self,
        config: Config,
        make_peer: Callable[[Core[PeerT, ChannelT], int], PeerT],
        make_channel: Callable[[Core[PeerT, ChannelT], PeerT, ChannelConfig, int], ChannelT],
        on_result: Callable[[int, Result], None],
        from_environment: bool = False,
    ) -> None:
        self.library = _library.load()
        self._make_peer = make_peer
        self._make_channel = make_channel
        self._on_result = on_result
        self._tags = itertools.count(1)
        self._lock = threading.Lock()  # pausing and resuming
        self._expected: dict[int, bool] = {}  # calls that wait for their event
        self._peers: dict[int, PeerT] = {}  # by the tag of the program's, or what stands for it
        self._templates: dict[int, Template] = {}  # by the tag that their peers have in common
        self._connectors: dict[int, BaseConnector[PeerT]] = {}  # by tag
        self._peers_by_handle: dict[int, PeerT] = {}
        self._channels: dict[int, ChannelT] = {}  # opened here, by tag
        self._remote: dict[int, ChannelT] = {}  # opened by the other sides, by handle
        self._paused = 0
        self._resumed: list[ChannelT] = []
        self._held: dict[ChannelT, deque[_abi.Event]] = {}  # messages of paused channels, each a batch of its own
        self._backlog: deque[_abi.Event] = deque()  # taken while waiting for a result, each a batch of its own
        self._batch = (_abi.Event * BATCH)()
        self._count = ctypes.c_size_t()
        self.handle = _abi.EngineHandle(0)
        _, returning = self._add_template(config.returning_peer)
        native, detail = native_engine(config, returning), ctypes.create_string_buffer(DETAIL)
        create = self.library.reconnect_engine_create
        if from_environment:
            create = self.library.reconnect_engine_create_from_env
        check(create(ctypes.byref(native), ctypes.byref(self.handle), detail, DETAIL), detail)

    # ------------------------------------------------------------ the engine

    def destroy(self) -> None:
        self.library.reconnect_engine_destroy(self.handle)

    def descriptor(self) -> int:
        number = ctypes.c_int()
        check(self.library.reconnect_event_fd(self.handle, ctypes.byref(number)))
        return number.value

    def port(self) -> int:
        number = ctypes.c_uint16()
        check(self.library.reconnect_engine_port(self.handle, ctypes.byref(number)))
        return number.value

    def fingerprint(self, hash_name: str) -> str:
        numbers = {"sha-256": 0, "sha-384": 1, "sha-512": 2}
        if hash_name not in numbers:
            raise error_for(Status.INVALID_ARGUMENT, f"the hash must be one of {', '.join(numbers)}")
        number = numbers[hash_name]
        return read_text(lambda *buffer: self.library.reconnect_engine_fingerprint(self.handle, number, *buffer), 256)

    def metrics(self) -> str:
        return read_text(lambda *buffer: self.library.reconnect_engine_metrics(self.handle, *buffer), 16384)

    def rotate_certificate(self) -> None:
        detail = ctypes.create_string_buffer(DETAIL)
        check(self.library.reconnect_engine_rotate_certificate(self.handle, detail, DETAIL), detail)

    def revoke(self, client_id: str) -> None:
        check(self.library.reconnect_engine_revoke(self.handle, native_text("client_id", client_id)))

    def set_addresses(self, addresses: Sequence[str]) -> None:
        native = native_texts("addresses", addresses)
        check(self.library.reconnect_engine_set_addresses(self.handle, native, len(addresses)))

    def set_turn_servers(self, servers: Sequence[TURNServer]) -> None:
        native, detail = native_turn_servers(servers), ctypes.create_string_buffer(DETAIL)
        call = self.library.reconnect_engine_set_turn_servers
        check(call(self.handle, native, len(servers), detail, DETAIL), detail)

    def set_timers(self, timers: Timers) -> None:
        native, detail = native_timers(timers), ctypes.create_string_buffer(DETAIL)
        check(self.library.reconnect_engine_set_timers(self.handle, ctypes.byref(native), detail, DETAIL), detail)

    def set_fast_reload(self, setting: FastReload | bool) -> None:
        check(self.library.reconnect_engine_set_fast_reload(self.handle, native_number("setting", setting, 32)))

    def set_log_level(self, level: LogLevel) -> None:
        check(self.library.reconnect_engine_set_log_level(self.handle, native_number("level", level, 32)))

    def statistics(self) -> EngineStatistics:
        native = _abi.EngineStatistics()
        native.struct_size = ctypes.sizeof(native)
        check(self.library.reconnect_engine_statistics(self.handle, ctypes.byref(native)))
        names = (name for name, _ in _abi.EngineStatistics._fields_[1:])  # type: ignore[misc]
        return EngineStatistics(**{name: getattr(native, name) for name in names})

    # ------------------------------------------------------ peers and channels

    def _prepare(self, config: PeerConfig) -> tuple[PeerT, _abi.PeerConfig]:
        """Makes the Python side, known by its tags before the library can say anything about it."""
        template, native = self._template(config)
        peer = self._new_peer(template, template.tag)
        for channel in peer.channels:
            self._channels[channel._tag] = channel
        return peer, native

    def _template(self, config: PeerConfig) -> tuple[Template, _abi.PeerConfig]:
        template = Template(config, next(self._tags), tuple(next(self._tags) for _ in config.channels))
        natives = [native_channel(each, tag) for each, tag in zip(config.channels, template.tags)]
        return template, native_peer(config, template.tag, natives)

    def _add_template(self, config: PeerConfig) -> tuple[Template, _abi.PeerConfig]:
        template, native = self._template(config)
        self._templates[template.tag] = template
        return template, native

    def _new_peer(self, template: Template, tag: int) -> PeerT:
        peer = self._make_peer(self, tag)
        channels = [self._make_channel(self, peer, *each) for each in zip(template.config.channels, template.tags)]
        peer.channels = tuple(channels)
        peer._own.update((channel._tag, channel) for channel in channels)
        self._peers[tag] = peer
        return peer

    def add_connector(self, config: ConnectorConfig, make: Callable[[int, Template], ConnectorT]) -> ConnectorT:
        template, peer = self._template(config.peer)
        connector = make(next(self._tags), template)
        native, detail = native_connector(config, connector._tag, peer), ctypes.create_string_buffer(DETAIL)
        self._templates[template.tag] = template
        self._connectors[connector._tag] = connector
        status = self.library.reconnect_connector_create(
            self.handle, ctypes.byref(native), ctypes.byref(connector._handle), detail, DETAIL
        )
        if status != Status.OK:
            self._forget_connector(connector)
            check(status, detail)
        return connector

    def _forget_connector(self, connector: BaseConnector[PeerT]) -> None:
        """Nothing more comes from it, and it makes no more peers."""
        self._connectors.pop(connector._tag, None)
        self._templates.pop(connector._template.tag, None)

    def start_answer(self, offer: str | bytes, config: PeerConfig) -> tuple[PeerT, int]:
        """Begins to answer; the result comes with the tag."""
        peer, native = self._prepare(config)
        tag = self.expect()
        text, detail = json_bytes(offer), ctypes.create_string_buffer(DETAIL)
        status = self.library.reconnect_answer(
            self.handle, text, len(text), ctypes.byref(native), tag, ctypes.byref(peer._handle), detail, DETAIL
        )
        if status != Status.OK:
            self.forget_peer(peer)
        self.start(tag, status, detail)
        return peer, tag

    def create_peer(self, config: PeerConfig) -> PeerT:
        peer, native = self._prepare(config)
        status = self.library.reconnect_peer_create(self.handle, ctypes.byref(native), ctypes.byref(peer._handle))
        if status != Status.OK:
            self.forget_peer(peer)
            check(status)
        return peer

    def open_channel(self, peer: PeerT, config: ChannelConfig) -> ChannelT:
        channel = self._make_channel(self, peer, config, next(self._tags))
        native = native_channel(config, channel._tag)
        self._channels[channel._tag] = peer._own[channel._tag] = channel
        status = self.library.reconnect_channel_open(peer._handle, ctypes.byref(native), ctypes.byref(channel._handle))
        if status != Status.OK:
            self._forget_channel(channel)
            check(status)
        return channel

    def forget_peer(self, peer: PeerT) -> None:
        """Events of the peer concern nobody any more."""
        self._peers.pop(peer._tag, None)
        self._peers_by_handle.pop(peer._handle.id, None)
        for channel in [*list(peer._own.values()), *list(peer._remote.values())]:
            self._forget_channel(channel)

    def _forget_channel(self, channel: ChannelT) -> None:
        if channel._tag:
            if self._channels.get(channel._tag) is channel:
                del self._channels[channel._tag]
            channel.peer._own.pop(channel._tag, None)
        else:
            self._remote.pop(channel._handle.id, None)
            channel.peer._remote.pop(channel._handle.id, None)
        with self._lock:
            if channel._paused:
                channel._paused = False
                self._paused -= 1

    def pause(self, channel: ChannelT) -> None:
        with self._lock:
            if not channel._paused:
                channel._paused = True
                self._paused += 1

    def resume(self, channel: ChannelT) -> bool:
        """Whether it was paused: then `take` may have messages without the descriptor being readable."""
        with self._lock:
            if not channel._paused:
                return False
            channel._paused = False
            self._paused -= 1
            self._resumed.append(channel)
            return True

    # ---------------------------------------------------------------- results

    def expect(self) -> int:
        tag = next(self._tags)
        self._expected[tag] = True
        return tag

    def start(self, tag: int, status: int, detail: Any | None = None) -> None:
        """Raises if the call that should have begun has failed."""
        if status != Status.OK:
            self.forget_call(tag)
            check(status, detail)

    def forget_call(self, tag: int) -> None:
        self._expected.pop(tag, None)

    def _finish(self, tag: int, result: Result) -> None:
        if self._expected.pop(tag, None):
            self._on_result(tag, result)

    # ----------------------------------------------------------------- events

    def _poll(self, maximum: int) -> int:
        status = self.library.reconnect_poll(self.handle, self._batch, maximum, 0, ctypes.byref(self._count))
        if status == Status.INVALID_HANDLE:
            raise InvalidHandleError("the engine is closed")
        check(status)
        return self._count.value

    def _release(self, event: _abi.Event) -> None:
        self.library.reconnect_release(self.handle, event.batch)

    def has_backlog(self) -> bool:
        """`take` has something even though the descriptor is not readable."""
        return bool(self._backlog or self._resumed)

    def take(self) -> list[Any]:
        """What has happened, without waiting. Results of calls go to `on_result`."""
        out: list[Any] = []
        with self._lock:
            resumed, self._resumed = self._resumed, []
        for channel in resumed:
            self._take_held(channel, out, everything=False)
        while self._backlog:
            event = self._backlog.popleft()
            if not self._hold(event):
                self._convert(event, out)
                self._release(event)
        if out:
            return out
        # A message of a paused channel is kept by not releasing its batch: no other event may share it.
        count = self._poll(1 if self._paused else BATCH)
        if count == 1 and self._hold(self._batch[0]):
            return out
        for index in range(count):
            self._note(self._batch[index])
            self._convert(self._batch[index], out)
        if count:
            self._release(self._batch[0])
        return out

    def take_results(self) -> int:
        """Results of calls only; what else comes is kept in the library for `take`. Returns how many came."""
        count = 0
        while self._poll(1):
            event = self._batch[0]
            count += self._note(event)
            if event.type in RESULTS and self._refusing_peer(event) is None:
                self._release(event)
            else:
                self._backlog.append(_abi.Event.from_buffer_copy(event))
        return count

    def _note(self, event: _abi.Event) -> bool:
        """What a call that waits must know of an event at once, before the program takes it. Whether a call has ended."""
        kind = event.type
        if kind == _abi.EVENT_MESSAGE:
            return False
        if kind in RESULTS:
            data = ctypes.string_at(event.data, event.size)
            self._finish(event.tag, Result(event.status, data, event.number, event.duration_ns))
            return True
        if kind == _abi.EVENT_CHANNEL_OPEN:
            return self._open_channel(event)
        if kind == _abi.EVENT_CHANNEL_CLOSED:
            channel = self._channel(event)
            if channel is not None:
                channel._has_ended = True
                return self._settle(channel.peer)
        elif kind == _abi.EVENT_PEER_STATE:
            peer = self._peer(event)
            if peer is not None and peer._connector is not None and event.number == PeerState.CLOSED:
                status, data = event.status or Status.CLOSED, ctypes.string_at(event.data, event.size)
                peer._connector._result = Result(status, data, 0, 0)
                return self._settle(peer, is_closed=True)
        elif kind == _abi.EVENT_SIGNAL:
            connector = self._connectors.get(event.tag)
            if connector is not None and connector._signals:
                connector._signal(event.number, _text(event.data, event.size))
        elif kind == _abi.EVENT_CONNECTOR:
            return self._connector_state(event)
        return False

    def _refusing_peer(self, event: _abi.Event) -> PeerT | None:
        """Who has refused a message: a result with the tag of a peer is one that no call waits for."""
        if event.type != _abi.EVENT_RESULT or event.status == Status.OK or not event.peer.id:
            return None
        return self._peer(event) if event.tag in self._peers or event.tag in self._templates else None

    def _hold(self, event: _abi.Event) -> bool:
        """Keeps the message of a paused channel in the library, where it counts for the peer's receive window."""
        if event.type != _abi.EVENT_MESSAGE:
            return False
        channel = self._channel(event)
        if channel is None or not channel._paused:
            return False
        self._held.setdefault(channel, deque()).append(_abi.Event.from_buffer_copy(event))
        return True

    def _take_held(self, channel: ChannelT, out: list[Any], everything: bool) -> None:
        held = self._held.pop(channel, None)
        while held:
            if channel._paused and not everything:
                self._held[channel] = held
                return
            event = held.popleft()
            out.append(MessageEvent(channel, _message(event)))
            self._release(event)

    def _channel(self, event: _abi.Event) -> ChannelT | None:
        if not event.tag:
            return self._remote.get(event.channel.id)
        channel = self._channels.get(event.tag)
        if channel is None:  # perhaps of a template's peer
            peer = self._peers_by_handle.get(event.peer.id)
            channel = peer._own.get(event.tag) if peer is not None else None
        return channel

    def _convert(self, event: _abi.Event, out: list[Any]) -> None:
        kind = event.type
        if kind == _abi.EVENT_MESSAGE:
            channel = self._channel(event)
            if channel is not None:
                if self._held:
                    self._take_held(channel, out, everything=True)
                out.append(MessageEvent(channel, _message(event)))
        elif kind == _abi.EVENT_BUFFERED_LOW:
            channel = self._channel(event)
            if channel is not None:
                out.append(BufferedLowEvent(channel, event.number))
        elif kind == _abi.EVENT_CHANNEL_OPEN:
            self._channel_opened(event, out)
        elif kind == _abi.EVENT_CHANNEL_CLOSED:
            self._channel_closed(event, out)
        elif kind == _abi.EVENT_PEER_STATE:
            self._peer_state(event, out)
        elif kind == _abi.EVENT_SESSION:
            self._session(event, out)
        elif kind == _abi.EVENT_LOG:
            level = LogLevel(event.number) if 0 <= event.number <= LogLevel.NONE else LogLevel.DEBUG
            out.append(LogEvent(level, _text(event.data, event.size)))
        elif kind == _abi.EVENT_ADDRESSES:
            out.append(AddressesEvent(tuple(_text(event.data, event.size).split())))
        elif kind in (_abi.EVENT_SIGNAL, _abi.EVENT_ATTEMPT, _abi.EVENT_CONNECTOR):
            self._connector_event(event, out)
        elif kind == _abi.EVENT_FAST_RELOAD and event.number in (0, 1, 2) and event.kind in (0, 1, 2):
            detail = _text(event.data, event.size)
            out.append(FastReloadEvent(FastReload(event.number), Switch(event.kind), detail))
        elif kind == _abi.EVENT_CERTIFICATE:
            out.append(CertificateEvent(_text(event.data, event.size)))
        elif kind == _abi.EVENT_STORE:
            out.append(StoreEvent(event.number != 0, _text(event.data, event.size)))
        elif kind == _abi.EVENT_RESULT:
            peer = self._refusing_peer(event)
            if peer is not None:
                out.append(SignalRefusedEvent(peer, error_for(event.status, _text(event.data, event.size))))
        elif kind in (_abi.EVENT_PEER_SIGNAL, _abi.EVENT_PATH, _abi.EVENT_RESTART):
            self._negotiation_event(event, out)
        elif kind == _abi.EVENT_NETWORK:
            out.append(
                NetworkEvent(
                    online=event.number != 0,
                    addresses_changed=bool(event.kind & _abi.NETWORK_ADDRESSES),
                    route_changed=bool(event.kind & _abi.NETWORK_ROUTE),
                    online_changed=bool(event.kind & _abi.NETWORK_ONLINE),
                    detail=_text(event.data, event.size),
                )
            )
        elif kind == _abi.EVENT_TURN and 1 <= event.number <= TURNState.CREDENTIALS:
            out.append(_turn_event(event))

    def _negotiation_event(self, event: _abi.Event, out: list[Any]) -> None:
        peer, detail = self._peer(event), _text(event.data, event.size)
        if peer is None:
            return
        if event.type == _abi.EVENT_PEER_SIGNAL:
            out.append(PeerSignalEvent(peer, detail))
        elif event.type == _abi.EVENT_PATH:
            if 1 <= event.kind <= PathChange.MOVED:
                remote, change = _text(event.extra, event.extra_size), PathChange(event.kind)
                out.append(PathEvent(peer, detail, remote, change, event.number, event.duration_ns / 1e9))
        elif 1 <= event.number <= RestartState.GIVEN_UP:
            state, reason = RestartState(event.number), reason_for(event.status, detail)
            out.append(RestartEvent(peer, state, event.kind, reason, detail, event.duration_ns / 1e9))

    def _connector_state(self, event: _abi.Event) -> bool:
        """Whether the connect under way has ended."""
        connector = self._connectors.get(event.tag)
        if connector is None:
            return False
        state, result = event.number, None
        if state == ConnectorState.CONNECTED:
            peer = connector.peer = self._made_peer(connector._template, event.peer.id)
            connector._result = Result(Status.OK, b"", event.kind, event.duration_ns)
            peer._connector = connector
            return self._settle(peer)
        if state == ConnectorState.FAILED:
            data = ctypes.string_at(event.data, event.size)
            status = event.status if event.status != Status.OK else Status.INTERNAL
            result = Result(status, data, event.kind, event.duration_ns, connector._cause)
        elif state == ConnectorState.LOST:
            connector.peer = None
        elif state == ConnectorState.CLOSED:
            connector.peer = None
            result = Result(Status.INVALID_HANDLE, b"the connector is closed", event.kind, event.duration_ns)
        return result is not None and self._end_connect(connector, result)

    def _settle(self, peer: PeerT, is_closed: bool = False) -> bool:
        """Ends the connect that has led to a peer once all its channels can send."""
        connector = peer._connector
        if connector is None or connector._result is None:
            return False
        if not is_closed and not all(channel._handle.id or channel._has_ended for channel in peer.channels):
            return False
        peer._connector = None
        return self._end_connect(connector, connector._result)

    def _end_connect(self, connector: BaseConnector[PeerT], result: Result) -> bool:
        tag, connector._waiting = connector._waiting, None
        connector._connected()
        if tag is not None:
            self._finish(tag, result)
        return tag is not None

    def _connector_event(self, event: _abi.Event, out: list[Any]) -> None:
        connector = self._connectors.get(event.tag)
        if connector is None or event.kind not in (0, 1, 2):
            return
        detail = _text(event.data, event.size)
        if event.type == _abi.EVENT_SIGNAL:
            if not connector._signals:
                out.append(SignalEvent(connector, event.number, detail))
            return
        mode, reason, elapsed = Mode(event.kind), reason_for(event.status, detail), event.duration_ns / 1e9
        if event.type == _abi.EVENT_ATTEMPT:
            if 0 <= event.number <= AttemptState.STOPPED:
                state = AttemptState(event.number)
                out.append(AttemptEvent(connector, state, mode, reason, detail, elapsed))
        elif 1 <= event.number <= ConnectorState.CLOSED:
            if event.number == ConnectorState.CONNECTED:
                connector._told = self._made_peer(connector._template, event.peer.id)
            told = connector._told
            if event.number in (ConnectorState.LOST, ConnectorState.CLOSED):
                connector._told = None
            if event.number == ConnectorState.CLOSED:
                self._forget_connector(connector)
                told = None
            out.append(ConnectorEvent(connector, ConnectorState(event.number), mode, told, reason, detail, elapsed))

    def _made_peer(self, template: Template, handle: int) -> PeerT:
        """The peer with a handle that the library made by itself: new with its first event."""
        peer = self._peers_by_handle.get(handle)
        if peer is None:
            peer = self._peers_by_handle[handle] = self._new_peer(template, next(self._tags))
            peer._handle.id = handle
        return peer

    def _peer(self, event: _abi.Event) -> PeerT | None:
        """The peer of an event with a peer's tag."""
        peer, template = self._peers.get(event.tag), self._templates.get(event.tag)
        if peer is not None:
            peer._handle.id = event.peer.id
            self._peers_by_handle[event.peer.id] = peer
            return peer
        if template is not None:
            return self._made_peer(template, event.peer.id)
        return self._peers_by_handle.get(event.peer.id)  # its connector is closed

    def _peer_state(self, event: _abi.Event, out: list[Any]) -> None:
        peer = self._peer(event)
        if peer is None or event.number not in (1, 2, 3, 4):
            return
        state, detail, reason = PeerState(event.number), _text(event.data, event.size), None
        if state == PeerState.CLOSED:
            reason = reason_for(event.status, detail)
            for channel in [*list(peer._own.values()), *list(peer._remote.values())]:
                # Channels that never opened: the library told the end of all others before.
                self._take_held(channel, out, everything=True)
                out.append(ChannelClosedEvent(channel, reason))
            self.forget_peer(peer)
        ticket = bool(event.flags & _abi.FLAG_TICKET)
        out.append(PeerStateEvent(peer, state, reason, detail, event.duration_ns / 1e9, ticket))

    def _session(self, event: _abi.Event, out: list[Any]) -> None:
        peer = self._peer(event)
        if peer is not None and event.kind in (0, 1, 2):
            out.append(
                SessionEvent(
                    peer=peer,
                    client_id=_text(event.data, event.size),
                    token=_text(event.extra, event.extra_size),
                    connections=event.number,
                    mode=Mode(event.kind),
                    returned=bool(event.flags & _abi.FLAG_RETURNED),
                    away=event.duration_ns / 1e9,
                )
            )

    def _channel_opened(self, event: _abi.Event, out: list[Any]) -> None:
        channel = self._channel(event)
        if channel is not None:
            out.append(ChannelOpenEvent(channel, bool(event.flags & _abi.FLAG_REMOTE)))

    def _open_channel(self, event: _abi.Event) -> bool:
        channel = self._channel(event)
        if channel is None:
            peer = self._peers_by_handle.get(event.peer.id)
            if peer is None or event.tag:
                return False
            config = ChannelConfig(
                label=_text(event.data, event.size),
                protocol=_text(event.extra, event.extra_size),
                ordered=not event.flags & _abi.FLAG_UNORDERED,
            )
            channel = self._make_channel(self, peer, config, 0)
            channel.reliable = not event.flags & _abi.FLAG_PARTIAL
            self._remote[event.channel.id] = peer._remote[event.channel.id] = channel
        channel._handle.id = event.channel.id
        channel.id = event.number
        return self._settle(channel.peer)

    def _channel_closed(self, event: _abi.Event, out: list[Any]) -> None:
        channel = self._channel(event)
        if channel is not None:
            self._take_held(channel, out, everything=True)
            self._forget_channel(channel)
            out.append(ChannelClosedEvent(channel, reason_for(event.status, _text(event.data, event.size))))


def _turn_event(event: _abi.Event) -> TURNEvent:
    state, words = TURNState(event.number), _text(event.extra, event.extra_size)
    is_allocated, seconds = state == TURNState.ALLOCATED, event.duration_ns / 1e9
    return TURNEvent(
        url=_text(event.data, event.size),
        state=state,
        addresses=tuple(words.split()) if is_allocated else (),
        reason=reason_for(event.status, words),
        detail="" if is_allocated else words,
        elapsed=seconds if is_allocated else 0,
        remaining=seconds if state == TURNState.CREDENTIALS else 0,
    )


def _message(event: _abi.Event) -> Message:
    if event.kind == _abi.TEXT:
        return _text(event.data, event.size)
    return ctypes.string_at(event.data, event.size)


def _text(data: int, size: int) -> str:
    # Decoded where it lies: no copy before the text itself. A peer may send text that is not UTF-8.
    return str((ctypes.c_char * size).from_address(data), "utf-8", "replace") if size else ""
