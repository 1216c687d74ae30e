"""Replay buffers for programs that block: every operation, every verdict, bad input, threads, fork, the collector."""

from __future__ import annotations

import base64
import copy
import gc
import os
import pickle
import queue
import sqlite3
import subprocess
import sys
import threading
import time
import warnings

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
    PositionProblem,
    Publication,
    Quality,
    ReplayBuffer,
    ReplayConfig,
    StaleError,
    StoreState,
    ThrottledError,
    Verdict,
)
from libreconnect.replay import Backlog


@pytest.fixture
def buffer():
    with ReplayBuffer() as buffer:
        yield buffer


def come_back(buffer, joined, room="room", user="ben"):
    """The verdict of a return with what `joined` gave."""
    return buffer.join(room, user, joined.position, joined.token)


def missed(recovery):
    return [message.data for message in recovery.messages]


def waits(buffer):
    """A semaphore that rises by one with each thread that begins to wait. Such a thread holds the buffer's lock until it
    waits: whoever gets the lock afterwards finds it waiting."""
    begun, wait = threading.Semaphore(0), buffer._wait

    def counted(deadline):
        begun.release()
        return wait(deadline)

    buffer._wait = counted
    return begun


def pair(buffer, room="room"):
    """Ada talks, Ben listens and has gone."""
    ada, ben = buffer.join(room, "ada"), buffer.join(room, "ben")
    buffer.drop(room, "ben", ben.generation)
    return ada, ben


# ------------------------------------------------------------------ operations


def test_first_join_is_fresh(buffer):
    joined = buffer.join("room", "ada")
    assert joined.verdict is Verdict.FRESH
    assert (joined.messages, joined.sequence, joined.replaced, joined.away) == ((), 0, 0, 0)
    assert not joined.reconnection and not joined.recovered and not joined.degraded
    assert len(joined.position) == 32 and len(joined.token) >= 22 and joined.generation > 0
    assert joined.reason is None and joined.problem is None


def test_what_was_missed_comes_back_in_order(buffer):
    ada, ben = pair(buffer)
    for index in range(50):
        published = buffer.publish("room", f"message {index}", "ada")
        assert published.sequence == index + 1 and not published.duplicate
    back = come_back(buffer, ben)
    assert back.verdict is Verdict.RECOVERED and back.recovered and back.reconnection
    assert missed(back) == [f"message {index}" for index in range(50)]
    assert [message.sequence for message in back.messages] == list(range(1, 51))
    assert back.sequence == 50 and back.position == published.position and back.token == ben.token
    assert back.generation != ben.generation and back.away >= 0


def test_nothing_missed_is_recovered_empty_also_twice(buffer):
    _, ben = pair(buffer)
    first = come_back(buffer, ben)
    assert first.verdict is Verdict.RECOVERED_EMPTY and first.recovered
    assert come_back(buffer, first).verdict is Verdict.RECOVERED_EMPTY
    # With the position of before the first message, after it.
    buffer.publish("room", "one", "ada")
    assert missed(come_back(buffer, ben)) == ["one"]
    assert missed(come_back(buffer, ben)) == ["one"]


def test_text_binary_and_empty_messages(buffer):
    _, ben = pair(buffer)
    sent = ["", b"", "äöü \U0001f600", b"\x00\xff" * 1000, bytearray(b"array"), memoryview(b"view")]
    for data in sent:
        buffer.publish("room", data, "ada")
    assert missed(come_back(buffer, ben)) == ["", b"", "äöü \U0001f600", b"\x00\xff" * 1000, b"array", b"view"]


def test_messages_for_others_and_ones_own_are_not_replayed(buffer):
    ada, ben = pair(buffer)
    buffer.join("room", "cat")
    buffer.publish("room", "to ben", "ada", to="ben")
    buffer.publish("room", "to cat", "ada", to="cat")
    buffer.publish("room", "of ben", "ben")
    buffer.publish("room", "of the server")
    back = come_back(buffer, ben)
    assert missed(back) == ["to ben", "of the server"]
    assert back.sequence == 4 and back.recovered


