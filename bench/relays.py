"""Connects through a TURN server and nothing else, over UDP, TCP and TLS to it.

Both ends reach the server (coturn) over an emulated network each, and each other only through it. Signaling takes one
round trip to the server for an offer with its answer, as in the other connects. A value is the time from the creation
of the peer to the first echo on its channel.
"""

import os
import shutil
import subprocess
import tempfile
import time

from connect import median, percentile
from ends import LIBRARY, EndError, ProgramEnd, Signaling
from netns import LinkError, Namespace
from wires import Wire

RTT_MS = 50
USER, PASSWORD, REALM = "bench", "a password of this run", "bench.invalid"
PORT, TLS_PORT = 3478, 5349
# Name, and how the server is named.
TRANSPORTS = (
    ("UDP", "turn:{address}:3478?transport=udp"),
    ("TCP", "turn:{address}:3478?transport=tcp"),
    ("TLS", "turns:{address}:5349?transport=tcp"),
)
# The engines know the server from their start, as they do in a program: the answering one has its relay by then. In the
# other row they are told of it when the clock starts.
ALLOCATED = f"{LIBRARY}, known before"
TIMEOUT_S = 15.0


class Star:
    """A server in the middle and two ends, a wire to each. The ends do not reach each other past it."""

    def __init__(self, emulator):
        self.parts = []
        try:
            self.server, *self.sides = (self._keep(Namespace()) for _ in range(3))
            for space in (self.server, *self.sides):
                space.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"])
            for number, side in enumerate(self.sides):
                self._keep(Wire(emulator, side, self.server, f"link{number}", 10 + number, RTT_MS))
            # One address of the server for both, and the ends know nothing else.
            self.address = "10.79.0.1"
            self.server.run(["ip", "addr", "add", f"{self.address}/32", "dev", "lo"])
            for number, side in enumerate(self.sides):
                side.run(["ip", "route", "add", "default", "dev", f"link{number}"])
        except BaseException:
            self.close()
            raise

    def _keep(self, part):
        self.parts.insert(0, part)
        return part

    def close(self):
        for part in self.parts:
            part.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


class Relay:
    """coturn in a namespace, with a certificate of its own."""

    def __init__(self, namespace, address, folder):
        self.certificate = os.path.join(folder, "certificate.pem")
        key = os.path.join(folder, "key.pem")
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-days", "2", "-subj", "/CN=bench", "-addext", f"subjectAltName=IP:{address}"]
        subprocess.run([*command, "-keyout", key, "-out", self.certificate], check=True, capture_output=True)
        log = os.path.join(folder, "log")
        command = ["turnserver", "-n", "--log-file", log, "--simple-log", "--no-cli", "--fingerprint", "--lt-cred-mech"]
        command += ["--listening-ip", address, "--relay-ip", address, "--listening-port", str(PORT)]
        command += ["--tls-listening-port", str(TLS_PORT), "--cert", self.certificate, "--pkey", key]
        command += ["--realm", REALM, "--user", f"{USER}:{PASSWORD}", "--pidfile", os.path.join(folder, "pid")]
        command += ["--userdb", os.path.join(folder, "users"), "--no-rfc5780", "--no-stun-backward-compatibility"]
        self.process = namespace.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        probe = ["sh", "-c", f"ss -Hltn | grep -c ':{PORT} ' > /dev/null"]
        for _ in range(100):
            if not self.process.alive():
                break
            if subprocess.run([*namespace.prefix, *probe]).returncode == 0:
                return
            time.sleep(0.1)
        self.process.end()
        with open(log) as file:
            raise LinkError(f"turnserver did not start: {file.read()[-300:]}")

    def close(self):
        self.process.end()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def missing():
    """A sentence about what is missing, or None."""
    for command, package in (("turnserver", "coturn"), ("openssl", "openssl"), ("ss", "iproute2")):
        if not shutil.which(command):
            return f"connects through TURN need the command {command} (Debian package {package})"
    return None


