"""Reloads: how a client that was there before comes back, and what that costs the server.

Through the emulated link: modes x clients x round trips x address families, from the connect function to the first echo
on a negotiated channel, with a page's minimal script and with a native client; and the whole cold page, TLS included.
On loopback: processor time of the server for each mode, and a crowd that comes back within one second.
"""

import base64
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import connect
import load
from browsers import BrowserClient
from connect import FAMILIES, LOSS, LOSS_RTT, WARM_UP, Matrix, fit, group, median, percentile, times
from flood import json_lines
from hosts import HostError, NativeClient, PionClient, pion_hosts
from netns import Link, Namespace

HERE = os.path.dirname(os.path.abspath(__file__))
MODES = ("normal", "fast", "zero-signaling")
COLD_PORT = 8444
NATIVE = "native"
# Name in the tables, program, and the modes measured here. A page's connects in normal mode, and pion's, are those of
# the part "connect": a page that nobody knows is a new one.
CLIENTS = (
    ("chromium", "chromium", MODES[1:]),
    ("firefox negotiated", "firefox", MODES[1:]),
    (NATIVE, NATIVE, MODES),
)
BESIDE = ("chromium", "firefox negotiated", "pion client")

FULL = {"rtts": (0, 20, 50, 100), "repeats": 5, "loss_repeats": 40, "lanes": 5, "cold_repeats": 3, "clients": 10000}
QUICK = {"rtts": (0, 50), "repeats": 2, "loss_repeats": 6, "lanes": 3, "cold_repeats": 1, "clients": 500}


class Reloads(Matrix):
    """Runs the cells of one client after the other, and keeps their raw results."""

    def measure(self, kind, name, program, modes):
        try:
            client = self.start(program)
        except Exception as error:  # a browser that is not there must not end the run
            return self.note(f"{program} left out of the reloads: {error}")
        self.client = name
        try:
            self.versions[program] = client.version()
            for family in FAMILIES:
                try:
                    self.run_host(client, program, kind, family, [(mode, False) for mode in modes])
                except Exception as error:
                    self.note(f"reload, {name}, {family}: {error}")
        finally:
            client.close()

    def start(self, program):
        if program == NATIVE:
            return NativeClient(os.path.join(self.settings["native"], "reload", "reload"), self.link.a)
        return BrowserClient(program, self.link.a)

    def run_cells(self, client, kind, host, family, mode, _):
        start = time.monotonic()
        settings = self.settings
        self.link.shape(delay_ms=0, loss=0, seed=1)
        client.reload(host.url, mode, WARM_UP, prepare=settings["lanes"])
        for rtt in settings["rtts"]:
            self.link.shape(delay_ms=rtt / 2)
            self.add_mode(kind, mode, family, rtt, 0, client.reload(host.url, mode, settings["repeats"]))
        if settings["loss_repeats"]:
            self.link.shape(delay_ms=LOSS_RTT / 2, loss=LOSS, seed=len(self.cells))
            results = client.reload(host.url, mode, settings["loss_repeats"], lanes=settings["lanes"])
            self.link.shape(loss=0)
            self.add_mode(kind, mode, family, LOSS_RTT, LOSS, results)
        self.log(f"{kind.name}, {self.client}, {mode}, {family}: {time.monotonic() - start:.0f} s")

    def add_mode(self, kind, mode, family, rtt, loss, results):
        self.add(kind, self.client, family, rtt, loss, results)
        self.cells[-1]["mode"] = mode
        # A native client falls back by itself: the time counts, the way is told.
        self.cells[-1]["fallbacks"] = sum(result.get("ok") and result.get("mode") != mode for result in results)
        for error in dict.fromkeys(result["error"] for result in results if not result.get("ok")):
            self.note(f"{kind.name}, {self.client}, {mode}, {family}, RTT {rtt}: {error}")


# --------------------------------------------------------------------------- the cold page


