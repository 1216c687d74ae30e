"""The example hosts: their HTTP against hostile and slow clients, their echo against a client that floods."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import libreconnect
import pytest
from conftest import PATIENCE, ROOT
from test_blocking import Reader, local

COMMANDS = {
    "go": [ROOT / "build" / "examples" / "answerer-go"],
    "c": [ROOT / "build" / "examples" / "answerer-c"],
    "python": [sys.executable, ROOT / "examples" / "python" / "answerer.py"],
}
LIMIT = 65536
ECHO = libreconnect.PeerConfig(channels=[libreconnect.ChannelConfig(label="echo", negotiated=True, id=1)])


class Host:
    def __init__(self, name, *options):
        self.name = name
        self.command = [str(part) for part in COMMANDS[name]]
        for part in self.command:
            assert os.path.exists(part), f"{part} is missing: make build"
        self.process = subprocess.Popen(
            [*self.command, "--http", "127.0.0.1:0", "--address", "127.0.0.1", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LD_LIBRARY_PATH": str(ROOT / "build" / "lib")},
            text=True,
        )
        self.log = []
        self.more = threading.Condition()
        self.reader = threading.Thread(target=self.read_log)
        self.reader.start()
        line = self.process.stdout.readline()
        ready = re.fullmatch(r"listening on http://(.+):(\d+)/\n", line)
        if not ready:
            self.end()
        assert ready, f"{line!r}, {self.log}"
        self.host, self.port = ready.group(1).strip("[]"), int(ready.group(2))

    def read_log(self):
        for line in self.process.stderr:
            with self.more:
                self.log.append(line.rstrip("\n"))
                self.more.notify_all()

    def wait_for_line(self, pattern):
        with self.more:
            assert self.more.wait_for(lambda: any(re.search(pattern, line) for line in self.log), PATIENCE), self.log

    def end(self, number=signal.SIGTERM):
        """Its exit status and what it printed to stdout since it was ready."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
        self.reader.join(PATIENCE)
        rest = self.process.stdout.read()
        self.process.stdout.close()
        self.process.stderr.close()
        return self.process.returncode, rest

    def dial(self):
        connection = socket.create_connection((self.host, self.port), PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Connection(connection)

    def ask(self, *request, **headers):
        with self.dial() as connection:
            return connection.ask(*request, **headers)


class Connection:
    """A connection by hand: http.client would refuse to send half of what is tested here."""

    def __init__(self, connection):
        self.socket = connection
        self.file = connection.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def ask(self, method, path, body=None, **headers):
        head = {"Host": "x", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if body is not None:
            head.setdefault("Content-Length", str(len(body)))
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        self.send("\r\n".join(lines).encode() + (body or b""))
        return self.answer(method)

    def answer(self, method="GET"):
        """Status, headers (small letters) and body of the next response; None at the end."""
        first = self.file.readline()
        if not first:
            return None
        version, status = first.split()[:2]
        assert version == b"HTTP/1.1"
        headers = {}
        while (line := self.file.readline()) != b"\r\n":
            assert line.endswith(b"\r\n")
            name, _, value = line.decode().partition(":")
            assert name.lower() not in headers
            headers[name.lower()] = value.strip()
        status = int(status)
        empty = method == "HEAD" or status in (100, 204, 304)
        if "content-length" not in headers:
            assert empty or headers["connection"] == "close"
        return status, headers, b"" if empty else self.file.read(int(headers.get("content-length", -1)))


@pytest.fixture(scope="module", params=list(COMMANDS))
def host(request):
    host = Host(request.param)
    yield host
    assert host.process.poll() is None, host.log
    status, rest = host.end()
    assert (status, rest) == (0, ""), host.log


def error_of(answer):
    status, headers, body = answer
    assert headers["content-type"] == "application/json"
    error = json.loads(body)
    assert set(error) == {"error", "detail"} and error["detail"]
    return status, error["error"]


# ---- HTTP


def test_page_and_ping(host):
    with host.dial() as connection:
        for _ in range(2):  # on one connection
            status, headers, body = connection.ask("GET", "/")
            assert (status, body) == (200, (ROOT / "examples" / "page" / "index.html").read_bytes())
            assert headers["content-type"] == "text/html; charset=utf-8"
            assert headers.get("connection", "keep-alive") == "keep-alive"
            assert connection.ask("GET", "/?channel=in-band")[0] == 200
            status, headers, body = connection.ask("GET", "/ping")
            assert (status, body) == (200, b"pong") and headers["content-type"].startswith("text/plain")
            assert len(connection.ask("GET", "/")[2]) == int(connection.ask("HEAD", "/")[1]["content-length"])
            status, headers, body = connection.ask("HEAD", "/ping")
            assert (status, headers["content-length"], body) == (200, "4", b"")


def test_unknown_paths_and_methods(host):
    for path in ["/nothing", "/offer/", "/pin", "/offerr", "/%2e%2e/etc/passwd", "/" + "a" * 500]:
        assert error_of(host.ask("GET", path)) == (404, "NOT_FOUND")
    for method, path, allowed in [
        ("POST", "/", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/ping", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/offer", {"POST", "OPTIONS"}),
        ("PUT", "/offer", {"POST", "OPTIONS"}),
    ]:
        answer = host.ask(method, path, b"" if method != "GET" else None)
        assert error_of(answer) == (405, "METHOD_NOT_ALLOWED")
        assert set(answer[1]["allow"].split(", ")) == allowed


def test_bad_offers_are_400_with_the_reason(host):
    for body, name, word in [
        (b"", "MALFORMED_JSON", ""),
        (b"{", "MALFORMED_JSON", ""),
        (b'{"type":"offer"}', "MALFORMED_JSON", "sdp"),
        (b'{"type":"offer","sdp":"nonsense"}', "MALFORMED_SDP", "1"),
        (b'{"type":"\\"\\u0001","sdp":"v=0"}', "MALFORMED_JSON", "type"),
        (b"\xff\xfe\x00", "MALFORMED_JSON", ""),
    ]:
        for kind in ["application/json", "text/plain", None]:
            headers = {"Content_Type": kind} if kind else {}
            answer = host.ask("POST", "/offer", body, **headers)
            assert error_of(answer) == (400, name)
            assert word in json.loads(answer[2])["detail"]


def test_the_limit_of_bodies(host):
    padded = b'{"type":"offer"}'.ljust(LIMIT)
    assert error_of(host.ask("POST", "/offer", padded)) == (400, "MALFORMED_JSON")
    assert error_of(host.ask("POST", "/offer", padded + b" ")) == (413, "TOO_LARGE")
    assert error_of(host.ask("POST", "/offer", b" " * 700_000)) == (413, "TOO_LARGE")
    # Refused before the body comes.
    with host.dial() as connection:
        connection.send(b"POST /offer HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n")
        answer = connection.answer()
        assert answer[0] in (400, 413) and connection.answer() is None
    assert host.ask("GET", "/ping")[0] == 200


def test_expect_continue(host):
    with host.dial() as connection:
        connection.send(b"POST /offer HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert connection.answer()[0] == 100
        connection.send(b"[]")
        assert error_of(connection.answer()) == (400, "MALFORMED_JSON")


def test_requests_in_pieces_and_in_one(host):
    request = b'POST /offer HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\n{"type":"offer"}'
    with host.dial() as connection:
        for i in range(len(request)):
            connection.send(request[i : i + 1])
        assert connection.answer()[0] == 400
        connection.send(request + b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * 20 + request)
        assert connection.answer()[0] == 400
        for _ in range(20):
            assert connection.answer()[2] == b"pong"
        assert connection.answer()[0] == 400


def test_connection_close(host):
    with host.dial() as connection:
        status, headers, _ = connection.ask("GET", "/ping", Connection="close")
        assert (status, headers["connection"]) == (200, "close")
        assert connection.answer() is None
    with host.dial() as connection:
        connection.send(b"GET /ping HTTP/1.0\r\n\r\n")
        assert connection.file.read().endswith(b"pong")


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /ping HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"POST /offer HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /offer HTTP/1.1\r\nHost: x\r\nContent-Length: 1x\r\n\r\n",
        b"POST /offer HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"GET /" + b"a" * 100_000,
        b"GET /ping HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    ],
)
def test_malformed_requests_end_the_connection(host, request_):
    with host.dial() as connection:
        try:
            connection.send(request_)
            answer = connection.answer()
            assert answer is None or 400 <= answer[0] < 600
            assert answer is None or connection.answer() is None
        except ConnectionError:
            pass  # a reset is an end, too
    assert host.ask("GET", "/ping")[2] == b"pong"


def test_slow_clients_hold_up_nobody(host):
    slow = [host.dial() for _ in range(100)]
    try:
        for index, connection in enumerate(slow):
            connection.send(b"POST /offer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"[: 10 + index % 60])
        lazy = host.dial()  # asks, and never reads
        slow.append(lazy)
        lazy.socket.setblocking(False)
        try:
            for _ in range(1000):
                lazy.socket.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        except BlockingIOError:
            pass
        for _ in range(20):
            assert host.ask("GET", "/ping")[2] == b"pong"
    finally:
        for connection in slow:
            connection.__exit__()
    assert host.ask("GET", "/ping")[2] == b"pong"


def test_clients_that_leave_at_once(host):
    for _ in range(50):
        host.dial().__exit__()
    offer = json.dumps({"type": "offer", "sdp": "v=0"}).encode()
    for _ in range(20):
        with host.dial() as connection:
            connection.send(b"POST /offer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(offer), offer))
    assert host.ask("GET", "/ping")[2] == b"pong"


def test_cors_is_for_one_origin(host):
    allowed = "http://page.example:8000"
    other = Host(host.name, "--cors", allowed)
    try:
        for method, path in [("GET", "/ping"), ("POST", "/offer"), ("OPTIONS", "/offer"), ("GET", "/nothing")]:
            for origin in [allowed, "http://evil.example", allowed + ".evil.example", "null", None]:
                headers = {"Origin": origin} if origin else {}
                if method == "OPTIONS":
                    headers["Access_Control_Request_Method"] = "POST"
                status, answer, _ = other.ask(method, path, b"{" if method == "POST" else None, **headers)
                assert answer.get("access-control-allow-origin") == (allowed if origin == allowed else None)
                assert "Origin" in answer["vary"]
                if method == "OPTIONS":
                    assert status == 204
                    assert ("POST" in answer.get("access-control-allow-methods", "")) == (origin == allowed)
                    assert ("access-control-allow-headers" in answer) == (origin == allowed)
    finally:
        assert other.end()[0] == 0
    _, headers, _ = host.ask("OPTIONS", "/offer", Origin=allowed)  # without --cors
    assert not [name for name in headers if name.startswith("access-control")]


# ---- Flags and life


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it(name, number):
    host = Host(name)
    with host.dial() as idle, host.dial() as half:
        idle.ask("GET", "/ping")
        half.send(b"GET /pi")
        assert host.end(number) == (0, "")


def run(name, *options):
    run = subprocess.run(
        [*COMMANDS[name], *options],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "LD_LIBRARY_PATH": str(ROOT / "build" / "lib")},
    )
    return run.returncode, run.stdout, run.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name):
    status, output, errors = run(name, "--help")
    assert (status, errors) == (0, "")
    flags = "http udp address certificate certificate-days cors page lite negotiated session-store ticket-secret-file"
    flags += " no-tickets fast-reload fast-timeout trip-window trip-failure trip-unstable trip-min trip-rearm stun"
    flags += " public interfaces"
    for word in [*(f"--{flag} " for flag in flags.split()), "SIGHUP", "SIGUSR1", "SIGUSR2", "ALLOWED_ORIGINS"]:
        assert word in output.replace("\n", " "), word


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    "options",
    [
        ["--nonsense"],
        ["nonsense"],
        ["--udp"],
        ["--udp", "65536"],
        ["--udp", "-1"],
        ["--udp", "1x"],
        ["--address", "localhost"],
        ["--http", "8080"],
        ["--http", "127.0.0.1:65536"],
        ["--http", "127.0.0.1:x"],
        ["--http", "::1:8080"],
        ["--certificate-days", "x"],
        ["--fast-reload", "perhaps"],
        ["--fast-timeout", "4294967296"],
        ["--trip-failure", "101"],
        ["--trip-unstable", "-1"],
        ["--trip-min", "1.5"],
        ["--stun", "127.0.0.1"],
        ["--stun", "127.0.0.1:x"],
        ["--public", "localhost"],
        ["--public", "203.0.113.5:65536"],
        ["--interfaces", "temporary,nonsense"],
        ["--ticket-secret-file", "/dev/null"],
        ["--ticket-secret-file", "/nothing"],
    ],
)
def test_bad_flags_are_status_2(name, options):
    status, output, errors = run(name, *options)
    assert (status, output) == (2, "")
    assert options[-1].lstrip("-") in errors and "\nTraceback" not in errors


