"""The bounds the library has to keep, checked against one run's results."""

# MB of a library file, as `ls -l` counts them.
LIBRARY_BYTES = 7_500_000
# Pion's rate of small messages hangs on how much waits in the sender, because its receiver sorts all
# it holds for every packet that comes out of order: 256 KiB and 1 MiB are what programs use (its own
# example: 1 MiB). The bound was set from 12 700 messages/s; a run in which pion does worse does not
# make it easier.
USUAL_WAITING = (1 << 18, 1 << 20)
PION_MESSAGES_PER_S = 12_700
LIBRARY = "libreconnect"
RESTART = "p50 at most 3 RTT + 300 ms"


class Bound:
    """`holds` is None where the run has not measured it."""

    def __init__(self, name, limit, value=None, holds=None):
        self.name = name
        self.limit = limit
        self.value = value
        self.holds = holds

    def line(self):
        word = {True: "pass", False: "FAIL", None: "not measured"}[self.holds]
        measured = f": {self.value}" if self.value is not None else ""
        return f"{word:<13} {self.name}, {self.limit}{measured}"

    def as_json(self):
        return {"name": self.name, "limit": self.limit, "value": self.value, "holds": self.holds}


def check(results, ours):
    """All bounds; `ours` is the name of the library's host in the tables, or None."""
    bounds = [
        connect_bound(results, ours, "chromium", 6.1, 15),
        connect_bound(results, ours, "firefox negotiated", 6.1, 20),
    ]
    for client in ("chromium", "firefox", "firefox negotiated"):
        bounds.append(loss_bound(results, ours, client))
    return [
        *bounds,
        *reload_bounds(results),
        *load_bounds(results, ours),
        *flood_bounds(results),
        *replay_bounds(results),
        *path_bounds(results),
        size_bound(results),
    ]


def connect_bound(results, ours, client, round_trips, fixed_ms):
    name = f"connect without loss, {client}"
    limit = f"at most {round_trips} RTT + {fixed_ms} ms at every RTT, IPv4 and IPv6"
    lines = [
        line
        for line in results.get("connect", {}).get("lines", [])
        if line["host"] == ours and line["client"] == client
    ]
    return line_bound(name, limit, lines, round_trips, fixed_ms)


def line_bound(name, limit, lines, round_trips, fixed_ms):
    """Whether the median at every round trip time, of every family, is at most that line."""
    if not lines:
        return Bound(name, limit)
    over = []
    for line in lines:
        for rtt, value in line["medians_ms"].items():
            allowed = round_trips * float(rtt) + fixed_ms
            if value > allowed:
                over.append(f"{value:.1f} > {allowed:.1f} ms at RTT {rtt} {line['family']}")
    fitted = ", ".join(f"{line['family']} {line['round_trips']:.2f} + {line['fixed_ms']:.1f}" for line in lines)
    return Bound(name, limit, "; ".join([fitted, *over]), not over)


def loss_bound(results, ours, client):
    name = f"connect with 5 % loss at RTT 50 ms, {client}"
    limit = "p95 under 1500 ms"
    for row in results.get("connect", {}).get("losses", []):
        if row["host"] == ours and row["client"] == client:
            return Bound(name, limit, f"{row['p95_ms']:.0f} ms of {row['connects']}", row["p95_ms"] < 1500)
    return Bound(name, limit)


def reload_bounds(results):
    """Reloads in Chromium by session and by ticket, and by ticket between two ends of this library."""
    report = results.get("reload", {})
    bounds = []
    for client, mode, round_trips, fixed_ms in (
        ("chromium", "zero-signaling", 5.05, 15),
        ("chromium", "fast", 6.05, 15),
        ("native", "zero-signaling", 4.0, 5),
    ):
        lines = [line for line in report.get("lines", []) if (line["client"], line["mode"]) == (client, mode)]
        limit = f"at most {round_trips} RTT + {fixed_ms} ms at every RTT, IPv4 and IPv6"
        bounds.append(line_bound(f"reload without loss, {client}, {mode}", limit, lines, round_trips, fixed_ms))
    for mode in ("zero-signaling", "fast"):
        name, limit = f"reload with 5 % loss at RTT 50 ms, chromium, {mode}", "p95 under 1000 ms"
        rows = [row for row in report.get("losses", []) if (row["client"], row["mode"]) == ("chromium", mode)]
        bounds.append(
            Bound(name, limit, f"{rows[0]['p95_ms']:.0f} ms of {rows[0]['connects']}", rows[0]["p95_ms"] < 1000)
            if rows
            else Bound(name, limit)
        )
    return bounds


