"""Replay buffers for asyncio: batching, order, cancellation, subscriptions, the end of things, speed."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import subprocess
import sys
import time
import warnings
import weakref

import libreconnect
import pytest
from conftest import PATIENCE
from libreconnect import (
    GapEvent,
    InvalidArgumentError,
    InvalidHandleError,
    LiveMessage,
    LossReason,
    MessageKind,
    Publication,
    Quality,
    ReplayConfig,
    StaleError,
    Verdict,
    aio,
    replay_aio,
)


def missed(recovery):
    return [message.data for message in recovery.messages]


class Counted:
    """A buffer's core, whose calls into the library are counted."""

    def __init__(self, buffer):
        self.submits, self.operations, self.takes = 0, 0, 0
        core = buffer._native
        submit, take = core.submit, core.take

        def counted_submit(operations):
            self.submits += 1
            self.operations += len(operations)
            return submit(operations)

        def counted_take(*arguments):
            self.takes += 1
            return take(*arguments)

        core.submit, core.take = counted_submit, counted_take


async def test_every_operation():
    async with aio.ReplayBuffer() as buffer:
        ada, ben = await asyncio.gather(buffer.join("room", "ada"), buffer.join("room", "ben"))
        assert ada.verdict is Verdict.FRESH and ben.generation != ada.generation
        await buffer.drop("room", "ben", ben.generation)
        first = await buffer.publish("room", "one", "ada", to="ben", kind=MessageKind.OFFER, negotiation=2, key="k")
        again = await buffer.publish("room", "one", "ada", to="ben", kind=MessageKind.OFFER, negotiation=2, key="k")
        assert again.duplicate and again.sequence == first.sequence == 1
        many = await buffer.publish_many([Publication("room", b"two", "ada"), Publication("nowhere", "three")])
        assert many[0].sequence == 2 and isinstance(many[1], libreconnect.UnknownRoomError)
        assert await buffer.publish_many([]) == []
        back = await buffer.join("room", "ben", ben.position, ben.token)
        assert back.verdict is Verdict.RECOVERED and missed(back) == ["one", b"two"] and back.reconnection
        recovery = await buffer.recover("room", "ben", back.generation, first.position)
        assert missed(recovery) == [b"two"]
        await buffer.acknowledge("room", "ben", back.generation, recovery.position)
        report = await buffer.quality("room", "ben", latency_ms=1000)
        assert report.quality is Quality.POOR and report.recommendations
        state = await buffer.state("room", "ben")
        assert state.connected and state.last_sequence == 2 and state.quality is Quality.POOR
        with pytest.raises(StaleError):
            await buffer.drop("room", "ben", ben.generation)
        await buffer.leave("room", "ben", back.generation)
        await buffer.leave("room", "ada", ada.generation)
        with pytest.raises(libreconnect.UnknownRoomError):
            await buffer.state("room", "ada")
        assert buffer.statistics().recovered == 2
        assert isinstance(buffer.metrics(), str)


async def test_what_begins_in_one_turn_of_the_loop_goes_in_one_call():
    async with aio.ReplayBuffer() as buffer:
        await buffer.join("room", "ada")
        counted = Counted(buffer)
        outcomes = await asyncio.gather(*(buffer.publish("room", str(index), "ada") for index in range(50)))
        assert [outcome.sequence for outcome in outcomes] == list(range(1, 51))
        assert (counted.submits, counted.operations) == (1, 50)
        await buffer.publish_many([Publication("room", "x", "ada")] * 30)
        assert (counted.submits, counted.operations) == (2, 80)


async def test_outcomes_that_are_there_do_not_wait_for_the_selector():
    loop = asyncio.get_running_loop()
    async with aio.ReplayBuffer() as buffer:
        loop.remove_reader(buffer._descriptor)
        await asyncio.wait_for(buffer.join("room", "ada"), PATIENCE)
        assert (await asyncio.wait_for(buffer.publish("room", "x", "ada"), PATIENCE)).sequence == 1


async def test_one_operation_that_fails_does_not_disturb_its_neighbours():
    async with aio.ReplayBuffer() as buffer:
        await buffer.join("room", "ada")
        outcomes = await asyncio.gather(
            buffer.publish("room", "1", "ada"),
            buffer.publish("room", "x" * 70000, "ada"),
            buffer.publish("room", "2", "ada", kind=99),
            buffer.publish("room", "3", "ada"),
            buffer.publish("none", "4", "ada"),
            buffer.publish("room", "5", "ada"),
            return_exceptions=True,
        )
        assert [type(outcome).__name__ for outcome in outcomes] == [
            "Published",
            "TooLargeError",
            "InvalidArgumentError",
            "Published",
            "UnknownRoomError",
            "Published",
        ]
        assert [outcomes[index].sequence for index in (0, 3, 5)] == [1, 2, 3]


