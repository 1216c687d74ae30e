"""Engines, peers and channels for asyncio. Every object belongs to the event loop in which its engine was opened.

Messages come from their channels: `async for message in channel`. A channel whose messages nobody takes is paused
once some of them have piled up: then the peer's receive window fills, and the other side stops sending. Nothing is
dropped. What a peer that negotiates by itself has for the other side comes from the peer: `async for message in
peer.signals()`. Everything else that happens comes from `engine.events()`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Union

from ._core import (
    BaseAnswer,
    BaseChannel,
    BaseConnection,
    BaseConnector,
    BaseEngine,
    BasePeer,
    Core,
    Data,
    Result,
    Template,
    check,
    is_offer,
    peer_statistics,
)
from ._waiting import wait_in as _wait_in
from ._waiting import wake_all as _wake_all
from .config import ChannelConfig, Config, ConnectorConfig, PeerConfig
from .errors import ClosedError, InvalidHandleError, PeerGoneError, ReconnectError, Status, error_for
from .events import (
    BufferedLowEvent,
    ChannelClosedEvent,
    ChannelOpenEvent,
    EngineEvent,
    Message,
    MessageEvent,
    Mode,
    PeerSignalEvent,
    PeerState,
    PeerStateEvent,
    PeerStatistics,
)
from .replay_aio import ReplayBuffer, ReplayEvents, Subscription

INBOX_BYTES = 1 << 20
"""A channel is paused when messages of this many bytes wait in it, and resumed at half of that."""
INBOX_MESSAGES = 1024
"""A channel is paused when this many messages wait in it, and resumed at half of that."""
EVENTS_LIMIT = 1024
"""When this many events wait in an iterator of events, the engine takes nothing more until half of them are gone."""


SIGNALS_LIMIT = 1024
"""As many messages for the other side wait in a peer; beyond that the oldest go, which only a program that does not
carry them meets."""


class Channel(BaseChannel["Peer"]):
    """One data channel (RFC 8831). It is an asynchronous iterator of its messages: str or bytes."""

    def __init__(self, core: Core[Peer, Channel], peer: Peer, config: ChannelConfig, tag: int) -> None:
        super().__init__(core, peer, config, tag)
        self._inbox: deque[Message] = deque()
        self._inbox_bytes = 0
        self._is_open = False
        self._end: ReconnectError | None = None  # why it is closed
        self._waiters: set[asyncio.Future[None]] = set()  # of messages, opening, closing
        self._low: set[asyncio.Future[None]] = set()
        self._turn = asyncio.Lock()  # senders that wait, in their order

    @property
    def is_open(self) -> bool:
        """It can send."""
        return self._is_open and self._end is None

    async def wait_open(self) -> None:
        """Waits until the channel can send. Raises the reason if it closes before."""
        while not self._is_open:
            self._require()
            await _wait_in(self._waiters)
        self._require()

    async def wait_closed(self) -> None:
        """Waits until the channel is gone."""
        while self._end is None:
            await _wait_in(self._waiters)

    async def send(self, data: Data) -> None:
        """Sends one message, possibly empty: str as text, everything else as binary.

        Returns when the library has taken it. If the send queue is at its high-water mark, waits until it has
        fallen to the low-water mark; senders then go on in their order. A cancelled call has sent nothing. Raises
        TooLargeError if the message is larger than the other side accepts, ClosedError or InvalidHandleError if the
        channel is closing, closed, or not open yet.
        """
        if not self._turn.locked():
            status = self._send(data)
            if status == Status.OK:
                return
            if status != Status.WOULD_BLOCK:
                raise self._end or error_for(status)
        async with self._turn:
            while True:
                status = self._send(data)
                if status == Status.OK:
                    return
                if status != Status.WOULD_BLOCK:
                    raise self._end or error_for(status)
                await _wait_in(self._low)

    def send_nowait(self, data: Data) -> None:
        """Sends one message, or raises WouldBlockError: nothing was taken, the queue is at its high-water mark or
        others wait to send."""
        check(Status.WOULD_BLOCK if self._turn.locked() else self._send(data))

    async def receive(self) -> Message:
        """The next message. Raises the reason if the channel is closed and all its messages are taken."""
        while not self._inbox:
            self._require()
            await _wait_in(self._waiters)
        message = self._inbox.popleft()
        self._inbox_bytes -= len(message)
        if self._paused and self._inbox_bytes <= INBOX_BYTES // 2 and len(self._inbox) <= INBOX_MESSAGES // 2:
            self._core.resume(self)
            self.peer.engine._schedule()
        return message

    def __aiter__(self) -> Channel:
        return self

    async def __anext__(self) -> Message:
        try:
            return await self.receive()
        except ReconnectError:
            if self._end is None:
                raise
            raise StopAsyncIteration from None

    def _require(self) -> None:
        if self._end is not None:
            raise self._end

    def _deliver(self, message: Message) -> None:
        self._inbox.append(message)
        self._inbox_bytes += len(message)
        if not self._paused and (self._inbox_bytes >= INBOX_BYTES or len(self._inbox) >= INBOX_MESSAGES):
            self._core.pause(self)
        _wake_all(self._waiters)

    def _opened(self) -> None:
        self._is_open = True
        _wake_all(self._waiters)

    def _closed(self, reason: ReconnectError | None) -> None:
        if self._end is None:
            self._end = reason or ClosedError("the channel is closed")
            _wake_all(self._waiters)
            _wake_all(self._low)


class Peer(BasePeer[Channel]):
    """One WebRTC connection. It ends with its PeerStateEvent of state CLOSED."""

    engine: Engine
    """The engine that the peer belongs to."""

    def __init__(self, core: Core[Peer, Channel], tag: int) -> None:
        super().__init__(core, tag)
        self.state: PeerState | None = None
        """Where the peer stands, None before the first check came."""
        self._end: ReconnectError | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._signals: deque[str] = deque(maxlen=SIGNALS_LIMIT)

    async def signals(self) -> AsyncIterator[str]:
        """What a peer that negotiates by itself has for the other side, JSON, to be carried there in order; what comes
        back goes to signal(). Nothing is lost before the iteration begins; it ends with the peer."""
        while True:
            while self._signals:
                yield self._signals.popleft()
            if self._end is not None:
                return
            await _wait_in(self._waiters)

    async def offer(self) -> str:
        """Makes the offer, JSON {"type":"offer","sdp":...}, with all candidates in it. Raises WrongStateError if the peer
        negotiates by itself."""
        return (await self.engine._result(self._start_offer())).data.decode()

    async def accept(self, answer: str | bytes) -> None:
        """Takes the answer to the offer, JSON as in Answer.json; then the peer connects. Waits until the answer is
        found to fit the offer. Raises MalformedJSONError, MalformedSDPError, UnacceptableError, WrongStateError."""
        await self.engine._result(self._start_accept(answer))

    async def statistics(self) -> PeerStatistics:
        """Asks for the peer's figures."""
        return peer_statistics(await self.engine._result(self._start_statistics()))

    async def wait_connected(self) -> None:
        """Waits until the other side is authenticated. Raises the reason if the peer closes before."""
        while self.state != PeerState.CONNECTED:
            if self._end is not None:
                raise self._end
            await _wait_in(self._waiters)

    async def wait_closed(self) -> ReconnectError | None:
        """Waits until the peer is closed; returns the reason, None if the program closed it."""
        while self._end is None:
            await _wait_in(self._waiters)
        return None if self._end.status == Status.OK else self._end

    def _signaled(self, message: str) -> None:
        self._signals.append(message)
        _wake_all(self._waiters)

    def _become(self, state: PeerState, reason: ReconnectError | None) -> None:
        self.state = state
        if state == PeerState.CLOSED:
            self._end = reason or ClosedError("the peer was closed", Status.OK)
        _wake_all(self._waiters)


