"""Paths that die: how long a stream of numbered messages stops, and what is lost.

Two ends send each other 100 messages a second on a reliable ordered channel over an emulated network with 20 ms of round
trip time. Then the path in use dies without a word: with a second network beside it, or because one end, or both at
once, get another address. The library with itself, pion with itself, Chromium with itself; the signaling that an ICE
restart needs takes the same round trip time.
"""

import os
import random
import threading
import time

import relays
from connect import median, percentile
from ends import LIBRARY, PageEnd, ProgramEnd, Signaling
from netns import Namespace, clean
from wires import Wire

RTT_MS = 20
INTERVAL_MS = 10

FULL = {"runs": 20, "runs_beside": 10, "lanes_beside": 5, "runs_browser": 6, "lanes_browser": 2, "connects": 7}
QUICK = {"runs": 4, "runs_beside": 3, "lanes_beside": 3, "runs_browser": 2, "lanes_browser": 1, "connects": 2}

# Name, and what happens.
FAULTS = (
    ("second path", "the network in use goes dark; both ends have an address in another one"),
    ("one end moves", "one end has another address from now on, and no longer the old one"),
    ("both ends move", "likewise both ends at once: nobody knows where the other one is, signaling is needed"),
)
# Streams are watched for this long before the fault: paths are measured, second ones found, and no timer is in step.
STEADY_S = (1.0, 1.8)
# What is not over by then counts with it.
LONGEST_S = 40.0


class Network:
    """Two namespaces and one or two wires, for one connection at a time."""

    def __init__(self, emulator, wires):
        self.sides = [Namespace(), Namespace()]
        self.wires = []
        try:
            for side in self.sides:
                # Networks of their own: what comes in where its sender would not be looked for is dropped. And no
                # IPv6: the second path would be another address in the network that has gone dark.
                for name, value in (("ipv4/conf/all/rp_filter", 1), ("ipv6/conf/default/disable_ipv6", 1)):
                    side.run(["sh", "-c", f"echo {value} > /proc/sys/net/{name}"])
            for number in range(wires):
                self.wires.append(Wire(emulator, *self.sides, f"link{number}", number, RTT_MS))
            for side in self.sides:
                side.run(["ip", "route", "add", "default", "dev", "link0"])
        except BaseException:
            self.close()
            raise

    def in_use(self):
        """The wire that carries the stream."""

        def carried():
            return [sum(way["delivered_bytes"] for way in wire.counters().values()) for wire in self.wires]

        before = carried()
        time.sleep(0.15)
        counts = [after - earlier for after, earlier in zip(carried(), before)]
        return self.wires[counts.index(max(counts))]

    def break_path(self, fault):
        """The time at which it happened."""
        if fault == "second path":
            wire = self.in_use()
            now = time.monotonic()
            wire.shape(loss=1)
            return now
        now = time.monotonic()
        self.wires[0].renumber((0,) if fault == "one end moves" else (0, 1))
        return now

    def mend(self):
        for wire in self.wires:
            wire.shape(loss=0)

    def close(self):
        for part in (*self.wires, *self.sides):
            part.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


# --------------------------------------------------------------------------- who


class Program:
    """Both ends are processes."""

    def __init__(self, name, command, detection, settings=""):
        self.name = name
        self.command = command
        self.detection = detection
        self.settings = settings

    def start(self, network):
        ends = []
        try:
            for role, side in zip(("offer", "answer"), network.sides):
                ends.append(ProgramEnd(f"{self.name} ({role})", side, [*self.command, "--role", role]))
        except BaseException:
            for end in ends:
                end.close()
            raise
        return ends


class Browser:
    """Both ends are pages, each in a browser of its own."""

    settings = "restartIce() when disconnected or failed"
    detection = ("disconnected", "failed")

    def __init__(self, name):
        self.name = name
        self.version = None

    def start(self, network):
        ends = []
        try:
            for offers, side in zip((True, False), network.sides):
                ends.append(PageEnd(f"{self.name} ({'offer' if offers else 'answer'})", side, self.name, offers))
            self.version = ends[0].version()
        except BaseException:
            for end in ends:
                end.close()
            raise
        return ends


# Events that say that the path is known to be broken, or that another one is in use already.
OURS = ("network", "restart", "path", "disconnected")
PION = ("disconnected", "failed")


# --------------------------------------------------------------------------- one run


