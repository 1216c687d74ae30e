"""An engine without waiting: calls, handles and events. The blocking and the asyncio interface stand on it."""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Generic, TypeVar, Union

from . import _abi, _library
from .config import (
    ChannelConfig,
    Config,
    LogLevel,
    PeerConfig,
    native_channel,
    native_engine,
    native_number,
    native_peer,
    native_texts,
)
from .errors import InvalidHandleError, Status, error_for, reason_for
from .events import (
    AddressesEvent,
    BufferedLowEvent,
    ChannelClosedEvent,
    ChannelOpenEvent,
    EngineStatistics,
    LogEvent,
    Message,
    MessageEvent,
    Mode,
    PeerState,
    PeerStateEvent,
    PeerStatistics,
    SessionEvent,
)

BATCH = 64
DETAIL = 512

Data = Union[str, bytes, bytearray, memoryview]
"""What can be sent: str goes as text, everything else as binary."""


@dataclass(frozen=True)
class Result:
    """The event of a call."""

    status: int
    data: bytes
    number: int
    duration_ns: int

    def check(self) -> Result:
        if self.status != Status.OK:
            raise error_for(self.status, self.data.decode("utf-8", "replace"))
        return self


def check(status: int, detail: Any | None = None) -> None:
    """Raises the exception of a status that is not OK."""
    if status != Status.OK:
        raise error_for(status, detail.value.decode("utf-8", "replace") if detail is not None else "")


def json_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(text)


PeerT = TypeVar("PeerT", bound="BasePeer[Any]")
ChannelT = TypeVar("ChannelT", bound="BaseChannel[Any]")


class BaseChannel(Generic[PeerT]):
    """One data channel (RFC 8831). It ends with its ChannelClosedEvent."""

    def __init__(self, core: Core[Any, Any], peer: PeerT, config: ChannelConfig, tag: int) -> None:
        self._core = core
        self._handle = _abi.ChannelHandle(0)
        self._tag = tag  # 0: the other side opened it
        self._paused = False
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
    )


