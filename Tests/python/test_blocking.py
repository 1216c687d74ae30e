"""The blocking interface: engine to engine, in one process and in two."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import threading
import time

import libreconnect
import pytest
from conftest import PATIENCE
from libreconnect import ChannelClosedEvent, ChannelOpenEvent, MessageEvent, PeerState, PeerStateEvent

ECHO = libreconnect.PeerConfig(channels=[libreconnect.ChannelConfig(label="echo", negotiated=True)])


def local(**settings):
    return libreconnect.Engine(libreconnect.Config(**{"addresses": ["127.0.0.1"], **settings}))


class Reader:
    """Reads an engine's events one by one; log lines are skipped."""

    def __init__(self, engine):
        self.engine = engine
        self.waiting = []
        self.seen = []

    def next(self):
        deadline = time.monotonic() + PATIENCE
        while True:
            while self.waiting:
                event = self.waiting.pop(0)
                self.seen.append(repr(event)[:200])
                if not isinstance(event, libreconnect.LogEvent):
                    return event
            assert time.monotonic() < deadline, "nothing happened; before:\n" + "\n".join(self.seen)
            self.waiting += self.engine.poll(deadline - time.monotonic())

    def until(self, kind, fits=lambda event: True):
        while True:
            event = self.next()
            if isinstance(event, kind) and fits(event):
                return event


class Pair:
    """An offerer and an answerer with an open channel "echo" between them."""

    def __init__(self, offerer, answerer):
        self.offerer, self.answerer = offerer, answerer
        self.offerer_events, self.answerer_events = Reader(offerer), Reader(answerer)
        self.connect()

    def connect(self, token=None):
        peer = self.offerer.create_peer(ECHO)
        offer = json.loads(peer.offer())
        if token:
            offer["sessionToken"] = token
        self.answer = self.answerer.answer(json.dumps(offer), ECHO)
        peer.accept(self.answer.json)
        self.offerer_peer, self.answerer_peer = peer, self.answer.peer
        self.offerer_channel = self.opened(self.offerer_events, peer)
        self.answerer_channel = self.opened(self.answerer_events, self.answerer_peer)

    def opened(self, events, peer):
        return events.until(ChannelOpenEvent, lambda event: event.channel.peer is peer).channel

    @property
    def token(self):
        return json.loads(self.answer.json)["sessionToken"]


@pytest.fixture
def pair():
    with local() as offerer, local() as answerer:
        yield Pair(offerer, answerer)


def test_connects_and_echoes(address):
    with local(addresses=[address]) as offerer, local(addresses=[address]) as answerer:
        pair = Pair(offerer, answerer)
        assert (pair.offerer_channel.label, pair.offerer_channel.id) == ("echo", 0)
        assert pair.offerer_peer.channels == (pair.offerer_channel,)
        texts = ["", "a", "a\u00e9\u20ac\U0001f600", "\u00e9" * 131072]
        binaries = [os.urandom(size) for size in (0, 1, 1200, 16384, 65536, 262144)]
        for message in [*texts, *binaries, bytearray(b"array"), memoryview(b"view")]:
            pair.offerer_channel.send(message)
            got = pair.answerer_events.until(MessageEvent)
            assert got.channel is pair.answerer_channel
            assert got.data == message and isinstance(got.data, str) == isinstance(message, str)
            got.channel.send(got.data)
            assert pair.offerer_events.until(MessageEvent).data == message
        statistics = pair.offerer_peer.statistics()
        assert statistics.messages_sent == statistics.messages_received == 12
        assert address in statistics.remote_address and statistics.channels == 1
        assert offerer.statistics().peers_connected == 1


def test_opens_channels_in_band(pair):
    for config in [
        libreconnect.ChannelConfig(),
        libreconnect.ChannelConfig(label="chat \u2713", protocol="v1.chat"),
        libreconnect.ChannelConfig(label="loose", ordered=False, max_retransmits=0),
        libreconnect.ChannelConfig(label="short", max_lifetime=1.5),
    ]:
        channel = pair.offerer_peer.open_channel(config)
        channel.send("sent before it is open")
        opened = pair.answerer_events.until(ChannelOpenEvent)
        assert opened.remote
        remote = opened.channel
        assert (remote.label, remote.protocol, remote.ordered) == (config.label, config.protocol, config.ordered)
        assert remote.reliable == channel.reliable == (config.max_retransmits is None and config.max_lifetime is None)
        got = pair.answerer_events.until(MessageEvent)
        assert (got.channel, got.data) == (remote, "sent before it is open")
        assert pair.offerer_events.until(ChannelOpenEvent).channel is channel
        assert channel.id == remote.id


