"""Connectors, returning peers and the settings of fast reload: blocking and asyncio."""

from __future__ import annotations

import asyncio
import json
import stat
import threading

import libreconnect
import pytest
from conftest import PATIENCE
from libreconnect import ConnectorState, FastReload, Mode, PeerState, PeerStateEvent, Policy, aio
from test_blocking import Reader

HELLO = libreconnect.PeerConfig(channels=[libreconnect.ChannelConfig(label="hello", negotiated=True, id=1)])


def config(**settings):
    return libreconnect.Config(**{"addresses": ["127.0.0.1"], **settings})


class Server:
    """An engine whose events a thread takes: it echoes, and keeps what else happens."""

    def __init__(self, **settings):
        self.engine = libreconnect.Engine(config(returning_peer=HELLO, **settings))
        self.exchanges = 0
        self.cut = None  # the error of the signaling, while it is down
        self.seen = []
        self.more = threading.Condition()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.engine.close()
        self.thread.join(PATIENCE)

    def serve(self):
        for event in self.engine.events():
            if isinstance(event, libreconnect.MessageEvent):
                event.channel.send(event.data)
            with self.more:
                self.seen.append(event)
                self.more.notify_all()

    def of(self, kind, fits=lambda event: True):
        return [event for event in self.seen if isinstance(event, kind) and fits(event)]

    def wait_for(self, kind, count=1, fits=lambda event: True):
        with self.more:
            assert self.more.wait_for(lambda: len(self.of(kind, fits)) >= count, PATIENCE), self.seen
            return self.of(kind, fits)[count - 1]

    def exchange(self, offer):
        self.exchanges += 1
        if self.cut:
            raise self.cut
        return self.engine.answer(offer, HELLO).json

    async def exchange_async(self, offer):
        return await asyncio.get_running_loop().run_in_executor(None, self.exchange, offer)


@pytest.fixture
def server():
    with Server() as server:
        yield server


def settings(**more):
    return libreconnect.ConnectorConfig(**{"policy": Policy.FALLBACK, "peer": HELLO, **more})


def is_closed(event):
    return event.state == PeerState.CLOSED


# ---- blocking


def hello(connector, events, mode):
    """Connects, checks how, and that a message comes back."""
    connection = connector.connect()
    assert connection.mode == mode and connection.duration > 0 and connector.peer is connection.peer
    (channel,) = connection.peer.channels
    assert (channel.label, channel.id) == ("hello", 1)
    channel.send(f"hello {mode.name}")
    got = events.until(libreconnect.MessageEvent, lambda event: event.channel is channel)
    assert got.data == f"hello {mode.name}"
    return connection


def end(connection, events, server, count):
    connection.peer.close()
    lost = events.until(libreconnect.ConnectorEvent, lambda event: event.state == ConnectorState.LOST)
    assert lost.peer is connection.peer and lost.connector.peer is None
    server.wait_for(PeerStateEvent, count, is_closed)


def test_comes_back_the_fastest_way(server):
    with libreconnect.Engine(config()) as engine:
        events = Reader(engine)
        connector = engine.connector(settings(key="server"), server.exchange)
        careful = engine.connector(settings(key="without tickets", disable_tickets=True), server.exchange)
        end(hello(careful, events, Mode.NORMAL), events, server, 1)
        end(hello(careful, events, Mode.FAST), events, server, 2)
        end(hello(connector, events, Mode.NORMAL), events, server, 3)
        assert server.exchanges == 3
        server.cut = OSError("nobody may ask")
        end(hello(connector, events, Mode.ZERO_SIGNALING), events, server, 4)
        assert server.exchanges == 3
        sessions = server.of(libreconnect.SessionEvent)
        assert [session.mode for session in sessions] == [Mode.NORMAL, Mode.FAST, Mode.NORMAL, Mode.ZERO_SIGNALING]
        assert [session.returned for session in sessions] == [False, True, False, True]
        assert sessions[0].client_id == sessions[1].client_id and sessions[2].client_id == sessions[3].client_id
        server.cut = None
        connector.forget()
        assert connector.cache() == ""
        hello(connector, events, Mode.NORMAL)
        assert {"sessionId", "timestamp"} <= set(json.loads(connector.cache()))


