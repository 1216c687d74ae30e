"""The asyncio interface."""

from __future__ import annotations

import asyncio
import json
import os

import libreconnect
import pytest
from conftest import PATIENCE
from libreconnect import aio

ECHO = libreconnect.PeerConfig(channels=[libreconnect.ChannelConfig(label="echo", negotiated=True)])


def local(**settings):
    return aio.Engine(libreconnect.Config(**{"addresses": ["127.0.0.1"], **settings}))


async def connect(offerer, answerer, token=None):
    """Two peers with an open channel "echo" between them."""
    peer = offerer.create_peer(ECHO)
    offer = json.loads(await peer.offer())
    if token:
        offer["sessionToken"] = token
    answer = await answerer.answer(json.dumps(offer), ECHO)
    await peer.accept(answer.json)
    await soon(peer.channels[0].wait_open())
    await soon(answer.peer.channels[0].wait_open())
    return peer, answer


def soon(awaitable):
    return asyncio.wait_for(awaitable, PATIENCE)


async def echo(channel):
    async for message in channel:
        await channel.send(message)


async def test_connects_and_echoes(address):
    async with local(addresses=[address]) as offerer, local(addresses=[address]) as answerer:
        peer, answer = await connect(offerer, answerer)
        echoing = asyncio.create_task(echo(answer.peer.channels[0]))
        channel = peer.channels[0]
        assert channel.is_open and peer.state == libreconnect.PeerState.CONNECTED
        for message in ["", "a\u00e9\u20ac\U0001f600", b"", b"x", os.urandom(262144), "\u00e9" * 131072]:
            await channel.send(message)
            assert await soon(channel.receive()) == message
        statistics = await soon(peer.statistics())
        assert address in statistics.remote_address
        channel.close()
        await soon(echoing)  # its iteration ends with the channel
        await soon(channel.wait_closed())
        with pytest.raises(libreconnect.ClosedError):
            await channel.receive()
        with pytest.raises(libreconnect.ReconnectError):
            await channel.send("too late")


async def test_events_tell_what_happens():
    async with local() as offerer, local() as answerer:
        events = answerer.events()
        second = answerer.events()
        peer, answer = await connect(offerer, answerer)
        channel = peer.open_channel(libreconnect.ChannelConfig(label="in-band"))
        await soon(channel.wait_open())
        await channel.send("hello")
        remote = None
        seen = []
        while remote is None:
            event = await soon(anext(events))
            seen.append(event)
            if isinstance(event, libreconnect.ChannelOpenEvent) and event.remote:
                remote = event.channel
        assert remote.label == "in-band" and remote.peer is answer.peer
        assert await soon(remote.receive()) == "hello"
        states = [event.state.name for event in seen if isinstance(event, libreconnect.PeerStateEvent)]
        assert states == ["CONNECTING", "CONNECTED"]
        assert [type(event) for event in seen if isinstance(event, libreconnect.SessionEvent)]
        assert not [event for event in seen if isinstance(event, libreconnect.MessageEvent)]
        for event in seen:
            assert await soon(anext(second)) == event
        await events.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        peer.close()
        reason = await soon(answer.peer.wait_closed())
        assert isinstance(reason, libreconnect.PeerGoneError)
        assert await soon(peer.wait_closed()) is None
        with pytest.raises(libreconnect.PeerGoneError):
            await soon(remote.receive())


async def test_sending_waits_for_room_and_keeps_the_order():
    async with local(send_high_water=300000) as offerer, local() as answerer:
        peer, answer = await connect(offerer, answerer)
        channel, remote = peer.channels[0], answer.peer.channels[0]
        payload = os.urandom(60000)

        async def send(start):
            for number in range(start, start + 50):
                await channel.send(payload + number.to_bytes(2, "big"))

        senders = [asyncio.create_task(send(start)) for start in (0, 50, 100, 150)]
        numbers = []
        for _ in range(200):
            message = await soon(remote.receive())
            assert message[:-2] == payload
            numbers.append(int.from_bytes(message[-2:], "big"))
        await soon(asyncio.gather(*senders))
        assert sorted(numbers) == list(range(200))
        for start in (0, 50, 100, 150):  # each sender's own messages are in order
            own = [number for number in numbers if start <= number < start + 50]
            assert own == sorted(own)


async def test_cancelled_sending_has_sent_nothing():
    async with local(send_high_water=100000) as offerer, local(receive_window=262144) as answerer:
        peer, answer = await connect(offerer, answerer)
        channel, remote = peer.channels[0], answer.peer.channels[0]
        sent = 0
        while True:  # sooner or later sending waits: a call that need not wait is done when it has begun
            blocked = asyncio.create_task(channel.send(sent.to_bytes(2, "big") * 5000))
            await asyncio.sleep(0)
            if not blocked.done():
                break
            sent += 1
        with pytest.raises(libreconnect.WouldBlockError):
            channel.send_nowait(b"x")
        second = asyncio.create_task(channel.send(b"second"))
        third = asyncio.create_task(channel.send(b"third"))
        blocked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await blocked
        second.cancel()  # waits, too, unless there was room just now
        await asyncio.gather(second, return_exceptions=True)
        for number in range(sent):
            assert (await soon(remote.receive()))[:2] == number.to_bytes(2, "big")
        if not second.cancelled():
            assert await soon(remote.receive()) == b"second"
        assert await soon(remote.receive()) == b"third"
        await soon(third)