@pytest.mark.parametrize("name", COMMANDS)
def test_errors_are_status_1(name, tmp_path):
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.bind(("::", 0))
    bad = tmp_path / "bad.pem"
    bad.write_text("nonsense")
    anywhere = ["--http", "127.0.0.1:0"]
    with taken, udp:
        for options, word in [
            (["--http", f"127.0.0.1:{port}"], "in use"),
            ([*anywhere, "--udp", str(udp.getsockname()[1])], "PORT_IN_USE"),
            ([*anywhere, "--certificate", str(bad)], "CERTIFICATE_UNUSABLE"),
            ([*anywhere, "--page", str(tmp_path / "missing")], "missing"),
        ]:
            status, output, errors = run(name, *options)
            assert (status, output) == (1, ""), errors
            said = [line for line in errors.splitlines() if not line.startswith("[")]  # besides the engine's own log
            assert len(said) == 1 and word in said[0] and said[0].startswith("answerer"), errors


@pytest.mark.parametrize("name", COMMANDS)
def test_page_and_certificate_of_ones_own(name, tmp_path):
    page = tmp_path / "page.html"
    page.write_bytes(b"<p>own")
    certificate = tmp_path / "host.pem"
    fingerprints = set()
    for _ in range(2):
        host = Host(name, "--page", str(page), "--certificate", str(certificate), "--lite")
        try:
            assert host.ask("GET", "/")[2] == b"<p>own"
            with local() as engine:
                answer, _ = connect(host, engine)
                assert "a=ice-lite" in answer["sdp"]
                fingerprints |= set(re.findall(r"a=fingerprint:(\S+ \S+)", answer["sdp"]))
        finally:
            assert host.end()[0] == 0
    assert len(fingerprints) == 1 and certificate.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", COMMANDS)
