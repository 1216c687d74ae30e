"""Several router processes and one Redis: cut on one, back on the other; the store goes away and comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

import pytest
from drivers import find
from routers import PATIENCE, Client, Router, until
from stores import Redis

OPTIONS = ["--rate", 1e6, "--burst", 1_000_000, "--check-interval", 0.2]
PATIENT = ["--store-timeout", 10]
"""Where the store is there all the time: on a machine that is busy with other things it must not seem to be away."""


@pytest.fixture(scope="module")
def redis():
    with Redis() as redis:
        yield redis


@pytest.fixture(scope="module")
def two(redis):
    """Two processes with one store."""
    options = OPTIONS + PATIENT
    with Router(*options, REDIS_URL=redis.url) as first, Router(*options, "--store", redis.url) as second:
        yield first, second
        for router in (first, second):
            assert router.alive(), "\n".join(router.lines()[-20:])
            assert not [line for line in router.lines() if "Traceback" in line], "\n".join(router.lines()[-40:])


def test_live_messages_cross_processes(two, room):
    ada, ben = two[0].client(room, "ada"), two[1].client(room, "ben")
    for index in range(20):
        ada.say(["a", index])
        ben.say(["b", index])
    assert ben.hear(20) == [["a", index] for index in range(20)]
    assert ada.hear(20) == [["b", index] for index in range(20)]
    assert sorted(ada.sequences + ben.sequences) == list(range(1, 41))


def test_cut_on_one_and_back_on_the_other(two, room):
    ada, ben = two[0].client(room, "ada"), two[0].client(room, "ben")
    ada.say("before")
    assert ben.hear() == "before"
    ben.cut()
    for index in range(30):
        ada.say(index)
    ben.join(two[1])
    assert ben.returned["recovered"] is True and ben.returned["missed_message_count"] == 30
    assert ben.hear(30) == list(range(30))
    ada.say("after")
    assert ben.hear() == "after"
    assert ben.sequences == list(range(1, 33))
    status, state, _ = two[0].ask(f"webrtc/rooms/{room}/reconnection-state", "ben")
    assert status == 200 and state["state"]["is_connected"] is True


def test_back_on_the_other_before_the_first_message_and_twice(two, room):
    ada, ben = two[0].client(room, "ada"), two[0].client(room, "ben")
    for router in (two[1], two[0], two[1]):
        ben.close()
        ben.join(router)
        assert ben.returned["recovered"] is True and ben.returned["missed_message_count"] == 0
    ben.cut()
    ada.say("first")
    position = ben.position
    for router in (two[0], two[1]):
        ben.position = position
        ben.join(router)
        assert ben.returned["recovered"] is True and ben.hear() == "first"
        ben.cut()


def test_the_newest_connection_wins_across_processes(two, room):
    ada, old = two[0].client(room, "ada"), two[0].client(room, "ben")
    new = Client(two[1], room, "ben")
    new.position, new.token = old.position, old.token
    ada.say("one")
    new.join()
    assert new.returned["recovered"] is True and new.hear() == "one"
    assert old.closed() == 4409
    ada.say("two")
    assert new.hear() == "two"
    # The end of the old one has changed nothing.
    assert two[1].ask(f"webrtc/rooms/{room}/reconnection-state", "ben")[1]["state"]["is_connected"] is True


def test_back_and_forth_while_somebody_talks(two, room):
    ada, ben = two[0].client(room, "ada"), two[1].client(room, "ben")
    stop, said = threading.Event(), []

    def talk():
        while not stop.wait(0.002):
            said.append(ada.say(len(said))["sequence"])

    talker = threading.Thread(target=talk)
    talker.start()
    try:
        for turn in range(30):
            ben.cut()
            ben.join(two[turn % 2])
            assert ben.returned["recovered"] is True, ben.returned
            ben.hear(max(1, ben.returned["missed_message_count"]))
    finally:
        stop.set()
        talker.join(PATIENCE)
    ben.wait(lambda: said[-1] in ben.sequences, "the last message")
    assert ben.sequences == list(range(1, said[-1] + 1))


def test_live_messages_that_a_process_has_missed_are_recovered(redis, two, room):
    """Its subscription breaks again and again: its clients get everything, once and in order."""
    ada, ben = two[0].client(room, "ada"), two[1].client(room, "ben")
    count = 0
    for _ in range(5):
        for _ in range(10):
            ada.say(count)
            count += 1
        command = [find("redis-cli"), "-p", str(redis.port), "CLIENT", "KILL", "TYPE", "pubsub"]
        subprocess.run(command, check=True, capture_output=True)
    heard = []
    # What comes after the last gap brings on what came before.
    while len(heard) < count:
        ada.say(count)
        count += 1
        ben.pong()
        heard += ben.heard
        ben.heard = []
        assert count < 2000
        time.sleep(0.01)
    assert [message["data"] for message in heard] == list(range(len(heard)))
    assert all(frame["recovered"] for frame in ben.others if frame["type"] == "reconnection-detected"), ben.others


def test_kill_9_of_one_process(redis, two, room):
    with Router(*OPTIONS, *PATIENT, REDIS_URL=redis.url) as router:
        ada, ben = two[0].client(room, "ada"), router.client(room, "ben")
        ada.say("one")
        assert ben.hear() == "one"
        router.kill()
        ada.say("two")
        ben.join(two[1])
        assert ben.returned["recovered"] is True and ben.hear() == "two"
        ada.say("three")
        assert ben.hear() == "three"


def test_a_leave_on_one_process_ends_the_membership_on_all(two, room):
    ada, ben = two[0].client(room, "ada"), two[1].client(room, "ben")
    position, token = ben.position, ben.token
    ben.leave()
    assert ada.refused(type="message", data=1, to="ben")["error"] == "UNKNOWN_RECIPIENT"
    back = Client(two[0], room, "ben").join(position=position, token=token)
    assert back.returned["recovered"] is False


class Witness:
    """Ada talks without end; Ben goes and comes back. Whenever Ben is told that nothing is missing, nothing may be."""

    def __init__(self, speaking, listening, room):
        self.ada, self.ben = speaking.client(room, "ada"), listening.client(room, "ben")
        self.said = 0
        self.verdicts = []
        self.known = -1  # the highest that Ben has, everything before it included

    def talk(self, count=1):
        for _ in range(count):
            try:
                self.ada.say(self.said)
            except Exception:
                # The store's return may take the membership along: one joins again.
                self.ada.join()
                continue
            self.said += 1

    def come_back(self, router=None):
        """Ben's verdict; asserts that it is true."""
        try:
            self.ben.cut()
            self.ben.join(router)
        except Exception:
            return None  # let go while it joined: it comes again
        before = self.said - 1
        back = self.ben.returned
        if back is None:
            verdict = "fresh"
        else:
            verdict = "recovered" if back["recovered"] else f"lost: {back.get('reason')}"
        heard = self.ben.hear(back["missed_message_count"]) if back else []
        if verdict == "recovered":
            assert heard == list(range(self.known + 1, before + 1)), (self.known, before, heard)
        self.known = before
        self.verdicts.append(verdict)
        return verdict