async def test_more_operations_than_may_wait_at_once():
    async with aio.ReplayBuffer(ReplayConfig(max_pending=16, window=1000)) as buffer:
        await buffer.join("room", "ada")
        outcomes = await asyncio.gather(*(buffer.publish("room", str(index), "ada") for index in range(500)))
        assert [outcome.sequence for outcome in outcomes] == list(range(1, 501))


async def test_many_tasks_at_once():
    rooms, talkers, each = 5, 20, 40
    async with aio.ReplayBuffer(ReplayConfig(window=talkers * each)) as buffer:
        listeners = [await buffer.join(f"room {room}", "ben") for room in range(rooms)]
        heard = [[] for _ in range(rooms)]
        for room in range(rooms):
            await buffer.subscribe(f"room {room}", heard[room].append)
        generator = random.Random(7)

        async def talk(number):
            room = f"room {number % rooms}"
            await buffer.join(room, f"user {number}")
            sequences = []
            for index in range(each):
                sequences.append((await buffer.publish(room, f"{number} {index}", f"user {number}")).sequence)
                if generator.random() < 0.3:
                    await asyncio.sleep(0)
            assert sequences == sorted(sequences)

        await asyncio.gather(*(talk(number) for number in range(talkers)))
        for room, ben in enumerate(listeners):
            back = await buffer.join(f"room {room}", "ben", ben.position, ben.token)
            assert [message.sequence for message in back.messages] == list(range(1, talkers // rooms * each + 1))
            assert [message.data for message in heard[room]] == missed(back)


# ------------------------------------------------------------------ cancellation


async def test_a_call_cancelled_before_it_is_handed_in_does_nothing():
    async with aio.ReplayBuffer() as buffer:
        await buffer.join("room", "ada")
        task = asyncio.ensure_future(buffer.publish("room", "never", "ada"))
        other = asyncio.ensure_future(buffer.publish("room", "sent", "ada"))
        await asyncio.sleep(0)  # both have begun; what was begun is handed in by the next callback
        if not task.done():
            task.cancel()
        assert (await other).sequence in (1, 2)
        with pytest.raises(asyncio.CancelledError):
            await task
        back = await buffer.join("room", "ben")
        assert back.sequence == (await other).sequence


async def test_a_cancelled_join_drops_its_connection():
    async with aio.ReplayBuffer() as buffer:
        ada = await buffer.join("room", "ada")
        cancelled = 0
        # At each of the points where a task can be cancelled.
        for turns in range(6):
            task = asyncio.ensure_future(buffer.join("room", "ben"))
            for _ in range(turns):
                await asyncio.sleep(0)
            done = task.done()
            task.cancel()
            try:
                joined = await task
                await buffer.drop("room", "ben", joined.generation)
            except asyncio.CancelledError:
                cancelled += 1
                assert not done
            for _ in range(3):
                await asyncio.sleep(0)
            try:
                assert not (await buffer.state("room", "ben")).connected, turns
            except libreconnect.UnknownUserError:
                assert turns < 3  # never handed in
        assert cancelled >= 2
        assert (await buffer.state("room", "ada")).connected and ada.generation


async def test_a_cancelled_subscribe_ends_its_subscription():
    async with aio.ReplayBuffer() as buffer:
        await buffer.join("room", "ada")
        for turns in range(5):
            task = asyncio.ensure_future(buffer.subscribe("room"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                await buffer.unsubscribe(await task)
            except asyncio.CancelledError:
                pass
            for _ in range(3):
                await asyncio.sleep(0)
            assert buffer._rooms == {}
        before = buffer.statistics().messages_live
        await buffer.publish("room", "not heard", "ada")
        assert buffer.statistics().messages_live == before


async def test_a_task_that_is_cancelled_while_many_wait():
    async with aio.ReplayBuffer(ReplayConfig(window=1000)) as buffer:
        await buffer.join("room", "ada")
        generator = random.Random(11)
        tasks = [asyncio.ensure_future(buffer.publish("room", str(index), "ada")) for index in range(300)]
        for task in tasks:
            if generator.random() < 0.5:
                task.cancel()
            if generator.random() < 0.05:
                await asyncio.sleep(0)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        sequences = [each.sequence for each in outcomes if not isinstance(each, BaseException)]
        assert sequences == sorted(set(sequences)) and 50 < len(sequences) < 300
        assert buffer._calls == {} and not buffer._pending


# ----------------------------------------------------------------- subscriptions


async def test_live_messages_from_an_iterator_and_a_callback():
    async with aio.ReplayBuffer() as buffer:
        called = []
        async with await buffer.subscribe("room") as live:
            other = await buffer.subscribe("room", called.append)
            await buffer.join("room", "ada")
            published = await buffer.publish("room", "one", "ada", kind=MessageKind.ANSWER)
            await buffer.publish("room", b"two")
            first = await asyncio.wait_for(live.__anext__(), PATIENCE)
            assert first == LiveMessage("room", "ada", None, "one", MessageKind.ANSWER, 0, 1, published.position)
            assert [event.data for event in called] == ["one", b"two"]
            await buffer.unsubscribe(other)
            await buffer.publish("room", "three")
            assert len(called) == 2
        await buffer.publish("room", "four")
        assert [event.data async for event in live] == [b"two", "three"]
        await live.aclose()


async def test_an_iterator_waits_for_messages():
    async with aio.ReplayBuffer() as buffer:
        live = await buffer.subscribe("room")
        await buffer.join("room", "ada")

        async def read():
            return [event.data async for event in live]

        reader = asyncio.ensure_future(read())
        for index in range(5):
            await asyncio.sleep(0)
            await buffer.publish("room", str(index), "ada")
        await live.aclose()
        assert await asyncio.wait_for(reader, PATIENCE) == list("01234")


async def test_the_outcome_of_a_join_is_told_in_the_order_of_events():
    async with aio.ReplayBuffer() as buffer:
        told = []
        await buffer.subscribe("room", lambda event: told.append(event.sequence))
        ada = await buffer.join("room", "ada")

        def outcome(recovery):
            told.append((recovery.sequence, missed(recovery)))

        await asyncio.gather(
            buffer.publish("room", "one", "ada"),
            buffer.join("room", "ben", on_outcome=outcome),
            buffer.publish("room", "two", "ada"),
            buffer.recover("room", "ada", ada.generation, ada.position, on_outcome=outcome),
            buffer.publish("room", "three", "ada"),
        )
        while 3 not in told:
            await asyncio.sleep(0)
        joined, recovered = (each for each in told if isinstance(each, tuple))
        assert joined[0] == 1 and recovered[0] == 2
        assert told.index(joined) < told.index(2) and told.index(recovered) < told.index(3)


async def test_a_callback_that_fails_disturbs_nobody():
    loop, problems = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: problems.append(context["exception"]))
    async with aio.ReplayBuffer() as buffer:
        heard = []

        def fail(event):
            raise KeyError(event.data)

        await buffer.subscribe("room", fail)
        await buffer.subscribe("room", heard.append)
        joined = await buffer.join("room", "ada", on_outcome=fail)
        await buffer.publish("room", "one", "ada")
        assert joined.verdict is Verdict.FRESH
        assert len(heard) == 1 and len(problems) == 2


async def test_messages_that_nobody_reads_become_a_gap(monkeypatch):
    monkeypatch.setattr(replay_aio, "LIVE_MESSAGES", 10)
    async with aio.ReplayBuffer() as buffer:
        live = await buffer.subscribe("room")
        await buffer.join("room", "ada")
        for index in range(13):
            await buffer.publish("room", str(index), "ada")
        await live.aclose()
        events = [event async for event in live]
        assert events[0] == GapEvent("room", LossReason.LIMIT)
        assert [event.data for event in events[1:]] == ["11", "12"]


async def test_events_reach_every_iterator():
    async with aio.ReplayBuffer() as buffer:
        first, second = buffer.events(), buffer.events()
        event = GapEvent("room", LossReason.STORE)
        buffer._dispatch(event)
        assert await first.__anext__() == await second.__anext__() == event
        await second.aclose()
        buffer._dispatch(event)
        assert [each async for each in second] == []
    assert [each async for each in first] == [event]


# -------------------------------------------------------------------- bad input


async def test_what_cannot_be_is_refused_before_it_is_handed_in():
    async with aio.ReplayBuffer() as buffer:
        ada = await buffer.join("room", "ada")
        counted = Counted(buffer)
        for call, kind in [
            (lambda: buffer.join("", "ada"), InvalidArgumentError),
            (lambda: buffer.join("{room}", "ada"), InvalidArgumentError),
            (lambda: buffer.join("room", "a\nb"), ValueError),
            (lambda: buffer.join("room", 5), TypeError),
            (lambda: buffer.publish("room", 5), TypeError),
            (lambda: buffer.publish("room", "\ud800"), ValueError),
            (lambda: buffer.drop("room", "ada", -1), ValueError),
            (lambda: buffer.drop("room", "ada", 1.5), TypeError),
            (lambda: buffer.subscribe("a{b"), ValueError),
            (lambda: buffer.quality("room", "ada", jitter_ms=float("nan")), ValueError),
            (lambda: buffer.recover("room", "ada", ada.generation, None.__class__), TypeError),
        ]:
            with pytest.raises(kind):
                await call()
        assert counted.submits == 0


# ------------------------------------------------------------------------- life


async def test_nothing_works_before_open_and_after_close():
    buffer = aio.ReplayBuffer()
    for _ in range(2):
        for call in (
            lambda: buffer.join("room", "ada"),
            lambda: buffer.publish("room", "x"),
            lambda: buffer.publish_many([Publication("room", "x")]),
            lambda: buffer.drop("room", "ada", 1),
            lambda: buffer.subscribe("room"),
        ):
            with pytest.raises(InvalidHandleError):
                await call()
        with pytest.raises(InvalidHandleError):
            buffer.statistics()
        assert [event async for event in buffer.events()] == []
        await buffer.open()
        await buffer.open()
        await buffer.close()
        await buffer.close()


async def test_close_ends_what_waits():
    buffer = aio.ReplayBuffer()
    await buffer.open()
    live = await buffer.subscribe("room")
    events = buffer.events()
    waiting = [asyncio.ensure_future(each.__anext__()) for each in (live, events)]
    await asyncio.sleep(0)
    # Begun before the close: they are handed in, and with rooms in memory their outcomes are there.
    begun = asyncio.ensure_future(buffer.join("room", "ada"))
    await asyncio.sleep(0)
    await buffer.close()
    assert (await begun).verdict is Verdict.FRESH
    for each in waiting:
        with pytest.raises(StopAsyncIteration):
            await each
    await live.aclose()


async def test_a_buffer_can_be_opened_again():
    buffer = aio.ReplayBuffer()
    for _ in range(3):
        async with buffer:
            assert (await buffer.join("room", "ada")).verdict is Verdict.FRESH


async def test_a_buffer_that_is_forgotten_is_closed():
    buffer = aio.ReplayBuffer()
    await buffer.open()
    await buffer.join("room", "ada")
    core, descriptor, reference = buffer._native, buffer._descriptor, weakref.ref(buffer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del buffer
        gc.collect()
    assert reference() is None
    assert any(issubclass(each.category, ResourceWarning) for each in caught)
    await asyncio.sleep(0)  # what the collector has asked of the loop
    assert core.library.reconnect_replay_destroy(core.handle) == libreconnect.Status.INVALID_HANDLE
    assert asyncio.get_running_loop().remove_reader(descriptor) is False


def test_no_descriptor_is_left_behind():
    async def once():
        async with aio.ReplayBuffer() as buffer:
            await buffer.join("room", "ada")

    asyncio.run(once())
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        asyncio.run(once())
    assert len(os.listdir("/proc/self/fd")) <= before


def test_fork_gives_an_error_in_the_child():
    program = """
import asyncio, os, sys
import libreconnect
from libreconnect import aio

async def main():
    buffer = aio.ReplayBuffer()
    await buffer.open()
    await buffer.join("room", "ada")
    child = os.fork()
    if child == 0:
        wrong = 0
        for call in (buffer.statistics, buffer.metrics, buffer._core.take):
            try:
                call()
                wrong = 1
            except libreconnect.ForkedError:
                pass
            except BaseException as error:
                print(repr(error), flush=True)
                wrong = 2
        os._exit(wrong)
    assert os.waitpid(child, 0)[1] == 0
    assert (await buffer.publish("room", "x", "ada")).sequence == 1
    await buffer.close()

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_fifty_missed_messages_take_less_than_a_millisecond():
    """The library's and the binding's time, the best of many: what other processes take does not count."""
    async with aio.ReplayBuffer() as buffer:
        await buffer.join("room", "ada")
        ben = await buffer.join("room", "ben")
        await buffer.publish_many([Publication("room", "x" * 1000, "ada") for _ in range(50)])
        best = 1.0
        for _ in range(200):
            begun = time.perf_counter()
            back = await buffer.join("room", "ben", ben.position, ben.token)
            best = min(best, time.perf_counter() - begun)
            assert len(back.messages) == 50
        assert best < 0.001, f"{best * 1000:.3f} ms"


async def test_fifty_missed_messages_take_less_than_a_millisecond_of_processor_time():
    async with aio.ReplayBuffer() as buffer:
        await buffer.join("room", "ada")
        ben = await buffer.join("room", "ben")
        await buffer.publish_many([Publication("room", "x" * 1000, "ada") for _ in range(50)])
        used = []
        for _ in range(100):
            begun = time.process_time()
            await buffer.join("room", "ben", ben.position, ben.token)
            used.append(time.process_time() - begun)
        assert sorted(used)[50] < 0.001