def test_publish_many_in_one_call_with_an_outcome_for_each(buffer):
    _, ben = pair(buffer)
    outcomes = buffer.publish_many(
        [
            Publication("room", "one", "ada"),
            Publication("nowhere", "lost", "ada"),
            Publication("room", "x" * 70000, "ada"),
            Publication("room", "two", "ada", to="nobody"),
            Publication("room", "three", "stranger"),
            Publication("room", b"four", None, key=b"\x00key"),
            Publication("room", b"four", None, key=b"\x00key"),
        ]
    )
    kinds = [type(outcome).__name__ for outcome in outcomes]
    assert kinds == [
        "Published",
        "UnknownRoomError",
        "TooLargeError",
        "UnknownRecipientError",
        "UnknownUserError",
        "Published",
        "Published",
    ]
    assert [outcomes[0].sequence, outcomes[5].sequence, outcomes[6].sequence] == [1, 2, 2]
    assert outcomes[6].duplicate and outcomes[6].position == outcomes[5].position
    assert missed(come_back(buffer, ben)) == ["one", b"four"]
    assert buffer.publish_many([]) == []


def test_a_key_makes_a_message_be_stored_once(buffer):
    _, ben = pair(buffer)
    first, again = (buffer.publish("room", "once", "ada", key="k") for _ in range(2))
    assert again == type(first)(first.sequence, first.position, True, False)
    assert missed(come_back(buffer, ben)) == ["once"]


def test_a_newer_offer_replaces_the_older_and_its_candidates(buffer):
    _, ben = pair(buffer)
    for data, kind in [
        ("offer 1", MessageKind.OFFER),
        ("candidate 1", MessageKind.CANDIDATE),
        ("offer 2", MessageKind.OFFER),
        ("candidate 2", MessageKind.CANDIDATE),
    ]:
        buffer.publish("room", data, "ada", to="ben", kind=kind, negotiation=7)
    back = come_back(buffer, ben)
    assert missed(back) == ["offer 2", "candidate 2"] and back.recovered
    assert [(message.kind, message.negotiation) for message in back.messages] == [
        (MessageKind.OFFER, 7),
        (MessageKind.CANDIDATE, 7),
    ]


def test_what_has_outlived_itself_is_skipped(buffer):
    _, ben = pair(buffer)
    buffer.publish("room", "ring", "ada", lifetime=0.001)
    buffer.publish("room", "hello", "ada", priority=True)
    deadline = time.monotonic() + PATIENCE
    while missed(back := come_back(buffer, ben)) == ["ring", "hello"]:
        assert time.monotonic() < deadline
    assert missed(back) == ["hello"] and back.skipped == 1 and back.recovered


def test_recover_acknowledge_and_state(buffer):
    _, ben = buffer.join("room", "ada"), buffer.join("room", "ben")
    first = buffer.publish("room", "one", "ada")
    buffer.publish("room", "two", "ada")
    recovery = buffer.recover("room", "ben", ben.generation, ben.position)
    assert recovery.verdict is Verdict.RECOVERED and missed(recovery) == ["one", "two"]
    assert missed(buffer.recover("room", "ben", ben.generation, first.position)) == ["two"]
    assert buffer.recover("room", "ben", ben.generation, recovery.position).verdict is Verdict.RECOVERED_EMPTY
    buffer.acknowledge("room", "ben", ben.generation, recovery.position)
    before = time.time()
    state = buffer.state("room", "ben")
    assert state.connected and state.away == 0 and state.connections == 1
    assert state.last_sequence == 2 and state.quality is Quality.UNKNOWN
    assert abs(state.last_seen - before) < 3600
    buffer.drop("room", "ben", ben.generation)
    state = buffer.state("room", "ben")
    assert not state.connected and 0 <= state.away < 3600


