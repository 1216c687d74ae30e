"""Replay buffers for asyncio: `libreconnect.aio.ReplayBuffer`. Every object belongs to the event loop in which its
buffer was opened."""

from __future__ import annotations

import asyncio
import warnings
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Any, Union

from . import _abi, _replay
from ._replay import BATCH, Operation, Outcome, ReplayCore
from ._waiting import wait_in as _wait_in
from ._waiting import wake_all as _wake_all
from .errors import InvalidHandleError, ReconnectError, Status, error_for
from .events import LogEvent
from .replay import Backlog
from .replay_events import (
    GapEvent,
    Joined,
    LiveMessage,
    MessageKind,
    Publication,
    Published,
    QualityReport,
    Recovery,
    ReplayConfig,
    ReplayEvent,
    ReplayStatistics,
    ReplayStoreEvent,
    ReturnedEvent,
    RoomEvent,
    UserState,
)

LIVE_MESSAGES = 10_000
LIVE_BYTES = 16 << 20
"""When live messages of this number or size wait in a Subscription, they are given up: a GapEvent takes their place."""
EVENTS_LIMIT = 10_000
"""Of events that wait in an iterator of ReplayBuffer.events(); the oldest go."""
BATCHES = 16
"""Taken in one turn of the loop, so that others have their turns."""

OtherEvent = Union[GapEvent, ReturnedEvent, ReplayStoreEvent, LogEvent]
"""What happens in a replay buffer, except live messages: those come from their subscriptions."""


