"""Network namespaces for benchmarks and tests, alone, joined by the link emulator, or by cables of the caller's.

    with Link("build/bench/bin/linkemu") as link:
        link.shape(delay_ms=25, loss=0.05)
        server = link.b.start(["program", "--listen", link.b.ipv4])
        print(link.counters())

`link.a` and `link.b` are namespaces with loopback up, one IPv4 and one IPv6 address each and default
routes to each other through TUN devices. `Namespace()` alone has only its loopback. Tests/network builds whole
networks with NATs of it.

Names carry the id and start time of the process that made them, so that what a dead run left behind
can be told from what is in use: `python3 bench/netns.py --clean` (also done by every Link) removes it.
Needs root, iproute2 and /dev/net/tun; missing() says in one sentence what is not there.
"""

import atexit
import contextlib
import ctypes
import itertools
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

PREFIX = "rcbench"
CLONE_NEWNET = 0x40000000
NAME = re.compile(PREFIX + r"-(\d+)-(\d+)-\d+")


class LinkError(Exception):
    """Something the benchmark needs from the system is missing or refused."""


def missing():
    """One sentence about what is missing for namespaces, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root (run this as root, or in a container that may make them)"
    if not shutil.which("ip"):
        return "network namespaces need the command ip (Debian package iproute2)"
    if not os.path.exists("/dev/net/tun"):
        return "the link emulator needs /dev/net/tun (modprobe tun, or pass the device into the container)"
    return None


def _ip(*arguments, check=True, lines=None):
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, input=lines)
    if check and done.returncode != 0:
        raise LinkError(f"ip {' '.join(arguments)}: {done.stderr.strip() or done.returncode}\n{lines or ''}".rstrip())
    return done.stdout


def _start_time(pid):
    """Field 22 of /proc/PID/stat; with the id it names a process for good."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[19]
    except OSError:
        return None