def test_quality_is_classified_explained_and_kept(buffer):
    buffer.join("room", "ada")
    good = buffer.quality("room", "ada", latency_ms=20, loss_percent=0, jitter_ms=3, bandwidth_kbps=5000)
    assert good.quality is Quality.GOOD
    poor = buffer.quality("room", "ada", latency_ms=900, loss_percent=20)
    assert poor.quality is Quality.POOR and poor.recommendations
    assert all(isinstance(sentence, str) and sentence for sentence in poor.recommendations)
    assert buffer.state("room", "ada").quality is Quality.POOR


def test_the_newest_connection_wins_and_the_old_one_changes_nothing(buffer):
    ada = buffer.join("room", "ada")
    newer = buffer.join("room", "ada", ada.position, ada.token)
    assert newer.replaced == ada.generation and newer.reconnection
    for call in (
        lambda: buffer.drop("room", "ada", ada.generation),
        lambda: buffer.leave("room", "ada", ada.generation),
        lambda: buffer.acknowledge("room", "ada", ada.generation, ada.position),
        lambda: buffer.recover("room", "ada", ada.generation, ada.position),
    ):
        with pytest.raises(StaleError):
            call()
    assert buffer.state("room", "ada").connected


def test_the_last_leave_takes_the_room_along_a_drop_does_not(buffer):
    ada, ben = pair(buffer)
    buffer.publish("room", "one", "ada")
    buffer.drop("room", "ada", ada.generation)
    assert missed(come_back(buffer, ben)) == ["one"]
    ben, ada = come_back(buffer, ben), come_back(buffer, ada, user="ada")
    buffer.leave("room", "ada", ada.generation)
    with pytest.raises(libreconnect.UnknownUserError):
        buffer.state("room", "ada")
    buffer.leave("room", "ben", ben.generation)
    with pytest.raises(libreconnect.UnknownRoomError):
        buffer.publish("room", "two")
    back = come_back(buffer, ben)
    assert (back.verdict, back.reason, back.messages) == (Verdict.LOST, LossReason.EPOCH, ())


# -------------------------------------------------------------------- verdicts


def test_lost_trimmed():
    with ReplayBuffer(ReplayConfig(window=3)) as buffer:
        _, ben = pair(buffer)
        for index in range(4):
            buffer.publish("room", str(index), "ada")
        back = come_back(buffer, ben)
        assert (back.verdict, back.reason, back.messages) == (Verdict.LOST, LossReason.TRIMMED, ())
        assert not back.recovered and back.sequence == 4
        # From there on everything is in order again.
        buffer.publish("room", "5", "ada")
        assert missed(come_back(buffer, back)) == ["5"]


def test_lost_expired():
    with ReplayBuffer(ReplayConfig(message_ttl=0.01, state_ttl=60)) as buffer:
        _, ben = pair(buffer)
        buffer.publish("room", "old", "ada")
        deadline = time.monotonic() + PATIENCE
        while (back := come_back(buffer, ben)).verdict is not Verdict.LOST:
            assert missed(back) == ["old"] and time.monotonic() < deadline
        assert back.reason is LossReason.EXPIRED


def test_lost_limit():
    with ReplayBuffer(ReplayConfig(max_batch=2)) as buffer:
        _, ben = pair(buffer)
        for index in range(3):
            buffer.publish("room", str(index), "ada")
        back = come_back(buffer, ben)
        assert (back.verdict, back.reason) == (Verdict.LOST, LossReason.LIMIT)


def forged(position):
    raw = bytearray(base64.urlsafe_b64decode(position))
    raw[-1] ^= 1
    return base64.urlsafe_b64encode(raw).decode()