def load_bounds(results, ours):
    rows = {row["host"]: row for row in results.get("load", {}).get("rows", [])}
    names = (
        ("answer production", "median under 1 ms"),
        ("host CPU per connect", "at most pion's"),
        ("memory per idle connection", "at most 100 KiB"),
    )
    if ours not in rows:
        return [Bound(*name) for name in names]
    row = rows[ours]
    produced = row["answer"]["median_ms"]
    used = row["connects"]["host_cpu_ms_per_connect"]
    pions = [other["connects"]["host_cpu_ms_per_connect"] for name, other in rows.items() if name.startswith("pion")]
    held = row["memory"]["kib_per_connection"]
    return [
        Bound(*names[0], f"{produced:.2f} ms", produced < 1),
        Bound(*names[1], f"{used:.2f} ms, pion {min(pions):.2f} ms", used <= min(pions)),
        Bound(*names[2], f"{held:.0f} KiB", held <= 100),
    ]


def flood_bounds(results):
    rows = [row for row in results.get("flood", []) if row["bench"] == "flood"]
    bounds = []
    for name, limit, factor, figure, sizes in (
        ("throughput with 64 KiB messages", "at least 2 times pion's MB/s", 2, "mb_per_s", (65535, 65536)),
        ("rate of 100 byte messages", "at least 10 times pion's", 10, "messages_per_s", (100,)),
    ):
        sized = [row for row in rows if row["message_bytes"] in sizes]
        own = [row[figure] for row in sized if row["who"] != "pion"]
        pions = [row for row in sized if row["who"] == "pion"]
        usual = best = max([0, *(row[figure] for row in pions)])
        if figure == "messages_per_s":
            in_use = [row[figure] for row in pions if row["high_water"] in USUAL_WAITING]
            usual = max([PION_MESSAGES_PER_S, *in_use])
        if not own or not usual or not best:
            bounds.append(Bound(name, limit))
            continue
        ratio = max(own) / usual
        value = f"{ratio:.1f} times ({max(own):.0f} and {usual:.0f}); {max(own) / best:.1f} times pion's best setting"
        bounds.append(Bound(name, limit, value, ratio >= factor))
    return bounds


