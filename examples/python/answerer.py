#!/usr/bin/env python3
"""The answerer host: serves the example page, answers its offers and echoes every message."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import ipaddress
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import http_server
from http_server import Request, Response

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "build" / "lib" / "libreconnect.so.1"
MODULE = ROOT / "bindings" / "web" / "reconnect.js"

try:
    import libreconnect
except ImportError:  # not installed: the source tree's own
    sys.path.insert(0, str(ROOT / "bindings" / "python"))
    import libreconnect

from libreconnect import aio  # noqa: E402

CHANNELS = (libreconnect.ChannelConfig(label="echo", negotiated=True, id=1),)
"""Every peer gets the channel "echo" with stream 1, which needs no announcement: a page that opens it likewise can send
as soon as SCTP is up. The page is the DTLS client, so the channels that it announces have even streams (RFC 8832
section 6)."""


class Host:
    """Answers offers and echoes messages."""

    def __init__(
        self, engine: aio.Engine, page: bytes, module: bytes | None, origins: list[str], peer: libreconnect.PeerConfig
    ) -> None:
        self.engine = engine
        self.page = page
        self.module = module  # the client for pages
        self.tag = '"' + hashlib.sha256(module or b"").hexdigest() + '"'
        self.origins = origins
        self.peer = peer
        self.tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------ HTTP

    async def respond(self, request: Request) -> Response:
        response = await self.route(request)
        origin = request.headers.get("origin")
        if self.origins:
            response.headers["Vary"] = "Origin"
            if origin in self.origins:
                response.headers["Access-Control-Allow-Origin"] = origin
                if request.method == "OPTIONS":
                    response.headers["Access-Control-Allow-Methods"] = "GET, HEAD, POST"
                    response.headers["Access-Control-Allow-Headers"] = "Content-Type"
                    response.headers["Access-Control-Max-Age"] = "600"
        return response

    async def route(self, request: Request) -> Response:
        if request.path == "/":
            return self.get(request, "text/html; charset=utf-8", self.page)
        if request.path == "/reconnect.js":
            return self.get_module(request)
        if request.path == "/metrics":
            return self.get(request, libreconnect.METRICS_CONTENT_TYPE, self.engine.metrics().encode())
        if request.path == "/ping":
            return self.get(request, "text/plain; charset=utf-8", b"pong")
        if request.path != "/offer":
            return Response.refusal(404, "NOT_FOUND", "there are /, /reconnect.js, /ping, /metrics and /offer")
        if request.method == "OPTIONS":
            return Response(204)
        if request.method != "POST":
            return Response.wrong_method("OPTIONS, POST")
        if not self.may_offer(request):
            detail = "pages of this origin may not send offers; --cors or ALLOWED_ORIGINS allow it"
            return Response.refusal(403, "ORIGIN_NOT_ALLOWED", detail)
        return await self.take_offer(request.body)

    def may_offer(self, request: Request) -> bool:
        """Programs may, which have no origin, and pages of this host and of the origins that were allowed by name."""
        origin = request.headers.get("origin")
        if origin is None or origin in self.origins:
            return True
        try:
            host = urlsplit(origin).netloc
        except ValueError:
            return False
        return host != "" and host.lower() == request.headers.get("host", "").lower()

    def get_module(self, request: Request) -> Response:
        """The client for pages. Browsers ask each time whether theirs is still the one."""
        if self.module is None:
            return Response.refusal(404, "NOT_FOUND", "bindings/web/reconnect.js was not found")
        response = self.get(request, "text/javascript; charset=utf-8", self.module)
        if response.status == 200:
            response.headers |= {"ETag": self.tag, "Cache-Control": "no-cache"}
            if self.tag in request.headers.get("if-none-match", ""):
                response.status, response.body, response.kind = 304, b"", None
        return response

    def get(self, request: Request, kind: str, body: bytes) -> Response:
        if request.method == "OPTIONS":
            return Response(204)
        if request.method not in ("GET", "HEAD"):
            return Response.wrong_method("GET, HEAD, OPTIONS")
        return Response(200, body, kind)

    async def take_offer(self, offer: bytes) -> Response:
        try:
            answer = await self.engine.answer(offer, self.peer)
        except (
            libreconnect.MalformedJSONError,
            libreconnect.MalformedSDPError,
            libreconnect.UnacceptableError,
            libreconnect.InvalidArgumentError,
        ) as error:
            return Response.refusal(400, error.name, error.detail)
        except (libreconnect.LimitError, libreconnect.InvalidHandleError) as error:
            return Response.refusal(503, error.name, str(error))
        except libreconnect.ReconnectError as error:
            return Response.refusal(500, error.name, str(error))
        return Response(200, answer.json.encode(), "application/json")

    # ---------------------------------------------------------------- events

    async def watch(self, events: aio.Events) -> None:
        """Logs what happens, and starts an echo for every channel that opens."""
        async for event in events:
            if isinstance(event, libreconnect.ChannelOpenEvent):
                task = asyncio.create_task(self.echo(event.channel))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            line = describe(event)
            if line:
                log(line)

    async def echo(self, channel: aio.Channel) -> None:
        """Sends every message back. While the send queue is full this waits, the channel's messages with it: they
        fill the peer's receive window, and the other side stops sending."""
        async for message in channel:
            try:
                await channel.send(message)
            except libreconnect.TooLargeError as error:
                log(f"peer {channel.peer.id}: channel {channel.id}: {len(message)} not echoed: {error}")
            except libreconnect.ReconnectError:
                return  # closed: its end is an event


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def describe(event: aio.Event) -> str | None:
    """The line for an event."""
    if isinstance(event, libreconnect.LogEvent):
        return event.line
    if isinstance(event, libreconnect.PeerStateEvent):
        ticket = " (with a ticket)" if event.ticket else ""
        state = f"peer {event.peer.id}: {event.state.name.lower()} after {event.age * 1000:.0f} ms{ticket}"
        return state + because(event.reason)
    if isinstance(event, libreconnect.SessionEvent):
        return (
            f"peer {event.peer.id}: session {event.token} of client {event.client_id}, {mode_name(event.mode)}, "
            f"connection {event.connections}, away {event.away * 1000:.0f} ms"
        )
    if isinstance(event, libreconnect.ChannelOpenEvent):
        return f"peer {event.channel.peer.id}: channel {event.channel.id} {json.dumps(event.channel.label)} open"
    if isinstance(event, libreconnect.ChannelClosedEvent):
        channel = event.channel
        return f"peer {channel.peer.id}: channel {channel.id} {json.dumps(channel.label)} closed{because(event.reason)}"
    if isinstance(event, libreconnect.AddressesEvent):
        return f"addresses: {' '.join(event.addresses)}"
    if isinstance(event, libreconnect.FastReloadEvent):
        return f"fast reload: {event.setting.name.lower()}, by {event.by.name.lower()}: {event.detail}"
    if isinstance(event, libreconnect.CertificateEvent):
        return f"certificate: {event.fingerprint}"
    if isinstance(event, libreconnect.StoreEvent):
        return "session store: available" if event.available else f"session store: unavailable: {event.detail}"
    return None


