"""What connections cost a host, on the loopback interface of a namespace of its own: answer production,
connects per second, CPU time per connect, memory per idle connection. The client is pionclient."""

import json
import os
import sys
import time

from hosts import PionClient
from netns import Namespace

HERE = os.path.dirname(os.path.abspath(__file__))
ADDRESS = "127.0.0.1"

FULL = {"answers": 200, "connects": 500, "parallel": 50, "idle": 1000, "rest": 3.0}
QUICK = {"answers": 50, "connects": 100, "parallel": 50, "idle": 200, "rest": 1.0}


def answer(namespace, kind, settings):
    """Median and 95th percentile of the time a host needs for an answer."""
    with kind.start(namespace, ADDRESS) as host:
        program = [sys.executable, os.path.join(HERE, "offers.py"), host.url, str(settings["answers"])]
        done = namespace.run(program, capture_output=True, text=True, timeout=120)
    return json.loads(done.stdout)


def connects(namespace, kind, client, settings):
    """Rate, and CPU time of the host for each connect, its end included."""
    with kind.start(namespace, ADDRESS) as host:
        client.totals(host.url, 20, 5)
        time.sleep(0.5)
        before = host.process.cpu_seconds()
        totals = client.totals(host.url, settings["connects"], settings["parallel"])
        time.sleep(0.5)
        used = host.process.cpu_seconds() - before
    done = max(1, totals["connects"])
    return {
        "connects": totals["connects"],
        "failures": totals["failures"],
        "connects_per_s": totals["connects_per_s"],
        "host_cpu_ms_per_connect": used * 1000 / done,
        "connects_per_s_and_core": done / used if used else 0.0,
        "client_cpu_ms_per_connect": totals["client_cpu_ms_per_connect"],
    }


def memory(namespace, kind, client, settings):
    """Growth of the host's resident memory for each connection that is open and idle."""
    with kind.start(namespace, ADDRESS) as host:
        client.totals(host.url, 20, 5)
        time.sleep(settings["rest"])
        before = host.process.resident_kib()
        holder, totals = client.hold(host.url, settings["idle"], 20)
        try:
            time.sleep(settings["rest"])
            after = host.process.resident_kib()
        finally:
            holder.end()
    done = max(1, totals["connects"])
    return {
        "connections": totals["connects"],
        "failures": totals["failures"],
        "kib_before": before,
        "kib_after": after,
        "kib_per_connection": (after - before) / done,
    }


def measure(binaries, kinds, settings, log=print):
    """One row for each kind of host."""
    rows = []
    with Namespace() as namespace:
        client = PionClient(os.path.join(binaries, "pionclient"), namespace)
        for kind in kinds:
            log(f"{kind.name}: answers, connects, memory")
            rows.append(
                {
                    "host": kind.name,
                    "answer": answer(namespace, kind, settings),
                    "connects": connects(namespace, kind, client, settings),
                    "memory": memory(namespace, kind, client, settings),
                }
            )
    return {"rows": rows, "settings": settings}


def tables(report):
    settings = report["settings"]
    text = [
        f"Connections on loopback: {settings['connects']} connects, {settings['parallel']} at once; "
        f"{settings['idle']} idle connections",
        "",
        f"{'host':<18}{'answer ms':>18}{'connects/s':>12}{'host CPU ms':>13}{'per s & core':>14}{'KiB per idle':>14}{'failed':>8}",
        f"{'':<18}{'median / p95':>18}{'':>12}{'per connect':>13}{'':>14}{'connection':>14}",
    ]
    for row in report["rows"]:
        produced, made, held = row["answer"], row["connects"], row["memory"]
        spread = f"{produced['median_ms']:.2f} / {produced['p95_ms']:.2f}"
        text.append(
            f"{row['host']:<18}{spread:>18}{made['connects_per_s']:>12.0f}"
            f"{made['host_cpu_ms_per_connect']:>13.2f}{made['connects_per_s_and_core']:>14.0f}"
            f"{held['kib_per_connection']:>14.0f}{made['failures'] + held['failures']:>8}"
        )
    return "\n".join(text) + "\n"