def test_what_a_client_presents_is_judged_not_trusted(buffer):
    ada, ben = pair(buffer)
    buffer.publish("room", "secret", "ada")
    other = buffer.join("other", "ben")
    cases = [
        ("no position", ben.token, PositionProblem.MALFORMED),
        ("\ud800" * 32, ben.token, PositionProblem.MALFORMED),
        (b"\xff" * 32, ben.token, PositionProblem.MALFORMED),
        ("A" * 100_000, ben.token, PositionProblem.MALFORMED),
        (forged(ben.position), ben.token, PositionProblem.FORGED),
        (other.position, ben.token, None),
        (ben.position, ada.token, PositionProblem.WRONG_TOKEN),
        (ben.position, None, PositionProblem.WRONG_TOKEN),
        (ben.position, "", PositionProblem.WRONG_TOKEN),
        (ben.position, "x" * 100_000, PositionProblem.WRONG_TOKEN),
    ]
    for position, token, problem in cases:
        back = buffer.join("room", "ben", position, token)
        assert back.verdict is Verdict.LOST and back.messages == (), (position, back)
        if problem is not None:
            assert back.problem is problem, (position[:40], back.problem)
        else:
            assert back.problem in (PositionProblem.FOREIGN, PositionProblem.FORGED)
        if problem is PositionProblem.WRONG_TOKEN:
            assert back.token != ben.token  # without the token the name is another person
            ben = back
            buffer.publish("room", "secret", "ada")


def test_users_that_the_program_trusts_need_no_token():
    with ReplayBuffer(ReplayConfig(trust_users=True)) as buffer:
        _, ben = pair(buffer)
        buffer.publish("room", "one", "ada")
        assert missed(buffer.join("room", "ben", ben.position)) == ["one"]


def test_throttled_returns_say_when_to_come_again():
    with ReplayBuffer(ReplayConfig(recoveries_per_second=1, recovery_burst=2)) as buffer:
        _, ben = pair(buffer)
        with pytest.raises(ThrottledError) as caught:
            for _ in range(20):
                ben = come_back(buffer, ben)
        assert 0 < caught.value.retry_after < 3600
        assert buffer.statistics().throttled >= 1


def test_limits():
    with ReplayBuffer(ReplayConfig(max_rooms=1, max_members_per_room=1)) as buffer:
        buffer.join("room", "ada")
        with pytest.raises(libreconnect.LimitError):
            buffer.join("room", "ben")
        with pytest.raises(libreconnect.LimitError):
            buffer.join("other", "ada")


# ---------------------------------------------------------------------- events


def test_live_messages_of_rooms_that_are_subscribed(buffer):
    buffer.subscribe("room")
    buffer.join("room", "ada")
    buffer.join("room", "ben")
    buffer.join("other", "ada")
    buffer.publish("other", "not heard", "ada")
    published = buffer.publish("room", "hello", "ada", to="ben", kind=MessageKind.OFFER, negotiation=3)
    buffer.publish("room", b"bytes")
    events = buffer.poll(0)
    assert events == [
        LiveMessage("room", "ada", "ben", "hello", MessageKind.OFFER, 3, 1, published.position),
        LiveMessage("room", None, None, b"bytes", MessageKind.OTHER, 0, 2, events[1].position),
    ]
    buffer.subscribe("room")
    buffer.unsubscribe("room")
    buffer.publish("room", "still", "ada")
    assert [event.data for event in buffer.poll(0)] == ["still"]
    buffer.unsubscribe("room")
    buffer.publish("room", "not any more", "ada")
    assert buffer.poll(0) == []


def test_poll_waits_for_what_another_thread_publishes(buffer):
    buffer.subscribe("room")
    buffer.join("room", "ada")
    waiting = waits(buffer)

    def publish():
        if waiting.acquire(timeout=PATIENCE):
            buffer.publish("room", "from afar", "ada")

    thread = threading.Thread(target=publish)
    thread.start()
    assert [event.data for event in buffer.poll(PATIENCE)] == ["from afar"]
    thread.join()
    assert buffer.poll(0.01) == []