class Front:
    """TLS before a host, with a certificate of its own."""

    def __init__(self, namespace, folder, host_port=8080):
        if not shutil.which("openssl"):
            raise HostError("the cold page needs the command openssl")
        key, certificate = os.path.join(folder, "key.pem"), os.path.join(folder, "certificate.pem")
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-days", "30", "-subj", "/CN=bench", "-addext", f"subjectAltName=IP:{namespace.ipv4}"]
        subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        public = subprocess.run(
            ["openssl", "x509", "-in", certificate, "-noout", "-pubkey"], check=True, capture_output=True, text=True
        ).stdout
        der = base64.b64decode("".join(line for line in public.splitlines() if not line.startswith("-")))
        self.fingerprint = base64.b64encode(hashlib.sha256(der).digest()).decode()
        self.url = f"https://{namespace.ipv4}:{COLD_PORT}/"
        program = [sys.executable, os.path.join(HERE, "front.py"), "--listen", f"{namespace.ipv4}:{COLD_PORT}"]
        program += ["--to", f"{namespace.ipv4}:{host_port}", "--certificate", certificate, "--key", key]
        self.process = namespace.start(program, stdout=subprocess.PIPE, text=True)
        if not self.process.child.stdout.readline().startswith("listening"):
            self.process.end()
            raise HostError("the TLS front did not start")

    def drop(self):
        """Closes all connections: what comes next begins with TCP."""
        os.kill(self.process.pid, signal.SIGUSR1)
        time.sleep(0.1)

    def end(self):
        self.process.end()


def cold(link, kind, settings, log):
    """The example page reloaded in Chromium with no connection open: from the navigation's start to the first echo."""
    cells = []
    with tempfile.TemporaryDirectory() as folder, kind.start(link.b, link.b.ipv4) as host:
        link.shape(delay_ms=0, loss=0)
        front = Front(link.b, folder)
        client = None
        try:
            # A certificate that is accepted for its key, unlike one whose errors are ignored, lets the browser keep files.
            client = BrowserClient(
                "chromium", link.a, args=[f"--ignore-certificate-errors-spki-list={front.fingerprint}"]
            )
            for mode in MODES:
                log(f"{host.kind.name}, cold page, {mode}")
                client.visit(front.url + ("" if mode == "zero-signaling" else "?tickets=no"))
                front.drop()
                client.visit_again()
                for rtt in settings["rtts"]:
                    results = []
                    for _ in range(settings["cold_repeats"]):
                        if mode == "normal":
                            client.forget()
                        front.drop()
                        link.shape(delay_ms=rtt / 2)
                        try:
                            results.append(client.visit_again())
                        finally:
                            link.shape(delay_ms=0)
                    won = [result["mode"] for result in results]
                    cells.append(
                        {
                            "mode": mode,
                            "rtt_ms": rtt,
                            "median_ms": median(times(results)),
                            "modes": {name: won.count(name) for name in MODES if name in won},
                            "results": results,
                        }
                    )
        finally:
            if client:
                client.close()
            front.end()
            link.shape(delay_ms=0)
    return cells


# --------------------------------------------------------------------------- loopback