def test_ipv6(name):
    host = Host(name, "--http", "[::1]:0", "--address", "::1")
    try:
        assert host.host == "::1" and host.ask("GET", "/ping")[2] == b"pong"
    finally:
        assert host.end()[0] == 0


# ---- Offers and echo


def connect(host, engine, token=None):
    """The host's answer, and the open channel "echo"."""
    peer = engine.create_peer(ECHO)
    offer = json.loads(peer.offer())
    if token:
        offer["sessionToken"] = token
    status, headers, body = host.ask("POST", "/offer", json.dumps(offer).encode())
    assert (status, headers["content-type"]) == (200, "application/json"), body
    peer.accept(body)
    events = Reader(engine)
    channel = events.until(libreconnect.ChannelOpenEvent, lambda event: event.channel.peer is peer).channel
    return json.loads(body), channel


def test_echo(host):
    with local() as engine:
        answer, channel = connect(host, engine)
        assert answer["connectionMode"] == "normal"
        events = Reader(engine)
        for message in ["", "text", "\u20ac", b"", b"x", os.urandom(262144), "\u00e9" * 131072]:
            channel.send(message)
            assert events.until(libreconnect.MessageEvent).data == message
        other = channel.peer.open_channel(libreconnect.ChannelConfig(label='say "hi"\n'))
        other.send("on another channel")
        event = events.until(libreconnect.MessageEvent)
        assert (event.channel, event.data) == (other, "on another channel")
        other.close()
        events.until(libreconnect.ChannelClosedEvent)
        again, channel = connect(host, engine, answer["sessionToken"])
        assert again["connectionMode"] == "fast"
        channel.send("back again")
        assert events.until(libreconnect.MessageEvent).data == "back again"


