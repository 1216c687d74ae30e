"""A small HTTP/1.1 server for asyncio: keep-alive, limits, and no client can hold up another."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType

LARGEST_HEAD = 16 << 10
LARGEST_BODY = 64 << 10
REQUEST_SECONDS = 30
"""For a request to arrive, for an answer to be taken."""
IDLE_SECONDS = 120
"""Between requests."""
LINGER_SECONDS = 2
"""For what still comes after a refusal."""
LINGER_BYTES = 1 << 20
CONNECTIONS = 256

REASONS = {
    200: "OK",
    204: "No Content",
    304: "Not Modified",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    """By names in small letters."""
    keep_alive: bool
    body: bytes = b""


@dataclass
class Response:
    status: int
    body: bytes = b""
    kind: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def refusal(status: int, name: str, detail: str) -> Response:
        body = json.dumps({"error": name, "detail": detail}).encode()
        return Response(status, body, "application/json")

    @staticmethod
    def wrong_method(allowed: str) -> Response:
        response = Response.refusal(405, "METHOD_NOT_ALLOWED", f"allowed are {allowed}")
        response.headers["Allow"] = allowed
        return response

    def bytes(self, keep_alive: bool, with_body: bool) -> bytes:
        headers = {
            **({"Content-Length": str(len(self.body))} if self.status != 304 else {}),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Connection": "keep-alive" if keep_alive else "close",
            **({"Content-Type": self.kind} if self.kind else {}),
            **self.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        text = f"HTTP/1.1 {self.status} {REASONS[self.status]}\r\n{head}\r\n"
        return text.encode("latin-1") + (self.body if with_body else b"")


class Refused(Exception):
    """A request that is not even read to its end."""

    def __init__(self, status: int, name: str, detail: str) -> None:
        self.response = Response.refusal(status, name, detail)


def parse_head(head: bytes) -> Request:
    malformed = Refused(400, "BAD_REQUEST", "this is not HTTP/1.1")
    first, *lines = head.decode("latin-1")[:-4].split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[0] or words[1][:1] != "/" or words[2] not in ("HTTP/1.0", "HTTP/1.1"):
        raise malformed
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        if not colon or not name or " " in name or "\0" in line:
            raise malformed
        if name == "content-length" and headers.get(name, value) != value:
            raise malformed
        headers[name] = value
    connection = headers.get("connection", "").lower()
    keep_alive = connection != "close" if words[2] == "HTTP/1.1" else connection == "keep-alive"
    return Request(words[0], words[1].partition("?")[0], headers, keep_alive)


def body_size(request: Request) -> int:
    if "transfer-encoding" in request.headers:
        raise Refused(411, "LENGTH_REQUIRED", "a body needs a Content-Length")
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise Refused(400, "BAD_REQUEST", "this is not HTTP/1.1")
    if len(length) > 9 or int(length) > LARGEST_BODY:
        raise Refused(413, "TOO_LARGE", f"an offer has at most {LARGEST_BODY} bytes")
    return int(length)


class Server:
    """Serves from its making's end to its own: `async with Server(respond, listener): ...`."""

    def __init__(self, respond: Callable[[Request], Awaitable[Response]], listener: socket.socket) -> None:
        self.respond = respond
        self.listener = listener
        self.connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.is_closing = False

    async def __aenter__(self) -> Server:
        self.server = await asyncio.start_server(self.connection, sock=self.listener, limit=LARGEST_HEAD)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.is_closing = True
        self.server.close()
        # Not by cancelling: before Python 3.12 wait_for() may lose a cancellation.
        for writer in self.connections.values():
            writer.transport.abort()
        await asyncio.gather(*self.connections, return_exceptions=True)

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections[task] = writer
        try:
            if len(self.connections) <= CONNECTIONS and not self.is_closing:
                await self.requests(reader, writer)
        except (OSError, EOFError, asyncio.TimeoutError):  # noqa: UP041 (before 3.11 another)
            pass  # the client has left or was too slow, or the server ends
        finally:
            del self.connections[task]
            writer.close()

    async def requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                request = await self.request(reader, writer)
            except Refused as refused:
                await send(writer, refused.response.bytes(keep_alive=False, with_body=True))
                break
            response = await self.respond(request)
            await send(writer, response.bytes(request.keep_alive, with_body=request.method != "HEAD"))
            if not request.keep_alive:
                break
        # Closing with something unread would send a reset, which may overtake the response.
        if writer.can_write_eof():
            writer.write_eof()
        await asyncio.wait_for(drop(reader), LINGER_SECONDS)

    async def request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
        """The next request; the wait for its first byte may be long, the rest must come soon."""
        first = await asyncio.wait_for(reader.readexactly(1), IDLE_SECONDS)
        return await asyncio.wait_for(self.whole(first, reader, writer), REQUEST_SECONDS)

    async def whole(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
        try:
            head = first + await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise Refused(431, "TOO_LARGE", f"a head has at most {LARGEST_HEAD} bytes") from None
        request = parse_head(head)
        size = body_size(request)
        if size and request.headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.body = await reader.readexactly(size)
        return request


async def send(writer: asyncio.StreamWriter, response: bytes) -> None:
    writer.write(response)
    await asyncio.wait_for(writer.drain(), REQUEST_SECONDS)


async def drop(reader: asyncio.StreamReader) -> None:
    count = 0
    while count < LINGER_BYTES:
        data = await reader.read(65536)
        if not data:
            return
        count += len(data)