def kinds(binaries, native, notes):
    """Name, command, further arguments."""
    program, pion = os.path.join(native, "paths", "paths"), os.path.join(binaries, "pionpaths")
    found = [
        ("pion default", [pion], []),
        ("pion tuned", [pion], ["--relay-wait", "0"]),
    ]
    if os.path.exists(program):
        return [(LIBRARY, [program], ["--ca"]), (ALLOCATED, [program], ["--ca", "--allocated"]), *found]
    notes.append("the library is not built: its connects through TURN are left out")
    return found


def measure(binaries, native, count, notes, log):
    why = missing()
    if why:
        notes.append(why + ": left out")
        return []
    rows = []
    with tempfile.TemporaryDirectory() as folder, Star(os.path.join(binaries, "linkemu")) as star:
        with Relay(star.server, star.address, folder) as relay:
            for transport, url in TRANSPORTS:
                for name, command, more in kinds(binaries, native, notes if transport == "UDP" else []):
                    log(f"TURN over {transport}: {name}")
                    try:
                        results = connects(star, relay, url, name, command, more, count)
                    except (EndError, LinkError, OSError) as error:
                        notes.append(f"TURN over {transport}, {name}: {error}")
                        log(f"note: {notes[-1]}")
                        continue
                    rows.append(row_of(name, transport, results))
    return rows


def connects(star, relay, url, name, command, more, count):
    ends = []
    arguments = ["--echo", "--turn", url.format(address=star.address), "--user", USER, "--password", PASSWORD]
    if "--ca" in more:
        more = ["--ca", relay.certificate, *(word for word in more if word != "--ca")]
    # Go's TLS takes the authority from here.
    environment = {**os.environ, "SSL_CERT_FILE": relay.certificate}
    signaling = None
    try:
        for role, side in zip(("offer", "answer"), star.sides):
            everything = [*command, "--role", role, *arguments, *more]
            ends.append(ProgramEnd(f"{name} ({role})", side, everything, env=environment))
        signaling = Signaling(*ends, RTT_MS / 2000)
        if "--allocated" in more:
            time.sleep(1)
        # The first one is not shown: programs are read from the disk, and the server wakes.
        return [connect(ends) for _ in range(count + 1)][1:]
    finally:
        if signaling:
            signaling.close()
        for end in ends:
            end.close()


def connect(ends):
    for end in reversed(ends):
        end.begin()
    result = {"ok": False}
    try:
        start = ends[0].wait_for("begin")
        result["ms"] = (ends[0].wait_for("echo", TIMEOUT_S) - start) * 1000
        result["open_ms"] = (ends[0].wait_for("open") - start) * 1000
        result["ok"] = True
    except EndError as error:
        result["error"] = str(error)
    result["pairs"] = [end.dump().get("pair") for end in ends]
    for end in ends:
        end.ask("X")
    time.sleep(0.1)
    return result


def row_of(name, transport, results):
    times = [result["ms"] if result["ok"] else TIMEOUT_S * 1000 for result in results]
    return {
        "who": name,
        "transport": transport,
        "connects": len(results),
        "failures": sum(not result["ok"] for result in results),
        "direct": sum(" relay " not in f" {' '.join(str(pair) for pair in result['pairs'])} " for result in results),
        "median_ms": median(times),
        "p95_ms": percentile(times, 0.95),
        "worst_ms": max(times),
        "results": results,
    }


def table(rows):
    text = [
        f"Connects through TURN alone, RTT {RTT_MS} ms from each end to the server, so {2 * RTT_MS} ms between them: ms from the"
        " creation of the peer to the first echo",
        "",
    ]
    names = list(dict.fromkeys(row["who"] for row in rows))
    width = max(len(name) for name in names) + 2
    text.append(f"{'':<{width}}" + "".join(f"{transport + ' p50':>12}{'p95':>8}" for transport, _ in TRANSPORTS))
    for name in names:
        line, failed = f"{name:<{width}}", 0
        for transport, _ in TRANSPORTS:
            row = next((row for row in rows if (row["who"], row["transport"]) == (name, transport)), None)
            line += f"{row['median_ms']:>12.0f}{row['p95_ms']:>8.0f}" if row else f"{'-':>12}{'-':>8}"
            failed += row["failures"] if row else 0
        text.append(line + (f"   {failed} failed" if failed else ""))
    return text