Signaling = Callable[[str], Awaitable[Union[str, bytes]]]
"""Sends an offer, JSON {"type":"offer",...}, to the server, and returns its answer. It is cancelled when the answer is not
needed any more."""


class Connection(BaseConnection[Peer]):
    """What a connector's connect has led to."""


class Connector(BaseConnector[Peer]):
    """Makes and remakes the connection of a client to one server, the fastest way that works: with the ticket that the
    server gave out during the last connection, nothing being exchanged beforehand; with one exchange and the session
    token; or with one exchange in normal mode. What is needed to come back is kept in its cache, only from connections
    that worked. `async with` closes it at its end."""

    engine: Engine
    """The engine that the connector belongs to."""

    def __init__(
        self, core: Core[Peer, Channel], tag: int, template: Template, engine: Engine, signaling: Signaling | None
    ) -> None:
        super().__init__(core, tag, template, signaling is not None)
        self.engine = engine
        self._signaling = signaling
        self._exchanges: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Connector:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def connect(self) -> Connection:
        """Connects, or connects again: a peer that is up stays so until its successor is, then closes with
        ReplacedError. Waits until the channels of the configuration are open.

        Without a signaling function somebody else serves the engine's SignalEvents meanwhile. After a cancellation the
        attempts go on, and a ConnectorEvent tells what becomes of them. Raises WrongStateError while a connect is under
        way, InvalidHandleError after close(), or the reason why no attempt worked.
        """
        result = await self.engine._result(self._start_connect())
        peer = self.peer
        if peer is None:
            raise PeerGoneError("the connection is lost already")
        return Connection(peer, Mode(result.number), result.duration_ns / 1e9)

    def close(self) -> None:
        """Stops attempts under way, closes the connected peer and ends the connector. What is kept stays. Closing a
        closed connector does nothing."""
        self._connected()
        super().close()

    def _signal(self, exchange: int, message: str) -> None:
        if is_offer(message):
            task = asyncio.create_task(self._exchange(exchange, message))
            self._exchanges.add(task)
            task.add_done_callback(self._exchanges.discard)

    async def _exchange(self, exchange: int, offer: str) -> None:
        assert self._signaling is not None
        try:
            answer = await self._signaling(offer)
        except Exception as error:
            self._failed(exchange, error)
        else:
            self._answered(exchange, answer)

    def _connected(self) -> None:
        for task in self._exchanges:
            task.cancel()