def mode_name(mode: libreconnect.Mode) -> str:
    return mode.name.lower().replace("_", "-")


def because(reason: libreconnect.ReconnectError | None) -> str:
    return f": {reason}" if reason else ""


# ---------------------------------------------------------------- the program


def port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def number(most: int = (1 << 32) - 1) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {most}")
        return int(text)

    return parse


def stream(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65534 and int(text) != 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not an id from 0 to 65534 other than 1")
    return int(text)


def host_and_port(text: str) -> tuple[str, int]:
    host, colon, number = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    try:
        return host, port(number if colon else "")
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT") from None


def address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IP address") from None
    return text


def public(text: str) -> str:
    try:
        host_and_port(text)
        host = text.rpartition(":")[0].strip("[]")
    except argparse.ArgumentTypeError:
        host = text
    address(host)
    return text


def server(text: str) -> str:
    host_and_port(text.removeprefix("stun:"))
    return text


def secret(text: str) -> bytes:
    try:
        content = Path(text).read_bytes()
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not 32 <= len(content) <= 256:
        raise argparse.ArgumentTypeError(f"{text!r} must have 32 to 256 bytes")
    return content


def interfaces(text: str) -> libreconnect.Interfaces:
    names = {name.lower(): bit for name, bit in libreconnect.Interfaces.__members__.items() if bit}
    policy = libreconnect.Interfaces.NONE
    for name in text.split(","):
        if name not in names:
            raise argparse.ArgumentTypeError(f"{text!r}: there are {', '.join(names)}")
        policy |= names[name]
    return policy


FAST_RELOAD = {setting.name.lower(): setting for setting in libreconnect.FastReload}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="answerer.py",
        description="Serves the example page, answers WebRTC offers and echoes every message.",
        epilog="Environment, for what no option says: ENABLE_FAST_RELOAD (true, false, partial), STUN_URLS and "
        "ALLOWED_ORIGINS (both separated by commas; the latter adds to --cors), REDIS_URL, ICE_MODE (turn-only, all), "
        "TURN_URLS with TURN_USERNAME and TURN_PASSWORD, or with TURN_SECRET. "
        "Paths: /, /reconnect.js, /ping, /metrics, POST /offer. "
        "Signals: SIGHUP replaces the certificate, SIGUSR1 switches fast reload off, SIGUSR2 on.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--http",
        type=host_and_port,
        default=("127.0.0.1", 8080),
        metavar="HOST:PORT",
        help="where to serve HTTP (default 127.0.0.1:8080); IPv6 as [::1]:8080; port 0: any free one",
    )
    parser.add_argument(
        "--udp", type=port, default=0, metavar="PORT", help="UDP port for all peers (default 0: any free one)"
    )
    parser.add_argument(
        "--address",
        type=address,
        action="append",
        default=[],
        metavar="ADDR",
        help="IP address to offer, repeatable (default: those of the machine's interfaces)",
    )
    parser.add_argument(
        "--certificate",
        metavar="FILE",
        help="PEM file for key and certificate, made if missing (default: a new one at every start)",
    )
    parser.add_argument(
        "--certificate-days",
        type=number(36500),
        metavar="N",
        help="replace the certificate at this age (default 30; 0: never)",
    )
    parser.add_argument(
        "--cors",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="another origin whose pages may send offers, repeatable (default: the same host only)",
    )
    parser.add_argument(
        "--page",
        metavar="FILE",
        type=Path,
        default=ROOT / "examples" / "page" / "index.html",
        help="the page (default: examples/page/index.html of the source tree)",
    )
    parser.add_argument("--lite", action="store_true", help="ICE Lite: only answer checks; for public addresses")
    parser.add_argument(
        "--negotiated", type=stream, metavar="ID", help="also open a pre-negotiated channel with this id on each peer"
    )
    group = parser.add_argument_group("coming back")
    group.add_argument(
        "--session-store",
        metavar="URL",
        help="where sessions are kept: sqlite:PATH, redis://..., rediss://..., redis+unix:PATH (default: in memory)",
    )
    group.add_argument(
        "--ticket-secret-file",
        type=secret,
        action="append",
        default=[],
        metavar="FILE",
        help="32 to 256 bytes that servers share to accept each other's tickets (they share the certificate too); "
        "given twice: first the new one, then the old one",
    )
    group.add_argument("--no-tickets", action="store_true", help="no returning without signaling")
    group.add_argument(
        "--fast-reload", choices=FAST_RELOAD, metavar="on|off|partial", help="the kill switch (default on)"
    )
    for name, kind, metavar, words in [
        ("fast-timeout", number(), "MS", "a fast answer that has not connected by then has failed (default 2000)"),
        ("trip-window", number(), "MS", "fast reload switches itself off by what happens in this time (default 60000)"),
        ("trip-failure", number(100), "PERCENT", "... if more fast connects fail (default 30)"),
        ("trip-unstable", number(100), "PERCENT", "... or end by an error within 10 s (default 20)"),
        ("trip-min", number(), "N", "... of at least so many (default 20)"),
        ("trip-rearm", number(), "MS", "... and tries again after this time (default 60000)"),
    ]:
        percent = words.replace("%", "%%")
        group.add_argument(f"--{name}", type=kind, default=0, metavar=metavar, help=percent)
    group = parser.add_argument_group("addresses")
    group.add_argument(
        "--stun",
        type=server,
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="STUN server that tells the address outside, repeatable",
    )
    group.add_argument(
        "--public",
        type=public,
        action="append",
        default=[],
        metavar="ADDR[:PORT]",
        help="address outside, repeatable; IPv6 with a port as [2001:db8::1]:4000",
    )
    group.add_argument(
        "--interfaces",
        type=interfaces,
        default=libreconnect.Interfaces.NONE,
        metavar="LIST",
        help="also offer addresses that are: temporary,deprecated,bridges,loopback",
    )
    options = parser.parse_args(arguments)
    if len(options.ticket_secret_file) > 2:
        parser.error("--ticket-secret-file can be given twice at most")
    return options


