#!/usr/bin/env python3
"""The answerer host: serves the example page, answers its offers and echoes every message."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import os
import signal
import socket
import sys
from pathlib import Path

import http_server
from http_server import Request, Response

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "build" / "lib" / "libreconnect.so.1"

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

    def __init__(self, engine: aio.Engine, page: bytes, origin: str | None, negotiated: int | None = None) -> None:
        self.engine = engine
        self.channels = CHANNELS
        if negotiated is not None:
            self.channels += (libreconnect.ChannelConfig(label="negotiated", negotiated=True, id=negotiated),)
        self.page = page
        self.origin = origin
        self.tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------ HTTP

    async def respond(self, request: Request) -> Response:
        response = await self.route(request)
        if self.origin:
            response.headers["Vary"] = "Origin"
            if request.headers.get("origin") == self.origin:
                response.headers["Access-Control-Allow-Origin"] = self.origin
                if request.method == "OPTIONS":
                    response.headers["Access-Control-Allow-Methods"] = "GET, HEAD, POST"
                    response.headers["Access-Control-Allow-Headers"] = "Content-Type"
                    response.headers["Access-Control-Max-Age"] = "600"
        return response

    async def route(self, request: Request) -> Response:
        if request.path == "/":
            return self.get(request, "text/html; charset=utf-8", self.page)
        if request.path == "/ping":
            return self.get(request, "text/plain; charset=utf-8", b"pong")
        if request.path != "/offer":
            return Response.refusal(404, "NOT_FOUND", "there are /, /ping and /offer")
        if request.method == "OPTIONS":
            return Response(204)
        if request.method != "POST":
            return Response.wrong_method("OPTIONS, POST")
        return await self.take_offer(request.body)

    def get(self, request: Request, kind: str, body: bytes) -> Response:
        if request.method == "OPTIONS":
            return Response(204)
        if request.method not in ("GET", "HEAD"):
            return Response.wrong_method("GET, HEAD, OPTIONS")
        return Response(200, body, kind)

    async def take_offer(self, offer: bytes) -> Response:
        try:
            answer = await self.engine.answer(offer, libreconnect.PeerConfig(channels=self.channels))
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
        state = f"peer {event.peer.id}: {event.state.name.lower()} after {event.age * 1000:.0f} ms"
        return state + because(event.reason)
    if isinstance(event, libreconnect.SessionEvent):
        return (
            f"peer {event.peer.id}: session {event.token} of client {event.client_id}, {event.mode.name.lower()}, "
            f"connection {event.connections}, away {event.away * 1000:.0f} ms"
        )
    if isinstance(event, libreconnect.ChannelOpenEvent):
        return f"peer {event.channel.peer.id}: channel {event.channel.id} {json.dumps(event.channel.label)} open"
    if isinstance(event, libreconnect.ChannelClosedEvent):
        channel = event.channel
        return f"peer {channel.peer.id}: channel {channel.id} {json.dumps(channel.label)} closed{because(event.reason)}"
    if isinstance(event, libreconnect.AddressesEvent):
        return f"addresses: {' '.join(event.addresses)}"
    return None


def because(reason: libreconnect.ReconnectError | None) -> str:
    return f": {reason}" if reason else ""


# ---------------------------------------------------------------- the program


def port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


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


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="answerer.py", description="Serves the example page, answers WebRTC offers and echoes every message."
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
    parser.add_argument("--cors", metavar="ORIGIN", help="the one other origin whose pages may send offers")
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
    return parser.parse_args(arguments)


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


async def run(options: argparse.Namespace) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    page = options.page.read_bytes()
    config = libreconnect.Config(
        port=options.udp,
        addresses=options.address,
        certificate_path=options.certificate,
        ice_mode=libreconnect.ICEMode.LITE if options.lite else libreconnect.ICEMode.FULL,
    )
    async with aio.Engine(config) as engine:
        host = Host(engine, page, options.cors, options.negotiated)
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
