"""rooms.py alone, in one event loop: what depends on the order of things within one turn of it."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest
from libreconnect import GapEvent, LossReason, ReplayConfig, aio
from routers import PATIENCE, ROOT

sys.path.insert(0, str(ROOT / "examples" / "python"))

import rooms  # noqa: E402


class Socket:
    """Keeps what it is sent, and is as slow as it is told to be."""

    def __init__(self):
        self.frames = []
        self.open = asyncio.Event()
        self.open.set()

    async def send_text(self, data):
        await self.open.wait()
        self.frames.append(json.loads(data))

    @property
    def heard(self):
        return [message["data"] for frame in self.frames for message in frame.get("messages", ())]


class World:
    """Rooms, and the tasks that write to their sockets."""

    def __init__(self, config=None, limits=None):
        self.buffer = aio.ReplayBuffer(config or ReplayConfig(window=1000))
        self.limits = limits or rooms.Limits()
        self.tasks = []

    async def __aenter__(self):
        await self.buffer.open()
        self.rooms = rooms.Rooms(self.buffer, self.limits)
        return self

    async def __aexit__(self, *exception):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.buffer.close()

    async def enter(self, user, position=None, token=None, socket=None):
        connection = await self.rooms.enter("room", user, socket or Socket(), position, token)
        self.tasks.append(asyncio.create_task(connection.write()))
        return connection

    async def say(self, data, user="ada", to=None):
        return await self.buffer.publish("room", rooms.stored(user, to, "other", data), user, to=to)


def run(test):
    def wrapped():
        asyncio.run(asyncio.wait_for(test(), 3 * PATIENCE))

    wrapped.__name__, wrapped.__doc__ = test.__name__, test.__doc__
    return wrapped


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


@run
async def test_joins_and_messages_of_one_turn():
    """Outcomes and live messages come in one batch: at the seam nothing is lost and nothing doubled."""
    async with World() as world:
        await world.enter("ada")
        ben = await world.enter("ben")
        await world.say("first")
        await settle()
        position, token, socket = ben.position, ben.token, ben.socket
        assert socket.heard == ["first"]
        for turn in range(10):
            await world.rooms.exit(ben, leave=False)
            socket = Socket()
            # Tasks begin in this order; all operations go in one call of the library.
            calls = [world.say([turn, index]) for index in range(5)]
            calls.append(world.enter("ben", position, token, socket))
            calls += [world.say([turn, index]) for index in range(5, 10)]
            results = await asyncio.gather(*calls)
            ben = results[5]
            await settle()
            assert socket.heard == [[turn, index] for index in range(10)]
            assert socket.frames[1]["type"] == "reconnection-detected" and socket.frames[1]["recovered"] is True
            position, token = ben.position, ben.token


@run
async def test_a_gap_while_messages_come():
    async with World() as world:
        await world.enter("ada")
        ben = await world.enter("ben")
        room = world.rooms.rooms["room"]
        for turn in range(10):
            # Some are published before the recovery, in the same call of the library, and some after it.
            saying = [asyncio.ensure_future(world.say([turn, index])) for index in range(turn % 3)]
            room.take(GapEvent("room", LossReason.STORE))
            if turn % 2:
                await asyncio.sleep(0)
                room.take(GapEvent("room", LossReason.STORE))
            saying += [asyncio.ensure_future(world.say([turn, index])) for index in range(turn % 3, 5)]
            await asyncio.gather(*saying)
        await settle()
        assert ben.socket.heard == [[turn, index] for turn in range(10) for index in range(5)]
        assert ben.live and ben.recovering is None


@run
async def test_a_queue_is_bounded_but_for_what_was_missed():
    async with World(ReplayConfig(window=1000), rooms.Limits(queue_bytes=5000)) as world:
        await world.enter("ada")
        ben = await world.enter("ben")
        await world.rooms.exit(ben, leave=False)
        for _ in range(100):
            await world.say("x" * 100)
        socket = Socket()
        socket.open.clear()
        ben = await world.enter("ben", ben.position, ben.token, socket)
        assert not ben.ended.done() and ben.queued > 5000
        for _ in range(100):
            await world.say("y" * 100)
        assert ben.ended.result()[0] == rooms.TOO_SLOW
        assert ben.queued < 5000 + 100 * 200 + 5000
        # Without the replay the limit is the limit.
        slow = Socket()
        slow.open.clear()
        cat = await world.enter("cat", socket=slow)
        for _ in range(10):
            await world.say("z" * 100)
        assert not cat.ended.done()
        for _ in range(50):
            await world.say("z" * 100)
        assert cat.ended.result()[0] == rooms.TOO_SLOW


@run
async def test_what_waits_goes_in_one_frame_with_the_last_position():
    async with World() as world:
        await world.enter("ada")
        socket = Socket()
        ben = await world.enter("ben", socket=socket)
        await settle()
        socket.frames.clear()
        socket.open.clear()
        for index in range(20):
            last = await world.say(index)
        socket.open.set()
        await settle()
        assert len(socket.frames) <= 2 and socket.heard == list(range(20))
        assert socket.frames[-1]["position"] == last.position == ben.position


@run
async def test_a_room_ends_with_its_last_connection():
    async with World() as world:
        ada, ben = await asyncio.gather(world.enter("ada"), world.enter("ben"))
        assert len(world.rooms) == 2 and list(world.rooms.rooms) == ["room"]
        await asyncio.gather(world.rooms.exit(ada, leave=True), world.rooms.exit(ben, leave=False))
        assert len(world.rooms) == 0 and world.rooms.rooms == {} and world.buffer._rooms == {}
        # While one goes another one comes.
        ada = await world.enter("ada")
        _, ben = await asyncio.gather(world.rooms.exit(ada, leave=False), world.enter("ben"))
        await world.enter("ada")
        await world.say("hello")
        await settle()
        assert ben.socket.heard == ["hello"]


@run
async def test_an_enter_that_fails_or_is_cancelled_leaves_nothing():
    async with World(ReplayConfig(max_members_per_room=1)) as world:
        ada = await world.enter("ada")
        with pytest.raises(Exception, match="LIMIT"):
            await world.enter("ben")
        await world.rooms.exit(ada, leave=True)
        assert world.rooms.rooms == {}
        for turns in range(8):
            task = asyncio.ensure_future(world.rooms.enter("room", "ada", Socket(), None, None))
            for _ in range(turns):
                await asyncio.sleep(0)
            if task.done():
                await world.rooms.exit(task.result(), leave=True)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await settle()
            assert world.rooms.rooms == {} and world.buffer._rooms == {}, turns
            assert len(world.rooms) == 0


@run
async def test_foreign_messages_of_a_shared_store_are_left_out():
    async with World() as world:
        await world.enter("ada")
        ben = await world.enter("ben")
        for data in ("text", b"\x00", '{"type":"x"}', ""):
            await world.buffer.publish("room", data)
        await world.say("ours")
        await settle()
        assert ben.socket.heard == ["ours"]