Event = EngineEvent[Peer, Channel, Connector]
"""Everything that can happen, except messages: those come from their channels and peers."""


class Answer(BaseAnswer[Peer]):
    """An answered offer."""


class Events(AsyncIterator[Event]):
    """What happens in an engine from the iterator's making on, until the engine is closed or aclose() is called."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._queue: deque[Event] = deque()
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False

    async def __anext__(self) -> Event:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            await _wait_in(self._waiters)
        event = self._queue.popleft()
        if len(self._queue) == EVENTS_LIMIT // 2:
            self._engine._schedule()
        return event

    async def aclose(self) -> None:
        """Ends the iterator."""
        self._engine._subscribers.discard(self)
        self._queue.clear()
        self._finish()
        self._engine._schedule()

    def _put(self, event: Event) -> None:
        self._queue.append(event)
        _wake_all(self._waiters)

    def _finish(self) -> None:
        self._closed = True
        _wake_all(self._waiters)


class Engine(BaseEngine[Peer, Channel]):
    """Owns one UDP port, one certificate and one thread, and all peers on that port.

    `async with Engine(config) as engine` opens and closes it; or `await engine.open()` and `await engine.close()`.
    """

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self._config = config or Config()
        self._from_environment = False
        self._results: dict[int, asyncio.Future[Result]] = {}
        self._subscribers: set[Events] = set()
        self._scheduled = False
        self._watching = False
        self._descriptor = -1

    @classmethod
    def from_env(cls, config: Config | None = None) -> Engine:
        """An engine that takes from the environment, when it opens, what `config` leaves at its default:
        ENABLE_FAST_RELOAD ("false", "0", "no" or "off"; "partial"), STUN_URLS (separated by commas), REDIS_URL (the
        session_store), ICE_MODE ("turn-only" or "relay"; "all"), and TURN_URLS (separated by commas) with TURN_USERNAME
        and TURN_PASSWORD, or with TURN_SECRET. A value that cannot be used raises InvalidArgumentError, with its name in
        the detail."""
        engine = cls(config)
        engine._from_environment = True
        return engine

    async def open(self) -> None:
        """Opens the port, loads or makes the certificate, starts the engine's thread. Raises PortInUseError,
        NoPermissionError, NoAddressError, NoDescriptorsError, CertificateUnusableError, StorageError,
        SystemFailureError or InvalidArgumentError."""
        if self._native is not None:
            return
        self._loop = asyncio.get_running_loop()
        core: Core[Peer, Channel] = Core(
            self._config, self._make_peer, Channel, self._finish_result, self._from_environment
        )
        self._descriptor, self._port = core.descriptor(), core.port()
        self._native = core
        self._watch(True)

    def _make_peer(self, core: Core[Peer, Channel], tag: int) -> Peer:
        peer = Peer(core, tag)
        peer.engine = self
        return peer

    async def __aenter__(self) -> Engine:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes all peers (the other sides are told), stops the engine's thread, closes the port. What waits on the
        engine raises InvalidHandleError, iterators end. A second close does nothing."""
        core, self._native = self._native, None
        if core is None:
            return
        self._watch(False)
        end = InvalidHandleError("the engine is closed")
        for future in list(self._results.values()):
            if not future.done():
                future.set_exception(end)
        for connector in list(core._connectors.values()):
            connector._connected()
        for peer in list(core._peers.values()):
            for channel in [*peer._own.values(), *peer._remote.values()]:
                channel._closed(end)
            peer._become(PeerState.CLOSED, None)
        for subscriber in self._subscribers:
            subscriber._finish()
        self._subscribers.clear()
        core.destroy()

    async def answer(self, offer: str | bytes, config: PeerConfig | None = None) -> Answer:
        """Answers an offer, JSON {"type":"offer","sdp":...,"sessionToken":...}, and makes a peer. The token of a live
        session, from the client to whom it was given, gives Mode.FAST.

        Usually takes less than a millisecond. A cancelled call closes the peer. Raises MalformedJSONError,
        MalformedSDPError, UnacceptableError, LimitError, NoAddressError.
        """
        core = self._core
        peer, tag = core.start_answer(offer, config or PeerConfig())
        try:
            result = await self._result(tag)
        except BaseException:
            core.forget_peer(peer)
            peer.close()
            raise
        return Answer(peer, result.data.decode(), Mode(result.number), result.duration_ns / 1e9)

    def create_peer(self, config: PeerConfig | None = None) -> Peer:
        """Makes a peer. Open its channels, then await its offer(); or with Negotiation.POLITE or IMPOLITE carry its
        signals() to the other side, and begin with restart() if that does not."""
        return self._core.create_peer(config or PeerConfig())

    def connector(self, config: ConnectorConfig | None = None, signaling: Signaling | None = None) -> Connector:
        """Makes a connector, which does nothing until its connect(). With `signaling` it exchanges offers and answers by
        itself; otherwise they are SignalEvents. A cache file that cannot be used is a warning in the log, never an
        error. Raises InvalidArgumentError or LimitError."""
        core = self._core
        return core.add_connector(
            config or ConnectorConfig(), lambda tag, template: Connector(core, tag, template, self, signaling)
        )

    def events(self) -> Events:
        """An iterator of what happens from now on, until the engine is closed. Each iterator gets every event. While
        nobody iterates, events are not kept."""
        subscriber = Events(self)
        if self._native is None:
            subscriber._finish()
        else:
            self._subscribers.add(subscriber)
        return subscriber

    # ------------------------------------------------------------------ the loop

    def _watch(self, on: bool) -> None:
        if on and not self._watching:
            self._loop.add_reader(self._descriptor, self._read)
        elif self._watching and not on:
            self._loop.remove_reader(self._descriptor)
        self._watching = on

    def _schedule(self) -> None:
        """Reads soon, also if the descriptor is not readable."""
        if self._native is not None and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._read_scheduled)

    def _read_scheduled(self) -> None:
        self._scheduled = False
        self._read()

    def _read(self) -> None:
        core = self._native
        if core is None:
            return
        if any(len(subscriber._queue) >= EVENTS_LIMIT for subscriber in self._subscribers):
            self._watch(False)  # the iterator that falls below its mark schedules the next reading
            return
        self._watch(True)
        events: list[Any] = core.take()
        for event in events:
            self._dispatch(event)
        if core.has_backlog():
            self._schedule()

    def _dispatch(self, event: Any) -> None:
        if isinstance(event, MessageEvent):
            event.channel._deliver(event.data)
            return
        if isinstance(event, PeerSignalEvent):
            event.peer._signaled(event.message)
            return
        if isinstance(event, BufferedLowEvent):
            _wake_all(event.channel._low)
        elif isinstance(event, ChannelOpenEvent):
            event.channel._opened()
        elif isinstance(event, ChannelClosedEvent):
            event.channel._closed(event.reason)
        elif isinstance(event, PeerStateEvent):
            event.peer._become(event.state, event.reason)
        for subscriber in self._subscribers:
            subscriber._put(event)

    # ------------------------------------------------------------------- results

    def _finish_result(self, tag: int, result: Result) -> None:
        future = self._results.get(tag)
        if future is not None and not future.done():
            future.set_result(result)

    async def _result(self, tag: int) -> Result:
        """Waits for the event of a call. There is no await between the call and this: the event cannot be missed."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._results[tag] = future
        try:
            return (await future).check()
        finally:
            del self._results[tag]
            if self._native is not None:
                self._native.forget_call(tag)


__all__ = [
    "Answer",
    "Channel",
    "Connection",
    "Connector",
    "Engine",
    "Event",
    "Events",
    "Peer",
    "ReplayBuffer",
    "ReplayEvents",
    "Signaling",
    "Subscription",
]