def test_returning_peers_are_told_to_the_server(server):
    with libreconnect.Engine(config()) as engine:
        events = Reader(engine)
        connector = engine.connector(settings(), server.exchange)
        end(hello(connector, events, Mode.NORMAL), events, server, 1)
        hello(connector, events, Mode.ZERO_SIGNALING)
        came = server.wait_for(PeerStateEvent, 2, lambda event: event.state == PeerState.CONNECTED)
        assert came.ticket and not server.of(PeerStateEvent)[0].ticket
        (channel,) = came.peer.channels
        assert any(event.channel is channel for event in server.of(libreconnect.ChannelOpenEvent))
        channel.send("from the server")
        assert events.until(libreconnect.MessageEvent).data == "from the server"
        more = came.peer.open_channel(libreconnect.ChannelConfig(label="in-band"))
        more.send("on another one")
        got = events.until(libreconnect.MessageEvent)
        assert (got.channel.label, got.data) == ("in-band", "on another one")
        hello(connector, events, Mode.ZERO_SIGNALING)  # takes over
        replaced = server.wait_for(PeerStateEvent, 2, is_closed)
        assert replaced.peer is came.peer and isinstance(replaced.reason, libreconnect.ReplacedError)


def test_a_race_is_won_by_the_ticket_if_signaling_is_down(server):
    with libreconnect.Engine(config()) as engine:
        events = Reader(engine)
        with engine.connector(settings(policy=Policy.RACE), server.exchange) as connector:
            end(hello(connector, events, Mode.NORMAL), events, server, 1)
            server.cut = OSError("signaling is down")
            hello(connector, events, Mode.ZERO_SIGNALING)
        events.until(libreconnect.ConnectorEvent, lambda event: event.state == ConnectorState.CLOSED)
        with pytest.raises(libreconnect.InvalidHandleError):
            connector.connect()
        connector.close()  # does nothing


def test_the_cache_outlives_the_engine(server, tmp_path):
    cache = tmp_path / "cache.json"
    for mode in [Mode.NORMAL, Mode.ZERO_SIGNALING]:
        with libreconnect.Engine(config(certificate_path=str(tmp_path / "client.pem"))) as engine:
            hello(engine.connector(settings(cache_path=str(cache)), server.exchange), Reader(engine), mode)
    for path in [cache, tmp_path / "cache.json.tickets"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_signals_are_events_without_a_signaling_function(server):
    with libreconnect.Engine(config()) as engine:
        connector = engine.connector(settings())
        connected = []
        thread = threading.Thread(target=lambda: connected.append(connector.connect(PATIENCE)))
        thread.start()
        events = Reader(engine)
        signal = events.until(libreconnect.SignalEvent)
        assert signal.connector is connector and json.loads(signal.message)["type"] == "offer"
        with pytest.raises(libreconnect.WrongStateError):
            connector.connect()
        with pytest.raises(libreconnect.MalformedJSONError):
            connector.message(signal.exchange, "{")
        answer = server.exchange(signal.message)
        connector.message(signal.exchange, answer)
        thread.join(PATIENCE)
        assert [connection.mode for connection in connected] == [Mode.NORMAL]
        connector.message(signal.exchange, answer)  # of an exchange that is over
        won = events.until(libreconnect.AttemptEvent, lambda event: event.state == libreconnect.AttemptState.WON)
        assert won.connector is connector and won.mode == Mode.NORMAL and won.elapsed > 0


def test_failed_signaling_is_the_reason(server):
    with libreconnect.Engine(config()) as engine:
        server.cut = OSError("the line is cut")
        connector = engine.connector(settings(), server.exchange)
        with pytest.raises(libreconnect.SignalingFailedError) as caught:
            connector.connect()
        assert caught.value.__cause__ is server.cut
        server.cut = None
        hello(connector, Reader(engine), Mode.NORMAL)
        for nonsense, cause in [("{}", libreconnect.MalformedJSONError), (7, TypeError)]:
            with pytest.raises(libreconnect.SignalingFailedError) as caught:
                engine.connector(settings(key="other"), lambda _, nonsense=nonsense: nonsense).connect()
            assert isinstance(caught.value.__cause__, cause)


def test_close_ends_a_connect(server):
    release = threading.Event()

    def slow(offer):
        release.wait(PATIENCE)
        return server.exchange(offer)

    with libreconnect.Engine(config()) as engine:
        connector = engine.connector(settings(), slow)
        with pytest.raises(TimeoutError):
            connector.connect(0.01)
        with pytest.raises(libreconnect.WrongStateError):
            connector.connect()
        release.set()
        Reader(engine).until(libreconnect.ConnectorEvent, lambda event: event.state == ConnectorState.CONNECTED)
        assert connector.peer is not None
        release.clear()
        other = engine.connector(settings(key="other"), slow)
        ended = []

        def connect():
            try:
                other.connect()
            except libreconnect.ReconnectError as error:
                ended.append(error)

        thread = threading.Thread(target=connect)
        thread.start()
        engine.close()
        thread.join(PATIENCE)
        release.set()
        assert [type(error) for error in ended] == [libreconnect.InvalidHandleError]
        with pytest.raises(libreconnect.InvalidHandleError):
            engine.connector()


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": 2},
        {"key": ""},
        {"key": "k" * 257},
        {"key": "a\0b"},
        {"cache_path": "a\0b"},
        {"fast_timeout": -1},
        {"peer": libreconnect.PeerConfig(channels=[libreconnect.ChannelConfig(negotiated=True, id=65535)])},
    ],
)
def test_bad_connectors(wrong):
    with libreconnect.Engine(config()) as engine:
        with pytest.raises(libreconnect.InvalidArgumentError):
            engine.connector(settings(**wrong))
        assert not engine._core._connectors and len(engine._core._templates) == 1