def test_a_store_that_is_killed_and_comes_back_empty(room):
    """Messages flow throughout, and "recovered" is never said without reason."""
    with Redis() as redis, Router(*OPTIONS, "--store", redis.url) as router:
        witness = Witness(router, router, room)
        witness.talk(5)
        assert witness.come_back() == "recovered"
        redis.end()
        begun = time.monotonic()
        witness.talk(10)
        assert time.monotonic() - begun < 10
        for _ in range(5):
            witness.come_back()
            witness.talk(3)
        redis.start()
        for _ in range(20):
            witness.come_back()
            witness.talk(2)
            time.sleep(0.1)
        assert any(verdict and verdict.startswith("lost") for verdict in witness.verdicts), witness.verdicts
        # Everything is in order again.
        until(lambda: witness.come_back() == "recovered" or witness.talk(1), lambda: witness.verdicts)
        assert router.alive()
        assert any("store away" in line for line in router.lines()), router.lines()
        assert any("store present" in line for line in router.lines()), router.lines()


def test_a_store_that_is_flushed(redis, two, room):
    witness = Witness(two[0], two[1], room)
    witness.talk(5)
    assert witness.come_back() == "recovered"
    subprocess.run([find("redis-cli"), "-p", str(redis.port), "FLUSHALL"], check=True, capture_output=True)
    verdicts = []
    for turn in range(6):
        witness.talk(2)
        verdicts.append(witness.come_back(two[turn % 2]))
    assert "recovered" in verdicts, verdicts


def test_a_store_that_pauses_holds_up_nothing(room):
    with Redis() as redis, Router(*OPTIONS, "--store", redis.url) as router:
        witness = Witness(router, router, room)
        witness.talk(3)
        os.kill(redis.process.pid, signal.SIGSTOP)
        try:
            witness.talk(5)
            assert witness.come_back() is not None
        finally:
            os.kill(redis.process.pid, signal.SIGCONT)
        until(lambda: witness.come_back() == "recovered" or witness.talk(1), lambda: witness.verdicts)


def test_without_any_store_at_the_start_rooms_work(room):
    with Router(*OPTIONS, "--store", "redis://127.0.0.1:1") as router:
        witness = Witness(router, router, room)
        witness.talk(5)
        assert witness.come_back() is not None
        witness.talk(2)
        witness.come_back()


def test_connections_that_began_while_the_store_was_away_are_taken_over(room):
    with Redis() as redis:
        redis.end()
        with Router(*OPTIONS, "--store", redis.url) as router, Router(*OPTIONS, "--store", redis.url) as other:
            ada, ben = router.client(room, "ada"), router.client(room, "ben")
            ada.say("without")
            assert ben.hear() == "without"
            redis.start()

            def shared():
                """The other process knows of both: the store has them."""
                return all(
                    other.ask(f"webrtc/rooms/{room}/reconnection-state", user)[0] == 200 for user in ("ada", "ben")
                )

            def nudge():
                for client in (ada, ben):
                    try:
                        client.pong()
                    except Exception:
                        client.join()
                time.sleep(0.1)

            until(lambda: shared() or nudge(), lambda: router.lines() + other.lines())
            for client in (ada, ben):
                nudge()
                if client.returned is not None:
                    assert client.returned["recovered"] is False  # nobody can prove that nothing was said elsewhere
            ada.say("with")
            ben.wait(lambda: ben.heard, "the message")
            assert ben.heard[-1]["data"] == "with"
            ben.cut()
            ada.say("missed")
            ben.join(other)
            assert ben.returned["recovered"] is True and ben.hear() == "missed"
