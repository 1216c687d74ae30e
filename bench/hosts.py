"""Answerer hosts under one command line, and the pion client, as processes."""

import json
import os
import queue
import subprocess
import threading

NEGOTIATED_ID = 100


class HostError(Exception):
    """A host did not start, or ended."""


class Kind:
    """A program that answers offers. `waits` marks the setup whose client gathers completely before
    it sends its offer, as pion's own examples do."""

    def __init__(self, name, command, waits=False):
        self.name = name
        self.command = list(command)
        self.waits = waits

    def takes_negotiated(self):
        """Whether --help speaks of the option --negotiated."""
        try:
            done = subprocess.run(
                [*self.command, "--help"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=10,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return b"-negotiated" in done.stdout

    def start(self, namespace, address, http_port=8080, udp_port=8443, negotiated=False):
        host = f"[{address}]" if ":" in address else address
        command = [*self.command, "--http", f"{host}:{http_port}", "--udp", str(udp_port)]
        command += ["--address", address]
        if negotiated:
            command += ["--negotiated", str(NEGOTIATED_ID)]
        return Host(
            self,
            namespace.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True),
            f"http://{host}:{http_port}",
        )


class Host:
    """A running host. Its output is read all the time, so that it never blocks on it."""

    def __init__(self, kind, process, url):
        self.kind = kind
        self.process = process
        self.url = url
        self.tail = []
        self._ready = queue.SimpleQueue()
        for stream in (process.child.stdout, process.child.stderr):
            threading.Thread(target=self._read, args=(stream,), daemon=True).start()
        try:
            line = self._ready.get(timeout=15)
        except queue.Empty:
            line = None
        if line is None:
            process.end()
            raise HostError(f"{kind.name} did not say 'listening on': {' '.join(self.tail[-3:]) or 'no output'}")

    def _read(self, stream):
        try:
            for line in stream:
                if line.startswith("listening on "):
                    self._ready.put(line)
                self.tail.append(line.rstrip("\n"))
                del self.tail[:-20]
        except ValueError:
            pass  # closed while reading: the host has been ended
        self._ready.put(None)

    def end(self):
        self.process.end()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.end()


class PionClient:
    """build/bench/bin/pionclient in a network namespace; one process for each call."""

    def __init__(self, program, namespace):
        self.program = program
        self.namespace = namespace

    def version(self):
        return "pion"

    def open(self, url):
        pass

    def command(self, url, count, lanes=1, negotiated=None, gather=False, timeout=15.0):
        command = [self.program, "--url", url, "--count", str(count), "--parallel", str(lanes)]
        command += ["--timeout", f"{timeout}s"]
        if negotiated is not None:
            command += ["--negotiated", str(negotiated)]
        if gather:
            command += ["--gather"]
        return command

    def connect(self, url, count, lanes=1, **options):
        process = self.namespace.start(self.command(url, count, lanes, **options), stdout=subprocess.PIPE, text=True)
        try:
            output, _ = process.child.communicate(timeout=60 + count * 20 / lanes)
        finally:
            process.end()
        results = [json.loads(line) for line in output.splitlines()]
        return [result for result in results if "summary" not in result]

    def totals(self, url, count, lanes, **options):
        """The summary line alone."""
        process = self.namespace.start(
            [*self.command(url, count, lanes, **options), "--quiet"], stdout=subprocess.PIPE, text=True
        )
        try:
            output, _ = process.child.communicate(timeout=60 + count * 20 / lanes)
        finally:
            process.end()
        if not output.strip():
            raise HostError("pionclient ended without a result")
        return json.loads(output.splitlines()[-1])

    def hold(self, url, count, lanes):
        """A process that keeps `count` connections open, and its summary line."""
        process = self.namespace.start(
            [*self.command(url, count, lanes), "--quiet", "--hold"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        line = process.child.stdout.readline()
        if not line:
            process.end()
            raise HostError("pionclient ended without a result")
        return process, json.loads(line)

    def close(self):
        pass


class NativeClient:
    """build/bench/native/reload/reload in a network namespace; one process for each call."""

    def __init__(self, program, namespace):
        self.program = program
        self.namespace = namespace

    def version(self):
        return "libreconnect"

    def open(self, url):
        pass

    def reload(self, url, mode, count, lanes=1, timeout=15.0, prepare=0):
        """A process prepares its clients itself."""
        if not count:
            return []
        address = self.namespace.ipv6 if "[" in url else self.namespace.ipv4
        command = [self.program, "--url", url, "--address", address, "--mode", mode]
        command += ["--count", str(count), "--parallel", str(lanes)]
        process = self.namespace.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            output, errors = process.child.communicate(timeout=60 + count * (timeout + 5) / lanes)
        finally:
            process.end()
        results = [json.loads(line) for line in output.splitlines()]
        while len(results) < count:
            results.append({"ok": False, "error": errors.strip()[:200] or "the client ended"})
        return results

    def close(self):
        pass


def pion_hosts(binaries):
    program = os.path.join(binaries, "pionhost")
    return [
        Kind("pion default", [program, "--mode", "default"], waits=True),
        Kind("pion tuned", [program, "--mode", "tuned"]),
    ]