def test_flood_comes_back_whole_and_in_order(host):
    """A client that sends without reading: the host's queues fill, it must stop the client, and lose nothing."""
    with local(receive_window=262144) as engine, local() as witness:
        _, channel = connect(host, engine)
        _, quick = connect(host, witness)
        witness_events, events = Reader(witness), Reader(engine)
        channel.pause_reading()  # the client does not read: the echo is stuck in the host
        payload = os.urandom(16000)
        sent = 0

        def send(most):
            nonlocal sent
            while sent < most:
                try:
                    channel.send(sent.to_bytes(4, "big") + payload[sent % 7000 :])
                    sent += 1
                except libreconnect.WouldBlockError:
                    return

        send(1000)
        for number in range(200):  # another client is served all the while
            quick.send(f"quick {number}")
            assert witness_events.until(libreconnect.MessageEvent).data == f"quick {number}"
            send(1000)
        channel.resume_reading()
        for number in range(1000):
            while True:
                event = events.until((libreconnect.MessageEvent, libreconnect.BufferedLowEvent))
                send(1000)
                if isinstance(event, libreconnect.MessageEvent):
                    break
            assert event.data[:4] == number.to_bytes(4, "big"), f"{int.from_bytes(event.data[:4], 'big')}, not {number}"
            assert event.data[4:] == payload[number % 7000 :]


