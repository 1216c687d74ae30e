#!/usr/bin/env python3
"""A client that comes back: connects to an answerer host, gets an echo, and does so again, the fastest way that works."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "build" / "lib" / "libreconnect.so.1"

try:
    import libreconnect
except ImportError:  # not installed: the source tree's own
    sys.path.insert(0, str(ROOT / "bindings" / "python"))
    import libreconnect

from libreconnect import aio  # noqa: E402

ECHO = libreconnect.PeerConfig(channels=[libreconnect.ChannelConfig(label="echo", negotiated=True, id=1)])


def post(url: str, offer: str) -> bytes:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, offer.encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=20) as response:
        answer: bytes = response.read()
        return answer


async def tell(events: aio.Events) -> None:
    """Says what the connector does."""
    async for event in events:
        if isinstance(event, libreconnect.AttemptEvent):
            mode, state = event.mode.name.lower().replace("_", "-"), event.state.name.lower()
            reason = f": {event.reason}" if event.reason else ""
            print(f"{mode} {state} after {event.elapsed * 1000:.1f} ms{reason}", file=sys.stderr)


async def run(options: argparse.Namespace) -> None:
    async def signaling(offer: str) -> bytes:
        try:
            return await asyncio.to_thread(post, f"{options.url}/offer", offer)
        except OSError as error:  # the connector says only that it failed, not why
            print(f"client.py: {options.url}: {error}", file=sys.stderr)
            raise

    # What is kept can be used with the same certificate only.
    certificate = f"{options.cache}.pem" if options.cache else None
    config = libreconnect.Config(
        addresses=[options.address] if options.address else (),
        certificate_path=certificate,
        log_level=libreconnect.LogLevel.WARNING,
    )
    async with aio.Engine.from_env(config) as engine:
        telling = asyncio.create_task(tell(engine.events()))
        settings = libreconnect.ConnectorConfig(key=options.url, cache_path=options.cache, peer=ECHO)
        async with engine.connector(settings, signaling) as connector:
            for _ in range(options.times):
                started = time.monotonic()
                connection = await connector.connect()
                channel = connection.peer.channels[0]
                await channel.send("hello")
                echo = await channel.receive()
                total, mode = time.monotonic() - started, connection.mode.name.lower().replace("_", "-")
                print(f'{mode}: open after {connection.duration * 1000:.1f} ms, "{echo}" after {total * 1000:.1f} ms')
    await telling


def main() -> int:
    parser = argparse.ArgumentParser(prog="client.py", description="Connects to an answerer host, again and again.")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the answerer host (default %(default)s)")
    parser.add_argument(
        "--cache",
        metavar="FILE",
        help="for what is needed to come back after a restart; FILE.pem is the certificate (default: in memory)",
    )
    parser.add_argument(
        "--address", metavar="ADDR", help="IP address to offer (default: those of the machine's interfaces)"
    )
    parser.add_argument("--times", type=int, default=3, metavar="N", help="how often to connect (default 3)")
    options = parser.parse_args()
    if LIBRARY.exists() and str(ROOT) in libreconnect.__file__:
        os.environ.setdefault("LIBRECONNECT_LIBRARY", str(LIBRARY))
    try:
        asyncio.run(run(options))
    except (OSError, ImportError, libreconnect.ReconnectError) as error:
        print(f"client.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
