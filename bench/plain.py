#!/usr/bin/env python3
"""The plain design of a reconnection buffer, to measure beside the library's: a list of JSON texts, a counter and a JSON
text for each user, each written by a command of its own, with redis.asyncio.

    plain.py rates PORT COUNT DEPTH BYTES       publishes and recoveries, DEPTH at once
    plain.py replay PORT                        50 missed messages to a client that is there at once
    plain.py publish PORT ROOM COUNT DEPTH      publishes into one room, for `disorder`
    plain.py disorder PORT ROOM                 how the room's numbers stand in its list
    plain.py storm PORT USERS ROOMS             all users come back at once

Prints one line of JSON. `storm` says "ready" before and after it, and waits for a line.
"""

import asyncio
import json
import sys
import time

import redis.asyncio as redis

PREFIX = "webrtc:reconnect:"
ROOMS = 1000
MISSED = 20


class Reconnection:
    """Buffers messages of rooms and the state of users."""

    def __init__(self, client, buffer_size=50, ttl_s=300):
        self.redis = client
        self.buffer_size = buffer_size
        self.ttl_s = ttl_s

    async def buffer_message(self, room, message):
        sequence = await self.redis.incr(f"{PREFIX}seq:{room}")
        entry = json.dumps({"sequence": sequence, "timestamp": time.time(), "message": message})
        key = f"{PREFIX}buffer:{room}"
        await self.redis.lpush(key, entry)
        await self.redis.ltrim(key, 0, self.buffer_size - 1)
        await self.redis.expire(key, self.ttl_s)
        return sequence

    async def missed_messages(self, room, last_sequence):
        entries = [json.loads(text) for text in await self.redis.lrange(f"{PREFIX}buffer:{room}", 0, -1)]
        return sorted((e for e in entries if e["sequence"] > last_sequence), key=lambda e: e["sequence"])

    async def track_user_state(self, room, user, is_connected, last_sequence=None):
        if last_sequence is None:
            last_sequence = int(await self.redis.get(f"{PREFIX}seq:{room}") or 0)
        state = {"last_sequence": last_sequence, "last_seen": time.time(), "is_connected": is_connected}
        await self.redis.set(f"{PREFIX}state:{room}:{user}", json.dumps(state), ex=self.ttl_s)

    async def handle_reconnect(self, room, user):
        text = await self.redis.get(f"{PREFIX}state:{room}:{user}")
        if text is None:
            await self.track_user_state(room, user, True)
            return {"is_reconnect": False}
        state = json.loads(text)
        missed = await self.missed_messages(room, state["last_sequence"])
        last = missed[-1]["sequence"] if missed else state["last_sequence"]
        await self.track_user_state(room, user, True, last)
        duration = time.time() - state["last_seen"]
        return {"is_reconnect": True, "disconnect_duration_seconds": duration, "missed_messages": missed}

    async def cleanup_room(self, room):
        async for key in self.redis.scan_iter(match=f"{PREFIX}state:{room}:*"):
            await self.redis.delete(key)
        await self.redis.delete(f"{PREFIX}buffer:{room}", f"{PREFIX}seq:{room}")


def connect(port, connections):
    pool = redis.BlockingConnectionPool(host="127.0.0.1", port=port, max_connections=connections, timeout=None)
    return redis.Redis(connection_pool=pool)


async def all_of(count, depth, work):
    """`work(index)` for each index, `depth` at once."""
    indices = iter(range(count))

    async def worker():
        for index in indices:
            await work(index)

    await asyncio.gather(*(worker() for _ in range(depth)))