def configuration(options: argparse.Namespace) -> libreconnect.Config:
    channels = CHANNELS
    if options.negotiated is not None:
        channels += (libreconnect.ChannelConfig(label="negotiated", negotiated=True, id=options.negotiated),)
    days = options.certificate_days
    new, old = [*options.ticket_secret_file, None, None][:2]
    return libreconnect.Config(
        port=options.udp,
        addresses=options.address,
        certificate_path=options.certificate,
        certificate_days=libreconnect.CERTIFICATE_FOREVER if days == 0 else days or 0,
        ice_mode=libreconnect.ICEMode.LITE if options.lite else libreconnect.ICEMode.FULL,
        session_store=options.session_store,
        ticket_secret=new,
        old_ticket_secret=old,
        disable_tickets=options.no_tickets,
        # What a peer gets that was answered, one gets too that comes back with a ticket.
        returning_peer=libreconnect.PeerConfig(channels=channels),
        fast_timeout=options.fast_timeout / 1000,
        trip_window=options.trip_window / 1000,
        trip_failure_percent=options.trip_failure,
        trip_unstable_percent=options.trip_unstable,
        trip_min_attempts=options.trip_min,
        trip_rearm=options.trip_rearm / 1000,
        stun_servers=options.stun,
        public_addresses=options.public,
        interfaces=options.interfaces,
    )


