"""Replay buffers for programs that block: plain threads, no event loop."""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

from . import _abi, _replay
from ._replay import BATCH, Operation, Outcome, ReplayCore
from ._waiting import WaitingThreads
from .errors import InvalidHandleError, ReconnectError, Status, WouldBlockError, error_for
from .replay_events import (
    GapEvent,
    Joined,
    LiveMessage,
    LossReason,
    MessageKind,
    Publication,
    Published,
    QualityReport,
    Recovery,
    ReplayConfig,
    ReplayEvent,
    ReplayStatistics,
    UserState,
)

BACKLOG_MESSAGES = 100_000
BACKLOG_BYTES = 64 << 20
"""When live messages of this number or size wait for poll(), they are given up: each of their rooms gets a GapEvent."""


class Backlog:
    """Events that nobody has taken yet. Live messages in it are bounded; nothing is lost without a GapEvent."""

    def __init__(self, messages: int, size: int) -> None:
        self.events: deque[ReplayEvent] = deque()
        self._limits = messages, size
        self._messages = self._size = 0

    def put(self, event: ReplayEvent) -> None:
        self.events.append(event)
        if isinstance(event, LiveMessage):
            self._messages += 1
            self._size += len(event.data)
            if self._messages > self._limits[0] or self._size > self._limits[1]:
                self._give_up()

    def take(self) -> ReplayEvent:
        event = self.events.popleft()
        if isinstance(event, LiveMessage):
            self._messages -= 1
            self._size -= len(event.data)
        return event

    def take_all(self) -> list[ReplayEvent]:
        events = list(self.events)
        self.events.clear()
        self._messages = self._size = 0
        return events

    def _give_up(self) -> None:
        """A gap stands where the first message of its room was: what had come before it in the room is in order."""
        kept: deque[ReplayEvent] = deque()
        rooms: set[str] = set()
        for event in self.events:
            if not isinstance(event, (LiveMessage, GapEvent)):
                kept.append(event)
            elif event.room not in rooms:
                rooms.add(event.room)
                kept.append(event if isinstance(event, GapEvent) else GapEvent(event.room, LossReason.LIMIT))
        self.events = kept
        self._messages = self._size = 0


