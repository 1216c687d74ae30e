"""What 1.3 added: TURN servers, timers, policies, credentials, and peers that negotiate by themselves."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import hmac
import json
import time

import libreconnect
import pytest
from conftest import PATIENCE
from libreconnect import Negotiation, Timers, TURNServer, aio

ECHO = libreconnect.ChannelConfig(label="echo", negotiated=True)
POLITE = libreconnect.PeerConfig(channels=[ECHO], negotiation=Negotiation.POLITE)
IMPOLITE = libreconnect.PeerConfig(channels=[ECHO], negotiation=Negotiation.IMPOLITE)
SERVERS = (
    TURNServer("turn:127.0.0.1:1"),
    TURNServer("turn:127.0.0.1:1?transport=tcp", "ann", "hunter2", lifetime=3600),
    TURNServer("turns:[::1]:1", secret="hunter2"),
)
END = '{"candidate":null}'


def config(**settings):
    return libreconnect.Config(**{"addresses": ["127.0.0.1"], **settings})


def soon(awaitable):
    return asyncio.wait_for(awaitable, PATIENCE)


# ------------------------------------------------------------------ configuration


def test_configures_paths():
    settings = config(
        turn_servers=SERVERS,
        denied_interfaces=["wlan*", "192.0.2.0/24"],
        ice_policy=libreconnect.ICEPolicy.ALL,
        disable_mdns=True,
        timers=Timers(check_interval=0.005, disable_standby=True, disable_restarts=True, heartbeat=1, restart_max=60),
    )
    with libreconnect.Engine(settings) as engine:
        engine.set_turn_servers(SERVERS)
        engine.set_turn_servers([])
        engine.set_timers(Timers(suspect=0.1, failed_timeout=60))
        engine.set_timers(Timers())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"turn_servers": [SERVERS[0], TURNServer("stun:a")]}, r"turn_servers\[1\]\.url"),
        ({"turn_servers": [TURNServer("")]}, "url"),
        ({"turn_servers": [TURNServer("turn:a", "ann")]}, "password"),
        ({"turn_servers": [TURNServer("turn:a", password="hunter2")]}, "username"),
        ({"turn_servers": [TURNServer("turn:a", "ann", "hunter2", "hunter2")]}, "exclude"),
        ({"turn_servers": [TURNServer("turn:a", "ann", "hunter2\n")]}, "password"),
        ({"turn_servers": [TURNServer("turn:a", "ann", "hunter2\0")]}, "zero byte"),
        ({"turn_servers": [TURNServer("turn:a", lifetime=-1)]}, "lifetime"),
        ({"turn_servers": SERVERS * 11}, "turn_servers"),
        ({"turn_ca_path": ""}, "turn_ca_path"),
        ({"allowed_interfaces": ["eth0/24"]}, "allowed_interfaces"),
        ({"denied_interfaces": [""]}, "denied_interfaces"),
        ({"denied_interfaces": "eth0"}, "denied_interfaces"),
        ({"ice_policy": 3}, "ice_policy"),
        ({"tcp": 4}, "tcp"),
        ({"tcp_port": 65536}, "tcp_port"),
        ({"timers": Timers(check_interval=0.004)}, "check_interval_ms"),
        ({"timers": Timers(heartbeat=5)}, "heartbeat_ms"),
        ({"timers": Timers(restart_min=4)}, "restart_min_ms"),
        ({"timers": Timers(suspect=float("nan"))}, "suspect"),
        ({"timers": Timers(restart_attempts=-1)}, "restart_attempts"),
    ],
)
def test_refuses_nonsense(settings, words):
    with pytest.raises(libreconnect.InvalidArgumentError, match=words) as caught:
        libreconnect.Engine(config(**settings))
    assert "hunter2" not in str(caught.value)


def test_refuses_nonsense_while_running():
    with libreconnect.Engine(config()) as engine:
        with pytest.raises(libreconnect.InvalidArgumentError, match=r"servers\[1\]\.username"):
            engine.set_turn_servers([SERVERS[0], TURNServer("turn:a", "a\r", "hunter2")])
        with pytest.raises(libreconnect.InvalidArgumentError, match="restart_max_ms"):
            engine.set_timers(Timers(restart_max=0.001))
        for wrong in ({"negotiation": 3}, {"ice_policy": 3}):
            with pytest.raises(libreconnect.InvalidArgumentError):
                engine.create_peer(libreconnect.PeerConfig(**wrong))


def test_keeps_secrets_to_itself():
    words = repr(config(turn_servers=SERVERS))
    assert "ann" in words and "hunter2" not in words


@pytest.mark.parametrize("user", [None, "", "ann", "u" * 256, "\u00e4:b"])
def test_makes_credentials_that_coturn_takes(user):
    before = time.time()
    username, password = libreconnect.turn_credentials("north", user, 3600)
    expiry, _, rest = username.partition(":")
    assert rest == (user or "") and 3599 <= int(expiry) - before <= 3660
    digest = hmac.new(b"north", username.encode(), hashlib.sha1).digest()
    assert password == base64.b64encode(digest).decode()


@pytest.mark.parametrize(
    "wrong", [("", "ann"), ("north", "a\nb"), ("north", "a\0"), ("north", "u" * 496), ("s" * 513,), ("north", "", -1)]
)
def test_refuses_what_makes_no_credentials(wrong):
    with pytest.raises(libreconnect.InvalidArgumentError):
        libreconnect.turn_credentials(*wrong)


def test_all_statuses_have_exceptions():
    names = ["UNREACHABLE", "UNAUTHORIZED", "FORBIDDEN", "QUOTA", "TLS_FAILED", "LOST", "MALFORMED", "REFUSED"]
    for number, name in enumerate(names):
        status = libreconnect.Status(-80 - number)
        assert status.name == f"TURN_{name}"
        error = getattr(libreconnect, f"TURN{name.title().replace('_', '').replace('Tls', 'TLS')}Error")
        assert error.default_status == status


# -------------------------------------------------------------------- negotiation


def test_tells_the_two_ways_of_negotiating_apart():
    with libreconnect.Engine(config()) as engine:
        manual, polite = engine.create_peer(), engine.create_peer(POLITE)
        for call in (lambda: manual.signal(END), manual.restart, polite.offer, lambda: polite.accept("{}")):
            with pytest.raises(libreconnect.WrongStateError):
                call()
        for wrong in ("", "{", '{"type":"offer"', "[]"):
            with pytest.raises(libreconnect.MalformedJSONError):
                polite.signal(wrong)
        with pytest.raises(libreconnect.MalformedSDPError):
            polite.signal('{"type":"offer","sdp":"nonsense"}')
        polite.signal(END)
        polite.close()
    with pytest.raises(libreconnect.InvalidHandleError):
        polite.signal(END)
    with pytest.raises(libreconnect.InvalidHandleError):
        polite.restart()


class Pair:
    """Two peers that negotiate by themselves in two engines; the test carries their messages."""

    def __init__(self, polite, impolite):
        self.engines = [polite, impolite]
        self.peers = [polite.create_peer(POLITE), impolite.create_peer(IMPOLITE)]
        self.open = set()
        self.texts = {peer: [] for peer in self.peers}
        self.paths = {peer: [] for peer in self.peers}
        self.restarts = {peer: [] for peer in self.peers}

    def until(self, done):
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < deadline, (self.paths, self.restarts, {p: len(t) for p, t in self.texts.items()})
            for engine in self.engines:
                for event in engine.poll(0.005):
                    self.take(event)

    def take(self, event):
        if isinstance(event, libreconnect.PeerSignalEvent):
            assert json.loads(event.message).keys() & {"type", "candidate"}
            self.peers[event.peer is self.peers[0]].signal(event.message)
        elif isinstance(event, libreconnect.ChannelOpenEvent):
            self.open.add(event.channel.peer)
        elif isinstance(event, libreconnect.MessageEvent):
            self.texts[event.channel.peer].append(event.data)
        elif isinstance(event, libreconnect.PathEvent):
            self.paths[event.peer].append(event)
        elif isinstance(event, libreconnect.RestartEvent):
            self.restarts[event.peer].append(event)
        elif isinstance(event, libreconnect.PeerStateEvent):
            assert event.state != libreconnect.PeerState.CLOSED, event

    def recovered(self):
        states = libreconnect.RestartState
        return all(any(e.state == states.RECOVERED for e in self.restarts[peer]) for peer in self.peers)


@pytest.mark.parametrize("begin", [[0], [1], [0, 1]], ids=["polite", "impolite", "both"])
def test_negotiates_by_itself(begin):
    with libreconnect.Engine(config()) as polite, libreconnect.Engine(config()) as impolite:
        pair = Pair(polite, impolite)
        for index in begin:
            pair.peers[index].restart()
        pair.until(lambda: len(pair.open) == 2 and all(pair.paths.values()))
        for peer in pair.peers:
            path = pair.paths[peer][0]
            assert path.change == libreconnect.PathChange.FIRST and path.paths == 1
            assert path.local.startswith("candidate:") and " typ " in path.remote
            peer.channels[0].send("there")
        pair.until(lambda: all(texts == ["there"] for texts in pair.texts.values()))


def test_restarts_under_a_stream_of_messages():
    """Numbered messages both ways while ICE restarts from either side, and from both at once: none is lost, doubled or
    out of order."""
    with libreconnect.Engine(config()) as polite, libreconnect.Engine(config()) as impolite:
        pair = Pair(polite, impolite)
        pair.peers[1].restart()
        pair.until(lambda: len(pair.open) == 2)
        for number in range(600):
            for peer in pair.peers:
                peer.channels[0].send(str(number))
            if number == 100:
                pair.peers[0].restart()
            elif number == 300:
                pair.peers[1].restart()
                pair.peers[0].restart()
            if number % 100 == 99:
                pair.until(lambda: all(len(texts) > number - 50 for texts in pair.texts.values()))  # noqa: B023
        pair.until(lambda: all(len(texts) >= 600 for texts in pair.texts.values()))
        for texts in pair.texts.values():
            assert texts == [str(number) for number in range(600)]
        pair.until(pair.recovered)
        figures = pair.peers[0].statistics()
        assert figures.generation > 0 and figures.restarts > 0 and figures.transport == "udp" and figures.local_type


async def carry(source, target):
    async for message in source.signals():
        with contextlib.suppress(libreconnect.InvalidHandleError):  # it has ended first
            target.signal(message)


async def test_negotiates_with_asyncio():
    async with aio.Engine(config()) as one, aio.Engine(config()) as other:
        polite, impolite = one.create_peer(POLITE), other.create_peer(IMPOLITE)
        events = one.events()
        carriers = [asyncio.create_task(carry(polite, impolite)), asyncio.create_task(carry(impolite, polite))]
        polite.restart()
        await soon(polite.channels[0].wait_open())
        await soon(impolite.channels[0].wait_open())
        await polite.channels[0].send("there")
        assert await soon(impolite.channels[0].receive()) == "there"
        impolite.restart()
        await impolite.channels[0].send("back")
        assert await soon(polite.channels[0].receive()) == "back"

        async def recovered():
            async for event in events:
                if isinstance(event, libreconnect.RestartEvent):
                    assert event.peer is polite
                    if event.state == libreconnect.RestartState.RECOVERED:
                        return

        await soon(recovered())
        polite.close()
        await soon(polite.wait_closed())
        await soon(impolite.wait_closed())
        await soon(asyncio.gather(*carriers))  # they end with their peers


async def test_asyncio_keeps_messages_until_they_are_taken():
    async with aio.Engine(config()) as engine:
        peer = engine.create_peer(dataclasses.replace(POLITE, channels=()))
        peer._signaled("first")
        peer._signaled("second")
        messages = peer.signals()
        assert [await soon(messages.__anext__()) for _ in range(2)] == ["first", "second"]
        waiting = asyncio.ensure_future(messages.__anext__())
        await asyncio.sleep(0)
        peer.close()
        with pytest.raises(StopAsyncIteration):
            await soon(waiting)


def without_fingerprint(message):
    """An offer that is well-formed, and that nobody can accept."""
    offer = json.loads(message)
    offer["sdp"] = "".join(line for line in offer["sdp"].splitlines(True) if not line.startswith("a=fingerprint:"))
    return json.dumps(offer)


def test_tells_what_a_peer_refuses():
    with libreconnect.Engine(config()) as polite, libreconnect.Engine(config()) as impolite:
        pair = Pair(polite, impolite)
        pair.peers[1].restart()
        offer = next(e for e in impolite.events() if isinstance(e, libreconnect.PeerSignalEvent)).message
        pair.peers[0].signal(without_fingerprint(offer))
        assert pair.peers[0].statistics().channels == 1  # waits for a result of its own, and keeps what else comes
        event = next(e for e in polite.events() if isinstance(e, libreconnect.SignalRefusedEvent))
        assert event.peer is pair.peers[0] and isinstance(event.reason, libreconnect.UnacceptableError), event
        pair.peers[0].signal(offer)
        pair.until(lambda: len(pair.open) == 2)


async def test_tells_asyncio_what_a_peer_refuses():
    async with aio.Engine(config()) as one, aio.Engine(config()) as other:
        polite, impolite = one.create_peer(POLITE), other.create_peer(IMPOLITE)
        events = one.events()
        impolite.restart()
        polite.signal(without_fingerprint(await soon(impolite.signals().__anext__())))

        async def refused():
            async for event in events:
                if isinstance(event, libreconnect.SignalRefusedEvent):
                    return event

        assert (await soon(refused())).peer is polite