def test_many_clients_at_once(host):
    with local() as engine:
        channels = [connect(host, engine)[1] for _ in range(30)]
        for number, channel in enumerate(channels):
            channel.send(f"client {number}")
        events = Reader(engine)
        got = {}
        while len(got) < len(channels):
            event = events.until(libreconnect.MessageEvent)
            got[event.channel] = event.data
        assert [got[channel] for channel in channels] == [f"client {number}" for number in range(30)]


def test_events_are_logged(host):
    with local() as engine:
        connect(host, engine)
    host.wait_for_line(r"peer \w+: connected after \d")
    host.wait_for_line(r"session \S{8} of client \w+, normal, connection 1, away 0")
    host.wait_for_line(r'channel \w+ "echo" open')
    host.wait_for_line(r"channel .* closed: .*PEER_GONE")
    host.wait_for_line(r"peer \w+: closed after .*PEER_GONE")


# ---- What hosts show and obey


def test_metrics(host):
    before = host.ask("GET", "/metrics")
    assert before[1]["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    with local() as engine:
        connect(host, engine)
    status, headers, body = host.ask("GET", "/metrics")
    lines = body.decode().splitlines()
    assert status == 200 and lines and int(headers["content-length"]) == len(body)
    assert all(re.fullmatch(r'#.*|[a-z0-9_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? \S+', line) for line in lines)

    def answered(text):
        return sum(
            float(line.split()[-1]) for line in text.splitlines() if line.startswith("reconnect_requests_total{")
        )

    assert answered(body.decode()) == answered(before[2].decode()) + 1
    assert host.ask("HEAD", "/metrics")[0] == 200
    answer = host.ask("POST", "/metrics", b"")
    assert error_of(answer) == (405, "METHOD_NOT_ALLOWED")


def test_the_client_for_pages(host):
    content = (ROOT / "bindings" / "web" / "reconnect.js").read_bytes()
    status, headers, body = host.ask("GET", "/reconnect.js")
    assert (status, body) == (200, content)
    assert headers["content-type"] == "text/javascript; charset=utf-8"
    assert headers["cache-control"] == "no-cache" and headers["x-content-type-options"] == "nosniff"
    tag = headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]+"', tag)
    with host.dial() as connection:
        for known in [tag, f'"other", {tag}', f"W/{tag}"]:
            status, headers, body = connection.ask("GET", "/reconnect.js", If_None_Match=known)
            assert (status, headers["etag"], body) == (304, tag, b"")
        assert connection.ask("GET", "/reconnect.js", If_None_Match='"other"')[2] == content
        assert connection.ask("HEAD", "/reconnect.js")[1]["content-length"] == str(len(content))
    assert error_of(host.ask("POST", "/reconnect.js", b"")) == (405, "METHOD_NOT_ALLOWED")


def offer_from(host, origin, **headers):
    """Whether a page of this origin may send an offer."""
    answer = host.ask("POST", "/offer", b"{", Origin=origin, **headers)
    status, name = error_of(answer)
    assert (status, name) in [(400, "MALFORMED_JSON"), (403, "ORIGIN_NOT_ALLOWED")]
    return status == 400


def test_offers_come_from_the_same_host(host):
    here = f"{host.host}:{host.port}"
    assert offer_from(host, f"http://{here}", Host=here)
    assert offer_from(host, f"HTTPS://{here}", Host=here)  # behind a proxy that speaks TLS
    assert offer_from(host, "https://Page.Example", Host="page.example")
    for stranger in [f"http://{host.host}", "http://evil.example", f"http://{here}.evil.example", "null", "://"]:
        assert not offer_from(host, stranger, Host=here), stranger


