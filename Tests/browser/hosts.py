"""The example hosts as child processes.

    with Host("python", "--cors", "http://127.0.0.1:8000") as host:
        host.url                       # "http://127.0.0.1:40123/"
        host.get("ping")               # (status, text, headers)
        host.post("offer", {...})      # the same
        host.metric("reconnect_peers") # one number of its metrics
    Host("c", inside=namespace)        # in a network namespace of bench/netns.py

RECONNECT_TEST_HOSTS selects hosts by name, comma-separated; `name=command line` adds one of one's
own. Without it all hosts are tested, and one that is not built is a failure.
RECONNECT_TEST_ADDRESS and RECONNECT_TEST_ADDRESS6 are the addresses offered for the UDP port; the
default is this machine's own.
"""

import json
import os
import re
import shlex
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import drivers

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "go": [str(ROOT / "build/examples/answerer-go")],
    "python": [sys.executable, str(ROOT / "examples/python/answerer.py")],
    "c": [str(ROOT / "build/examples/answerer-c")],
}


# Tests make fast connects fail on purpose, all against one host: it must not switch fast reload off.
STEADY = ["--trip-min", "1000000"]


def own_address(family, elsewhere, loopback):
    """This machine's address on its default route. Firefox sends from there only, and then cannot
    reach a loopback address; that is left for machines without a network."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))  # sends nothing
            return probe.getsockname()[0]
    except OSError:
        return loopback


ADDRESS = os.environ.get("RECONNECT_TEST_ADDRESS") or own_address(socket.AF_INET, "198.51.100.1", "127.0.0.1")
ADDRESS6 = os.environ.get("RECONNECT_TEST_ADDRESS6") or own_address(socket.AF_INET6, "2001:db8::1", "::1")


def selected():
    """The names of the hosts to test."""
    wanted = os.environ.get("RECONNECT_TEST_HOSTS")
    if not wanted:
        return list(COMMANDS)
    names = []
    for item in wanted.split(","):
        name, own, command = item.strip().partition("=")
        if own:
            COMMANDS[name] = shlex.split(command)
        names.append(name)
    return names


def until(condition, what, timeout=20.0):
    """What `condition` returns as soon as that is true. For what only asking tells: a page or a host has to be asked,
    and the question waits for the answer. What is told (output, offers, an end) is waited for where it comes."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited too long for {what() if callable(what) else what}"
    return value


class Host:
    """A running example host, ready to take offers."""

    def __init__(self, name, *options, http="127.0.0.1:0", udp=0, address=ADDRESS, inside=None):
        self.name = name
        self.inside = inside
        command = COMMANDS[name] + ["--http", http, "--udp", str(udp), *STEADY]
        if address:
            command += ["--address", address]
        library = {"LD_LIBRARY_PATH": str(ROOT / "build/lib")}
        for part in command:
            if part.startswith(str(ROOT)) and not os.path.exists(part):
                raise FileNotFoundError(f"the {name} host is not built: {part} is missing")
        prefix = list(inside.prefix) if inside else []
        self.process = drivers.Process(prefix + command + list(options), library)
        try:
            self.url = self.process.wait_for(r"listening on (http://\S+)", 30).group(1)
        except BaseException:
            self.process.end()
            raise

    @property
    def http(self):
        """HOST:PORT, to start another one on the same port."""
        return self.url.removeprefix("http://").rstrip("/")

    def alive(self):
        return self.process.alive()

    def lines(self):
        """What the host has printed."""
        return self.process.lines

    def wait_for(self, pattern, timeout=20, times=1):
        """The match of the first line that fits, or of the second and so on."""
        return self.process.wait_for(pattern, timeout, times)

    def matches(self, pattern):
        """Those of all lines so far that fit."""
        return self.process.matches(pattern)

    def signal(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        """Without a chance to put anything in order."""
        self.signal(signal.SIGKILL)
        self.process.wait(20)

    def metrics(self):
        """Its numbers by series, `name{label="value",...}`."""
        status, text, _ = self.get("metrics")
        assert status == 200
        lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {series: float(value) for series, _, value in lines}

    def metric(self, name, **labels):
        """The sum over the series of this name that have these labels."""
        total, found = 0.0, False
        for series, value in self.metrics().items():
            bare, _, rest = series.partition("{")
            if bare == name and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', rest)).items():
                total, found = total + value, True
        assert found, f"no series {name} with {labels}"
        return total

    def _ask(self, *request):
        return self.inside.call(self._ask_here, *request) if self.inside else self._ask_here(*request)

    def _ask_here(self, path, data=None, headers=None):
        request = urllib.request.Request(self.url + path, data, headers or {})
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read().decode(), response.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(errors="replace"), error.headers

    def get(self, path):
        return self._ask(path)

    def post(self, path, message, content_type="application/json"):
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        return self._ask(path, data, {"Content-Type": content_type})

    def end(self):
        self.process.end()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.end()