class Subscription(AsyncIterator[RoomEvent]):
    """The live messages of a room, from ReplayBuffer.subscribe(): an asynchronous iterator of LiveMessage, and of the
    GapEvents and ReturnedEvents of its room, in order. With a callback they go there instead, at once.

    `async with` ends it; or `await subscription.aclose()`, after which the iterator has what was waiting, and ends.
    """

    def __init__(self, buffer: ReplayBuffer, room: str, callback: Callable[[RoomEvent], None] | None) -> None:
        self._buffer = buffer
        self._callback = callback
        self._backlog = Backlog(LIVE_MESSAGES, LIVE_BYTES)
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False
        self.room = room
        """The room's name."""

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends it. A second call does nothing."""
        await self._buffer.unsubscribe(self)

    async def __anext__(self) -> RoomEvent:
        while not self._backlog.events:
            if self._closed:
                raise StopAsyncIteration
            await _wait_in(self._waiters)
        return self._backlog.take()  # type: ignore[return-value]

    def _put(self, event: RoomEvent) -> None:
        if self._callback is None:
            self._backlog.put(event)
            _wake_all(self._waiters)
        else:
            self._buffer._call(self._callback, event)

    def _finish(self) -> None:
        self._closed = True
        _wake_all(self._waiters)


class ReplayEvents(AsyncIterator[OtherEvent]):
    """What happens in a replay buffer from the iterator's making on, until the buffer is closed or aclose() is
    called."""

    def __init__(self, buffer: ReplayBuffer) -> None:
        self._buffer = buffer
        self._queue: deque[OtherEvent] = deque(maxlen=EVENTS_LIMIT)
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False

    async def __anext__(self) -> OtherEvent:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            await _wait_in(self._waiters)
        return self._queue.popleft()

    async def aclose(self) -> None:
        """Ends the iterator."""
        self._buffer._subscribers.discard(self)
        self._queue.clear()
        self._finish()

    def _put(self, event: OtherEvent) -> None:
        self._queue.append(event)
        _wake_all(self._waiters)

    def _finish(self) -> None:
        self._closed = True
        _wake_all(self._waiters)


class _Call:
    """Operations of one call, whose outcomes come together."""

    __slots__ = ("future", "missing", "on_outcome", "operations", "results")

    def __init__(
        self,
        operations: list[Operation],
        future: asyncio.Future[list[Any]],
        on_outcome: Callable[[Any], None] | None,
    ) -> None:
        self.operations = operations
        self.future = future
        self.on_outcome = on_outcome
        self.missing = len(operations)
        self.results: list[Any] = [None] * len(operations)


class ReplayBuffer:
    """Keeps what was said in rooms, so that a client that was away gets what it missed, in order, and is told
    "recovered" only if that is everything. It carries no messages to clients: the program does, over whatever it has.

    `async with ReplayBuffer(config) as buffer` opens and closes it; or `await buffer.open()` and `await
    buffer.close()`.

    Operations that tasks begin in the same turn of the event loop are handed in with one call of the library, and take
    effect in the order in which they were begun. With rooms in memory their outcomes are there when that call returns:
    nothing waits for the selector. A call that is cancelled before it is handed in does nothing; afterwards it takes
    effect, except that a cancelled join() drops its connection and a cancelled subscribe() ends its subscription.

    All raise InvalidHandleError once the buffer is closed. (An event loop does not outlive a fork().) Arguments that cannot be
    right raise TypeError or InvalidArgumentError (a ValueError) before anything is handed in. What the store's state
    does to operations is in `degraded` of their outcomes and in ReplayStoreEvents.

    Join and recover take a function `on_outcome`. It is called with the outcome in the order of events: after all live
    messages up to the outcome's sequence, before all later ones. (The task that awaits the outcome runs later, when
    callbacks of subscriptions may have had further messages.) A host that serves its connections from a callback needs
    it; one that keeps live messages until its task has the outcome drops those whose sequence is not higher.
    """

    def __init__(self, config: ReplayConfig | None = None) -> None:
        self._config = config or ReplayConfig()
        self._from_environment = False
        self._native: ReplayCore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._descriptor = -1
        self._pending: deque[tuple[Operation, _Call, int]] = deque()  # begun, not handed in
        self._calls: dict[int, tuple[_Call, int]] = {}  # handed in, by tag
        self._rooms: dict[str, list[Subscription]] = {}
        self._subscribers: set[ReplayEvents] = set()
        self._scheduled = False

    @classmethod
    def from_env(cls, config: ReplayConfig | None = None) -> ReplayBuffer:
        """A replay buffer whose store is REDIS_URL from the environment when it opens, if `config` names none."""
        buffer = cls(config)
        buffer._from_environment = True
        return buffer

    async def open(self) -> None:
        """Opens the buffer and its store. Raises InvalidArgumentError (also for a store's address), StorageError (a
        SQLite file that cannot be used), NoDescriptorsError, LimitError or SystemFailureError. A Redis that is away is
        not an error. A second call does nothing."""
        if self._native is not None:
            return
        loop = self._loop = asyncio.get_running_loop()
        core = ReplayCore(self._config, self._from_environment)
        try:
            self._descriptor = core.descriptor()
            loop.add_reader(self._descriptor, _read_if_alive, weakref.ref(self))
        except BaseException:
            core.destroy()
            raise
        self._native = core

    async def __aenter__(self) -> ReplayBuffer:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        core, loop = getattr(self, "_native", None), getattr(self, "_loop", None)
        if core is None:
            return
        warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=2)
        if loop is None or loop.is_closed():
            core.destroy()
        else:
            # The collector may run in any thread, the loop's reader is taken away in its own.
            loop.call_soon_threadsafe(_end, loop, self._descriptor, core)

    async def close(self) -> None:
        """Ends the buffer and its connections. Operations that were begun are handed in before; those whose outcome is
        not there yet raise InvalidHandleError, iterators end. What is in a store stays there. A second close does
        nothing."""
        if self._native is None:
            return
        try:
            self._flush()
        except ReconnectError:
            pass  # in a child process
        core, self._native = self._native, None
        if core is None or self._loop is None:
            return
        _end(self._loop, self._descriptor, core)
        end = InvalidHandleError("the replay buffer is closed")
        calls = [call for call, _ in self._calls.values()] + [call for _, call, _ in self._pending]
        for call in calls:
            if not call.future.done():
                call.future.set_exception(end)
        self._calls.clear()
        self._pending.clear()
        for subscriptions in self._rooms.values():
            for subscription in subscriptions:
                subscription._finish()
        self._rooms.clear()
        for subscriber in self._subscribers:
            subscriber._finish()
        self._subscribers.clear()

    # -------------------------------------------------------------- operations

    async def publish(
        self,
        room: str,
        data: str | bytes | bytearray | memoryview,
        user: str | None = None,
        *,
        to: str | None = None,
        kind: MessageKind = MessageKind.OTHER,
        negotiation: int = 0,
        key: str | bytes | None = None,
        lifetime: float = 0,
        priority: bool = False,
    ) -> Published:
        """Stores a message; what the arguments mean is at Publication.

        Raises UnknownRoomError, UnknownUserError, UnknownRecipientError, TooLargeError or UnavailableError."""
        publication = Publication(room, data, user, to, kind, negotiation, key, lifetime, priority)
        return await self._one(_replay.publish(publication))  # type: ignore[no-any-return]

    async def publish_many(self, publications: Iterable[Publication]) -> list[Published | ReconnectError]:
        """Stores messages. Returns for each, in order, its outcome or the error why it was not stored: one that fails
        does not keep the others from being stored."""
        return await self._many([_replay.publish(each) for each in publications])

    async def join(
        self,
        room: str,
        user: str,
        position: str | bytes | None = None,
        token: str | bytes | None = None,
        *,
        on_outcome: Callable[[Joined], None] | None = None,
    ) -> Joined:
        """A connection of a user begins. With a position or a token it goes on where another one ended; both as the
        client sent them, however wrong: that is a verdict, not an error.

        Raises LimitError (rooms or members) or ThrottledError (again after its `retry_after`)."""
        return await self._one(_replay.join(room, user, position, token), on_outcome)  # type: ignore[no-any-return]

    async def recover(
        self,
        room: str,
        user: str,
        generation: int,
        position: str | bytes,
        *,
        on_outcome: Callable[[Recovery], None] | None = None,
    ) -> Recovery:
        """What came after `position`, for a connection that has joined: for the time after a GapEvent.

        Raises UnknownRoomError, UnknownUserError, StaleError or ThrottledError."""
        operation = _replay.of_connection(_abi.REPLAY_RECOVER, room, user, generation, position)
        return await self._one(operation, on_outcome)  # type: ignore[no-any-return]

    async def acknowledge(self, room: str, user: str, generation: int, position: str | bytes) -> None:
        """The client has everything up to `position`.

        Raises UnknownRoomError, UnknownUserError, StaleError, or InvalidArgumentError if it is no position of the room."""
        await self._one(_replay.of_connection(_abi.REPLAY_ACKNOWLEDGE, room, user, generation, position))

    async def drop(self, room: str, user: str, generation: int) -> None:
        """The connection ended; the user may come back within state_ttl.

        Raises StaleError if a newer connection has taken over (nothing has changed), UnknownRoomError or
        UnknownUserError."""
        await self._one(_replay.of_connection(_abi.REPLAY_DROP, room, user, generation))

    async def leave(self, room: str, user: str, generation: int) -> None:
        """The user does not come back. The last one to leave takes the room along. Raises as drop()."""
        await self._one(_replay.of_connection(_abi.REPLAY_LEAVE, room, user, generation))

    async def state(self, room: str, user: str) -> UserState:
        """What is known of a user. Raises UnknownRoomError or UnknownUserError."""
        return await self._one(_replay.state(room, user))  # type: ignore[no-any-return]

    async def quality(
        self,
        room: str,
        user: str,
        *,
        latency_ms: float | None = None,
        loss_percent: float | None = None,
        jitter_ms: float | None = None,
        bandwidth_kbps: float | None = None,
    ) -> QualityReport:
        """What a client measured (None: not known) is classified, and kept in the user's state.

        Raises UnknownRoomError, UnknownUserError, or InvalidArgumentError for figures that cannot be."""
        measures = latency_ms, loss_percent, jitter_ms, bandwidth_kbps
        return await self._one(_replay.quality(room, user, *measures))  # type: ignore[no-any-return]

    async def subscribe(self, room: str, callback: Callable[[RoomEvent], None] | None = None) -> Subscription:
        """The room's live messages, every one that is published after this call has returned, whichever process
        published it. Before the first join. They come from the Subscription, or are given to the callback, in order and
        within the loop; what that raises goes to the loop's exception handler."""
        subscription = Subscription(self, room, callback)

        def begin(_: None) -> None:
            self._rooms.setdefault(room, []).append(subscription)

        try:
            await self._one(_replay.of_room(_abi.REPLAY_SUBSCRIBE, room), begin)
        except asyncio.CancelledError:
            if subscription in self._rooms.get(room, ()):
                self._remove(subscription)
            raise
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Ends a subscription. A second call does nothing."""
        subscriptions = self._rooms.get(subscription.room, [])
        if subscription._buffer is not self or subscription not in subscriptions:
            return
        self._remove(subscription)
        await self._one(_replay.of_room(_abi.REPLAY_UNSUBSCRIBE, subscription.room))

    def events(self) -> ReplayEvents:
        """An iterator of what happens from now on, until the buffer is closed: GapEvent, ReturnedEvent,
        ReplayStoreEvent and LogEvent of all rooms. Each iterator gets every event. While nobody iterates, events are not
        kept; an iterator that is not read keeps the latest ones."""
        subscriber = ReplayEvents(self)
        if self._native is None:
            subscriber._finish()
        else:
            self._subscribers.add(subscriber)
        return subscriber

    def statistics(self) -> ReplayStatistics:
        """Reads the buffer's counters."""
        return self._core.statistics()

    def metrics(self) -> str:
        """All metrics of the buffer in Prometheus' text format 0.0.4, to be served as METRICS_CONTENT_TYPE."""
        return self._core.metrics()

    # ------------------------------------------------------------------ outcomes

    @property
    def _core(self) -> ReplayCore:
        if self._native is None:
            raise InvalidHandleError("the replay buffer is not open")
        return self._native

    async def _one(self, operation: Operation, on_outcome: Callable[[Any], None] | None = None) -> Any:
        future = self._many([operation], on_outcome)
        try:
            result = (await future)[0]
        except asyncio.CancelledError:
            # The outcome may have come between the cancellation and this: then nobody else ends what has begun.
            if future.done() and not future.cancelled() and future.exception() is None and self._native is not None:
                self._abandon(operation, future.result()[0])
            raise
        if isinstance(result, ReconnectError):
            raise result
        return result

    def _many(
        self, operations: list[Operation], on_outcome: Callable[[Any], None] | None = None
    ) -> asyncio.Future[list[Any]]:
        """Begins operations; they are handed in together with all others of this turn of the loop."""
        core = self._core
        assert self._loop is not None
        call = _Call(operations, self._loop.create_future(), on_outcome)
        if not operations:
            call.future.set_result([])
        for index, operation in enumerate(operations):
            operation.tag = next(core.tags)
            self._pending.append((operation, call, index))
        self._schedule()
        return call.future

    def _finish(self, call: _Call, index: int, outcome: Outcome, error: ReconnectError | None) -> None:
        call.results[index] = outcome if error is None else error
        call.missing -= 1
        if call.future.done():
            if error is None:
                self._abandon(call.operations[index], outcome)
            return
        if error is None and call.on_outcome is not None:
            self._call(call.on_outcome, outcome)
        if not call.missing:
            call.future.set_result(call.results)

    def _abandon(self, operation: Operation, outcome: Any) -> None:
        """Nobody waits for the outcome any more: what it has begun is ended."""
        if isinstance(outcome, Joined):
            drop = Operation(_abi.REPLAY_DROP, operation.texts, outcome.generation)
            self._many([drop])
        elif operation.type == _abi.REPLAY_SUBSCRIBE and not isinstance(outcome, ReconnectError):
            self._many([Operation(_abi.REPLAY_UNSUBSCRIBE, operation.texts)])

    def _call(self, function: Callable[[Any], None], argument: Any) -> None:
        try:
            function(argument)
        except Exception as error:
            assert self._loop is not None
            self._loop.call_exception_handler(
                {"message": f"{function!r} of a replay buffer has failed", "exception": error}
            )

    # ------------------------------------------------------------------ the loop

    def _schedule(self) -> None:
        if not self._scheduled and self._loop is not None:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        if self._native is not None:
            self._flush()

    def _flush(self) -> None:
        """Hands in what was begun and takes what is there: outcomes of rooms in memory are."""
        core = self._core
        try:
            while self._pending:
                ready = [each for each in self._pending if not each[1].future.done()]  # done: cancelled
                self._pending.clear()
                if not ready:
                    break
                # Known before the library can say anything about them.
                for operation, call, index in ready:
                    self._calls[operation.tag] = call, index
                taken, status, detail = core.submit([operation for operation, _, _ in ready])
                rest = ready[taken:]
                for operation, _, _ in rest:
                    del self._calls[operation.tag]
                if status == Status.WOULD_BLOCK:
                    self._pending.extendleft(reversed(rest))
                    if not self._read():
                        return  # room comes with outcomes, and those with the descriptor
                elif status:
                    _, call, index = rest[0]
                    self._pending.extendleft(reversed(rest[1:]))
                    self._finish(call, index, None, error_for(status, detail))
            self._read()
        except ReconnectError as error:
            self._fail(error)

    def _fail(self, error: ReconnectError) -> None:
        """The library refuses everything, as in a child process."""
        calls = [call for call, _ in self._calls.values()] + [call for _, call, _ in self._pending]
        self._calls.clear()
        self._pending.clear()
        for call in calls:
            if not call.future.done():
                call.future.set_exception(error)

    def _read(self) -> int:
        """Takes what has happened; returns how much it was."""
        core, count = self._core, 0
        for _ in range(BATCHES):
            found = core.take()
            for each in found:
                if not isinstance(each, tuple):
                    self._dispatch(each)
                elif each[0] in self._calls:
                    self._finish(*self._calls.pop(each[0]), each[1], each[2])
            count += len(found)
            if len(found) < BATCH or self._native is None:
                break
        return count

    def _readable(self) -> None:
        if self._native is None:
            return
        try:
            self._read()
        except ReconnectError as error:
            self._fail(error)
        if self._pending:
            self._schedule()

    def _dispatch(self, event: ReplayEvent) -> None:
        if isinstance(event, LiveMessage):
            for subscription in list(self._rooms.get(event.room, ())):
                subscription._put(event)
            return
        if isinstance(event, (GapEvent, ReturnedEvent)):
            for subscription in list(self._rooms.get(event.room, ())):
                subscription._put(event)
        for subscriber in self._subscribers:
            subscriber._put(event)

    def _remove(self, subscription: Subscription) -> None:
        subscriptions = self._rooms[subscription.room]
        subscriptions.remove(subscription)
        if not subscriptions:
            del self._rooms[subscription.room]
        subscription._finish()


def _read_if_alive(reference: weakref.ref[ReplayBuffer]) -> None:
    buffer = reference()
    if buffer is not None:
        buffer._readable()


def _end(loop: asyncio.AbstractEventLoop, descriptor: int, core: ReplayCore) -> None:
    loop.remove_reader(descriptor)
    core.destroy()


__all__ = ["OtherEvent", "ReplayBuffer", "ReplayEvents", "Subscription"]