# ---- asyncio


def soon(awaitable):
    return asyncio.wait_for(awaitable, PATIENCE)


async def hello_async(connector, mode):
    connection = await soon(connector.connect())
    assert connection.mode == mode and connector.peer is connection.peer
    (channel,) = connection.peer.channels
    assert channel.is_open and connection.peer.state == PeerState.CONNECTED
    await channel.send("hello")
    assert await soon(channel.receive()) == "hello"
    return connection


async def test_asyncio_comes_back_the_fastest_way(server):
    async with aio.Engine(config()) as engine:
        events = engine.events()
        async with engine.connector(settings(), server.exchange_async) as connector:
            for mode in [Mode.NORMAL, Mode.ZERO_SIGNALING, Mode.ZERO_SIGNALING]:
                connection = await hello_async(connector, mode)
                connection.peer.close()
                assert await soon(connection.peer.wait_closed()) is None
            assert server.exchanges == 1
            # A connect while the peer is up replaces it.
            first = await hello_async(connector, Mode.ZERO_SIGNALING)
            second = await hello_async(connector, Mode.ZERO_SIGNALING)
            assert isinstance(await soon(first.peer.wait_closed()), libreconnect.ReplacedError)
            assert connector.peer is second.peer
        while True:
            event = await soon(anext(events))
            assert not isinstance(event, libreconnect.SignalEvent)
            if isinstance(event, libreconnect.ConnectorEvent) and event.state == ConnectorState.CLOSED:
                break
        with pytest.raises(libreconnect.InvalidHandleError):
            await connector.connect()


async def test_asyncio_failed_signaling_is_the_reason(server):
    async with aio.Engine(config()) as engine:
        server.cut = OSError("the line is cut")
        connector = engine.connector(settings(), server.exchange_async)
        with pytest.raises(libreconnect.SignalingFailedError) as caught:
            await soon(connector.connect())
        assert caught.value.__cause__ is server.cut
        server.cut = None
        await hello_async(connector, Mode.NORMAL)


async def test_asyncio_exchanges_end_with_what_they_are_for():
    started, ended = asyncio.Event(), []

    async def slow(offer):
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(offer)
            raise

    async with aio.Engine(config()) as engine:
        connecting = asyncio.create_task(engine.connector(settings(), slow).connect())
        await soon(started.wait())
        started.clear()
        other = engine.connector(settings(key="other"), slow)
        closing = asyncio.create_task(other.connect())
        await soon(started.wait())
        other.close()
        with pytest.raises(libreconnect.InvalidHandleError):
            await soon(closing)
        assert len(ended) == 1
    with pytest.raises(libreconnect.InvalidHandleError):
        await soon(connecting)
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(ended) == 2


async def test_asyncio_signals_are_events_without_a_signaling_function(server):
    async with aio.Engine(config()) as engine:
        events = engine.events()
        connector = engine.connector(settings())
        connecting = asyncio.create_task(connector.connect())
        while True:
            event = await soon(anext(events))
            if isinstance(event, libreconnect.SignalEvent):
                break
        connector.signaling_failed(event.exchange)
        with pytest.raises(libreconnect.SignalingFailedError):
            await soon(connecting)


# ---- settings


def test_kill_switch_makes_everything_normal(server):
    with libreconnect.Engine(config()) as engine:
        events = Reader(engine)
        connector = engine.connector(settings(), server.exchange)
        end(hello(connector, events, Mode.NORMAL), events, server, 1)
        for count, setting in enumerate([FastReload.OFF, FastReload.PARTIAL]):
            server.engine.set_fast_reload(setting)
            thrown = server.wait_for(libreconnect.FastReloadEvent, count + 1)
            assert (thrown.setting, thrown.by) == (setting, libreconnect.Switch.HOST)
            end(hello(connector, events, Mode.NORMAL), events, server, count + 2)
        with pytest.raises(libreconnect.InvalidArgumentError):
            server.engine.set_fast_reload(3)