def test_would_block_until_the_queue_is_low():
    with local(send_high_water=300000) as offerer, local() as answerer:
        pair = Pair(offerer, answerer)
        blocked, number, payload = 0, 0, os.urandom(60000)
        received = []

        def receive():
            while len(received) < 200:
                event = pair.answerer_events.until(MessageEvent)
                received.append(event.data == payload + len(received).to_bytes(2, "big"))

        receiver = threading.Thread(target=receive)
        receiver.start()
        while number < 200:
            try:
                pair.offerer_channel.send(payload + number.to_bytes(2, "big"))
                number += 1
            except libreconnect.WouldBlockError:
                blocked += 1
                pair.offerer_events.until(libreconnect.BufferedLowEvent)
                assert pair.offerer_channel.buffered() <= 360000
        receiver.join(PATIENCE)
        assert blocked > 0, "12 MB fitted into a queue of 300 kB"
        assert received == [True] * 200


def test_pauses_one_channel_only():
    with local() as one, local() as two, local(receive_window=262144) as answerer:
        slow = Pair(one, answerer)
        quick = Pair(two, answerer)
        events = quick.answerer_events
        slow.answerer_channel.pause_reading()
        numbers = []
        for number in range(400):
            slow.offerer_channel.send(number.to_bytes(2, "big") * 5000)
        for number in range(100):
            quick.offerer_channel.send(f"quick {number}")
            event = events.until(MessageEvent)
            assert (event.channel, event.data) == (quick.answerer_channel, f"quick {number}")
        slow.answerer_channel.resume_reading()
        while len(numbers) < 400:
            event = events.until(MessageEvent)
            assert event.channel is slow.answerer_channel
            numbers.append(int.from_bytes(event.data[:2], "big"))
        assert numbers == list(range(400))


def test_resuming_wakes_a_thread_that_polls(pair):
    pair.answerer_channel.pause_reading()
    pair.offerer_channel.send("waits")
    pair.offerer_peer.open_channel(libreconnect.ChannelConfig(label="later"))
    pair.answerer_events.until(ChannelOpenEvent)  # so the message is here, too
    got = []
    waiter = threading.Thread(target=lambda: got.append(pair.answerer_events.until(MessageEvent).data))
    waiter.start()
    pair.answerer_channel.resume_reading()
    waiter.join(PATIENCE)
    assert got == ["waits"]


def test_close_of_a_paused_channel_delivers_what_waits(pair):
    pair.answerer_channel.pause_reading()
    for number in range(10):
        pair.offerer_channel.send(str(number))
    pair.offerer_channel.close()
    events = [pair.answerer_events.until((MessageEvent, ChannelClosedEvent)) for _ in range(11)]
    assert [event.data for event in events[:-1]] == [str(number) for number in range(10)]
    assert events[-1].reason is None


@pytest.mark.parametrize("by_offerer", [True, False])
def test_channels_close_from_both_sides(pair, by_offerer):
    channel = pair.offerer_peer.open_channel(libreconnect.ChannelConfig(label="short-lived"))
    remote = pair.answerer_events.until(ChannelOpenEvent).channel
    pair.offerer_events.until(ChannelOpenEvent)
    (channel if by_offerer else remote).close()
    for events, own in [(pair.offerer_events, channel), (pair.answerer_events, remote)]:
        closed = events.until(ChannelClosedEvent)
        assert (closed.channel, closed.reason) == (own, None)
        with pytest.raises(libreconnect.InvalidHandleError):
            own.send("too late")
        own.close()  # does nothing


def test_peer_close_is_told_to_both_sides(pair):
    pair.offerer_peer.close()
    pair.offerer_events.until(ChannelClosedEvent)
    own = pair.offerer_events.until(PeerStateEvent, lambda event: event.state == PeerState.CLOSED)
    assert (own.peer, own.reason) == (pair.offerer_peer, None)
    assert isinstance(pair.answerer_events.until(ChannelClosedEvent).reason, libreconnect.PeerGoneError)
    other = pair.answerer_events.until(PeerStateEvent, lambda event: event.state == PeerState.CLOSED)
    assert isinstance(other.reason, libreconnect.PeerGoneError)
    with pytest.raises(libreconnect.InvalidHandleError):
        pair.answerer_peer.open_channel()