@pytest.mark.parametrize("name", COMMANDS)
def test_allowed_origins(name, monkeypatch):
    monkeypatch.setenv("ALLOWED_ORIGINS", "https://one.example, https://two.example:8443,,")
    host = Host(name, "--cors", "https://three.example", "--cors", "https://four.example")
    try:
        for origin in [
            "https://one.example",
            "https://two.example:8443",
            "https://three.example",
            "https://four.example",
        ]:
            assert offer_from(host, origin)
            assert host.ask("GET", "/ping", Origin=origin)[1]["access-control-allow-origin"] == origin
        for origin in ["https://one.example,", "https://two.example", "https://five.example"]:
            assert not offer_from(host, origin)
            assert "access-control-allow-origin" not in host.ask("GET", "/ping", Origin=origin)[1]
    finally:
        assert host.end()[0] == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_signals_are_obeyed(name, tmp_path):
    certificate = tmp_path / "host.pem"
    host = Host(name, "--certificate", str(certificate))
    try:
        before = certificate.read_bytes()
        host.process.send_signal(signal.SIGHUP)
        host.wait_for_line(r"^certificate: sha-256 [0-9A-F:]{95}$")
        assert certificate.read_bytes() != before
        with local() as engine:
            answer, channel = connect(host, engine)
            channel.peer.close()
            host.process.send_signal(signal.SIGUSR1)
            host.wait_for_line(r"^fast reload: off, by host: ")
            again, channel = connect(host, engine, answer["sessionToken"])
            assert again["connectionMode"] == "normal"
            channel.peer.close()
            host.process.send_signal(signal.SIGUSR2)
            host.wait_for_line(r"^fast reload: on, by host: ")
            again, channel = connect(host, engine, again["sessionToken"])
            assert again["connectionMode"] == "fast"
    finally:
        assert host.end()[0] == 0


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("setting", ["off", "partial", "on"])
def test_the_option_is_stronger_than_the_environment(name, setting, monkeypatch):
    monkeypatch.setenv("ENABLE_FAST_RELOAD", "false" if setting == "on" else "true")
    host = Host(name, "--fast-reload", setting)
    try:
        with local() as engine:
            answer, channel = connect(host, engine)
            again, _ = connect(host, engine, answer["sessionToken"])
            assert again["connectionMode"] == ("fast" if setting == "on" else "normal")
    finally:
        assert host.end()[0] == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_the_environment_is_read(name, monkeypatch):
    for variable in ["ENABLE_FAST_RELOAD", "STUN_URLS", "REDIS_URL", "ICE_MODE", "TURN_URLS"]:
        with monkeypatch.context() as changed:
            changed.setenv(variable, "nonsense:x")
            status, output, errors = run(name, "--http", "127.0.0.1:0")
            assert (status, output) == (1, "") and variable in errors
    monkeypatch.setenv("ENABLE_FAST_RELOAD", "no")
    host = Host(name)
    try:
        with local() as engine:
            answer, _ = connect(host, engine)
            assert connect(host, engine, answer["sessionToken"])[0]["connectionMode"] == "normal"
    finally:
        assert host.end()[0] == 0


class Way:
    """A connector, and the host that it speaks to."""

    def __init__(self, host, engine, **settings):
        self.host = host
        self.engine = engine
        policy = libreconnect.Policy.FALLBACK
        settings = libreconnect.ConnectorConfig(policy=policy, peer=ECHO, **settings)
        self.connector = engine.connector(settings, self.signaling)

    def signaling(self, offer):
        status, _, body = self.host.ask("POST", "/offer", offer.encode())
        assert status == 200, body
        return body

    def hello(self):
        """Connects and gets an echo; how it connected."""
        connection = self.connector.connect()
        (channel,) = connection.peer.channels
        channel.send("hello")
        events = Reader(self.engine)
        assert events.until(libreconnect.MessageEvent, lambda event: event.channel is channel).data == "hello"
        connection.peer.close()
        events.until(libreconnect.ConnectorEvent, lambda event: event.state == libreconnect.ConnectorState.LOST)
        return connection.mode.name


