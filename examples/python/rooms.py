"""Rooms whose clients come and go: who is here, what they are sent, and what they get when they come back.

A `Room` has a subscription of the replay buffer and the connections of this process. A `Connection` is one WebSocket of
one user; its queue is bounded, so that a client that does not read costs little and is let go: it comes back and gets
what it missed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

import libreconnect
from libreconnect import GapEvent, Joined, LiveMessage, Recovery, ReturnedEvent, Verdict, aio

FRAME_BYTES = 1 << 16
"""Messages that wait go together in one frame of about this size."""
SKIPPED = 10
"""After so many messages that were for others a client is told where it stands, so that it does not fall behind."""

# Why the host closes a WebSocket (RFC 6455 section 7.4.2: 4000 and more are the application's own).
NORMAL = 1000
TRY_AGAIN_LATER = 1013
NOT_UNDERSTOOD = 4400
UNAUTHORIZED = 4401
REPLACED = 4409
JOIN_AGAIN = 4410
TOO_MANY = 4429
TOO_SLOW = 4508


class Socket(Protocol):
    """What a connection needs of its WebSocket."""

    async def send_text(self, data: str) -> None: ...


def dumps(value: Any) -> str:
    """JSON without spaces; raises ValueError for what JSON does not have."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def stored(user: str, to: str | None, kind: str, data: Any) -> str:
    """A message as the replay buffer keeps it. Clients get it with its sequence in front: see `numbered`."""
    message: dict[str, Any] = {"from": user}
    if to is not None:
        message["to"] = to
    if kind != "other":
        message["kind"] = kind
    message["data"] = data
    return dumps(message)


def numbered(sequence: int, message: str | bytes) -> str | None:
    """A stored message for clients; None if it is not one of ours."""
    if not isinstance(message, str) or not message.startswith('{"from":'):
        return None
    return f'{{"sequence":{sequence},{message[1:]}'


@dataclass(frozen=True)
class Limits:
    """What a client may cost."""

    queue_bytes: int = 1 << 20
    """That wait for a client that does not take them; what it has missed comes on top."""
    message_bytes: int = 1 << 16
    """Of a message, as it is kept."""
    join_timeout: float = 10
    """Seconds until it has said who it is."""
    check_interval: float = 5
    """Seconds until a connection that was replaced in another process is closed."""