def replay_bounds(results):
    """Replay buffers: per core in memory, as shares of redis-benchmark and multiples of the plain design in Redis."""
    report = results.get("replay", {})
    memory = [row for row in report.get("memory", []) if row["message_bytes"] == 200]
    bounds = []
    for name, figure, least in (
        ("replay in memory, publishes of 200 bytes", "publish_per_cpu_s", 1_000_000),
        ("replay in memory, recoveries of 20 messages", "recover_per_cpu_s", 500_000),
    ):
        limit = f"at least {least}/s per core"
        bounds.append(
            Bound(name, limit, f"{memory[0][figure]:.0f}/s", memory[0][figure] >= least)
            if memory
            else Bound(name, limit)
        )
    found = report.get("redis")
    for operation, plural in (("publish", "publishes"), ("recover", "recoveries")):
        for name, limit, figure, least in (
            ("with redis-benchmark's", "at least 70 %", "share", 0.7),
            ("with the plain design's", "at least 5 times", "times_plain", 5),
        ):
            name = f"replay in Redis, {plural} {name}"
            if not found:
                bounds.append(Bound(name, limit))
                continue
            value = found[operation][figure]
            text = f"{value * 100:.0f} %" if least < 1 else f"{value:.1f} times"
            bounds.append(Bound(name, limit, text, value >= least and not found[operation]["failed"]))
    name, limit = "replay in Redis, round trips", "one for each operation"
    if found:
        trips = [found[operation]["round_trips"] for operation in ("publish", "recover")]
        single = max(trips) <= 1.01 and found["commands_seen"] == 2
        bounds.append(Bound(name, limit, ", ".join(f"{each:.3f}" for each in trips), single))
    else:
        bounds.append(Bound(name, limit))
    name, limit = "replay from Python, 50 missed messages", "median under 1 ms"
    from_python = report.get("python", {}).get("memory")
    if from_python:
        bounds.append(Bound(name, limit, f"{from_python['median_ms']:.3f} ms", from_python["median_ms"] < 1))
    else:
        bounds.append(Bound(name, limit))
    name, limit = "replay in Redis, order with four publishers", "none out of order, none missing"
    ordered = report.get("order", {}).get("ours")
    if ordered:
        missed = ordered["messages"] - ordered["received"]
        wrong = ordered["disordered"] + ordered["gaps"] + ordered["failed"] + missed
        bounds.append(Bound(name, limit, f"{wrong} of {ordered['messages']}", wrong == 0))
    else:
        bounds.append(Bound(name, limit))
    name, limit = "replay in Redis, a storm", "everybody recovered"
    storms = [row for row in report.get("storm", []) if row["who"] == "libreconnect"]
    if storms:
        row = storms[0]
        value = f"{row['recovered']} of {row['users']}, {row['reads_per_room']:.2f} reads for a room"
        bounds.append(Bound(name, limit, value, row["recovered"] == row["users"]))
    else:
        bounds.append(Bound(name, limit))
    return bounds


def path_bounds(results):
    """Streams of messages whose path dies, and connects through TURN."""
    report = results.get("paths", {})
    rows = [row for row in report.get("streams", []) if row["who"] == LIBRARY]
    bounds = []
    for name, fault, figure, limit_ms, limit in (
        (
            "interruption when a path dies and there is a second one",
            "second path",
            "median_ms",
            200,
            "p50 at most 200 ms",
        ),
        ("from noticing to a message, one end has moved", "one end moves", "from_detection_ms", 360, RESTART),
        ("from noticing to a message, both have moved", "both ends move", "from_detection_ms", 360, RESTART),
    ):
        found = [row for row in rows if row["fault"] == fault]
        value = found[0][figure] if found else None
        if value is None:
            bounds.append(Bound(name, limit))
            continue
        failed = found[0]["failures"]
        text = f"{value:.0f} ms of {found[0]['runs']}" + (f", {failed} did not recover" if failed else "")
        bounds.append(Bound(name, limit, text, value <= limit_ms and not failed))
    name, limit = "messages lost, doubled or out of order when a path dies", "none"
    if rows:
        wrong = sum(row["lost"] + row["wrong"] for row in rows)
        bounds.append(Bound(name, limit, f"{wrong} in {sum(row['runs'] for row in rows)} runs", wrong == 0))
    else:
        bounds.append(Bound(name, limit))
    medians = {(row["who"], row["transport"]): row["median_ms"] for row in report.get("relays", [])}
    for transport in ("UDP", "TCP", "TLS"):
        name, limit = f"connect through TURN over {transport}", "median at most pion's"
        own, pion = medians.get((LIBRARY, transport)), medians.get(("pion tuned", transport))
        if own is None or pion is None:
            bounds.append(Bound(name, limit))
        else:
            bounds.append(Bound(name, limit, f"{own:.0f} ms, pion {pion:.0f} ms", own <= pion))
    return bounds


def size_bound(results):
    name, limit = "stripped library file", "at most 7.5 MB"
    size = results.get("library", {}).get("stripped_bytes")
    if size is None:
        return Bound(name, limit)
    return Bound(name, limit, f"{size / 1e6:.2f} MB", size <= LIBRARY_BYTES)