def run_once(network, ends, fault, detection):
    """One connection, one fault. The figures, in milliseconds."""
    for end in reversed(ends):
        end.begin()
    try:
        for end in ends:
            end.wait_for("open")
        time.sleep(random.uniform(*STEADY_S))
        broken = network.break_path(fault)
        recovered = wait_until_level(ends, broken)
        records = finish(ends, recovered)
    finally:
        network.mend()
        for end in ends:
            end.ask("X")
    return figures(records, broken, detection, recovered)


def wait_until_level(ends, broken):
    """Whether what one end has sent is what the other has received, but for what is on its way."""
    level = 0
    while time.monotonic() < broken + LONGEST_S:
        time.sleep(0.1)
        (received_here, sent_here), (received_there, sent_there) = (end.totals() for end in ends)
        behind = max(sent_here - received_there, sent_there - received_here)
        level = level + 1 if behind <= 15 else 0
        # A path that dies is missed at once: half a second later the stream is level because it has recovered.
        if level >= 3 and time.monotonic() > broken + 0.8:
            return True
    return False


def finish(ends, patiently):
    """Stops the streams and waits for their ends."""
    sent = [int(end.ask("T")) for end in ends]
    deadline = time.monotonic() + (5 if patiently else 0)
    while True:
        received = [end.totals()[0] for end in ends]
        if received == sent[::-1] or time.monotonic() > deadline:
            return [end.dump() for end in ends]
        time.sleep(0.05)


def figures(records, broken, detection, recovered):
    gaps, resumed = [], []
    for record in records:
        gap, end = interruption(record["arrivals"], broken)
        gaps.append(gap * 1000 - INTERVAL_MS)
        resumed.append(end)
    detected = [
        when for record in records for when, what in record["events"] if when > broken and what.split()[0] in detection
    ]
    detected = min(detected, default=None)
    is_interrupted = recovered and detected is not None and max(resumed) > detected
    here, there = records
    return {
        "ok": recovered,
        # The worse of both directions.
        "interruption_ms": max(0.0, *gaps) if recovered else LONGEST_S * 1000,
        "directions_ms": gaps,
        "noticed_ms": (detected - broken) * 1000 if detected else None,
        "from_detection_ms": (max(resumed) - detected) * 1000 if is_interrupted else None,
        "lost": max(0, here["sent"] - there["received"]) + max(0, there["sent"] - here["received"]),
        # Doubled or out of order: a message that is not the next one.
        "wrong": here["wrong"] + there["wrong"],
        "usual_ms": [usual_gap(record["arrivals"], broken) for record in records],
        "pairs": [record.get("pair") for record in records],
        "events": [
            [[round((when - broken) * 1000, 1), what] for when, what in record["events"] if when > broken - 0.05]
            for record in records
        ],
    }


def interruption(arrivals, since):
    """The longest gap that ended after `since`, in seconds, and when the first one of about that length ended."""
    gaps = [(later - earlier, later) for earlier, later in zip(arrivals, arrivals[1:]) if later > since]
    longest = max((gap for gap, _ in gaps), default=0.0)
    return longest, next((end for gap, end in gaps if gap >= longest / 2), since)


def usual_gap(arrivals, until):
    """The longest gap of the second before the fault, less the usual ten: what the machine itself adds."""
    times = [when for when in arrivals if until - 1 < when < until]
    return max((later - earlier for earlier, later in zip(times, times[1:])), default=0.0) * 1000 - INTERVAL_MS


# --------------------------------------------------------------------------- the streams