def test_the_iterator_of_events_ends_with_the_buffer():
    buffer = ReplayBuffer()
    buffer.subscribe("room")
    buffer.join("room", "ada")
    seen = queue.Queue()

    def read():
        for event in buffer.events():
            seen.put(event.data)

    thread = threading.Thread(target=read)
    thread.start()
    for index in range(10):
        buffer.publish("room", str(index), "ada")
    assert [seen.get(timeout=PATIENCE) for _ in range(10)] == [str(index) for index in range(10)]
    buffer.close()
    thread.join(PATIENCE)
    assert not thread.is_alive() and seen.empty()


def test_what_one_thread_takes_wakes_the_one_that_waits(buffer, monkeypatch):
    """The descriptor does not show it any more."""
    got, waiting = [], waits(buffer)
    thread = threading.Thread(target=lambda: got.extend(buffer.poll(PATIENCE)))
    thread.start()
    assert waiting.acquire(timeout=PATIENCE)
    event, begun = GapEvent("room", None), time.monotonic()
    with buffer._turn:
        with monkeypatch.context() as patch:
            patch.setattr(buffer._core, "take", lambda: [event])
            buffer._take()
    thread.join(PATIENCE)
    assert got == [event] and time.monotonic() - begun < PATIENCE / 2


def test_the_descriptor_shows_events(buffer):
    import select

    assert select.select([buffer], [], [], 0)[0] == []
    assert buffer.fileno() >= 0


def test_a_backlog_that_nobody_takes_becomes_a_gap():
    def live(room, size=1):
        return LiveMessage(room, None, None, "x" * size, MessageKind.OTHER, 0, 1, "")

    backlog = Backlog(messages=3, size=10)
    other = GapEvent("c", None)
    for event in (live("a"), other, live("b"), live("a"), live("b")):
        backlog.put(event)
    assert backlog.take_all() == [GapEvent("a", LossReason.LIMIT), other, GapEvent("b", LossReason.LIMIT)]
    backlog.put(live("a", 11))
    assert backlog.take() == GapEvent("a", LossReason.LIMIT)
    backlog.put(live("a", 10))
    assert backlog.take().data == "x" * 10


def test_statistics_and_metrics(buffer):
    _, ben = pair(buffer)
    buffer.publish("room", "one", "ada", key="k")
    buffer.publish("room", "one", "ada", key="k")
    come_back(buffer, ben)
    statistics = buffer.statistics()
    assert (statistics.rooms, statistics.members) == (1, 2)
    assert statistics.published >= 1 and statistics.duplicates == 1
    assert (statistics.joins, statistics.fresh, statistics.recovered) == (3, 2, 1)
    assert statistics.messages_replayed == 1 and statistics.bytes_held > 0
    assert set(statistics.lost) == set(LossReason) and sum(statistics.lost.values()) == 0
    assert isinstance(statistics.store, StoreState)
    assert isinstance(buffer.metrics(), str)


# ------------------------------------------------------------------- bad input


NAMES = ["", "x" * 257, "a\x00b", "a\nb", "\x7f", "é" * 129, "\ud800"]


@pytest.mark.parametrize("name", NAMES, ids=map(str, range(len(NAMES))))
def test_names_that_cannot_be_are_refused_before_anything_is_handed_in(buffer, name):
    ada = buffer.join("room", "ada")
    published = buffer.statistics().published
    calls = [
        lambda: buffer.join(name, "ada"),
        lambda: buffer.join("room", name),
        lambda: buffer.publish(name, "x"),
        lambda: buffer.publish("room", "x", name),
        lambda: buffer.publish("room", "x", "ada", to=name),
        lambda: buffer.publish_many([Publication("room", "x", "ada"), Publication(name, "x")]),
        lambda: buffer.state("room", name),
        lambda: buffer.drop(name, "ada", ada.generation),
        lambda: buffer.subscribe(name),
        lambda: buffer.quality(name, "ada"),
    ]
    for call in calls:
        with pytest.raises(ValueError) as caught:
            call()
        assert isinstance(caught.value, InvalidArgumentError)
    assert buffer.statistics().published == published