def storm(native, *arguments):
    """Rows of build/bench/native/reload/storm, which ends by itself within a minute."""
    program = os.path.join(native, "reload", "storm")
    done = subprocess.run([program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=75)
    if done.returncode != 0:
        raise HostError(f"storm {' '.join(arguments)}: {done.stderr.strip() or f'status {done.returncode}'}")
    return json_lines(done.stdout)


def pion_cost(binaries, results, quick):
    """Processor time of pion's host for a connect, in microseconds: from the part "load", or measured now."""
    rows = {row["host"]: row["connects"] for row in results.get("load", {}).get("rows", [])}
    if "pion tuned" not in rows:
        settings = load.QUICK if quick else load.FULL
        with Namespace() as namespace:
            client = PionClient(os.path.join(binaries, "pionclient"), namespace)
            for kind in pion_hosts(binaries):
                rows[kind.name] = load.connects(namespace, kind, client, settings)
    return {name: row["host_cpu_ms_per_connect"] * 1000 for name, row in rows.items()}


# --------------------------------------------------------------------------- the whole part


def cells_beside(binaries, ours, results, settings, log):
    """The connects of this run that reloads stand beside, measured now if the part "connect" has not run."""
    report = results.get("connect")
    if not report:
        log("connects in normal mode, to stand beside the reloads")
        clients = [client for client in connect.CLIENTS if client[0] in BESIDE]
        report = connect.measure(binaries, ours[:1], settings, clients, log)
    return [{**cell, "mode": "normal", "fallbacks": 0} for cell in report["cells"] if cell["client"] in BESIDE]


def measure(binaries, native, ours, results, settings, quick=False, log=print):
    """The report. `ours` are the library's hosts: browsers use the first, the native client the one in C if it is there.
    `results` are those of the parts that ran before: what they have measured of pion is not measured again."""
    notes, cells, versions, cold_cells, rows = [], [], {}, [], []

    def attempt(what, function):
        """One failed measurement is a note, and the others go on."""
        try:
            return function()
        except Exception as error:
            notes.append(f"{what} left out: {error}")
            log(f"note: {notes[-1]}")
            return None

    if ours:
        host = ours[0]
        native_host = next((kind for kind in ours if kind.name == "answerer-c"), host)
        with Link(os.path.join(binaries, "linkemu"), seed=2, lifetime=3600) as link:
            matrix = Reloads(link, binaries, {**settings, "native": native}, log)
            for name, program, modes in CLIENTS:
                if name != NATIVE:
                    matrix.measure(host, name, program, modes)
                elif os.path.exists(os.path.join(native, "reload", "reload")):
                    matrix.measure(native_host, name, program, modes)
            cold_cells = attempt("the cold page", lambda: cold(link, host, settings, log)) or []
        cells, versions = matrix.cells, matrix.versions
        notes += matrix.notes
    beside = attempt("normal mode", lambda: cells_beside(binaries, ours, results, settings, log)) or []
    if os.path.exists(os.path.join(native, "reload", "storm")):
        log("the server's processor time for a reload")
        rows += attempt("the server's cost", lambda: storm(native, "cost", *(["--quick"] if quick else []))) or []
        log(f"{settings['clients']} clients come back within a second")
        rows += attempt("the crowd", lambda: storm(native, "reload", str(settings["clients"]))) or []
    log("pion's processor time for a connect")
    return {
        "cells": [*cells, *beside],
        "lines": lines_of([*cells, *beside]),
        "losses": losses_of([*cells, *beside]),
        "cold": cold_cells,
        "cost": [row for row in rows if row["bench"] in ("reload cost", "fast answer")],
        "crowd": next((row for row in rows if row["bench"] == "reload crowd"), None),
        "pion_connect_us": attempt("pion's cost", lambda: pion_cost(binaries, results, quick)) or {},
        "notes": notes,
        "versions": versions,
        "settings": settings,
    }


def lines_of(cells):
    lines = []
    clean = [cell for cell in cells if cell["loss"] == 0]
    for (host, client, mode, family), members in group(clean, "host", "client", "mode", "family").items():
        slope, intercept = fit([(cell["rtt_ms"], cell["median_ms"]) for cell in members])
        lines.append(
            {
                "host": host,
                "client": client,
                "mode": mode,
                "family": family,
                "round_trips": slope,
                "fixed_ms": intercept,
                "medians_ms": {cell["rtt_ms"]: cell["median_ms"] for cell in members},
                "failures": sum(cell["failures"] for cell in members),
                "fallbacks": sum(cell["fallbacks"] for cell in members),
            }
        )
    return lines


def losses_of(cells):
    """Both families together."""
    rows = []
    lossy = [cell for cell in cells if cell["loss"] > 0]
    for (host, client, mode), members in group(lossy, "host", "client", "mode").items():
        values = [value for cell in members for value in times(cell["results"])]
        rows.append(
            {
                "host": host,
                "client": client,
                "mode": mode,
                "connects": len(values),
                "median_ms": median(values),
                "p95_ms": percentile(values, 0.95),
                "worst_ms": max(values),
                "failures": sum(cell["failures"] for cell in members),
                "fallbacks": sum(cell["fallbacks"] for cell in members),
            }
        )
    return rows


# --------------------------------------------------------------------------- tables

ORDER = ("chromium", "firefox negotiated", NATIVE, "pion client")


def ordered(rows):
    """By client, then pion's, then the library's modes."""
    return sorted(
        rows, key=lambda row: (ORDER.index(row["client"]), not row["host"].startswith("pion"), MODES.index(row["mode"]))
    )


def line_table(report):
    rtts = sorted({cell["rtt_ms"] for cell in report["cells"] if cell["loss"] == 0})
    heads = "".join(f"{f'RTT {rtt}':>10}" for rtt in rtts)
    text = ["Reload to first echo without loss: median ms at each round trip time, and the line through them", ""]
    text.append(f"{'client':<20}{'host':<14}{'mode':<16}{'':<6}{heads}   = RTTs + fixed ms")
    for line in ordered(report["lines"]):
        medians = line["medians_ms"]
        values = "".join(f"{medians[rtt]:>10.1f}" if rtt in medians else f"{'':>10}" for rtt in rtts)
        more = "".join(
            f"   {line[key]} {word}" for key, word in (("failures", "failed"), ("fallbacks", "fell back")) if line[key]
        )
        text.append(
            f"{line['client']:<20}{line['host']:<14}{line['mode']:<16}{line['family']:<6}{values}"
            f"   {line['round_trips']:.2f} + {line['fixed_ms']:.1f}{more}"
        )
    return text


def loss_table(report):
    text = [f"Reload with {LOSS:.0%} loss each way at RTT {LOSS_RTT} ms, both families together", ""]
    text.append(
        f"{'client':<20}{'host':<14}{'mode':<16}{'connects':>10}{'median':>9}{'p95':>8}{'worst':>8}{'failed':>8}{'fell back':>11}"
    )
    for row in ordered(report["losses"]):
        text.append(
            f"{row['client']:<20}{row['host']:<14}{row['mode']:<16}{row['connects']:>10}{row['median_ms']:>9.0f}"
            f"{row['p95_ms']:>8.0f}{row['worst_ms']:>8.0f}{row['failures']:>8}{row['fallbacks']:>11}"
        )
    return text


def cold_table(report):
    text = ["The whole cold page in Chromium, from the start of navigation over new TCP and TLS 1.3: median ms", ""]
    text.append(f"{'mode':<16}{'RTT':>6}{'TCP+TLS':>10}{'page':>8}{'module':>8}{'first echo':>12}   won by")
    for cell in report["cold"]:
        steps = ""
        for key, width in (("tcp_tls_ms", 10), ("page_ms", 8), ("module_ms", 8)):
            values = [result[key] for result in cell["results"] if result[key] is not None]
            steps += f"{median(values):>{width}.0f}" if values else f"{'-':>{width}}"
        won = ", ".join(f"{name} {count}" for name, count in cell["modes"].items())
        text.append(f"{cell['mode']:<16}{cell['rtt_ms']:>6}{steps}{cell['median_ms']:>12.0f}   {won}")
    text += ["", "= RTTs + fixed ms"]
    for (mode,), members in group(report["cold"], "mode").items():
        slope, intercept = fit([(cell["rtt_ms"], cell["median_ms"]) for cell in members])
        text.append(f"{mode:<16}{slope:.2f} + {intercept:.0f}")
    return text


def cost_table(report):
    text = ["The server's processor time on loopback, microseconds (from the first packet to the end)", ""]
    for row in report["cost"]:
        if row["bench"] == "fast answer":
            text.append(
                f"{'one fast answer alone':<44}{row['server_us']:>10.0f}   ({row['fast']} of {row['count']} fast)"
            )
        else:
            more = f", {row['failures']} failed" if row["failures"] else ""
            more += f", {row['other_mode']} in another mode" if row["other_mode"] else ""
            text.append(
                f"{'connect, ' + row['mode']:<44}{row['server_us']:>10.0f}   (the client {row['client_us']:.0f}{more})"
            )
    for host, used in report["pion_connect_us"].items():
        text.append(f"{'connect, normal, host ' + host + ' (with its HTTP)':<44}{used:>10.0f}")
    return text


def crowd_table(report):
    row = report["crowd"]
    server, clients = row["cpu_server_s"], row["cpu_clients_s"]
    busier = "the clients'" if clients > server else "the server's"
    return [
        f"A crowd: {row['clients']} clients that come back without signaling, started within {row['started_in_s']:.2f} s"
        + (", the server on one processor" if row["pinned"] else ", server and clients on one processor together"),
        "",
        f"{row['completed']} completed in {row['seconds']:.2f} s: {row['completed_per_s']:.0f} per second; "
        f"ms to the first echo: median {row['median_ms']:.0f}, p99 {row['p99_ms']:.0f}, worst {row['worst_ms']:.0f}"
        + (f"; {row['other_mode']} by signaling" if row["other_mode"] else ""),
        f"processor time: server {server:.2f} s, clients {clients:.2f} s of {row['seconds']:.2f} s; the limit was "
        f"{busier} processor"
        + ("" if max(server, clients) > 0.85 * row["seconds"] else ", shared with something else, or the waiting"),
        f"the server alone: {row['completed'] / max(server, 1e-9):.0f} per second of its processor",
    ]


def tables(report):
    parts = [line_table(report)] if report["lines"] else []
    if report["losses"]:
        parts.append(loss_table(report))
    if report["cold"]:
        parts.append(cold_table(report))
    if report["cost"] or report["pion_connect_us"]:
        parts.append(cost_table(report))
    if report["crowd"]:
        parts.append(crowd_table(report))
    parts.append([f"note: {note}" for note in report["notes"]])
    return "\n\n".join("\n".join(part) for part in parts).rstrip() + "\n"