def end_process(pid, patience=3.0):
    """Ends one process by its id: SIGTERM, then SIGKILL."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], patience)[0]:
                return
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def _remove(name):
    for pid in _ip("netns", "pids", name, check=False).split():
        end_process(int(pid))
    _ip("netns", "delete", name, check=False)


def clean():
    """Removes namespaces of runs that have ended without doing it themselves."""
    removed = []
    for line in _ip("netns", "list", check=False).splitlines():
        found = NAME.fullmatch(line.split()[0]) if line.split() else None
        if found and _start_time(int(found[1])) != found[2]:
            _remove(found[0])
            removed.append(found[0])
    return removed


class Process:
    """A child in a process group of its own, ended by its id."""

    def __init__(self, command, prefix=(), **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        self.command = list(command)
        self.child = subprocess.Popen([*prefix, *command], start_new_session=True, **options)
        self.pid = self.child.pid
        atexit.register(self.end)

    def alive(self):
        return self.child.poll() is None

    def end(self, patience=3.0):
        atexit.unregister(self.end)
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.pid, number)
            except (ProcessLookupError, PermissionError):
                break
            try:
                self.child.wait(patience)
                break
            except subprocess.TimeoutExpired:
                continue
        self.child.wait()
        for stream in (self.child.stdin, self.child.stdout, self.child.stderr):
            if stream:
                stream.close()

    def cpu_seconds(self):
        """User and system time used so far by this process (10 ms steps)."""
        with open(f"/proc/{self.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_kib(self):
        with open(f"/proc/{self.pid}/status") as file:
            return int(re.search(r"^VmRSS:\s+(\d+) kB", file.read(), re.M)[1])


class Namespace:
    """A network namespace with its loopback interface up."""

    _count = itertools.count(1)

    def __init__(self, ipv4=None, ipv6=None):
        why = missing()
        if why:
            raise LinkError(why)
        self.name = f"{PREFIX}-{os.getpid()}-{_start_time(os.getpid())}-{next(Namespace._count)}"
        self.ipv4, self.ipv6 = ipv4, ipv6
        self.prefix = ("ip", "netns", "exec", self.name)
        _ip("netns", "add", self.name)
        atexit.register(self.close)
        _ip("-n", self.name, "link", "set", "lo", "up")
        # What TCP learned about a destination in one measurement must not
        # change the next one; nothing but the measured traffic on the link.
        self.set({"ipv4/tcp_no_metrics_save": 1, "ipv6/conf/default/router_solicitations": 0})

    def set(self, settings):
        """Writes files below /proc/sys/net; what this kernel does not have is left out."""
        self.call(self._set, settings)

    @staticmethod
    def _set(settings):
        for name, value in settings.items():
            with contextlib.suppress(OSError), open(f"/proc/sys/net/{name}", "w") as file:
                file.write(str(value))

    def ip(self, *lines):
        """Lines for `ip -batch`, in this namespace; the first that fails ends it."""
        _ip("-n", self.name, "-batch", "-", lines="\n".join(lines))

    def run(self, command, **options):
        return subprocess.run([*self.prefix, *command], check=True, **options)

    def start(self, command, **options):
        return Process(command, self.prefix, **options)

    def call(self, function, *arguments):
        """Calls a function in a thread inside the namespace: sockets it opens stay in it."""
        outcome = []

        def work():  # setns changes this thread only, and this thread ends right after
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                with open(f"/run/netns/{self.name}") as file:
                    if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), f"setns {self.name}")
                outcome.append((function(*arguments), None))
            except Exception as error:
                outcome.append((None, error))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        value, error = outcome[0]
        if error:
            raise error
        return value

    def close(self):
        """Ends what still runs inside, by id, and removes the namespace."""
        atexit.unregister(self.close)
        _remove(self.name)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


class Emulator(Process):
    """A line between two namespaces, each with a TUN device of that name at its end."""

    def __init__(self, program, a, b, seed=1, mtu=1500, lifetime=3600):
        """`a` and `b`: a namespace and the name of its device."""
        ends = [f"{space.name}:{device}" for space, device in (a, b)]
        command = [program, "--a", ends[0], "--b", ends[1], "--control"]
        command += ["--seed", str(seed), "--mtu", str(mtu), "--lifetime", str(lifetime)]
        super().__init__(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        if self.child.stdout.readline().strip() != "ready":
            self.end()
            raise LinkError("the link emulator did not start")

    def _ask(self, line):
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        answer = self.child.stdout.readline().strip()
        if not answer or answer == "error":
            raise LinkError(f"the link emulator refused: {line}")
        return answer

    def shape(self, **settings):
        """delay_ms, jitter_ms, loss, rate_kbps, queue_bytes, reorder (each also with _ab or _ba
        for one direction) and seed; what is not named stays as it is."""
        if settings:
            self._ask(" ".join(f"{name.replace('_', '-')} {value}" for name, value in settings.items()))

    def counters(self):
        return json.loads(self._ask("counters"))


class Link:
    """Two namespaces, `a` and `b`, joined by the emulator."""

    DEVICE = "link0"

    def __init__(self, emulator, seed=1, mtu=1500, lifetime=3600):
        clean()
        self.emulator = None
        self.a = Namespace("10.77.0.1", "fd77::1")
        self.b = None
        try:
            self.b = Namespace("10.77.0.2", "fd77::2")
            self.emulator = Emulator(emulator, (self.a, self.DEVICE), (self.b, self.DEVICE), seed, mtu, lifetime)
            for side in (self.a, self.b):
                self._route(side)
        except BaseException:
            self.close()
            raise

    def _route(self, side):
        # A TUN device has no neighbours to look for and no link-layer
        # addresses: no ARP, no duplicate address detection.
        _ip("-n", side.name, "addr", "add", f"{side.ipv4}/24", "dev", self.DEVICE)
        _ip("-n", side.name, "addr", "add", f"{side.ipv6}/64", "dev", self.DEVICE, "nodad")
        _ip("-n", side.name, "-4", "route", "add", "default", "dev", self.DEVICE)
        _ip("-n", side.name, "-6", "route", "add", "default", "dev", self.DEVICE)

    def shape(self, **settings):
        self.emulator.shape(**settings)

    def counters(self):
        return self.emulator.counters()

    def close(self):
        for part in (self.emulator, self.a, self.b):
            if isinstance(part, Process):
                part.end()
            elif part:
                part.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def round_trips(address, count=50):
    """Milliseconds of connections to a closed port, which take one round trip."""
    times = []
    for _ in range(count):
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            start = time.perf_counter()
            probe.connect_ex((address, 9))
            times.append((time.perf_counter() - start) * 1000)
    return sorted(times)


def main():
    if sys.argv[1:] == ["--clean"]:
        why = missing()
        if why:
            sys.exit(why)
        for name in clean():
            print("removed", name)
    elif len(sys.argv) == 3 and sys.argv[1] == "--round-trips":
        times = round_trips(sys.argv[2])
        print(f"least {times[0]:.2f}, median {times[len(times) // 2]:.2f}, greatest {times[-1]:.2f} ms")
    elif len(sys.argv) == 2 and sys.argv[1] != "--help":
        # A look at the emulator's own accuracy: round trips at a few delays.
        with Link(sys.argv[1]) as link:
            for delay in (0, 10, 25, 50):
                link.shape(delay_ms=delay)
                for address in (link.b.ipv4, link.b.ipv6):
                    probe = [sys.executable, __file__, "--round-trips", address]
                    done = link.a.run(probe, capture_output=True, text=True)
                    print(f"delay {delay} ms each way, {address}: {done.stdout.strip()}")
            print(json.dumps(link.counters(), indent=1))
    else:
        print("usage: netns.py --clean | netns.py EMULATOR (shows the emulator's accuracy)")


if __name__ == "__main__":
    main()