async def listen(host: str, number: int) -> socket.socket:
    """A listening socket on the first address of the host."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, bound = found[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(bound)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def obey(engine: aio.Engine) -> None:
    """Does what signals ask for."""

    def act(action: Callable[[], None]) -> None:
        try:
            action()
        except libreconnect.ReconnectError as error:
            log(str(error))

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, act, engine.rotate_certificate)
    loop.add_signal_handler(signal.SIGUSR1, act, lambda: engine.set_fast_reload(libreconnect.FastReload.OFF))
    loop.add_signal_handler(signal.SIGUSR2, act, lambda: engine.set_fast_reload(libreconnect.FastReload.ON))


async def run(options: argparse.Namespace) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop.set)
    page, module = options.page.read_bytes(), MODULE.read_bytes() if MODULE.exists() else None
    config = configuration(options)
    allowed = [origin.strip() for origin in os.environ.get("ALLOWED_ORIGINS", "").split(",")]
    async with aio.Engine.from_env(config) as engine:
        if options.fast_reload is not None:  # stronger than the environment
            engine.set_fast_reload(FAST_RELOAD[options.fast_reload])
        obey(engine)
        origins = options.cors + [origin for origin in allowed if origin]
        host = Host(engine, page, module, origins, config.returning_peer)
        watching = asyncio.create_task(host.watch(engine.events()))
        listener = await listen(*options.http)
        async with http_server.Server(host.respond, listener):
            name = options.http[0] or "localhost"
            name = f"[{name}]" if ":" in name else name
            print(f"listening on http://{name}:{listener.getsockname()[1]}/", flush=True)
            await stop.wait()
    await watching
    await asyncio.gather(*host.tasks)


def main() -> int:
    options = parse(sys.argv[1:])
    if LIBRARY.exists() and str(ROOT) in libreconnect.__file__:
        os.environ.setdefault("LIBRECONNECT_LIBRARY", str(LIBRARY))
    try:
        asyncio.run(run(options))
    except (OSError, ImportError, libreconnect.ReconnectError) as error:
        log(f"answerer.py: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
