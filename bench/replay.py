"""Replay buffers: rooms in memory at the C ABI, rooms in Redis beside redis-benchmark and beside the plain design, missed
messages from Python, a storm of users that come back at once, and order.

Every server and program is started here, on loopback, and ended by its process.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager

from connect import median, percentile
from flood import json_lines

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
LIMIT_S = 90
MISSED = 20
OPERATIONS = ("recover", "publish")

FULL = {
    "seconds": 3,
    "rounds": 3,
    "operations": 30000,
    "limit_operations": 30000,
    "plain_operations": 10000,
    "depth": 64,
    "messages": 20000,
    "python_repeats": 500,
    "users": 10000,
    "rooms": 1000,
}
QUICK = {
    **FULL,
    "seconds": 1,
    "rounds": 1,
    "operations": 10000,
    "limit_operations": 10000,
    "plain_operations": 2000,
    "messages": 4000,
    "python_repeats": 100,
    "users": 2000,
    "rooms": 200,
}
ADMITTED_PER_S = 5000


def missing():
    """What keeps the Redis rows from being measured, or None."""
    for program in ("redis-server", "redis-benchmark"):
        if not shutil.which(program):
            return f"{program} is not there"
    try:
        import redis  # noqa: F401
    except ImportError:
        return "the Python package redis is not there"
    return None


class RedisServer:
    """A redis-server of its own that keeps nothing."""

    def __init__(self):
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.command("PING").startswith(b"+PONG"):
                    return
            except OSError:
                time.sleep(0.02)
        self.close()
        raise RuntimeError("redis-server does not start")

    def close(self):
        self.process.terminate()
        self.process.wait()

    def command(self, *words):
        """One command; the reply as it comes."""
        with closing(socket.create_connection(("127.0.0.1", self.port), timeout=10)) as connection:
            connection.sendall(encoded(words))
            reply = connection.recv(65536)
            if reply.startswith(b"$"):
                head, _, reply = reply.partition(b"\r\n")
                while len(reply) < int(head[1:]) + 2:
                    reply += connection.recv(65536)
            return reply

    def cpu_seconds(self):
        """Processor time of the server so far."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def reset_counts(self):
        self.command("CONFIG", "RESETSTAT")

    def counts(self):
        """How often each command ran since `reset_counts`, those that scripts call included."""
        text = self.command("INFO", "commandstats").decode()
        return {name: int(calls) for name, calls in re.findall(r"cmdstat_([^:]+):calls=(\d+)", text)}

    @contextmanager
    def watched(self):
        """A list that gets what clients and scripts tell the server meanwhile: (is from a script, words)."""
        seen = []
        with closing(socket.create_connection(("127.0.0.1", self.port), timeout=10)) as connection:
            connection.sendall(encoded(["MONITOR"]))
            connection.recv(16)
            yield seen
            self.command("ECHO", "end of watch")
            text = b""
            while b'"end of watch"' not in text:
                text += connection.recv(65536)
        for line in text.decode("latin-1").split("\r\n"):
            head, _, words = line.partition("] ")
            found = [unescaped(word) for word in re.findall(r'"((?:[^"\\]|\\.)*)"', words)]
            if found and found[0].upper() not in (b"ECHO", b"CONFIG", b"INFO"):
                seen.append((head.endswith("lua"), found))