def test_longest_names(buffer):
    name = "é" * 128
    assert buffer.join(name, name).verdict is Verdict.FRESH


@pytest.mark.parametrize("room", ["{", "a}b"])
def test_rooms_have_no_braces_but_users_may(buffer, room):
    with pytest.raises(InvalidArgumentError):
        buffer.join(room, "ada")
    assert buffer.join("room", room).verdict is Verdict.FRESH


def test_wrong_types_raise_type_error(buffer):
    ada = buffer.join("room", "ada")
    for call in (
        lambda: buffer.join(b"room", "ada"),
        lambda: buffer.join("room", None),
        lambda: buffer.join("room", "ada", 3),
        lambda: buffer.join("room", "ada", None, 3),
        lambda: buffer.publish("room", 3),
        lambda: buffer.publish("room", None),
        lambda: buffer.publish("room", "x", "ada", key=3),
        lambda: buffer.publish("room", "x", "ada", kind="offer"),
        lambda: buffer.publish("room", "x", "ada", negotiation="1"),
        lambda: buffer.drop("room", "ada", "1"),
        lambda: buffer.drop("room", "ada", None),
        lambda: buffer.recover("room", "ada", ada.generation, 7),
        lambda: buffer.quality("room", "ada", latency_ms="12"),
        lambda: buffer.publish_many([("room", "x")]),
    ):
        with pytest.raises((TypeError, AttributeError)):
            call()


def test_numbers_out_of_range(buffer):
    ada = buffer.join("room", "ada")
    for call in (
        lambda: buffer.drop("room", "ada", -1),
        lambda: buffer.drop("room", "ada", 1 << 64),
        lambda: buffer.publish("room", "x", "ada", negotiation=1 << 64),
        lambda: buffer.publish("room", "x", "ada", negotiation=-1),
        lambda: buffer.publish("room", "x", "ada", kind=99),
        lambda: buffer.publish("room", "x", "ada", lifetime=-1),
        lambda: buffer.publish("room", "x", "ada", lifetime=float("nan")),
        lambda: buffer.publish("room", "x", "ada", lifetime=1e12),
        lambda: buffer.publish("room", "\ud800", "ada"),
        lambda: buffer.publish("room", "x", "ada", key="k" * 100_000),
        lambda: buffer.quality("room", "ada", latency_ms=-1),
        lambda: buffer.quality("room", "ada", latency_ms=float("inf")),
        lambda: buffer.quality("room", "ada", loss_percent=101),
        lambda: buffer.recover("room", "ada", ada.generation, ""),
    ):
        with pytest.raises((ValueError, libreconnect.TooLargeError)):
            recovery = call()
            if isinstance(recovery, libreconnect.Recovery) and not recovery.messages:
                raise InvalidArgumentError  # no position is a verdict, too
    assert buffer.publish("room", "x", "ada").sequence == 1


@pytest.mark.parametrize(
    "config",
    [
        ReplayConfig(window=1 << 32),
        ReplayConfig(window=-1),
        ReplayConfig(window=65537),
        ReplayConfig(message_ttl=-1),
        ReplayConfig(message_ttl=float("nan")),
        ReplayConfig(store="nowhere://x"),
        ReplayConfig(store="a\x00b"),
        ReplayConfig(secret=b"short"),
        ReplayConfig(secret="not bytes"),
        ReplayConfig(latency_ms=(1,)),
        ReplayConfig(max_bytes=1 << 64),
        ReplayConfig(durability=9),
    ],
)
def test_configurations_that_cannot_be(config):
    with pytest.raises(InvalidArgumentError):
        ReplayBuffer(config).close()


def test_a_message_that_is_too_large(buffer):
    buffer.join("room", "ada")
    with pytest.raises(libreconnect.TooLargeError):
        buffer.publish("room", "x" * 65537, "ada")
    assert buffer.publish("room", "x" * 65536, "ada").sequence == 1