class Connection:
    """One WebSocket of a user in a room. Used in the loop's thread only."""

    def __init__(self, room: Room, user: str, socket: Socket, limits: Limits) -> None:
        self.room = room
        self.user = user
        self.socket = socket
        self.limits = limits
        self.generation = 0
        self.token = ""
        self.sequence = 0  # the last that is sent, or in the queue, or not for this user
        self.position = ""  # after it
        self.acknowledged = ""  # what the client has for certain
        self.live = False  # gets live messages
        self.recovering: asyncio.Task[None] | None = None
        self.again = False  # there was another gap meanwhile
        self.skipped = 0
        self.queue: deque[tuple[str, str, str]] = deque()  # frame, or message and the position after it
        self.queued = 0
        self.more = asyncio.Event()
        self.allowed = 0  # bytes in the queue beyond the limit: a replay may be larger
        self.final: tuple[int, str] | None = None
        self.ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    # ------------------------------------------------------------ to the client

    def send(self, **frame: Any) -> None:
        """Queues a frame."""
        self._put(dumps(frame), "", "")

    def deliver(self, message: LiveMessage, text: str | None) -> None:
        """A live message of the room, and how clients get it."""
        if not self.live or message.sequence <= self.sequence:
            return
        self.sequence, self.position = message.sequence, message.position
        if text is not None and message.user != self.user and message.to in (None, self.user):
            self.skipped = 0
            self._put("", text, message.position)
            return
        self.skipped += 1
        if self.skipped >= SKIPPED:
            self.skipped = 0
            self.send(type="position", position=self.position)

    def begin(self, joined: Joined, presented: str | None) -> None:
        """The outcome of the join."""
        self.generation, self.token = joined.generation, joined.token
        self.acknowledged = presented if presented is not None and joined.recovered else joined.position
        returned = joined.reconnection or joined.verdict is not Verdict.FRESH
        position = {} if returned else {"position": joined.position}
        self.send(type="joined", room=self.room.name, user=self.user, token=joined.token, **position)
        if returned:
            self.replay(joined, joined.away)
        else:
            self.sequence, self.position = joined.sequence, joined.position
        self.live = True

    def replay(self, recovery: Recovery, away: float) -> None:
        """Tells what became of a return, and then what was missed, in order."""
        texts = [numbered(message.sequence, message.data) for message in recovery.messages]
        missed = [text for text in texts if text is not None]
        self.sequence, self.position = recovery.sequence, recovery.position
        lost = recovery.verdict is Verdict.LOST
        self.send(
            type="reconnection-detected",
            disconnect_duration=round(away, 3),
            missed_message_count=len(missed),
            recovered=recovery.recovered,
            verdict=recovery.verdict.name.lower(),
            **({"reason": recovery.reason.name.lower()} if lost and recovery.reason is not None else {}),
            **({"skipped": recovery.skipped} if recovery.skipped else {}),
            position=recovery.position,
        )
        for text in missed:
            # Cut in between, the client still stands where it stood: only the last one takes it further.
            self.allowed += len(text)
            self._put("", text, recovery.position if text is missed[-1] else "")

    def _put(self, frame: str, message: str, position: str) -> None:
        if self.ended.done() or self.final is not None:
            return
        self.queue.append((frame, message, position))
        self.queued += len(frame) + len(message)
        self.more.set()
        if self.queued > self.limits.queue_bytes + self.allowed:
            self.end(TOO_SLOW, "it does not take its messages")

    def end(self, code: int, reason: str) -> None:
        """Ends the connection at once; what is queued is not sent."""
        self.live = False
        if not self.ended.done():
            self.ended.set_result((code, reason))

    def finish(self, code: int, reason: str) -> None:
        """Ends the connection after what is queued."""
        self.final, self.live = (code, reason), False
        self.more.set()

    async def write(self) -> None:
        """Sends what is queued; waits while the client's network does not take it."""
        while True:
            while self.queue:
                await self.socket.send_text(self._frame())
            self.allowed = 0
            if self.final is not None:
                self.end(*self.final)
                return
            self.more.clear()
            await self.more.wait()

    def _frame(self) -> str:
        """The next frame: as it is, or of all messages that wait."""
        frame, message, position = self.queue.popleft()
        self.queued -= len(frame) + len(message)
        if frame:
            return frame
        messages, size, last = [message], len(message), position
        while self.queue and not self.queue[0][0] and size < FRAME_BYTES:
            _, message, position = self.queue.popleft()
            self.queued -= len(message)
            messages.append(message)
            size += len(message)
            last = position or last
        stands = f',"position":{json.dumps(last)}' if last else ""
        return f'{{"type":"messages","messages":[{",".join(messages)}]{stands}}}'

    # -------------------------------------------------------------------- gaps

    def recover(self, position: str | None = None) -> None:
        """Live messages may be missing: takes from the buffer what came after the client's position. Until that is
        there, live messages are left out: they will be in it."""
        if position is not None:
            self.position = position
        self.live = False
        if self.recovering is not None:
            self.again = True
            return
        self.recovering = asyncio.create_task(self._recover())

    async def _recover(self) -> None:
        buffer, name = self.room.rooms.buffer, self.room.name
        while not self.ended.done():
            self.again = False
            try:
                await buffer.recover(name, self.user, self.generation, self.position, on_outcome=self._recovered)
            except libreconnect.ThrottledError as error:
                await asyncio.sleep(error.retry_after)
                continue
            except libreconnect.StaleError:
                self.end(REPLACED, "a newer connection took over")
            except libreconnect.ReconnectError as error:
                self.end(JOIN_AGAIN, error.name)
            if not self.again:
                break
        self.recovering = None

    def _recovered(self, recovery: Recovery) -> None:
        if recovery.verdict is not Verdict.RECOVERED_EMPTY:
            self.replay(recovery, 0)
        else:
            self.sequence, self.position = recovery.sequence, recovery.position
        self.live = not self.again and not self.ended.done()