async def rates(port, count, depth, size):
    client = connect(port, depth)
    rooms = Reconnection(client)
    message = {"type": "chat", "text": "m" * (size - len('{"type": "chat", "text": ""}'))}
    await all_of(ROOMS * MISSED, depth, lambda i: rooms.buffer_message(f"plain-{i % ROOMS}", message))
    start = time.monotonic()
    await all_of(count, depth, lambda i: rooms.buffer_message(f"plain-{i % ROOMS}", message))
    published = time.monotonic() - start
    tops = [int(await client.get(f"{PREFIX}seq:plain-{room}")) for room in range(ROOMS)]

    async def leave(i):
        await rooms.track_user_state(f"plain-{i % ROOMS}", f"user-{i}", False, tops[i % ROOMS] - MISSED)

    async def come_back(i):
        found = await rooms.handle_reconnect(f"plain-{i % ROOMS}", f"user-{i}")
        if len(found["missed_messages"]) != MISSED:
            sys.exit(f"{len(found['missed_messages'])} messages were missed instead of {MISSED}")

    await all_of(count, depth, leave)
    start = time.monotonic()
    await all_of(count, depth, come_back)
    recovered = time.monotonic() - start
    await client.aclose()
    return {"publishes_per_s": count / published, "recoveries_per_s": count / recovered}


async def replay(port):
    """As its router does it: a pause of 10 ms after each message."""
    client = connect(port, 1)
    rooms = Reconnection(client)
    await rooms.track_user_state("replay", "user", False, 0)
    for number in range(50):
        await rooms.buffer_message("replay", {"type": "chat", "number": number})
    sent = []
    start = time.monotonic()
    found = await rooms.handle_reconnect("replay", "user")
    for missed in found["missed_messages"]:
        sent.append(json.dumps(missed["message"]))
        await asyncio.sleep(0.01)
    seconds = time.monotonic() - start
    await client.aclose()
    return {"messages": len(sent), "ms": seconds * 1000}


async def publish(port, room, count, depth):
    client = connect(port, depth)
    rooms = Reconnection(client, buffer_size=1_000_000)
    await client.ping()
    print("ready", flush=True)
    sys.stdin.readline()
    await all_of(count, depth, lambda i: rooms.buffer_message(room, {"number": i}))
    await client.aclose()
    return {"published": count}


async def disorder(port, room):
    client = connect(port, 1)
    entries = [json.loads(text) for text in await client.lrange(f"{PREFIX}buffer:{room}", 0, -1)]
    await client.aclose()
    highest = disordered = 0
    for entry in reversed(entries):
        disordered += entry["sequence"] < highest
        highest = max(highest, entry["sequence"])
    return {"messages": len(entries), "disordered": disordered}


async def storm(port, users, room_count):
    client = connect(port, 64)
    rooms = Reconnection(client)
    message = {"type": "chat", "text": "m" * 172}
    await all_of(users, 64, lambda i: rooms.track_user_state(f"storm-{i % room_count}", f"user-{i}", False))
    await all_of(room_count * MISSED, 64, lambda i: rooms.buffer_message(f"storm-{i % room_count}", message))
    print("ready", flush=True)
    sys.stdin.readline()
    times = []
    recovered = 0
    start = time.monotonic()

    async def come_back(i):
        nonlocal recovered
        found = await rooms.handle_reconnect(f"storm-{i % room_count}", f"user-{i}")
        recovered += len(found["missed_messages"]) == MISSED
        times.append((time.monotonic() - start) * 1000)

    await asyncio.gather(*(come_back(i) for i in range(users)))
    print("ready", flush=True)
    sys.stdin.readline()
    times.sort()
    await client.aclose()
    p50, p99 = times[users // 2], times[users * 99 // 100]
    return {"users": users, "rooms": room_count, "recovered": recovered, "p50_ms": p50, "p99_ms": p99}


def main():
    commands = {"rates": rates, "replay": replay, "publish": publish, "disorder": disorder, "storm": storm}
    arguments = [int(word) if word.isdigit() else word for word in sys.argv[2:]]
    print(json.dumps(asyncio.run(commands[sys.argv[1]](*arguments))))


if __name__ == "__main__":
    main()
