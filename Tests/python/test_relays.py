"""Engines and a real TURN server: what the program is told, and paths that lead over it."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
import subprocess
import time

import libreconnect
import pytest
from conftest import PATIENCE
from libreconnect import ICEPolicy, TURNEvent, TURNServer, TURNState

pytestmark = pytest.mark.skipif(shutil.which("turnserver") is None, reason="there is no coturn")
SECRET = "north"
CONFIG = libreconnect.PeerConfig(channels=[libreconnect.ChannelConfig(label="echo", negotiated=True)])


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    """HOST:PORT of coturn with a shared secret, over UDP and TCP."""
    for _ in range(5):  # a port that was free may not be so any more
        folder = tmp_path_factory.mktemp("coturn")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        first = 100 * random.randrange(200, 490)
        command = [
            "turnserver",
            *["-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}"],
            *[f"--min-port={first}", f"--max-port={first + 99}", "--no-tls", "--no-dtls", "--no-cli"],
            *["--use-auth-secret", f"--static-auth-secret={SECRET}", "--realm=example.org", "--allow-loopback-peers"],
            *[f"--log-file={folder}/log", "--simple-log", f"--pidfile={folder}/pid", f"--userdb={folder}/users"],
        ]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder) as server:
            try:
                if answers(port, server):
                    yield f"127.0.0.1:{port}"
                    return
            finally:
                server.kill()
    pytest.fail("coturn does not start")


def answers(port, server):
    deadline = time.monotonic() + 6
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.02)
    return False


class Host:
    """An engine and the events that it has had."""

    def __init__(self, **settings):
        self.engine = libreconnect.Engine(libreconnect.Config(**{"addresses": ["127.0.0.1"], **settings}))
        self.seen = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.engine.close()

    def until(self, kind, fits=lambda event: True):
        deadline = time.monotonic() + PATIENCE
        while True:
            for event in self.seen:
                if isinstance(event, kind) and fits(event):
                    self.seen.remove(event)
                    return event
            assert time.monotonic() < deadline, self.seen
            self.seen += self.engine.poll(0.2)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_allocates_with_a_secret_and_with_credentials_made_of_it(relay, transport):
    url = f"turn:{relay}?transport={transport}"
    for server in [
        TURNServer(url, secret=SECRET),
        TURNServer(url, "ann", secret=SECRET),
        TURNServer(url, *libreconnect.turn_credentials(SECRET, "ann", 600), lifetime=600),
    ]:
        with Host(turn_servers=[server]) as host:
            event = host.until(TURNEvent)
            assert event.state == TURNState.ALLOCATED and event.url == url and event.reason is None, event
            assert event.addresses and event.addresses[0].startswith("127.0.0.1:") and 0 < event.elapsed < PATIENCE


def test_tells_why_there_is_no_relay(relay):
    url, (name, word) = f"turn:{relay}", libreconnect.turn_credentials(SECRET, "ann")
    with Host(turn_servers=[TURNServer(url, name, "wrong")]) as host:
        event = host.until(TURNEvent, lambda event: event.state == TURNState.FAILED)
        assert isinstance(event.reason, libreconnect.TURNUnauthorizedError) and event.url == url, event
        # Better credentials are taken at once.
        host.engine.set_turn_servers([TURNServer(url, name, word)])
        host.until(TURNEvent, lambda event: event.state == TURNState.ALLOCATED)
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    with Host(turn_servers=[TURNServer(f"turn:127.0.0.1:{closed}?transport=tcp", secret=SECRET)]) as host:
        event = host.until(TURNEvent)
        assert event.state == TURNState.FAILED and isinstance(event.reason, libreconnect.TURNUnreachableError), event
        assert event.detail


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_relay_only_means_relay_only(relay, transport):
    settings = {
        "turn_servers": [TURNServer(f"turn:{relay}?transport={transport}", secret=SECRET)],
        "ice_policy": ICEPolicy.RELAY,
    }
    with Host(**settings) as offerer, Host(**settings) as answerer:
        for host in (offerer, answerer):
            host.until(TURNEvent, lambda event: event.state == TURNState.ALLOCATED)
        config = libreconnect.PeerConfig(channels=CONFIG.channels, negotiation=libreconnect.Negotiation.POLITE)
        polite = offerer.engine.create_peer(config)
        config = libreconnect.PeerConfig(channels=CONFIG.channels, negotiation=libreconnect.Negotiation.IMPOLITE)
        impolite = answerer.engine.create_peer(config)
        other = {polite: impolite, impolite: polite}
        impolite.restart()
        opened, lines = set(), []
        deadline = time.monotonic() + PATIENCE
        while len(opened) < 2:
            assert time.monotonic() < deadline, (offerer.seen, answerer.seen, lines)
            for host in (offerer, answerer):
                for event in host.engine.poll(0.01):
                    host.seen.append(event)
                    if isinstance(event, libreconnect.PeerSignalEvent):
                        message = json.loads(event.message)
                        lines += [line[2:] for line in message.get("sdp", "").splitlines() if "candidate:" in line]
                        lines.append((message.get("candidate") or {}).get("candidate", ""))
                        other[event.peer].signal(event.message)
                    elif isinstance(event, libreconnect.ChannelOpenEvent):
                        opened.add(event.channel.peer)
        lines = [line for line in lines if line]
        assert lines and all(" typ relay" in line for line in lines), lines
        polite.channels[0].send("over the relay")
        assert answerer.until(libreconnect.MessageEvent).data == "over the relay"
        for peer in (polite, impolite):
            figures = peer.statistics()
            assert figures.local_type == "relay" and figures.relay_transport == transport, figures
            assert figures.relay_address == relay and figures.remote_type in ("relay", "prflx"), figures