def streams(emulator, who, fault, runs, lanes, log):
    """Results of `runs` runs, in that many networks at once."""
    results, errors = [], []
    left = list(range(runs))
    lock = threading.Lock()

    def lane():
        try:
            with lock:  # namespaces are numbered, one after the other
                network = Network(emulator, 2 if fault == "second path" else 1)
            with network:
                ends = who.start(network)
                signaling = Signaling(*ends, RTT_MS / 2000)
                try:
                    while True:
                        with lock:
                            if not left:
                                return
                            left.pop()
                        result = run_once(network, ends, fault, who.detection)
                        with lock:
                            results.append(result)
                finally:
                    signaling.close()
                    for end in ends:
                        end.close()
        except Exception as error:
            with lock:
                errors.append(f"{who.name}, {fault}: {error}")

    start = time.monotonic()
    threads = [threading.Thread(target=lane) for _ in range(min(lanes, runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log(f"{who.name}, {fault}: {len(results)} runs, {time.monotonic() - start:.0f} s")
    for error in errors:
        log(f"note: {error}")
    return results, errors


def row_of(who, fault, results):
    interruptions = [result["interruption_ms"] for result in results]
    after = [result["from_detection_ms"] for result in results if result["from_detection_ms"] is not None]
    noticed = [result["noticed_ms"] for result in results if result["noticed_ms"] is not None]
    return {
        "who": who.name,
        "settings": who.settings,
        "version": getattr(who, "version", None),
        "fault": fault,
        "runs": len(results),
        "failures": sum(not result["ok"] for result in results),
        "median_ms": median(interruptions),
        "p95_ms": percentile(interruptions, 0.95),
        "worst_ms": max(interruptions),
        "noticed_ms": median(noticed) if noticed else None,
        "from_detection_ms": median(after) if after else None,
        "from_detection_p95_ms": percentile(after, 0.95) if after else None,
        "lost": sum(result["lost"] for result in results),
        "wrong": sum(result["wrong"] for result in results),
        "usual_ms": median([value for result in results for value in result["usual_ms"]]),
        "results": results,
    }


def measure_streams(binaries, native, settings, notes, log):
    emulator = os.path.join(binaries, "linkemu")
    program, pion = os.path.join(native, "paths", "paths"), os.path.join(binaries, "pionpaths")
    runs, beside, lanes = settings["runs"], settings["runs_beside"], settings["lanes_beside"]
    candidates = []
    if os.path.exists(program):
        candidates.append((Program(LIBRARY, [program], OURS, "defaults"), runs, 1))
    else:
        notes.append("the library is not built: its streams are left out")
    restart = "restart when disconnected or failed"
    quick = ["--disconnected", "1s", "--failed", "5s", "--keepalive", "200ms"]
    candidates.append((Program("pion default", [pion], PION, restart), beside, lanes))
    candidates.append((Program("pion tuned", [pion, *quick], PION, f"{restart}, told after 1 s"), beside, lanes))
    candidates.append((Browser("chromium"), settings["runs_browser"], settings["lanes_browser"]))
    rows = []
    for fault, _ in FAULTS:
        for who, count, parallel in candidates:
            log(f"{fault}: {who.name}")
            results, errors = streams(emulator, who, fault, count, parallel, log)
            notes += errors
            if results:
                rows.append(row_of(who, fault, results))
    return rows


def stream_table(rows):
    text = [
        f"A path dies under {1000 // INTERVAL_MS} messages a second each way, RTT {RTT_MS} ms: the longest time without a"
        " message, less the usual 10 ms, the worse direction; ms",
    ]
    for fault, what in FAULTS:
        text += ["", f"{fault}: {what}", ""]
        text.append(
            f"{'':<18}{'runs':>6}{'p50':>9}{'p95':>9}{'worst':>9}{'to p50 of ours':>16}{'noticed':>10}"
            f"{'then p50':>10}{'then p95':>10}{'before':>8}{'lost':>7}{'wrong':>7}   settings"
        )
        members = [row for row in rows if row["fault"] == fault]
        own = next((row["median_ms"] for row in members if row["who"] == LIBRARY), None)
        for row in members:
            ratio = f"{row['median_ms'] / own:.1f} times" if own and row["who"] != LIBRARY else ""
            failed = f", {row['failures']} did not recover in {LONGEST_S:.0f} s" if row["failures"] else ""
            text.append(
                f"{row['who']:<18}{row['runs']:>6}{row['median_ms']:>9.0f}{row['p95_ms']:>9.0f}{row['worst_ms']:>9.0f}"
                f"{ratio:>16}{cell(row['noticed_ms']):>10}{cell(row['from_detection_ms']):>10}"
                f"{cell(row['from_detection_p95_ms']):>10}{row['usual_ms']:>8.0f}{row['lost']:>7}{row['wrong']:>7}"
                f"   {row['settings']}{failed}"
            )
    return text


def cell(value):
    return "-" if value is None else f"{value:.0f}"


# --------------------------------------------------------------------------- the whole part


def measure(binaries, native, settings, log=print):
    notes = []
    clean()
    rows = measure_streams(binaries, native, settings, notes, log)
    return {
        "streams": rows,
        "relays": relays.measure(binaries, native, settings["connects"], notes, log),
        "notes": notes,
        "settings": settings,
    }


def tables(report):
    parts = [stream_table(report["streams"])] if report["streams"] else []
    if report["relays"]:
        parts.append(relays.table(report["relays"]))
    parts.append([f"note: {note}" for note in report["notes"]])
    return "\n\n".join("\n".join(part) for part in parts).rstrip() + "\n"