def test_a_revoked_session_is_over(server):
    with libreconnect.Engine(config()) as engine:
        events = Reader(engine)
        connector = engine.connector(settings(), server.exchange)
        hello(connector, events, Mode.NORMAL)
        session = server.wait_for(libreconnect.SessionEvent)
        server.engine.revoke(session.client_id)
        server.wait_for(libreconnect.PeerStateEvent, 1, lambda event: event.state is libreconnect.PeerState.CLOSED)
        assert connector.connect(timeout=30).mode is Mode.NORMAL
        with pytest.raises(libreconnect.InvalidArgumentError):
            server.engine.revoke("nobody")


def test_certificates_are_replaced(tmp_path):
    path = tmp_path / "host.pem"
    with Server(certificate_path=str(path)) as server:
        before = server.engine.fingerprint()
        server.engine.rotate_certificate()
        after = server.engine.fingerprint()
        assert after != before
        assert server.wait_for(libreconnect.CertificateEvent).fingerprint == after
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with libreconnect.Engine(config(certificate_path=str(path))) as engine:
        assert engine.fingerprint() == after


def test_metrics_are_text():
    with libreconnect.Engine(config()) as engine:
        text = engine.metrics()
        assert "# TYPE " in text and text.endswith("\n") and "\0" not in text
    with pytest.raises(libreconnect.InvalidHandleError):
        engine.metrics()


async def test_asyncio_metrics_and_switches():
    async with aio.Engine(config()) as engine:
        events = engine.events()
        assert "# TYPE " in engine.metrics()
        engine.rotate_certificate()
        engine.set_fast_reload(False)
        kinds = set()
        while not {libreconnect.CertificateEvent, libreconnect.FastReloadEvent} <= kinds:
            kinds.add(type(await soon(anext(events))))


def test_environment_is_read_where_asked_for(monkeypatch):
    monkeypatch.setenv("ENABLE_FAST_RELOAD", "perhaps")
    libreconnect.Engine(config()).close()
    with pytest.raises(libreconnect.InvalidArgumentError, match="ENABLE_FAST_RELOAD"):
        libreconnect.Engine.from_env()
    monkeypatch.setenv("ENABLE_FAST_RELOAD", "partial")
    libreconnect.Engine.from_env(config()).close()


async def test_asyncio_environment(monkeypatch):
    monkeypatch.setenv("STUN_URLS", "127.0.0.1:x")
    with pytest.raises(libreconnect.InvalidArgumentError, match="STUN_URLS"):
        await aio.Engine.from_env(config()).open()
    monkeypatch.setenv("STUN_URLS", "127.0.0.1:1")
    async with aio.Engine.from_env(config()) as engine:
        assert engine.port


@pytest.mark.parametrize(
    "wrong",
    [
        {"session_store": "ftp://127.0.0.1"},
        {"session_store": "a\0b"},
        {"ticket_secret": bytes(31)},
        {"ticket_secret": "x" * 32},
        {"old_ticket_secret": bytes(257)},
        {"stun_servers": ["127.0.0.1:x"]},
        {"stun_servers": "127.0.0.1:1"},
        {"stun_servers": ["127.0.0.1:1"] * 33},
        {"public_addresses": ["a\0b"]},
        {"interfaces": 16},
        {"trip_failure_percent": 101},
        {"trip_window": -1},
        {"certificate_days": 1 << 32},
        {"returning_peer": libreconnect.PeerConfig(channels=[libreconnect.ChannelConfig(max_lifetime=-1)])},
    ],
)
def test_bad_settings(wrong):
    with pytest.raises(libreconnect.InvalidArgumentError):
        libreconnect.Engine(config(**wrong)).close()


def test_all_settings(tmp_path):
    libreconnect.Engine(
        config(
            session_store=f"sqlite:{tmp_path / 'sessions.db'}",
            session_prefix="p:",
            store_timeout=0.2,
            disable_tickets=True,
            ticket_secret=bytes(32),
            old_ticket_secret=bytes(256),
            returning_peer=HELLO,
            stun_servers=["stun:127.0.0.1:1"],
            public_addresses=["203.0.113.5", "[2001:db8::1]:4000"],
            interfaces=libreconnect.Interfaces.TEMPORARY | libreconnect.Interfaces.BRIDGES,
            certificate_days=libreconnect.CERTIFICATE_FOREVER,
            fast_timeout=1.5,
            trip_window=10,
            trip_failure_percent=50,
            trip_unstable_percent=50,
            trip_min_attempts=5,
            trip_rearm=10,
            disable_trip=True,
        )
    ).close()
    assert "secret" not in repr(libreconnect.Config(ticket_secret=b"secret" * 8))
