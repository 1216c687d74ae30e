"""Connects through an emulated link: hosts x clients x round trips x address families x loss.

Each value is the time from the creation of the peer connection to the first echo on its data channel,
signaling included, over an HTTP connection that is already open.
"""

import argparse
import json
import math
import os
import sys
import time

from browsers import BrowserClient
from hosts import NEGOTIATED_ID, HostError, Kind, PionClient, pion_hosts
from netns import Link, LinkError, missing

# Name in the tables, program, whether the channel is pre-negotiated.
CLIENTS = (
    ("chromium", "chromium", False),
    ("firefox", "firefox", False),
    ("firefox negotiated", "firefox", True),
    ("pion client", "pion", False),
)
FAMILIES = ("IPv4", "IPv6")
LOSS = 0.05
LOSS_RTT = 50
TIMEOUT = 15.0

FULL = {"rtts": (0, 20, 50, 100), "repeats": 7, "loss_repeats": 40, "lanes": 4}
QUICK = {"rtts": (0, 50), "repeats": 2, "loss_repeats": 6, "lanes": 3}
WARM_UP = 2


def percentile(values, share):
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def fit(points):
    """Slope and intercept of the least-squares line through (x, y) points."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if spread == 0:
        return 0.0, mean_y
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    return slope, mean_y - slope * mean_x


def times(results):
    """A connect that failed counts with its timeout."""
    return [result["ms"] if result.get("ok") else TIMEOUT * 1000 for result in results]


class Matrix:
    """Runs the cells and keeps their raw results."""

    def __init__(self, link, binaries, settings, log):
        self.link = link
        self.binaries = binaries
        self.settings = settings
        self.log = log
        self.cells = []
        self.notes = []
        self.versions = {}

    def run(self, kinds, clients):
        negotiable = {kind.name: kind.takes_negotiated() for kind in kinds}
        for program in dict.fromkeys(client[1] for client in clients):
            try:
                client = self.start(program)
            except Exception as error:  # a browser that is not there must not end the run
                self.note(f"{program} left out: {error}")
                continue
            try:
                self.versions[program] = client.version()
                for kind in kinds:
                    modes = [(name, negotiated) for name, wanted, negotiated in clients if wanted == program]
                    if any(negotiated for _, negotiated in modes) and not negotiable[kind.name]:
                        self.note(f"{kind.name} has no option --negotiated: left out for negotiated channels")
                        modes = [mode for mode in modes if not mode[1]]
                    for family in FAMILIES:
                        self.run_host(client, program, kind, family, modes)
            finally:
                client.close()

    def start(self, program):
        if program == "pion":
            return PionClient(os.path.join(self.binaries, "pionclient"), self.link.a)
        return BrowserClient(program, self.link.a)

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)
            self.log(f"note: {text}")

    def run_host(self, client, program, kind, family, modes):
        address = self.link.b.ipv4 if family == "IPv4" else self.link.b.ipv6
        offer_negotiated = any(negotiated for _, negotiated in modes)
        self.link.shape(delay_ms=0, loss=0)
        try:
            with kind.start(self.link.b, address, negotiated=offer_negotiated) as host:
                client.open(host.url)
                for name, negotiated in modes:
                    self.run_cells(client, kind, host, family, name, negotiated)
        except HostError as error:
            self.note(str(error))

    def run_cells(self, client, kind, host, family, name, negotiated):
        start = time.monotonic()
        options = {
            "negotiated": NEGOTIATED_ID if negotiated else None,
            "gather": kind.waits,
            "timeout": TIMEOUT,
        }
        self.link.shape(delay_ms=0, loss=0, seed=1)
        client.connect(host.url, WARM_UP, **options)
        for rtt in self.settings["rtts"]:
            self.link.shape(delay_ms=rtt / 2)
            results = client.connect(host.url, self.settings["repeats"], **options)
            self.add(kind, name, family, rtt, 0, results)
        if self.settings["loss_repeats"]:
            self.link.shape(delay_ms=LOSS_RTT / 2, loss=LOSS, seed=len(self.cells))
            results = client.connect(host.url, self.settings["loss_repeats"], lanes=self.settings["lanes"], **options)
            self.link.shape(loss=0)
            self.add(kind, name, family, LOSS_RTT, LOSS, results)
        self.log(f"{kind.name}, {name}, {family}: {time.monotonic() - start:.0f} s")

    def add(self, kind, client, family, rtt, loss, results):
        self.cells.append(
            {
                "host": kind.name,
                "client": client,
                "family": family,
                "rtt_ms": rtt,
                "loss": loss,
                "median_ms": median(times(results)),
                "p95_ms": percentile(times(results), 0.95),
                "worst_ms": max(times(results)),
                "failures": sum(not result.get("ok") for result in results),
                "results": results,
            }
        )


def group(cells, *keys):
    """Cells by the values of these members, in order of appearance."""
    groups = {}
    for cell in cells:
        groups.setdefault(tuple(cell[key] for key in keys), []).append(cell)
    return groups


def lines_of(cells):
    """Round trips and fixed part for each host, client and family, from the cells without loss."""
    lines = []
    clean = [cell for cell in cells if cell["loss"] == 0]
    for (host, client, family), members in group(clean, "host", "client", "family").items():
        slope, intercept = fit([(cell["rtt_ms"], cell["median_ms"]) for cell in members])
        lines.append(
            {
                "host": host,
                "client": client,
                "family": family,
                "round_trips": slope,
                "fixed_ms": intercept,
                "medians_ms": {cell["rtt_ms"]: cell["median_ms"] for cell in members},
                "failures": sum(cell["failures"] for cell in members),
            }
        )
    return lines


def losses_of(cells):
    """Both families together, for each host and client, from the cells with loss."""
    rows = []
    lossy = [cell for cell in cells if cell["loss"] > 0]
    for (host, client), members in group(lossy, "host", "client").items():
        values = [value for cell in members for value in times(cell["results"])]
        rows.append(
            {
                "host": host,
                "client": client,
                "connects": len(values),
                "median_ms": median(values),
                "p95_ms": percentile(values, 0.95),
                "worst_ms": max(values),
                "failures": sum(cell["failures"] for cell in members),
            }
        )
    return rows


def tables(report):
    """Plain text."""
    rtts = sorted({cell["rtt_ms"] for cell in report["cells"] if cell["loss"] == 0})
    order = {name: index for index, (name, _, _) in enumerate(CLIENTS)}
    text = ["Connect without loss: median ms at each round trip time, and the line through them", ""]
    heads = "".join(f"{f'RTT {rtt}':>10}" for rtt in rtts)
    text.append(f"{'client':<20}{'host':<16}{'':<6}{heads}   = RTTs + fixed ms")
    for line in sorted(report["lines"], key=lambda line: order[line["client"]]):
        values = "".join(f"{line['medians_ms'][rtt]:>10.1f}" for rtt in rtts)
        failed = f"   {line['failures']} failed" if line["failures"] else ""
        text.append(
            f"{line['client']:<20}{line['host']:<16}{line['family']:<6}{values}"
            f"   {line['round_trips']:.2f} + {line['fixed_ms']:.1f}{failed}"
        )
    if report["losses"]:
        text += ["", f"Connect with {LOSS:.0%} loss each way at RTT {LOSS_RTT} ms, both families together", ""]
        text.append(f"{'client':<20}{'host':<16}{'connects':>10}{'median':>10}{'p95':>10}{'worst':>10}{'failed':>8}")
        for row in sorted(report["losses"], key=lambda row: order[row["client"]]):
            text.append(
                f"{row['client']:<20}{row['host']:<16}{row['connects']:>10}{row['median_ms']:>10.0f}"
                f"{row['p95_ms']:>10.0f}{row['worst_ms']:>10.0f}{row['failures']:>8}"
            )
    text += ["", *(f"note: {note}" for note in report["notes"])]
    return "\n".join(text).rstrip() + "\n"


def measure(binaries, ours, settings, clients=CLIENTS, log=print, seed=1):
    """The report: cells with raw results, lines, losses, notes. `ours` is a list of Kind."""
    with Link(os.path.join(binaries, "linkemu"), seed=seed, lifetime=3600) as link:
        matrix = Matrix(link, binaries, settings, log)
        matrix.run([*pion_hosts(binaries), *ours], clients)
        counters = link.counters()
    return {
        "cells": matrix.cells,
        "lines": lines_of(matrix.cells),
        "losses": losses_of(matrix.cells),
        "notes": matrix.notes,
        "versions": matrix.versions,
        "link": counters,
        "settings": settings,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repeats, two round trip times")
    parser.add_argument("--repeats", type=int, help="connects at each round trip time")
    parser.add_argument("--loss-repeats", type=int, help="connects with loss, for each family (0: none)")
    parser.add_argument("--ours", help="the library's answerer host")
    parser.add_argument("--clients", help="of: " + ", ".join(name for name, _, _ in CLIENTS))
    parser.add_argument("--binaries", default="build/bench/bin")
    parser.add_argument("--json", default="build/bench/connect.json", help="where the results go")
    options = parser.parse_args()
    settings = dict(QUICK if options.quick else FULL)
    if options.repeats is not None:
        settings["repeats"] = max(1, options.repeats)
    if options.loss_repeats is not None:
        settings["loss_repeats"] = max(0, options.loss_repeats)
    wanted = options.clients.split(",") if options.clients else [name for name, _, _ in CLIENTS]
    why = missing()
    if why:
        sys.exit(why)
    ours = [Kind("libreconnect", [os.path.abspath(options.ours)])] if options.ours else []
    try:
        report = measure(
            os.path.abspath(options.binaries),
            ours,
            settings,
            [client for client in CLIENTS if client[0] in wanted],
            log=lambda text: print(text, file=sys.stderr, flush=True),
        )
    except LinkError as error:
        sys.exit(str(error))
    os.makedirs(os.path.dirname(os.path.abspath(options.json)), exist_ok=True)
    with open(options.json, "w") as file:
        json.dump(report, file, indent=1)
    print(tables(report))


if __name__ == "__main__":
    main()