class ReplayBuffer(WaitingThreads):
    """Keeps what was said in rooms, so that a client that was away gets what it missed, in order, and is told
    "recovered" only if that is everything. It carries no messages to clients: the program does, over whatever it has.

    Making one raises InvalidArgumentError (also for a store's address), StorageError (a SQLite file that cannot be
    used), NoDescriptorsError, LimitError or SystemFailureError. A Redis that is away is not an error.

    All methods may be called from all threads. Each waits up to `timeout` seconds (None: without limit) for its
    outcome, and raises TimeoutError after that: what was handed in takes effect nevertheless. With rooms in memory
    nothing is waited for. All raise InvalidHandleError once the buffer is closed, ForkedError in a child process, and
    WouldBlockError if max_pending operations wait for their outcomes. Arguments that cannot be right raise TypeError or
    InvalidArgumentError (a ValueError) before anything is handed in. What the store's state does to operations is in
    `degraded` of their outcomes and in ReplayStoreEvents.

    A context manager: its end closes the buffer.
    """

    def __init__(self, config: ReplayConfig | None = None, *, _from_environment: bool = False) -> None:
        super().__init__()
        self._results: dict[int, tuple[Outcome, ReconnectError | None]] = {}
        self._expected: set[int] = set()
        self._abandoned: dict[int, Operation] = {}
        self._backlog = Backlog(BACKLOG_MESSAGES, BACKLOG_BYTES)
        self._core = ReplayCore(config or ReplayConfig(), _from_environment)
        try:
            self._begin(self._core.descriptor())
        except BaseException:
            self._core.destroy()
            raise

    @classmethod
    def from_env(cls, config: ReplayConfig | None = None) -> ReplayBuffer:
        """Makes a replay buffer whose store is REDIS_URL from the environment, if `config` names none."""
        return cls(config, _from_environment=True)

    def __enter__(self) -> ReplayBuffer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=2)
            self.close()

    def close(self) -> None:
        """Ends the buffer and its connections. Calls that wait in other threads raise InvalidHandleError; what is in a
        store stays there. A second close does nothing."""
        if self._end():
            self._core.destroy()

    # -------------------------------------------------------------- operations

    def publish(
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
        timeout: float | None = 10,
    ) -> Published:
        """Stores a message; what the arguments mean is at Publication.

        Raises UnknownRoomError, UnknownUserError, UnknownRecipientError, TooLargeError or UnavailableError."""
        publication = Publication(room, data, user, to, kind, negotiation, key, lifetime, priority)
        return self._one(_replay.publish(publication), timeout)  # type: ignore[no-any-return]

    def publish_many(
        self, publications: Iterable[Publication], timeout: float | None = 10
    ) -> list[Published | ReconnectError]:
        """Stores messages with one call of the library. Returns for each, in order, its outcome or the error why it was
        not stored: one that fails does not keep the others from being stored."""
        return self._many([_replay.publish(each) for each in publications], timeout)

    def join(
        self,
        room: str,
        user: str,
        position: str | bytes | None = None,
        token: str | bytes | None = None,
        timeout: float | None = 10,
    ) -> Joined:
        """A connection of a user begins. With a position or a token it goes on where another one ended; both as the
        client sent them, however wrong: that is a verdict, not an error. A call that has run out of time drops the
        connection as soon as its outcome is there.

        Raises LimitError (rooms or members) or ThrottledError (again after its `retry_after`)."""
        return self._one(_replay.join(room, user, position, token), timeout)  # type: ignore[no-any-return]

    def recover(
        self, room: str, user: str, generation: int, position: str | bytes, timeout: float | None = 10
    ) -> Recovery:
        """What came after `position`, for a connection that has joined: for the time after a GapEvent.

        Raises UnknownRoomError, UnknownUserError, StaleError or ThrottledError."""
        operation = _replay.of_connection(_abi.REPLAY_RECOVER, room, user, generation, position)
        return self._one(operation, timeout)  # type: ignore[no-any-return]

    def acknowledge(
        self, room: str, user: str, generation: int, position: str | bytes, timeout: float | None = 10
    ) -> None:
        """The client has everything up to `position`.

        Raises UnknownRoomError, UnknownUserError, StaleError, or InvalidArgumentError if it is no position of the room."""
        self._one(_replay.of_connection(_abi.REPLAY_ACKNOWLEDGE, room, user, generation, position), timeout)

    def drop(self, room: str, user: str, generation: int, timeout: float | None = 10) -> None:
        """The connection ended; the user may come back within state_ttl.

        Raises StaleError if a newer connection has taken over (nothing has changed), UnknownRoomError or
        UnknownUserError."""
        self._one(_replay.of_connection(_abi.REPLAY_DROP, room, user, generation), timeout)

    def leave(self, room: str, user: str, generation: int, timeout: float | None = 10) -> None:
        """The user does not come back. The last one to leave takes the room along. Raises as drop()."""
        self._one(_replay.of_connection(_abi.REPLAY_LEAVE, room, user, generation), timeout)

    def state(self, room: str, user: str, timeout: float | None = 10) -> UserState:
        """What is known of a user. Raises UnknownRoomError or UnknownUserError."""
        return self._one(_replay.state(room, user), timeout)  # type: ignore[no-any-return]

    def quality(
        self,
        room: str,
        user: str,
        *,
        latency_ms: float | None = None,
        loss_percent: float | None = None,
        jitter_ms: float | None = None,
        bandwidth_kbps: float | None = None,
        timeout: float | None = 10,
    ) -> QualityReport:
        """What a client measured (None: not known) is classified, and kept in the user's state.

        Raises UnknownRoomError, UnknownUserError, or InvalidArgumentError for figures that cannot be."""
        measures = latency_ms, loss_percent, jitter_ms, bandwidth_kbps
        return self._one(_replay.quality(room, user, *measures), timeout)  # type: ignore[no-any-return]

    def subscribe(self, room: str, timeout: float | None = 10) -> None:
        """The room's live messages come as LiveMessage events: every one that is published after this call has
        returned, whichever process published it. Before the first join. Counted: each call needs its unsubscribe()."""
        self._one(_replay.of_room(_abi.REPLAY_SUBSCRIBE, room), timeout)

    def unsubscribe(self, room: str, timeout: float | None = 10) -> None:
        """Takes one subscribe() back. Live messages that wait already still come."""
        self._one(_replay.of_room(_abi.REPLAY_UNSUBSCRIBE, room), timeout)

    def statistics(self) -> ReplayStatistics:
        """Reads the buffer's counters."""
        self._require_open()
        return self._core.statistics()

    def metrics(self) -> str:
        """All metrics of the buffer in Prometheus' text format 0.0.4, to be served as METRICS_CONTENT_TYPE."""
        self._require_open()
        return self._core.metrics()

    # ------------------------------------------------------------------ events

    def fileno(self) -> int:
        """The descriptor that polls readable while events wait in the library, for select and its kin. Never read from
        it. Events that were taken while another thread waited for an outcome do not show on it: a thread in poll() or
        events() is told of those."""
        return self._descriptor

    def poll(self, timeout: float | None = None) -> list[ReplayEvent]:
        """What has happened, in order: LiveMessage, GapEvent, ReturnedEvent, ReplayStoreEvent, LogEvent. Waits up to
        `timeout` seconds for the first: 0 does not wait, None waits without limit. Empty after the time ran out.

        The outcome of a join or recover at sequence N was there before any live message of its room after N. Events that
        nobody polls are kept, but only so many live messages: beyond that each of their rooms gets a GapEvent."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._turn:
            while True:
                self._require_open()
                self._take()
                if self._backlog.events:
                    return self._backlog.take_all()
                if not self._wait(deadline):
                    return []

    def events(self) -> Iterator[ReplayEvent]:
        """All that happens, until the buffer is closed."""
        while True:
            try:
                events = self.poll()
            except InvalidHandleError:
                return
            yield from events

    # ----------------------------------------------------------------- waiting

    def _require_open(self) -> None:
        if not self._open:
            raise InvalidHandleError("the replay buffer is closed")

    def _one(self, operation: Operation, timeout: float | None) -> Any:
        result = self._many([operation], timeout)[0]
        if isinstance(result, ReconnectError):
            raise result
        return result

    def _many(self, operations: list[Operation], timeout: float | None) -> list[Any]:
        """Hands in operations and waits for their outcomes, or the errors why there are none."""
        deadline = None if timeout is None else time.monotonic() + timeout
        results: list[Any] = [None] * len(operations)
        tags = {}
        for index, operation in enumerate(operations):
            operation.tag = next(self._core.tags)
            tags[operation.tag] = index
        with self._turn:
            self._require_open()
            self._expected.update(tags)
            rest = operations
            try:
                while rest:
                    taken, status, detail = self._core.submit(rest)
                    if status == Status.WOULD_BLOCK:
                        rest = rest[taken:]
                        # What waits is taken, and with that there is room again; if not, others have filled it.
                        if not taken and not self._take():
                            raise WouldBlockError(detail or "too many operations wait for their outcomes")
                    elif status:
                        self._results[rest[taken].tag] = None, error_for(status, detail)
                        rest = rest[taken + 1 :]
                    else:
                        rest = []
                while True:
                    for tag in [tag for tag in tags if tag in self._results]:
                        outcome, error = self._results.pop(tag)
                        results[tags.pop(tag)] = outcome if error is None else error
                    if not tags:
                        return results
                    self._require_open()
                    if not self._take() and not self._wait(deadline):
                        raise TimeoutError("the outcome did not come in time")
            finally:
                self._expected.difference_update(tags)
                for operation in rest:
                    tags.pop(operation.tag, None)  # never handed in
                for tag, index in tags.items():
                    self._results.pop(tag, None)
                    if operations[index].type == _abi.REPLAY_JOIN:
                        self._abandoned[tag] = operations[index]

    def _take(self) -> int:
        """Takes what has happened: outcomes that somebody waits for, and events. Returns how much it was. Called with
        the lock."""
        count = 0
        while True:
            found = self._core.take()
            for each in found:
                if not isinstance(each, tuple):
                    self._backlog.put(each)
                elif each[0] in self._expected:
                    self._expected.discard(each[0])
                    self._results[each[0]] = each[1], each[2]
                elif each[0] in self._abandoned:
                    # Nobody waits for this join any more: the connection that it has begun is dropped.
                    operation = self._abandoned.pop(each[0])
                    if isinstance(each[1], Joined):
                        self._core.submit([Operation(_abi.REPLAY_DROP, operation.texts, each[1].generation)])
            count += len(found)
            if len(found) < BATCH:
                break
        if count:
            self._turn.notify_all()
            if self._waiting not in (None, threading.get_ident()):
                self._interrupt()  # it waits for a descriptor that will not show what was taken here
        return count


__all__ = ["ReplayBuffer"]