def test_returning_session_is_fast(pair):
    assert pair.answer.mode == libreconnect.Mode.NORMAL
    pair.connect(pair.token)
    assert pair.answer.mode == libreconnect.Mode.FAST
    assert pair.answerer.statistics().sessions_returned == 1
    pair.answerer.set_fast_reload(False)
    pair.connect(pair.token)
    assert pair.answer.mode == libreconnect.Mode.NORMAL


def test_sessions_are_told():
    with local() as offerer, local() as answerer:
        told = []
        stop = threading.Event()

        def read():
            for event in answerer.events():
                if isinstance(event, libreconnect.SessionEvent):
                    told.append(event)
                if stop.is_set():
                    return

        reader = threading.Thread(target=read)
        reader.start()
        token = None
        for _ in range(3):
            peer = offerer.create_peer(ECHO)
            events = Reader(offerer)
            offer = json.loads(peer.offer()) | ({"sessionToken": token} if token else {})
            answer = answerer.answer(json.dumps(offer), ECHO)
            token = json.loads(answer.json)["sessionToken"]
            peer.accept(answer.json)
            events.until(ChannelOpenEvent, lambda event, peer=peer: event.channel.peer is peer)
            peer.close()
            events.until(
                PeerStateEvent, lambda event, peer=peer: event.peer is peer and event.state == PeerState.CLOSED
            )
        stop.set()
        answerer.set_addresses(["127.0.0.1", "127.0.0.2"])  # an event, so that the reader sees the stop
        reader.join(PATIENCE)
        assert [(event.returned, event.connections) for event in told] == [(False, 1), (True, 2), (True, 3)]
        assert len({event.client_id for event in told}) == 1 and all(len(event.token) == 8 for event in told)


def test_bad_input_gives_typed_errors():
    with local() as engine:
        for offer, kind, detail in [
            ("", libreconnect.MalformedJSONError, "."),
            ("{", libreconnect.MalformedJSONError, "."),
            (b"\xff\xfe", libreconnect.MalformedJSONError, "."),
            ('{"type":"offer"}', libreconnect.MalformedJSONError, "sdp"),
            ('{"type":"answer","sdp":"v=0"}', libreconnect.MalformedJSONError, "type"),
            ('{"type":"offer","sdp":"nonsense"}', libreconnect.MalformedSDPError, "1"),
        ]:
            with pytest.raises(kind, match=detail) as caught:
                engine.answer(offer)
            assert caught.value.detail and caught.value.name in str(caught.value)
        assert engine.statistics().peers == 0
        peer = engine.create_peer()
        with pytest.raises(libreconnect.MalformedJSONError):
            peer.accept("{")
        with pytest.raises(libreconnect.MalformedJSONError):
            peer.add_candidate("null")
        for config in [
            libreconnect.ChannelConfig(label="a\0b"),
            libreconnect.ChannelConfig(protocol="x" * 65536),
            libreconnect.ChannelConfig(negotiated=True, id=65535),
            libreconnect.ChannelConfig(negotiated=True, id=65536),
            libreconnect.ChannelConfig(max_lifetime=-1),
            libreconnect.ChannelConfig(max_lifetime=1, max_retransmits=1),
        ]:
            with pytest.raises(libreconnect.InvalidArgumentError):
                peer.open_channel(config)
        with pytest.raises(libreconnect.InvalidArgumentError):
            engine.fingerprint("md5")
        assert re.fullmatch(r"sha-256 ([0-9A-F]{2}:){31}[0-9A-F]{2}", engine.fingerprint())
        assert engine.fingerprint("sha-512").startswith("sha-512 ")
        with pytest.raises(libreconnect.PortInUseError):
            libreconnect.Engine(libreconnect.Config(port=engine.port))


@pytest.mark.parametrize(
    "settings",
    [
        {"port": -1},
        {"port": 65536},
        {"session_ttl": -1.0},
        {"session_ttl": float("nan")},
        {"max_message_size": 1 << 40},
        {"max_peers": 1 << 32},
        {"addresses": "127.0.0.1"},
        {"bind_address": "a\0b"},
    ],
)
def test_bad_configurations(settings):
    with pytest.raises(libreconnect.InvalidArgumentError) as caught:
        libreconnect.Engine(libreconnect.Config(**settings))
    assert caught.value.detail


def test_bad_files_and_addresses(tmp_path):
    bad = tmp_path / "bad.pem"
    bad.write_text("nonsense")
    with pytest.raises(libreconnect.CertificateUnusableError):
        libreconnect.Engine(libreconnect.Config(certificate_path=str(bad)))
    with pytest.raises(libreconnect.NoAddressError):
        libreconnect.Engine(libreconnect.Config(addresses=["localhost"]))
    good = str(tmp_path / "good.pem")
    with local(certificate_path=good) as first:
        fingerprint = first.fingerprint()
    with local(certificate_path=good) as second:
        assert second.fingerprint() == fingerprint
    assert os.stat(good).st_mode & 0o777 == 0o600