class Room:
    """The connections of this process in one room."""

    def __init__(self, rooms: Rooms, name: str) -> None:
        self.rooms = rooms
        self.name = name
        self.users = 0  # who holds it: connections, those included that are joining
        self.connections: list[Connection] = []
        self.opening: asyncio.Task[aio.Subscription] = asyncio.create_task(rooms.buffer.subscribe(name, self.take))

    def take(self, event: LiveMessage | GapEvent | ReturnedEvent) -> None:
        if isinstance(event, LiveMessage):
            text = numbered(event.sequence, event.data)
            for connection in self.connections:
                connection.deliver(event, text)
        elif isinstance(event, GapEvent):
            for connection in self.connections:
                connection.recover()
        else:
            for connection in self.connections:
                if connection.user == event.user and connection.generation == event.replaced:
                    self.returned(connection, event)

    def returned(self, connection: Connection, event: ReturnedEvent) -> None:
        """The store is back, and has taken over a connection that began without it, or not."""
        if event.error is not None:
            connection.end(JOIN_AGAIN, "the store does not know this connection")
            return
        connection.generation, connection.token = event.generation, event.token
        connection.send(type="joined", room=self.name, user=connection.user, token=event.token)
        empty = event.verdict is Verdict.RECOVERED_EMPTY
        recovery = Recovery(event.verdict, event.reason, None, (), 0, connection.sequence, event.position, empty)
        connection.replay(recovery, 0)
        connection.recover(event.position)


class Rooms:
    """All rooms of this process."""

    def __init__(self, buffer: aio.ReplayBuffer, limits: Limits) -> None:
        self.buffer = buffer
        self.limits = limits
        self.rooms: dict[str, Room] = {}

    def __len__(self) -> int:
        return sum(len(room.connections) for room in self.rooms.values())

    async def enter(self, name: str, user: str, socket: Socket, position: str | None, token: str | None) -> Connection:
        """A client comes, with what it has from its last connection. The newest connection of a user wins."""
        room = self.rooms.get(name)
        if room is None:
            room = self.rooms[name] = Room(self, name)
        room.users += 1
        connection = Connection(room, user, socket, self.limits)

        def begin(joined: Joined) -> None:
            # In the order of events: before this all live messages are in the outcome, after it none is.
            for other in room.connections:
                if other.user == user:
                    other.end(REPLACED, "a newer connection took over")
            room.connections.append(connection)
            connection.begin(joined, position)

        try:
            await asyncio.shield(room.opening)
            await self.buffer.join(name, user, position, token, on_outcome=begin)
        except BaseException:
            await self._release(connection)
            raise
        return connection

    async def exit(self, connection: Connection, leave: bool) -> None:
        """A connection has ended. Unless the client leaves it may come back."""
        buffer, name = self.buffer, connection.room.name
        connection.end(NORMAL, "")
        if connection.recovering is not None:
            connection.recovering.cancel()
        try:
            if leave:
                await buffer.leave(name, connection.user, connection.generation)
            else:
                await buffer.drop(name, connection.user, connection.generation)
        except libreconnect.ReconnectError:
            pass  # a newer connection has taken over, or the room is gone: there is nothing to say
        finally:
            await self._release(connection)

    async def _release(self, connection: Connection) -> None:
        room = connection.room
        if connection in room.connections:
            room.connections.remove(connection)
        room.users -= 1
        if room.users == 0 and self.rooms.get(room.name) is room:
            del self.rooms[room.name]
            try:
                await self.buffer.unsubscribe(await room.opening)
            except libreconnect.ReconnectError:
                pass

    async def watch(self, interval: float) -> None:
        """Asks the buffer again and again whether connections still count: one that was replaced in another process is
        closed here. The questions of all connections go in one call."""
        while True:
            await asyncio.sleep(interval)
            await asyncio.gather(*(self._check(each) for room in self.rooms.values() for each in room.connections))

    async def _check(self, connection: Connection) -> None:
        name, user, generation = connection.room.name, connection.user, connection.generation
        try:
            await self.buffer.acknowledge(name, user, generation, connection.acknowledged)
        except libreconnect.StaleError:
            if connection.generation == generation:
                connection.end(REPLACED, "a newer connection took over")
        except (libreconnect.UnknownRoomError, libreconnect.UnknownUserError) as error:
            if connection.generation == generation:
                connection.end(JOIN_AGAIN, error.name)
        except libreconnect.ReconnectError:
            pass  # an old position, or a store that is away: no reason to part


class RateLimit:
    """A token bucket for each user: `rate` a second, `burst` at once."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate = rate
        self.burst = burst
        self.buckets: dict[str, tuple[float, float]] = {}

    def take(self, user: str) -> float:
        """0, or how many seconds it is too early."""
        now = time.monotonic()
        left, since = self.buckets.get(user, (float(self.burst), now))
        left = min(self.burst, left + (now - since) * self.rate)
        if left < 1:
            self.buckets[user] = left, now
            return (1 - left) / self.rate
        self.buckets[user] = left - 1, now
        return 0