# ------------------------------------------------------------------------ life


def test_nothing_works_after_close():
    buffer = ReplayBuffer()
    ada = buffer.join("room", "ada")
    buffer.close()
    buffer.close()
    for call in (
        lambda: buffer.join("room", "ada"),
        lambda: buffer.publish("room", "x"),
        lambda: buffer.publish_many([Publication("room", "x")]),
        lambda: buffer.recover("room", "ada", ada.generation, ada.position),
        lambda: buffer.drop("room", "ada", ada.generation),
        lambda: buffer.poll(0),
        lambda: buffer.subscribe("room"),
        buffer.statistics,
        buffer.metrics,
    ):
        with pytest.raises(InvalidHandleError):
            call()
    assert list(buffer.events()) == []


def test_a_thread_that_waits_is_woken_by_close():
    buffer, outcome = ReplayBuffer(), []
    waiting = waits(buffer)

    def wait():
        try:
            outcome.append(buffer.poll(PATIENCE))
        except InvalidHandleError as error:
            outcome.append(error)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert all(waiting.acquire(timeout=PATIENCE) for _ in threads)
    buffer.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(outcome) == 3 and all(isinstance(each, InvalidHandleError) for each in outcome)


def test_a_buffer_that_is_forgotten_is_closed():
    buffer = ReplayBuffer()
    library, handle = buffer._core.library, buffer._core.handle
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del buffer
        gc.collect()
    assert any(issubclass(each.category, ResourceWarning) for each in caught)
    assert library.reconnect_replay_destroy(handle) == libreconnect.Status.INVALID_HANDLE


def test_many_threads_at_once():
    rooms, each, threads = 4, 200, []
    with ReplayBuffer(ReplayConfig(window=each * 4)) as buffer:
        listeners = [buffer.join(f"room {room}", "ben") for room in range(rooms)]
        for room in range(rooms):
            buffer.subscribe(f"room {room}")
        failures, live = [], []

        def talk(number):
            try:
                room = f"room {number % rooms}"
                buffer.join(room, f"user {number}")
                sequences = [
                    buffer.publish(room, f"{number} {index}", f"user {number}").sequence for index in range(each)
                ]
                assert sequences == sorted(set(sequences))
            except BaseException as error:
                failures.append(error)

        def listen():
            while len(live) < 8 * each:
                live.extend(buffer.poll(PATIENCE))

        threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
        listener = threading.Thread(target=listen)
        listener.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        listener.join(PATIENCE)
        assert failures == [] and len(live) == 8 * each
        for room, ben in enumerate(listeners):
            back = come_back(buffer, ben, f"room {room}")
            assert [message.sequence for message in back.messages] == list(range(1, 2 * each + 1))
            heard = [event for event in live if event.room == f"room {room}"]
            assert [event.sequence for event in heard] == list(range(1, 2 * each + 1))
            assert [event.data for event in heard] == missed(back)