def encoded(words):
    parts = [word if isinstance(word, bytes) else word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def unescaped(text):
    """A word of MONITOR's."""
    letters = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b"}

    def letter(match):
        code = match[1]
        return chr(int(code[1:], 16)) if code[0] == "x" and len(code) == 3 else letters.get(code, code)

    return re.sub(r"\\(x[0-9a-fA-F]{2}|.)", letter, text).encode("latin-1")


class Steps:
    """A program that says "ready" and goes on when it gets a line."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.rows = []

    def until_ready(self):
        """False at the program's end. Its results are in `rows`."""
        for line in self.process.stdout:
            if line.startswith("{"):
                self.rows.append(json.loads(line))
            elif line.startswith("ready"):
                return True
        return False

    def go_on(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@contextmanager
def steps(command):
    program = Steps(command)
    try:
        yield program
    finally:
        program.close()


def run(command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S)
    if done.returncode != 0:
        raise RuntimeError(f"{os.path.basename(command[0])} {command[1]} ended with status {done.returncode}")
    return json_lines(done.stdout)


def plain(*arguments):
    return [sys.executable, os.path.join(HERE, "plain.py"), *map(str, arguments)]


def native(folder, *arguments):
    return [os.path.join(folder, "replay", "replay"), *map(str, arguments)]


# ------------------------------------------------------------------------ memory


def memory(folder, settings):
    """Rates per second of processor time, and what a message takes beside its own bytes."""
    rows = []
    for size in (200, 1000):
        found = {row["bench"]: row for row in run(native(folder, "memory", size, 1000, settings["seconds"]))}
        row = {"message_bytes": size}
        for name in ("publish", "recover"):
            row[f"{name}_per_cpu_s"] = found[name]["count"] / found[name]["cpu_s"]
            row[f"{name}_per_s"] = found[name]["count"] / found[name]["seconds"]
        row["overhead_bytes"] = found["held"]["overhead_bytes"]
        row["resident_overhead_bytes"] = found["held"]["resident_overhead_bytes"]
        rows.append(row)
    return rows


# ------------------------------------------------------------------------- Redis


def redis_rates(folder, settings):
    """The library's rates, those of redis-benchmark with the commands that the library sent, and the plain design's.

    Rounds by turns, and the best of each: whatever else the machine does disturbs both."""
    result = {"depth": settings["depth"], "message_bytes": 200}
    rounds = {name: {"rows": [], "limits": [], "trips": [], "server": [], "limit_server": []} for name in OPERATIONS}
    server = RedisServer()
    try:
        numbers = (200, settings["operations"], settings["depth"], settings["rounds"])
        with steps(native(folder, "store", server.url, *numbers)) as program:
            next_step(program)
            with server.watched() as seen:
                program.go_on()
                next_step(program)
            sent = [words for is_script, words in seen if not is_script]
            # What clients sent for one recovery and one publish.
            result["commands_seen"] = len(sent)
            commands = dict(zip(OPERATIONS, sent, strict=False))
            for _ in range(settings["rounds"]):
                for name in OPERATIONS:
                    found = rounds[name]
                    server.reset_counts()
                    before = server.cpu_seconds()
                    program.go_on()
                    next_step(program)
                    counts = server.counts()
                    row = program.rows[-1]
                    found["server"].append((server.cpu_seconds() - before) / row["count"])
                    found["trips"].append((counts.get("evalsha", 0) + counts.get("eval", 0)) / row["count"])
                    found["rows"].append(row)
                    before = server.cpu_seconds()
                    limits = benchmark(server.port, commands[name], settings)
                    spent = server.cpu_seconds() - before
                    found["limit_server"].append(spent / settings["limit_operations"] / len(limits))
                    found["limits"] += limits
                    program.go_on()
                    next_step(program)
            program.go_on()
        reference = run(plain("rates", server.port, settings["plain_operations"], settings["depth"], 200))[0]
    finally:
        server.close()
    for name, figure in (("publish", "publishes_per_s"), ("recover", "recoveries_per_s")):
        found = rounds[name]
        rates = [row["count"] / row["seconds"] for row in found["rows"]]
        result[name] = {
            "per_s": max(rates),
            "rates_per_s": rates,
            "limit_per_s": max(found["limits"]),
            "limits_per_s": found["limits"],
            "share": max(rates) / max(found["limits"]),
            "plain_per_s": reference[figure],
            "times_plain": max(rates) / reference[figure],
            "round_trips": max(found["trips"]),
            "cpu_us": median([row["cpu_s"] / row["count"] * 1e6 for row in found["rows"]]),
            "server_cpu_us": median(found["server"]) * 1e6,
            "limit_server_cpu_us": median(found["limit_server"]) * 1e6,
            "failed": sum(row["failed"] for row in found["rows"]),
            "degraded": sum(row["degraded"] for row in found["rows"]),
        }
    return result


def next_step(program):
    if not program.until_ready():
        raise RuntimeError(f"{os.path.basename(program.process.args[0])} ended early")


def benchmark(port, words, settings):
    """Requests per second of redis-benchmark with one command, in one pipeline and in two of half the depth."""
    rates = []
    for connections in (1, 2):
        command = ["redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "-n", str(settings["limit_operations"]), "-q"]
        command += ["-c", str(connections), "-P", str(settings["depth"] // connections), *words]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=LIMIT_S, check=True)
        found = re.findall(rb"([\d.]+) requests per second", done.stdout)
        if not found:
            raise RuntimeError("redis-benchmark prints no rate")
        rates.append(float(found[-1]))
    return rates


# ------------------------------------------------------------------------ Python


def python_replay(library, settings):
    """50 missed messages, from the call to the text that goes to the client, in this process."""
    result = {"messages": 50}
    server = RedisServer() if not missing() else None
    try:
        for name, store in (("memory", None), ("redis", server and server.url)):
            if name == "redis" and not store:
                continue
            command = [
                sys.executable,
                os.path.join(HERE, "missed.py"),
                str(settings["python_repeats"]),
                store or "memory",
            ]
            environment = {
                **os.environ,
                "LIBRECONNECT_LIBRARY": library,
                "PYTHONPATH": os.path.join(ROOT, "bindings", "python"),
            }
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment, timeout=LIMIT_S
            )
            if done.returncode != 0:
                raise RuntimeError(f"missed.py ended with status {done.returncode}")
            times = json_lines(done.stdout)[0]["ms"]
            result[name] = {"median_ms": median(times), "p99_ms": percentile(times, 0.99)}
        if server:
            result["plain"] = run(plain("replay", server.port))[0]
    finally:
        if server:
            server.close()
    return result


# ------------------------------------------------------------------------- order


def order(folder, settings):
    """Four processes publish into one room, 16 at once each."""
    processes = 4
    each = settings["messages"] // processes
    server = RedisServer()
    try:
        ours = run(native(folder, "order", server.url, processes, each))[0]
        publishers = [Steps(plain("publish", server.port, "order", each, 16)) for _ in range(processes)]
        try:
            for publisher in publishers:
                next_step(publisher)
            for publisher in publishers:
                publisher.go_on()
            for publisher in publishers:
                publisher.until_ready()
        finally:
            for publisher in publishers:
                publisher.close()
        reference = run(plain("disorder", server.port, "order"))[0]
    finally:
        server.close()
    return {"ours": ours, "plain": reference}


# ------------------------------------------------------------------------- storm


def storm(folder, settings):
    """Users come back at once. Reads are what scripts or clients ask the server for messages."""
    users, rooms = settings["users"], settings["rooms"]
    rows = []
    for name, command in (
        ("libreconnect", lambda url, _: native(folder, "storm", url, users, rooms, 0, 0)),
        ("2 s for the store", lambda url, _: native(folder, "storm", url, users, rooms, 2000, 0)),
        (f"{ADMITTED_PER_S} admitted/s", lambda url, _: native(folder, "storm", url, users, rooms, 0, ADMITTED_PER_S)),
        ("plain", lambda _, port: plain("storm", port, users, rooms)),
    ):
        server = RedisServer()
        try:
            with steps(command(server.url, server.port)) as program:
                next_step(program)
                server.reset_counts()
                program.go_on()
                next_step(program)
                counts = server.counts()
                program.go_on()
                program.until_ready()
                row = {"who": name, **program.rows[0]}
        finally:
            server.close()
        row["reads_per_room"] = (counts.get("xrange", 0) + counts.get("lrange", 0)) / rooms
        row["calls_per_user"] = sum(counts.get(each, 0) for each in ("evalsha", "eval")) / users
        if name == "plain":
            row["calls_per_user"] = sum(counts.get(each, 0) for each in ("get", "lrange", "set")) / users
        rows.append(row)
    return [{"who": "in memory", **run_through(native(folder, "storm", "memory", users, rooms, 0, 0))}, *rows]


def run_through(command):
    with steps(command) as program:
        while program.until_ready():
            program.go_on()
        return program.rows[0]


# --------------------------------------------------------------------------- all


def measure(folder, library, settings, notes, log=print):
    """Every part that can be measured; what could not be is in `notes`."""
    results = {}
    why = missing()
    for name, needs_redis, part in (
        ("memory", False, lambda: memory(folder, settings)),
        ("redis", True, lambda: redis_rates(folder, settings)),
        ("python", False, lambda: python_replay(library, settings)),
        ("order", True, lambda: order(folder, settings)),
        ("storm", True, lambda: storm(folder, settings)),
    ):
        if needs_redis and why:
            continue
        start = time.monotonic()
        try:
            results[name] = part()
        except (RuntimeError, OSError, subprocess.SubprocessError, LookupError) as error:
            notes.append(f"replay, {name}: {error}")
        log(f"replay, {name}: {time.monotonic() - start:.0f} s")
    if why:
        notes.append(f"{why}: replay with Redis left out")
    return results


def tables(results):
    text = ["Replay buffers", ""]
    if "memory" in results:
        text += [
            "In memory, at the C ABI, 1000 rooms of 50 messages, per second of processor time (per second of the run)",
            "",
        ]
        text.append(f"{'bytes':>8}{'publishes':>26}{'recoveries of 20':>26}{'bytes beside a message':>28}")
        for row in results["memory"]:
            rates = [f"{row[f'{name}_per_cpu_s']:.0f} ({row[f'{name}_per_s']:.0f})" for name in ("publish", "recover")]
            held = f"{row['overhead_bytes']:.0f}, resident {row['resident_overhead_bytes']:.0f}"
            text.append(f"{row['message_bytes']:>8}{rates[0]:>26}{rates[1]:>26}{held:>28}")
        text.append("")
    if "redis" in results:
        found = results["redis"]
        text += [f"In Redis, {found['message_bytes']} bytes, {found['depth']} operations under way", ""]
        text.append(
            f"{'':<10}{'per s':>10}{'redis-benchmark':>17}{'share':>8}{'plain':>9}{'times':>7}{'round trips':>13}"
            f"{'CPU us':>8}{'server':>8}{'by redis-benchmark':>20}{'without store':>15}"
        )
        for name in reversed(OPERATIONS):
            row = found[name]
            text.append(
                f"{name:<10}{row['per_s']:>10.0f}{row['limit_per_s']:>17.0f}{row['share'] * 100:>6.0f} %"
                f"{row['plain_per_s']:>9.0f}{row['times_plain']:>7.1f}{row['round_trips']:>13.3f}{row['cpu_us']:>8.1f}"
                f"{row['server_cpu_us']:>8.1f}{row['limit_server_cpu_us']:>20.1f}{row['degraded'] + row['failed']:>15}"
            )
        text.append("")
    if "python" in results:
        found = results["python"]
        parts = [
            f"{name} {found[name]['median_ms']:.3f} ms (p99 {found[name]['p99_ms']:.3f})"
            for name in ("memory", "redis")
            if name in found
        ]
        if "plain" in found:
            parts.append(f"plain {found['plain']['ms']:.0f} ms")
        text += [
            f"{found['messages']} missed messages from Python, to the text for the client: " + ", ".join(parts),
            "",
        ]
    if "order" in results:
        ours, reference = results["order"]["ours"], results["order"]["plain"]
        text += [
            f"Out of order, {ours['processes']} processes into one room: {ours['disordered']} of {ours['received']} messages"
            f" ({ours['gaps']} gaps); plain {reference['disordered']} of {reference['messages']}"
            f" ({reference['disordered'] / max(reference['messages'], 1) * 100:.1f} %)",
            "",
        ]
    if "storm" in results:
        first = results["storm"][0]
        text += [
            f"{first['users']} users of {first['rooms']} rooms come back at once, each has missed {MISSED} messages",
            "",
        ]
        text.append(
            f"{'':<22}{'p50 ms':>9}{'p99 ms':>9}{'recovered':>11}{'lost':>7}{'failed':>8}{'throttled':>11}"
            f"{'reads/room':>12}{'calls/user':>12}"
        )
        for row in results["storm"]:
            reads = f"{row['reads_per_room']:.2f}" if "reads_per_room" in row else "-"
            calls = f"{row['calls_per_user']:.2f}" if "calls_per_user" in row else "-"
            text.append(
                f"{row['who']:<22}{row['p50_ms']:>9.1f}{row['p99_ms']:>9.1f}{row['recovered']:>11}{row.get('lost', 0):>7}"
                f"{row.get('failed', 0):>8}{row.get('throttled', 0):>11}{reads:>12}{calls:>12}"
            )
        text.append("")
    return "\n".join(text)
