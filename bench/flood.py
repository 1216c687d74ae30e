"""Throughput and messages per second between two processes on loopback: pion with pion, and whatever
the library's native benchmarks print (README.md, "Native benchmarks")."""

import json
import os
import subprocess

MEBIBYTE = 1 << 20
KINDS = ("flood", "connects", "memory", "answer")


def json_lines(text):
    """The JSON objects among the lines of a program's output."""
    rows = []
    for line in text.splitlines():
        if line.startswith("{"):
            rows.append(json.loads(line))
    return rows


def pion(binaries, quick):
    program = os.path.join(binaries, "pionflood")
    seconds = "1" if quick else "3"
    # Pion's rate of small messages hangs on how many bytes wait in the sender.
    waiting = f"65536,{MEBIBYTE // 4},{MEBIBYTE}"
    command = [program, "--sizes", "65535,100", "--high-water", waiting, "--seconds", seconds]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    rows = json_lines(done.stdout)
    return [complete(row) for row in rows]


def native(folder, quick, log=print):
    """Rows of every program in the folder, and notes about those that failed."""
    rows, notes = [], []
    if not os.path.isdir(folder):
        return rows, [f"{folder} is not there: the library's own figures are left out"]
    for name in sorted(os.listdir(folder)):
        program = os.path.join(folder, name)
        if not os.path.isfile(program) or not os.access(program, os.X_OK):
            continue
        log(f"native: {name}")
        command = [program, "--quick"] if quick else [program]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=180)
            found = [row for row in json_lines(done.stdout) if row.get("bench") in KINDS]
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            notes.append(f"{name}: {error}")
            continue
        if done.returncode != 0:
            notes.append(f"{name} ended with status {done.returncode}")
        elif not found:
            notes.append(f"{name} printed no result")
        for row in found:
            row.setdefault("who", name)
            rows.append(complete(row) if row["bench"] == "flood" else row)
    return rows, notes


def complete(row):
    """Adds the figures that follow from the counted ones."""
    seconds = max(row["seconds"], 1e-9)
    row["mb_per_s"] = row["bytes"] / seconds / 1e6
    row["messages_per_s"] = row["messages"] / seconds
    processor = row["cpu_sender_s"] + row["cpu_receiver_s"]
    row["cpu_s_per_gb"] = processor / (row["bytes"] / 1e9) if row["bytes"] else None
    row["cpu_us_per_message"] = processor / row["messages"] * 1e6 if row["messages"] else None
    return row


def tables(rows):
    text = ["Data on loopback, reliable and ordered (CPU of both processes together)", ""]
    text.append(
        f"{'':<18}{'bytes':>8}{'waiting KiB':>13}{'MB/s':>10}{'messages/s':>13}{'CPU s/GB':>11}{'CPU us/message':>16}"
    )
    for row in rows:
        if row["bench"] != "flood":
            continue
        waiting = f"{row['high_water'] // 1024}" if row.get("high_water") else ""
        per_gb = f"{row['cpu_s_per_gb']:.1f}" if row["cpu_s_per_gb"] else "-"
        per_message = f"{row['cpu_us_per_message']:.2f}" if row["cpu_us_per_message"] else "-"
        text.append(
            f"{row['who']:<18}{row['message_bytes']:>8}{waiting:>13}{row['mb_per_s']:>10.1f}"
            f"{row['messages_per_s']:>13.0f}{per_gb:>11}{per_message:>16}"
        )
    others = [row for row in rows if row["bench"] != "flood"]
    for row in others:
        values = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in row.items()
            if key not in ("bench", "who")
        )
        text.append(f"{row['who']} {row['bench']}: {values}")
    return "\n".join(text) + "\n"