@pytest.mark.parametrize("name", COMMANDS)
def test_clients_come_back_without_signaling(name, tmp_path):
    """Also after a restart of the host: sessions and the certificate are kept in files."""
    options = [
        *("--certificate", str(tmp_path / "host.pem")),
        *("--session-store", f"sqlite:{tmp_path / 'sessions.db'}"),
    ]
    with local() as engine:
        host = Host(name, *options)
        port = []
        try:
            host.wait_for_line(r"^session store: available$")  # until then answers are normal
            way = Way(host, engine)
            careful = Way(host, engine, key="without tickets", disable_tickets=True)
            assert [each.hello() for each in (careful, way, careful, way)] == [
                *("NORMAL", "NORMAL", "FAST", "ZERO_SIGNALING"),
            ]
            host.wait_for_line(r"peer \w+: connected after \S+( ms)? \(with a ticket\)")
            host.wait_for_line(r"session \S{8} of client \w+, zero-signaling, connection 2, ")
            answer, _ = connect(host, engine)
            port = re.search(r"a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 (\d+) typ host", answer["sdp"], re.I).groups()
        finally:
            host.end(signal.SIGKILL)
        way.host = careful.host = host = Host(name, *options, "--udp", *port)
        try:
            host.wait_for_line(r"^session store: available$")
            assert [each.hello() for each in (way, careful)] == ["ZERO_SIGNALING", "FAST"]
            host.wait_for_line(r"session \S{8} of client \w+, zero-signaling, connection ")
            host.wait_for_line(r"session \S{8} of client \w+, fast, connection 3, ")
        finally:
            assert host.end()[0] == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_no_tickets(name):
    host = Host(name, "--no-tickets")
    try:
        with local() as engine:
            way = Way(host, engine)
            assert [way.hello(), way.hello()] == ["NORMAL", "FAST"]
    finally:
        assert host.end()[0] == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_all_options(name, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(32))
    options = [
        *("--ticket-secret-file", str(secret), "--ticket-secret-file", str(secret), "--certificate-days", "0"),
        *("--session-store", f"sqlite:{tmp_path / 'sessions.db'}", "--fast-timeout", "1000"),
        *("--stun", "127.0.0.1:1", "--stun", "stun:127.0.0.1:2", "--public", "203.0.113.5"),
        *("--public", "203.0.113.6:4000", "--public", "[2001:db8::1]:4000", "--interfaces", "temporary,bridges"),
        *("--trip-window", "1000", "--trip-failure", "50", "--trip-unstable", "50", "--trip-min", "5"),
        *("--trip-rearm", "1000"),
    ]
    host = Host(name, *options)
    try:
        with local() as engine:
            answer, _ = connect(host, engine)
            for candidate in ["203.0.113.6 4000 typ srflx", "2001:db8::1 4000 typ srflx"]:
                assert candidate in answer["sdp"]
    finally:
        assert host.end()[0] == 0


# ---- The example clients

CLIENTS = {
    "go": [ROOT / "build" / "examples" / "client-go"],
    "c": [ROOT / "build" / "examples" / "client-c"],
    "python": [sys.executable, ROOT / "examples" / "python" / "client.py"],
}


@pytest.mark.parametrize("name", CLIENTS)
def test_example_clients_come_back(name, tmp_path):
    host, address = Host("go"), ["--address", "127.0.0.1"]
    try:
        modes = []
        for _ in range(2):
            done = subprocess.run(
                [
                    *CLIENTS[name],
                    *address,
                    "--url",
                    f"http://{host.host}:{host.port}",
                    "--cache",
                    tmp_path / "cache.json",
                ],
                capture_output=True,
                text=True,
                timeout=3 * PATIENCE,
                env={**os.environ, "LD_LIBRARY_PATH": str(ROOT / "build" / "lib")},
            )
            assert done.returncode == 0, done.stderr
            lines = done.stdout.splitlines()
            assert all(re.fullmatch(r'[a-z-]+: open after [\d.]+ ms, "hello" after [\d.]+ ms', line) for line in lines)
            modes += [line.partition(":")[0] for line in lines]
            assert "won after" in done.stderr
        assert len(modes) == 6 and modes[0] == "normal"
        assert set(modes[1:]) <= {"fast", "zero-signaling"}, modes
    finally:
        assert host.end()[0] == 0
    done = subprocess.run([*CLIENTS[name], "--url", f"http://{host.host}:{host.port}"], capture_output=True, text=True)
    assert done.returncode == 1 and "SIGNALING_FAILED" in done.stderr and "Traceback" not in done.stderr
