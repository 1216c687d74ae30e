#!/usr/bin/env python3
"""A router: rooms over WebSockets, whose clients get what they missed when they come back.

It needs FastAPI, uvicorn and websockets from PyPI. docs/python-router.md says what goes over the wire.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import json
import math
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "build" / "lib" / "libreconnect.so.1"
PAGE = Path(__file__).resolve().parent / "router_page"

try:
    import libreconnect
except ImportError:  # not installed: the source tree's own
    sys.path.insert(0, str(ROOT / "bindings" / "python"))
    import libreconnect

import rooms  # noqa: E402
import uvicorn  # noqa: E402
from fastapi import FastAPI, Request, Response, WebSocket  # noqa: E402
from fastapi.responses import JSONResponse, PlainTextResponse  # noqa: E402
from libreconnect import MessageKind, aio  # noqa: E402
from pydantic import BaseModel, ConfigDict, Field, ValidationError  # noqa: E402
from starlette.websockets import WebSocketDisconnect, WebSocketState  # noqa: E402

KINDS = {kind.name.lower(): kind for kind in MessageKind}
BODY_BYTES = 4096
PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/room.js": ("room.js", "text/javascript; charset=utf-8"),
}
POLICY = "default-src 'self'; connect-src 'self' ws: wss:; style-src 'self' 'unsafe-inline'; img-src data:; frame-ancestors 'none'"


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, name: str, detail: str, **headers: str) -> None:
        self.status = status
        self.name = name
        self.detail = detail
        self.headers = headers


@dataclass
class Settings:
    tokens: dict[str, str]
    """The access token of each user."""
    origins: list[str] = field(default_factory=list)
    """Other origins whose pages may connect."""
    demo: bool = False
    """The page is told the tokens."""
    rate: float = 20
    burst: int = 40
    config: libreconnect.ReplayConfig = field(default_factory=libreconnect.ReplayConfig)
    limits: rooms.Limits = field(default_factory=rooms.Limits)


class Router:
    """Who may do what, and what becomes of it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.buffer = aio.ReplayBuffer.from_env(settings.config)
        self.rooms = rooms.Rooms(self.buffer, settings.limits)
        self.rate = rooms.RateLimit(settings.rate, settings.burst)

    @contextlib.asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Open while the server serves. When that ends its WebSockets have been closed, each with a drop: all clients may
        come back to the next one."""
        async with self.buffer:
            tasks = [
                asyncio.create_task(self.log(self.buffer.events())),
                asyncio.create_task(self.rooms.watch(self.settings.limits.check_interval)),
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def log(self, events: aio.ReplayEvents) -> None:
        async for event in events:
            if isinstance(event, libreconnect.ReplayStoreEvent):
                log(f"store {event.state.name.lower()}: {event.detail}")
            elif isinstance(event, libreconnect.LogEvent):
                log(event.line)

    # ------------------------------------------------------------------ who asks

    def may_connect(self, origin: str | None, host: str | None) -> bool:
        """Programs may, which have no origin, and pages of this host and of the origins that were allowed by name."""
        if origin is None or origin in self.settings.origins:
            return True
        try:
            own = urlsplit(origin).netloc
        except ValueError:
            return False
        return own != "" and own.lower() == (host or "").lower()

    def user(self, token: object) -> str | None:
        """Whose access token this is. The time it takes says nothing about the tokens."""
        found = None
        presented = token.encode("utf-8", "surrogatepass") if isinstance(token, str) else b""
        for user, known in self.settings.tokens.items():
            if hmac.compare_digest(known.encode(), presented):
                found = user
        return found

    def caller(self, request: Request) -> str:
        """The user of an HTTP request."""
        if not self.may_connect(request.headers.get("origin"), request.headers.get("host")):
            raise Refusal(403, "ORIGIN_NOT_ALLOWED", "pages of this origin may not; --cors or ALLOWED_ORIGINS allow it")
        user = self.user(bearer(request.headers.get("authorization")))
        if user is None:
            raise Refusal(401, "UNAUTHORIZED", "a bearer token is needed", **{"WWW-Authenticate": "Bearer"})
        early = self.rate.take(user)
        if early:
            raise Refusal(429, "TOO_MANY", "too many requests", **{"Retry-After": str(math.ceil(early))})
        return user

    # ---------------------------------------------------------------- WebSockets

    async def serve(self, websocket: WebSocket, name: str) -> None:
        """One WebSocket, from its first message to its end."""
        if not self.may_connect(websocket.headers.get("origin"), websocket.headers.get("host")):
            await websocket.send_denial_response(
                refused(Refusal(403, "ORIGIN_NOT_ALLOWED", "pages of this origin may not connect"))
            )
            return
        await websocket.accept()
        connection, leave = None, False
        try:
            try:
                async with asyncio.timeout(self.settings.limits.join_timeout):
                    hello = await receive(websocket)
            except TimeoutError:
                raise Ending(rooms.NOT_UNDERSTOOD, "no join in time") from None
            connection = await self.join(websocket, name, hello)
            leave = await self.talk(websocket, connection)
            code, reason = await connection.ended
        except WebSocketDisconnect:
            code, reason = 0, ""  # it has gone
        except Ending as ending:
            code, reason = ending.code, ending.reason
        except libreconnect.ReconnectError as error:
            log(f"a connection ends: {error}")
            code, reason = rooms.TRY_AGAIN_LATER, error.name
        finally:
            if connection is not None:
                await self.rooms.exit(connection, leave)
        if code and websocket.application_state is WebSocketState.CONNECTED:
            # To one that does not read, nothing can be said: the server gives its connection up by itself.
            with contextlib.suppress(RuntimeError, TimeoutError, WebSocketDisconnect):
                async with asyncio.timeout(2):
                    await websocket.close(code, reason)

    async def join(self, websocket: WebSocket, name: str, hello: dict[str, Any]) -> rooms.Connection:
        """The first message says who it is and where it stands."""
        user = self.user(hello.get("access") or bearer(websocket.headers.get("authorization")))
        if user is None:
            raise Ending(rooms.UNAUTHORIZED, "an access token is needed")
        if hello.get("type") != "join":
            raise Ending(rooms.NOT_UNDERSTOOD, "the first message must be a join")
        if self.rate.take(user):
            raise Ending(rooms.TOO_MANY, "too many connections")
        position, token = hello.get("position"), hello.get("token")
        if not isinstance(position, (str, type(None))) or not isinstance(token, (str, type(None))):
            raise Ending(rooms.NOT_UNDERSTOOD, "position and token are texts")
        try:
            return await self.rooms.enter(name, user, websocket, position, token)
        except libreconnect.ThrottledError as error:
            await websocket.send_text(rooms.dumps({"type": "retry", "retry_after": error.retry_after}))
            raise Ending(rooms.TRY_AGAIN_LATER, "too many come back at once") from None
        except libreconnect.InvalidArgumentError as error:
            raise Ending(rooms.NOT_UNDERSTOOD, error.detail[:100]) from None
        except libreconnect.LimitError:
            raise Ending(rooms.TRY_AGAIN_LATER, "too many rooms or members") from None

    async def talk(self, websocket: WebSocket, connection: rooms.Connection) -> bool:
        """Reads and writes until the connection ends. Whether the client leaves for good."""
        reading = asyncio.create_task(self.read(websocket, connection))
        writing = asyncio.create_task(connection.write())
        try:
            await asyncio.wait({reading, writing, connection.ended}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and not reading.cancelled() and reading.exception() is None:
                await asyncio.wait({writing, connection.ended}, return_when=asyncio.FIRST_COMPLETED, timeout=2)
                connection.end(rooms.NORMAL, "")
                return reading.result()
            for task in (reading, writing):
                if task.done():
                    task.result()
            return False
        finally:
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    async def read(self, websocket: WebSocket, connection: rooms.Connection) -> bool:
        """Takes messages one by one: a client whose message is not stored yet waits, and its network with it."""
        excess = 0
        while True:
            message = await receive(websocket)
            early = self.rate.take(connection.user)
            if early:
                excess += 1
                if excess > self.settings.burst:
                    raise Ending(rooms.TOO_MANY, "too many messages")
                connection.send(type="error", id=message.get("id"), error="TOO_MANY", retry_after=round(early, 3))
                continue
            excess = 0
            kind = message.get("type")
            if kind == "message":
                await self.publish(connection, message)
            elif kind == "ack":
                await self.acknowledge(connection, message.get("position"))
            elif kind == "leave":
                connection.send(type="left")
                connection.finish(rooms.NORMAL, "left")
                return True
            elif kind != "ping":
                connection.send(type="error", id=message.get("id"), error="UNKNOWN_TYPE")
            else:
                connection.send(type="pong")

    async def publish(self, connection: rooms.Connection, message: dict[str, Any]) -> None:
        """Stores a message; everybody gets it by way of the subscription, the sender a receipt. With an `id` it can be
        sent again after a return: it is stored once."""
        id, to, kind = message.get("id"), message.get("to"), message.get("kind", "other")
        try:
            if not isinstance(to, (str, type(None))) or not isinstance(id, (str, type(None))) or kind not in KINDS:
                raise ValueError("to and id are texts, kind is one of " + ", ".join(KINDS))
            if id is not None and not 1 <= len(id) <= 64:
                raise ValueError("an id has 1 to 64 characters")
            negotiation = message.get("negotiation", 0)
            if type(negotiation) is not int:
                raise ValueError("negotiation is a number")
            text = rooms.stored(connection.user, to, kind, message.get("data"))
            if len(text.encode()) > self.settings.limits.message_bytes:
                raise libreconnect.TooLargeError(f"at most {self.settings.limits.message_bytes} bytes")
            published = await self.buffer.publish(
                connection.room.name,
                text,
                connection.user,
                to=to,
                kind=KINDS[kind],
                negotiation=negotiation,
                key=id,
            )
        except libreconnect.ReconnectError as error:
            connection.send(type="error", id=id, error=error.name, detail=error.detail)
        except (ValueError, TypeError) as error:
            connection.send(type="error", id=id if isinstance(id, str) else None, error="MALFORMED", detail=str(error))
        else:
            connection.send(type="sent", id=id, sequence=published.sequence, duplicate=published.duplicate)

    async def acknowledge(self, connection: rooms.Connection, position: object) -> None:
        if not isinstance(position, str):
            raise Ending(rooms.NOT_UNDERSTOOD, "an ack has a position")
        try:
            await self.buffer.acknowledge(connection.room.name, connection.user, connection.generation, position)
        except libreconnect.StaleError:
            raise Ending(rooms.REPLACED, "a newer connection took over") from None
        except libreconnect.ReconnectError as error:
            connection.send(type="error", error=error.name, detail=error.detail)
        else:
            connection.acknowledged = position


class Ending(Exception):
    """Why a WebSocket is closed."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason


def no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


async def receive(websocket: WebSocket) -> dict[str, Any]:
    """The next message of a client. What is larger than a message can be has been refused by the server (1009)."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    try:
        decoded = json.loads(message.get("text") or "", parse_constant=no_constant)
    except (ValueError, RecursionError):
        raise Ending(rooms.NOT_UNDERSTOOD, "messages are JSON") from None
    if not isinstance(decoded, dict):
        raise Ending(rooms.NOT_UNDERSTOOD, "messages are JSON objects")
    return decoded


def bearer(header: str | None) -> str | None:
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


# ------------------------------------------------------------------------ HTTP


Figure = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Measures(BaseModel):
    """What a client measured; what is missing is not known."""

    model_config = ConfigDict(extra="ignore", strict=True)

    latency_ms: Figure | None = None
    packet_loss_percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    jitter_ms: Figure | None = None
    bandwidth_kbps: Figure | None = None


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def refused(refusal: Refusal) -> JSONResponse:
    return JSONResponse({"error": refusal.name, "detail": refusal.detail}, refusal.status, refusal.headers)


def refusal_of(error: libreconnect.ReconnectError) -> Refusal:
    if isinstance(error, (libreconnect.UnknownRoomError, libreconnect.UnknownUserError)):
        return Refusal(404, error.name, "you have not joined this room, or have left it")
    if isinstance(error, libreconnect.InvalidArgumentError):
        return Refusal(400, error.name, error.detail)
    return Refusal(503, error.name, str(error))


async def body_of(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES:
            raise Refusal(413, "TOO_LARGE", f"at most {BODY_BYTES} bytes", Connection="close")
    return body


def application(settings: Settings) -> FastAPI:
    router = Router(settings)
    app = FastAPI(
        title="libreconnect router", lifespan=router.lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )

    @app.exception_handler(Refusal)
    async def refuse(_: Request, refusal: Refusal) -> Response:
        return refused(refusal)

    @app.exception_handler(libreconnect.ReconnectError)
    async def fail(_: Request, error: libreconnect.ReconnectError) -> Response:
        return refused(refusal_of(error))

    @app.middleware("http")
    async def headers(request: Request, call_next: Any) -> Response:
        origin = request.headers.get("origin")
        preflight = request.method == "OPTIONS" and "access-control-request-method" in request.headers
        response: Response = Response(status_code=204) if preflight else await call_next(request)
        response.headers["Vary"] = "Origin"
        response.headers["X-Content-Type-Options"] = "nosniff"
        if origin in settings.origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            if preflight:
                response.headers["Access-Control-Allow-Methods"] = "GET, POST"
                response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
                response.headers["Access-Control-Max-Age"] = "600"
        return response

    @app.websocket("/webrtc/rooms/{room_id}/socket")
    async def serve(websocket: WebSocket, room_id: str) -> None:
        await router.serve(websocket, room_id)

    @app.post("/webrtc/rooms/{room_id}/connection-quality")
    async def connection_quality(request: Request, room_id: str) -> Response:
        user = router.caller(request)
        try:
            measures = Measures.model_validate_json(await body_of(request))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            raise Refusal(422, "INVALID_ARGUMENT", f"{where}: {first['msg']}") from None
        report = await router.buffer.quality(
            room_id,
            user,
            latency_ms=measures.latency_ms,
            loss_percent=measures.packet_loss_percent,
            jitter_ms=measures.jitter_ms,
            bandwidth_kbps=measures.bandwidth_kbps,
        )
        return JSONResponse(
            {
                "quality": report.quality.name.lower(),
                "metrics": measures.model_dump(),
                "recommendations": list(report.recommendations),
                "timestamp": moment(datetime.now(timezone.utc).timestamp()),
            }
        )

    @app.get("/webrtc/rooms/{room_id}/reconnection-state")
    async def reconnection_state(request: Request, room_id: str) -> Response:
        user = router.caller(request)
        state = await router.buffer.state(room_id, user)
        return JSONResponse(
            {
                "room_id": room_id,
                "user_id": user,
                "state": {
                    "last_sequence": state.last_sequence,
                    "last_seen": moment(state.last_seen),
                    "is_connected": state.connected,
                    "connection_quality": state.quality.name.lower(),
                },
            }
        )

    @app.get("/metrics")
    async def metrics() -> Response:
        own = (
            "# HELP reconnect_router_connections WebSockets that have joined a room.\n"
            "# TYPE reconnect_router_connections gauge\n"
            f"reconnect_router_connections {len(router.rooms)}\n"
        )
        return Response(router.buffer.metrics() + own, media_type=libreconnect.METRICS_CONTENT_TYPE)

    @app.get("/ping")
    async def ping() -> Response:
        return PlainTextResponse("pong")

    @app.get("/demo")
    async def demo() -> Response:
        if not settings.demo:
            raise Refusal(404, "NOT_FOUND", "the router runs without --demo")
        return JSONResponse({"users": settings.tokens}, headers={"Cache-Control": "no-store"})

    def add_page(path: str, file: str, kind: str) -> None:
        @app.get(path)
        async def page() -> Response:
            headers = {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
            return Response((PAGE / file).read_bytes(), media_type=kind, headers=headers)

    for path, (file, kind) in PAGES.items():
        add_page(path, file, kind)
    return app


# ----------------------------------------------------------------- the program


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def host_and_port(text: str) -> tuple[str, int]:
    host, _, number = text.rpartition(":")
    if not (number.isascii() and number.isdigit() and int(number) <= 65535) or (":" in host and not host[:1] == "["):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(number)


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 31):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def known_tokens(options: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, str]:
    """USER:TOKEN from the environment and the file."""
    texts = os.environ.get("ROUTER_TOKENS", "").split(",")
    if options.tokens:
        try:
            texts += options.tokens.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            parser.error(f"--tokens: {error}")
    tokens = {}
    for text in map(str.strip, texts):
        user, colon, token = text.partition(":")
        if text and not (user and colon and len(token) >= 16):
            parser.error("tokens are USER:TOKEN, the token of 16 characters at least")
        if text:
            tokens[user] = token
    return tokens


def parse(arguments: list[str]) -> tuple[argparse.Namespace, Settings]:
    parser = argparse.ArgumentParser(
        prog="router.py",
        description="Rooms over WebSockets, whose clients get what they missed when they come back.",
        epilog="Environment: ROUTER_TOKENS (USER:TOKEN, separated by commas), ALLOWED_ORIGINS (adds to --cors), "
        "REDIS_URL (the store, if no --store says otherwise). Paths: /, /ping, /metrics, "
        "/webrtc/rooms/ROOM/socket (WebSocket), POST /webrtc/rooms/ROOM/connection-quality, "
        "GET /webrtc/rooms/ROOM/reconnection-state.",
        allow_abbrev=False,
    )
    parser.add_argument("--http", type=host_and_port, default=("127.0.0.1", 8090), metavar="HOST:PORT")
    parser.add_argument("--tokens", type=Path, metavar="FILE", help="USER:TOKEN on each line")
    parser.add_argument(
        "--demo", action="store_true", help="random tokens for ada and ben, told to every page; on loopback only"
    )
    parser.add_argument("--cors", action="append", default=[], metavar="ORIGIN", help="another allowed origin")
    parser.add_argument("--store", metavar="URL", help="sqlite:PATH, redis://..., rediss://... (default: memory)")
    parser.add_argument("--store-timeout", type=positive, default=0, metavar="S", help="... an answer of it (0.05)")
    parser.add_argument("--window", type=count, default=0, metavar="N", help="messages kept per room (default 50)")
    parser.add_argument("--message-ttl", type=positive, default=0, metavar="S", help="... and how long (default 300)")
    parser.add_argument("--state-ttl", type=positive, default=0, metavar="S", help="how long users are remembered")
    parser.add_argument("--recoveries", type=count, default=0, metavar="N", help="admitted a second (default: all)")
    parser.add_argument("--recovery-burst", type=count, default=0, metavar="N", help="admitted at once")
    parser.add_argument("--rate", type=positive, default=20, metavar="N", help="messages of a user a second (20)")
    parser.add_argument("--burst", type=count, default=40, metavar="N", help="... at once (40)")
    parser.add_argument("--message-bytes", type=count, default=1 << 16, metavar="N", help="of a message (65536)")
    parser.add_argument("--queue-bytes", type=count, default=1 << 20, metavar="N", help="for a slow client (1048576)")
    parser.add_argument("--join-timeout", type=positive, default=10, metavar="S", help="until the first message (10)")
    parser.add_argument("--check-interval", type=positive, default=5, metavar="S", help="see rooms.py (5)")
    options = parser.parse_args(arguments)
    tokens = known_tokens(options, parser)
    if options.demo:
        if options.http[0] not in ("127.0.0.1", "::1", "localhost"):
            parser.error("--demo gives its tokens to everybody: it is for loopback addresses")
        tokens = {"ada": secrets.token_urlsafe(), "ben": secrets.token_urlsafe(), **tokens}
    if not tokens:
        parser.error("nobody could come in: --tokens, ROUTER_TOKENS or --demo say who may")
    allowed = [origin.strip() for origin in os.environ.get("ALLOWED_ORIGINS", "").split(",")]
    return options, Settings(
        tokens=tokens,
        origins=options.cors + [origin for origin in allowed if origin],
        demo=options.demo,
        rate=options.rate,
        burst=options.burst,
        config=libreconnect.ReplayConfig(
            store=options.store,
            store_timeout=options.store_timeout,
            window=options.window,
            message_ttl=options.message_ttl,
            state_ttl=options.state_ttl,
            recoveries_per_second=options.recoveries,
            recovery_burst=options.recovery_burst,
            max_message_size=options.message_bytes,
        ),
        limits=rooms.Limits(
            queue_bytes=options.queue_bytes,
            message_bytes=options.message_bytes,
            join_timeout=options.join_timeout,
            check_interval=options.check_interval,
        ),
    )


class Server(uvicorn.Server):
    """Says where it listens once it does."""

    url = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(f"listening on {self.url}", flush=True)


def listen(host: str, number: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(
        host or None, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


def main() -> int:
    options, settings = parse(sys.argv[1:])
    if LIBRARY.exists() and str(ROOT) in libreconnect.__file__:
        os.environ.setdefault("LIBRECONNECT_LIBRARY", str(LIBRARY))
    try:
        listener = listen(*options.http)
    except OSError as error:
        log(f"router.py: {error}")
        return 1
    config = uvicorn.Config(
        application(settings),
        log_level="warning",
        access_log=False,
        server_header=False,
        # An escape of JSON makes six bytes of one; a join has its tokens around.
        ws_max_size=6 * settings.limits.message_bytes + 4096,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=5,
        lifespan="on",
    )
    name = options.http[0] or "localhost"
    Server.url = f"http://{f'[{name}]' if ':' in name else name}:{listener.getsockname()[1]}/"
    server = Server(config)
    for each in (signal.SIGINT, signal.SIGTERM):
        # uvicorn ends in order and then raises the signal again: for a service that was told to end, that is no failure.
        signal.signal(each, lambda *_: None)
    asyncio.run(server.serve([listener]))
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