def test_fork_gives_an_error_in_the_child():
    program = """
import os, sys
import libreconnect
buffer = libreconnect.ReplayBuffer()
buffer.join("room", "ada")
child = os.fork()
if child == 0:
    wrong = []
    for call in (lambda: buffer.join("room", "ben"), lambda: buffer.publish("room", "x", "ada"), buffer.statistics,
                 lambda: buffer.poll(0)):
        try:
            call()
        except libreconnect.ForkedError:
            continue
        except BaseException as error:
            wrong.append(error)
        else:
            wrong.append(call)
    print(wrong)
    sys.stdout.flush()
    os._exit(1 if wrong else 0)
assert os.waitpid(child, 0)[1] == 0
assert buffer.publish("room", "x", "ada").sequence == 1
buffer.close()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_results_are_values(buffer):
    ada, ben = pair(buffer)
    buffer.publish("room", "one", "ada")
    back = come_back(buffer, ben)
    assert pickle.loads(pickle.dumps(back)) == back == copy.deepcopy(back)
    assert hash(back.messages[0]) == hash(copy.copy(back.messages[0]))
    with pytest.raises(AttributeError):
        back.token = "x"
    with pytest.raises((AttributeError, TypeError)):
        back.more = 1
    assert back.token not in repr(back) and ada.token not in repr(ada)


def test_the_records_are_laid_out_as_in_the_header(tmp_path):
    from libreconnect import _abi

    program = tmp_path / "sizes.c"
    members = {
        "reconnect_replay_operation_t": ["tag", "room", "key_size", "generation", "format", "latency_ms"],
        "reconnect_replay_event_t": ["status", "batch", "messages", "to_size", "state", "retry_after_ms", "number"],
        "reconnect_replay_message_t": ["data", "negotiation", "kind"],
        "reconnect_replay_state_t": ["disconnect_ms", "connections"],
        "reconnect_replay_config_t": ["max_room_bytes", "store", "secret", "latency_ms", "hysteresis"],
        "reconnect_replay_statistics_t": ["lost", "events_queued"],
    }
    lines = [f'printf("%zu\\n", sizeof({name}));' for name in members]
    lines += [f'printf("%zu\\n", offsetof({name}, {each}));' for name, several in members.items() for each in several]
    program.write_text('#include <stdio.h>\n#include "reconnect.h"\nint main(void) {' + "\n".join(lines) + "}\n")
    include = os.path.join(os.path.dirname(__file__), "..", "..", "include")
    subprocess.run(["cc", "-I", include, str(program), "-o", str(tmp_path / "sizes")], check=True)
    said = subprocess.run([str(tmp_path / "sizes")], capture_output=True, text=True, check=True).stdout.split()
    import ctypes

    assert list(map(int, said)) == [
        _abi.REPLAY_OPERATION.size,
        _abi.REPLAY_EVENT.size,
        _abi.REPLAY_MESSAGE.size,
        _abi.REPLAY_STATE.size,
        ctypes.sizeof(_abi.ReplayConfig),
        ctypes.sizeof(_abi.ReplayStatistics),
        *(8, 16, 120, 128, 144, 160),
        *(4, 16, 64, 176, 184, 200, 224),
        *(8, 24, 36),
        *(16, 32),
        *(getattr(_abi.ReplayConfig, name).offset for name in members["reconnect_replay_config_t"]),
        *(getattr(_abi.ReplayStatistics, name).offset for name in members["reconnect_replay_statistics_t"]),
    ]


# ----------------------------------------------------------------------- stores


def test_sqlite_remembers_across_processes(tmp_path):
    config = ReplayConfig(store=f"sqlite:{tmp_path / 'rooms'}")
    with ReplayBuffer(config) as buffer:
        _, ben = pair(buffer)
        assert not buffer.publish("room", "kept", "ada").degraded
    with ReplayBuffer(config) as buffer:
        back = come_back(buffer, ben)
        assert back.verdict is Verdict.RECOVERED and missed(back) == ["kept"]
    assert sqlite3.connect(tmp_path / "rooms").execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_redis_that_is_away_holds_up_nothing():
    with ReplayBuffer(ReplayConfig(store="redis://127.0.0.1:1", store_timeout=0.02)) as buffer:
        ada = buffer.join("room", "ada")
        assert ada.degraded
        published = buffer.publish("room", "goes on", "ada")
        assert published.degraded and published.sequence == 1
        assert buffer.statistics().store is not StoreState.PRESENT or buffer.statistics().without_store >= 1


def test_from_env_takes_the_redis_url(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "nothing that could be a URL")
    with pytest.raises(InvalidArgumentError):
        ReplayBuffer.from_env()
    monkeypatch.delenv("REDIS_URL")
    with ReplayBuffer.from_env() as buffer:
        assert not buffer.join("room", "ada").degraded