def test_everything_fails_after_close(pair):
    pair.answerer.close()
    pair.answerer.close()
    for call in [
        lambda: pair.answerer.poll(0),
        lambda: pair.answerer.create_peer(),
        lambda: pair.answerer.statistics(),
        lambda: pair.answerer_channel.send("x"),
        lambda: pair.answerer_channel.buffered(),
    ]:
        with pytest.raises(libreconnect.InvalidHandleError):
            call()
    pair.answerer_channel.pause_reading()
    pair.answerer_channel.resume_reading()
    closed = pair.offerer_events.until(PeerStateEvent, lambda event: event.state == PeerState.CLOSED)
    assert isinstance(closed.reason, libreconnect.PeerGoneError)


def test_close_ends_what_waits_in_other_threads():
    engine = local(log_level=libreconnect.LogLevel.NONE)
    ended = []
    waiting = [threading.Thread(target=lambda: ended.append(list(engine.events()))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    engine.close()
    for thread in waiting:
        thread.join(PATIENCE)
    assert ended == [[], [], []]


def test_polls_with_a_timeout():
    with local() as engine:
        while engine.poll(0):
            pass
        assert engine.poll(0) == []
        assert engine.poll(0.01) == []
        assert select.select([engine], [], [], 0)[0] == []
        engine.set_addresses(["127.0.0.2"])
        assert select.select([engine], [], [], PATIENCE)[0] == [engine]
        changed = [e for e in engine.poll(0) if isinstance(e, libreconnect.AddressesEvent)]
        assert changed == [libreconnect.AddressesEvent(("127.0.0.2",))]


def test_a_thread_that_polls_does_not_hold_up_one_that_calls():
    with local() as engine:
        ended = threading.Event()

        def read():
            for event in engine.events():
                if isinstance(event, libreconnect.AddressesEvent):
                    ended.set()

        reader = threading.Thread(target=read)
        reader.start()
        peers = [engine.create_peer(ECHO) for _ in range(20)]
        offers = {json.loads(peer.offer())["sdp"] for peer in peers}
        assert len(offers) == 20
        engine.set_addresses(["127.0.0.2"])
        assert ended.wait(PATIENCE)
        engine.close()
        reader.join(PATIENCE)
        assert not reader.is_alive()


def test_descriptors_are_given_back():
    def count():
        return len(os.listdir("/proc/self/fd"))

    with local():
        pass
    before = count()
    for _ in range(10):
        with local() as offerer, local() as answerer:
            Pair(offerer, answerer)
    assert count() == before


def test_calls_in_a_forked_child_fail():
    with local() as engine:
        child = os.fork()
        if child == 0:
            try:
                engine.create_peer()
            except libreconnect.ForkedError:
                os._exit(7)
            except BaseException:
                os._exit(8)
            os._exit(9)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7
        engine.create_peer()


ANSWERER = """
import sys, libreconnect
config = libreconnect.Config(addresses=[sys.argv[1]])
echo = libreconnect.ChannelConfig(label="echo", negotiated=True)
with libreconnect.Engine(config) as engine:
    answer = engine.answer(sys.stdin.readline(), libreconnect.PeerConfig(channels=[echo]))
    print(answer.json, flush=True)
    for event in engine.events():
        if isinstance(event, libreconnect.MessageEvent):
            event.channel.send(event.data)
        if isinstance(event, libreconnect.PeerStateEvent) and event.state == libreconnect.PeerState.CLOSED:
            print(event.reason.name)
            break
"""


def test_two_processes(address):
    command = [sys.executable, "-c", ANSWERER, address]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
        local(addresses=[address]) as engine,
    ):
        try:
            peer = engine.create_peer(ECHO)
            events = Reader(engine)
            process.stdin.write(peer.offer() + "\n")
            process.stdin.flush()
            peer.accept(process.stdout.readline())
            channel = events.until(ChannelOpenEvent).channel
            for message in ["text", b"binary", "", b"", os.urandom(262144)]:
                channel.send(message)
                assert events.until(MessageEvent).data == message
            peer.close()
            assert process.communicate(timeout=PATIENCE)[0] == "PEER_GONE\n"
            assert process.returncode == 0
        finally:
            process.kill()