class Core(Generic[PeerT, ChannelT]):
    """An engine. `take` must not be called by two threads at once; everything else may."""

    def __init__(
        self,
        config: Config,
        make_peer: Callable[[Core[PeerT, ChannelT], int], PeerT],
        make_channel: Callable[[Core[PeerT, ChannelT], PeerT, ChannelConfig, int], ChannelT],
        on_result: Callable[[int, Result], None],
    ) -> None:
        self.library = _library.load()
        self._make_peer = make_peer
        self._make_channel = make_channel
        self._on_result = on_result
        self._tags = itertools.count(1)
        self._lock = threading.Lock()  # pausing and resuming
        self._expected: dict[int, bool] = {}  # calls that wait for their event
        self._peers: dict[int, PeerT] = {}  # by tag
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
        native, detail = native_engine(config), ctypes.create_string_buffer(DETAIL)
        check(
            self.library.reconnect_engine_create(ctypes.byref(native), ctypes.byref(self.handle), detail, DETAIL),
            detail,
        )

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
        length, capacity = ctypes.c_size_t(), 256
        while True:
            buffer = ctypes.create_string_buffer(capacity)
            status = self.library.reconnect_engine_fingerprint(
                self.handle, numbers[hash_name], buffer, capacity, ctypes.byref(length)
            )
            if status != Status.TOO_SMALL or length.value <= capacity:
                check(status)
                return buffer.value.decode("ascii")
            capacity = length.value

    def set_addresses(self, addresses: Sequence[str]) -> None:
        native = native_texts("addresses", addresses)
        check(self.library.reconnect_engine_set_addresses(self.handle, native, len(addresses)))

    def set_fast_reload(self, enabled: bool) -> None:
        check(self.library.reconnect_engine_set_fast_reload(self.handle, bool(enabled)))

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
        peer = self._make_peer(self, next(self._tags))
        channels = [self._make_channel(self, peer, each, next(self._tags)) for each in config.channels]
        natives = [native_channel(each, channel._tag) for each, channel in zip(config.channels, channels)]
        native = native_peer(config, peer._tag, natives)
        peer.channels = tuple(channels)
        self._peers[peer._tag] = peer
        for channel in channels:
            self._channels[channel._tag] = peer._own[channel._tag] = channel
        return peer, native

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
            self._channels.pop(channel._tag, None)
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

    def _finish(self, event: _abi.Event) -> None:
        if self._expected.pop(event.tag, None):
            data = ctypes.string_at(event.data, event.size)
            self._on_result(event.tag, Result(event.status, data, event.number, event.duration_ns))

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
            self._convert(self._batch[index], out)
        if count:
            self._release(self._batch[0])
        return out

    def take_results(self) -> int:
        """Results of calls only; what else comes is kept in the library for `take`. Returns how many came."""
        count = 0
        while self._poll(1):
            event = self._batch[0]
            if event.type in (_abi.EVENT_ANSWER, _abi.EVENT_OFFER, _abi.EVENT_RESULT, _abi.EVENT_STATISTICS):
                self._finish(event)
                self._release(event)
                count += 1
            else:
                self._backlog.append(_abi.Event.from_buffer_copy(event))
        return count

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
        if event.tag:
            return self._channels.get(event.tag)
        return self._remote.get(event.channel.id)

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
        elif kind in (_abi.EVENT_ANSWER, _abi.EVENT_OFFER, _abi.EVENT_RESULT, _abi.EVENT_STATISTICS):
            self._finish(event)
        elif kind == _abi.EVENT_LOG:
            level = LogLevel(event.number) if 0 <= event.number <= LogLevel.NONE else LogLevel.DEBUG
            out.append(LogEvent(level, _text(event.data, event.size)))
        elif kind == _abi.EVENT_ADDRESSES:
            out.append(AddressesEvent(tuple(_text(event.data, event.size).split())))

    def _peer_state(self, event: _abi.Event, out: list[Any]) -> None:
        peer = self._peers.get(event.tag)
        if peer is None or event.number not in (1, 2, 3, 4):
            return
        peer._handle.id = event.peer.id
        self._peers_by_handle[event.peer.id] = peer
        state, detail, reason = PeerState(event.number), _text(event.data, event.size), None
        if state == PeerState.CLOSED:
            reason = reason_for(event.status, detail)
            for channel in [*list(peer._own.values()), *list(peer._remote.values())]:
                # Channels that never opened: the library told the end of all others before.
                self._take_held(channel, out, everything=True)
                out.append(ChannelClosedEvent(channel, reason))
            self.forget_peer(peer)
        out.append(PeerStateEvent(peer, state, reason, detail, event.duration_ns / 1e9))

    def _session(self, event: _abi.Event, out: list[Any]) -> None:
        peer = self._peers.get(event.tag)
        if peer is not None:
            out.append(
                SessionEvent(
                    peer=peer,
                    client_id=_text(event.data, event.size),
                    token=_text(event.extra, event.extra_size),
                    connections=event.number,
                    mode=Mode.FAST if event.kind == _abi.MODE_FAST else Mode.NORMAL,
                    returned=bool(event.flags & _abi.FLAG_RETURNED),
                    away=event.duration_ns / 1e9,
                )
            )

    def _channel_opened(self, event: _abi.Event, out: list[Any]) -> None:
        channel = self._channel(event)
        if channel is None:
            peer = self._peers_by_handle.get(event.peer.id)
            if peer is None or event.tag:
                return
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
        out.append(ChannelOpenEvent(channel, bool(event.flags & _abi.FLAG_REMOTE)))

    def _channel_closed(self, event: _abi.Event, out: list[Any]) -> None:
        channel = self._channel(event)
        if channel is not None:
            self._take_held(channel, out, everything=True)
            self._forget_channel(channel)
            out.append(ChannelClosedEvent(channel, reason_for(event.status, _text(event.data, event.size))))


def _message(event: _abi.Event) -> Message:
    if event.kind == _abi.TEXT:
        return _text(event.data, event.size)
    return ctypes.string_at(event.data, event.size)


def _text(data: int, size: int) -> str:
    # Decoded where it lies: no copy before the text itself. A peer may send text that is not UTF-8.
    return str((ctypes.c_char * size).from_address(data), "utf-8", "replace") if size else ""