async def test_one_channel_that_nobody_reads_does_not_hold_up_others():
    async with local() as one, local() as two, local(receive_window=262144) as answerer:
        slow, slow_answer = await connect(one, answerer)
        quick, quick_answer = await connect(two, answerer)
        for number in range(600):
            await soon(slow.channels[0].send(number.to_bytes(2, "big") * 5000))
            if slow.channels[0].buffered() > 2000000:
                break
        echoing = asyncio.create_task(echo(quick_answer.peer.channels[0]))
        for number in range(100):
            await quick.channels[0].send(f"quick {number}")
            assert await soon(quick.channels[0].receive()) == f"quick {number}"
        for expected in range(number + 1):
            assert (await soon(slow_answer.peer.channels[0].receive()))[:2] == expected.to_bytes(2, "big")
        echoing.cancel()


async def test_flood_comes_back_whole():
    """More than all queues hold, in both directions at once."""
    async with local(send_high_water=200000) as offerer, local(send_high_water=200000) as answerer:
        peer, answer = await connect(offerer, answerer)
        channel = peer.channels[0]
        echoing = asyncio.create_task(echo(answer.peer.channels[0]))
        payload = os.urandom(30000)

        async def send():
            for number in range(300):
                await channel.send(number.to_bytes(2, "big") + payload)

        sending = asyncio.create_task(send())
        for number in range(300):
            message = await soon(channel.receive())
            assert message == number.to_bytes(2, "big") + payload
        await soon(sending)
        echoing.cancel()


async def test_returning_session_is_fast():
    async with local() as offerer, local() as answerer:
        first, answer = await connect(offerer, answerer)
        assert answer.mode == libreconnect.Mode.NORMAL
        token = json.loads(answer.json)["sessionToken"]
        _, again = await connect(offerer, answerer, token)
        assert again.mode == libreconnect.Mode.FAST
        assert isinstance(await soon(answer.peer.wait_closed()), libreconnect.ReplacedError)


async def test_bad_input():
    async with local() as engine:
        with pytest.raises(libreconnect.MalformedJSONError):
            await engine.answer("{")
        with pytest.raises(libreconnect.MalformedSDPError):
            await engine.answer('{"type":"offer","sdp":"nonsense"}')
        peer = engine.create_peer()
        with pytest.raises(libreconnect.MalformedJSONError):
            await peer.accept("[]")
        with pytest.raises(libreconnect.PortInUseError):
            await local(port=engine.port).open()
        assert engine.statistics().peers == 1
        assert not engine._results


async def test_cancelled_answer_closes_its_peer():
    async with local() as offerer, local() as answerer:
        offer = await offerer.create_peer(ECHO).offer()
        task = asyncio.create_task(answerer.answer(offer))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not answerer._results and not answerer._core._peers
        peer, answer = await connect(offerer, answerer)  # goes on
        while answerer.statistics().peers > 1:
            await asyncio.sleep(0)


async def test_close_ends_everything_that_waits():
    offerer, answerer = local(), local()
    await offerer.open()
    await answerer.open()
    peer, answer = await connect(offerer, answerer)
    channel = answer.peer.channels[0]
    events = answerer.events()
    lonely = answerer.create_peer(ECHO)

    async def drain():
        async for _ in events:
            pass

    waiting = [
        asyncio.create_task(each)
        for each in (
            drain(),
            channel.receive(),
            channel.wait_closed(),
            answer.peer.wait_closed(),
            lonely.wait_connected(),
        )
    ]
    await asyncio.sleep(0)
    await answerer.close()
    await answerer.close()
    results = await soon(asyncio.gather(*waiting, return_exceptions=True))
    assert results[0] is None and results[2] is None and results[3] is None
    assert isinstance(results[1], libreconnect.ReconnectError) and isinstance(results[4], libreconnect.ReconnectError)
    with pytest.raises(libreconnect.InvalidHandleError):
        answerer.create_peer()
    with pytest.raises(libreconnect.ReconnectError):
        await channel.send("x")
    with pytest.raises(StopAsyncIteration):
        await anext(answerer.events())
    assert isinstance(await soon(peer.wait_closed()), libreconnect.PeerGoneError)
    await offerer.close()


async def test_events_that_nobody_takes_stop_the_engine_for_a_while():
    async with local(log_level=libreconnect.LogLevel.NONE) as engine:
        slow = engine.events()
        for _ in range(aio.EVENTS_LIMIT):
            engine.set_fast_reload(libreconnect.FastReload.OFF)
            engine.set_fast_reload(libreconnect.FastReload.ON)
        while len(slow._queue) < aio.EVENTS_LIMIT:
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(slow._queue) < aio.EVENTS_LIMIT + 64
        count = 0
        while count < 2 * aio.EVENTS_LIMIT:
            event = await soon(anext(slow))
            count += isinstance(event, libreconnect.FastReloadEvent)
