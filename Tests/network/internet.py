"""A small Internet in network namespaces: a router with the public servers, and sites behind NATs.

    with Internet() as internet, Relay(internet) as relay:
        home = Site(internet, SYMMETRIC)            # a host behind one NAT
        office = Site(internet, PORT_RESTRICTED, PORT_RESTRICTED)  # behind two, the outer one named last
        server = Site(internet)                     # on the Internet itself
        laptop = Site(internet, ways=[[PORT_RESTRICTED], []])  # with two interfaces, eth0 and eth1

With `Internet(emulator="build/bench/bin/linkemu")` the lines to the sites are the link emulator's, and have delay, loss and
rate: `home.way.emulator.shape(delay_ms=5)`.

Each site's public network is 198.18.N.0/24, that behind its NATs 10.N.0.0/24 and 100.64.N.0/24; with IPv6 it is
2001:db8:N::/64. Nothing leads out of the namespaces.
"""

import contextlib
import itertools
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import netns  # noqa: E402
from nat import FULL_CONE, rules  # noqa: E402

PATIENCE = 30
"""Seconds for what must happen: nothing takes as long unless it is broken."""


def missing():
    """One sentence about what is missing for this laboratory, or None."""
    why = netns.missing()
    if why:
        return why
    for program, package in (("nft", "nftables"), ("turnserver", "coturn"), ("openssl", "openssl")):
        if not shutil.which(program):
            return f"the network laboratory needs {program} (apt-get install {package})"
    try:
        with netns.Namespace() as space:
            nft(space, rules(FULL_CONE, "10.0.0.2"))
    except netns.LinkError as error:
        return (
            "network namespaces with NAT by nftables (nf_tables, nft_nat, nft_masq) cannot be made here; "
            f"run this as root, or in a privileged container: {error}"
        )
    return None


def nft(space, text):
    done = subprocess.run([*space.prefix, "nft", "-f", "-"], input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise netns.LinkError(done.stderr.strip())


# Packets are dropped where they come in: a sender that is told of it, as one in the same namespace would be, behaves
# otherwise than one whose packets are lost.
LINES = """
table inet lines {
    set cut { type ifname; }
    chain in { type filter hook prerouting priority raw; iifname @cut drop; }
}
"""


# There are no names here, and programs that ask for some are to know at once.
NAMELESS = """
table inet names {
    chain out { type filter hook output priority filter; meta l4proto { tcp, udp } th dport 53 reject; }
}
"""


def quiet(space, ipv6=False):
    """No packets but the tests' own, and routers that forward."""
    settings = {"ipv4/ip_forward": 1, "ipv4/icmp_ratelimit": 0, "ipv4/conf/all/rp_filter": 0}
    if ipv6:
        settings |= {"ipv6/conf/all/forwarding": 1, "ipv6/conf/default/accept_ra": 0}
    else:
        settings |= {"ipv6/conf/all/disable_ipv6": 1, "ipv6/conf/default/disable_ipv6": 1}
        settings |= {"ipv6/conf/lo/disable_ipv6": 0}  # chromedriver serves ::1
    space.set(settings)


class Internet:
    """The public part: one router that all sites are connected to, with addresses for servers."""

    SERVERS = ("198.18.0.1", "198.18.0.2", "198.18.0.3")
    """Addresses at which the tests have sockets, or nobody is."""

    def __init__(self, emulator=None):
        netns.clean()
        self.emulator = emulator
        for folder in Path(tempfile.gettempdir()).glob(netns.PREFIX + "-*"):
            if not os.path.exists(f"/run/netns/{folder.name.partition('.')[0]}"):
                shutil.rmtree(folder, ignore_errors=True)  # of a killed run
        self.space = netns.Namespace()
        self.sites = []
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._servers = itertools.count(10)
        try:
            quiet(self.space, ipv6=True)
            self.space.ip(
                *[f"address add {ip}/32 dev lo" for ip in self.SERVERS],
                # What is sent to somebody else's private network is lost without a word, as in the real one. A
                # blackhole route would tell senders in this namespace, and coturn then ends the allocation.
                "link add nowhere type veth peer name void",
                "link set nowhere arp off up",
                "link set void up",
                "route add default dev nowhere",
                "route add ::/0 dev nowhere",
            )
            nft(self.space, LINES)
            nft(self.space, "add element inet lines cut { void }")
        except BaseException:
            self.close()
            raise

    def number(self):
        """For a new site's networks."""
        with self._lock:
            return next(self._numbers)

    def server(self):
        """Addresses for a server, its own: coturn shares its ports with another one without a word."""
        with self._lock:
            number = next(self._servers)
        ipv4, ipv6 = f"198.18.0.{number}", f"2001:db8::{number:x}"
        self.space.ip(f"address add {ipv4}/32 dev lo", f"address add {ipv6}/128 dev lo nodad")
        return ipv4, ipv6

    def socket(self, kind=socket.SOCK_DGRAM, family=socket.AF_INET):
        """A socket on the Internet."""
        return self.space.call(socket.socket, family, kind)

    def close(self):
        for site in self.sites:
            site.close()
        self.space.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


class Way:
    """One interface of a host and what is between it and the Internet."""

    def __init__(self, site, index, kinds, ipv4, ipv6):
        internet = site.internet
        self.site, self.kinds = site, kinds
        self.device = f"eth{index}"
        self.number = number = internet.number()
        self.line = f"line{number}"
        """The Internet's end."""
        self.nats = []
        self.address = self.address6 = self.gateway = self.gateway6 = None
        self.table = 100 + index
        self.metric = 100 + index

        inner, device = site.host, self.device
        for depth, kind in enumerate(kinds):
            nat = netns.Namespace()
            self.nats.append(nat)
            quiet(nat)
            network = f"10.{number}.0" if depth == 0 else f"100.64.{number}"
            inner.ip(f"link add {device} type veth peer name inner netns {nat.name}")
            nat.ip("link set inner up", f"address add {network}.1/24 dev inner")
            nft(nat, rules(kind, f"{network}.2"))
            self._up(inner, device, f"{network}.2", f"{network}.1", is_host=depth == 0)
            inner, device = nat, "outer"
        router = internet.space
        self._ends = ((router, self.line), (inner, device))
        nft(inner, LINES)
        self.emulator = None
        if internet.emulator:
            # Its TUN devices have no link layer: no neighbours, and no kind that an engine knows.
            self.emulator = netns.Emulator(internet.emulator, (inner, device), (router, self.line))
        else:
            inner.ip(f"link add {device} type veth peer name {self.line} netns {router.name}")
        router.ip(f"link set {self.line} up")
        if ipv4:
            router.ip(f"address add 198.18.{number}.1/24 dev {self.line}")
            self._up(inner, device, f"198.18.{number}.2", f"198.18.{number}.1", is_host=not kinds)
            self.public = f"198.18.{number}.2"
        if ipv6:
            router.ip(f"address add 2001:db8:{number}::1/64 dev {self.line} nodad")
            self.address6, self.gateway6 = f"2001:db8:{number}::2", f"2001:db8:{number}::1"
            self.up()

    def _up(self, space, device, address, gateway, is_host):
        if is_host:
            self.address, self.gateway = address, gateway
            self.up()
        else:
            space.ip(
                f"link set {device} up",
                f"address add {address}/24 dev {device}",
                f"route add default via {gateway}",
            )

    # What happens to a host's interface.

    def up(self):
        """The interface is there, with its addresses and routes. What a host sends from an address of this interface
        leaves by it, whichever way the default route goes."""
        lines = [f"link set {self.device} up"]
        if self.address:
            lines += [
                f"address replace {self.address}/24 dev {self.device}",
                f"route replace default via {self.gateway} dev {self.device} metric {self.metric}",
                f"route replace default via {self.gateway} dev {self.device} table {self.table}",
            ]
        if self.address6:
            lines += [
                f"address replace {self.address6}/64 dev {self.device} nodad",
                f"route replace ::/0 via {self.gateway6} dev {self.device} metric {self.metric}",
                f"route replace ::/0 via {self.gateway6} dev {self.device} table {self.table}",
            ]
        self.site.host.ip(*lines)
        self._rules("add")

    def _rules(self, verb):
        for address in filter(None, (self.address, self.address6)):
            rule = ("-n", self.site.host.name, "-6" if ":" in address else "-4", "rule")
            netns._ip(*rule, "delete", "from", address, check=False)
            if verb == "add":
                netns._ip(*rule, "add", "from", address, "lookup", str(self.table))

    def down(self):
        """The interface goes down: the kernel takes its routes away."""
        self.site.host.ip(f"link set {self.device} down")

    def renumber(self):
        """The host gets another address in the same network, and loses the one it had."""
        old, last = self.address, int(self.address.rpartition(".")[2])
        self._rules("delete")
        self.address = f"{old.rpartition('.')[0]}.{last + 1}"
        self.site.host.ip(f"address delete {old}/24 dev {self.device}")
        if not self.kinds:
            self.public = self.address
        self.up()

    def prefer(self, metric):
        """Moves the default route: the way with the least metric is the one."""
        old, self.metric = self.metric, metric
        lines = [f"route add default via {self.gateway} dev {self.device} metric {metric}"]
        lines.append(f"route delete default via {self.gateway} dev {self.device} metric {old}")
        self.site.host.ip(*lines)

    def cut(self):
        """Everything is lost, both ways, without a word: all devices stay up."""
        for space, device in self._ends:
            nft(space, f"add element inet lines cut {{ {device} }}")

    def mend(self):
        for space, device in self._ends:
            nft(space, f"delete element inet lines cut {{ {device} }}")


class Site:
    """A host, `host`, and its ways to the Internet."""

    def __init__(self, internet, *kinds, ways=None, ipv4=True, ipv6=False):
        self.internet = internet
        self.host = netns.Namespace()
        self.ways = []
        internet.sites.append(self)
        quiet(self.host, ipv6)
        nft(self.host, NAMELESS)
        for index, chain in enumerate(ways or [kinds]):
            self.ways.append(Way(self, index, chain, ipv4, ipv6))

    @property
    def way(self):
        return self.ways[0]

    def socket(self, kind=socket.SOCK_DGRAM, family=socket.AF_INET):
        """A socket of the host."""
        return self.host.call(socket.socket, family, kind)

    def close(self):
        for way in self.ways:
            if way.emulator:
                way.emulator.end()
            for nat in way.nats:
                nat.close()
        self.host.close()
        with contextlib.suppress(ValueError):
            self.internet.sites.remove(self)


def binding(ip):
    """A STUN binding request (RFC 8489)."""
    return struct.pack("!HHI12s", 0x0001, 0, 0x2112A442, os.urandom(12))


class Authority:
    """A certificate authority and a certificate for a server's addresses."""

    def __init__(self, folder, addresses):
        self.certificate, self.server = f"{folder}/authority.pem", f"{folder}/server.pem"
        key, request, names = f"{folder}/key.pem", f"{folder}/request.pem", f"{folder}/names"
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        self._run("req", "-x509", *new, "-keyout", f"{folder}/ca-key.pem", "-out", self.certificate, "-days", "2",
                  "-subj", "/CN=Laboratory", "-addext", "basicConstraints=critical,CA:TRUE")  # fmt: skip
        self._run("req", *new, "-keyout", key, "-out", request, "-subj", "/CN=turn.example")
        alternatives = ["DNS:turn.example", *[f"IP:{ip}" for ip in addresses]]
        Path(names).write_text(f"subjectAltName={','.join(alternatives)}\n")
        self._run("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", f"{folder}/ca-key.pem",
                  "-CAcreateserial", "-days", "2", "-extfile", names, "-out", f"{folder}/certificate.pem")  # fmt: skip
        Path(self.server).write_text(Path(f"{folder}/certificate.pem").read_text() + Path(key).read_text())

    @staticmethod
    def _run(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, stdin=subprocess.DEVNULL)


class Relay:
    """coturn on one of the Internet's servers: UDP and TCP on 3478, TLS on 443."""

    USER, PASSWORD = "alice", "open sesame"

    def __init__(self, internet):
        self.internet = internet
        self.ip, self.ip6 = internet.server()
        self.folder = tempfile.mkdtemp(prefix=f"{internet.space.name}.")
        self.process = None
        try:
            self.authority = Authority(self.folder, [self.ip, self.ip6])
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self):
        options = {
            "listening-port": 3478,
            "tls-listening-port": 443,
            "min-port": 49152,
            "max-port": 65535,
            "realm": "example.org",
            "user": f"{self.USER}:{self.PASSWORD}",
            "cert": self.authority.server,
            "pkey": self.authority.server,
            "log-file": f"{self.folder}/log",
            "pidfile": f"{self.folder}/pid",
            "userdb": f"{self.folder}/users",
            "relay-threads": 2,
        }
        command = ["turnserver", "-n", "--lt-cred-mech", "--no-cli", "--no-dtls", "--simple-log", "--no-stdout-log"]
        command += [f"--{kind}-ip={ip}" for kind in ("listening", "relay") for ip in (self.ip, self.ip6)]
        command += [f"--{name}={value}" for name, value in options.items()]
        self.process = self.internet.space.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if time.monotonic() > deadline or not self.process.alive():
                raise netns.LinkError(f"coturn does not answer:\n{self.log()}")

    def _answers(self):
        """Its ports are there before those who serve them: another port each time."""
        for address, family in ((self.ip, socket.AF_INET), (self.ip6, socket.AF_INET6)):
            with self.internet.socket(family=family) as probe:
                probe.settimeout(0.2)
                probe.connect((address, 3478))
                try:
                    probe.send(binding(address))
                    probe.recv(1500)
                except ConnectionError:
                    time.sleep(0.01)  # a refusal comes at once
                    return False
                except TimeoutError:
                    return False
            for port in (3478, 443):
                with self.internet.socket(socket.SOCK_STREAM, family) as probe:
                    if probe.connect_ex((address, port)) != 0:
                        return False
        return True

    def servers(self, *transports, ipv6=False):
        """TURN servers for an agent."""
        host = f"[{self.ip6}]" if ipv6 else self.ip
        urls = {
            "udp": f"turn:{host}:3478?transport=udp",
            "tcp": f"turn:{host}:3478?transport=tcp",
            "tls": f"turns:{host}:443?transport=tcp",
        }
        chosen = transports or urls
        return [{"url": urls[name], "username": self.USER, "password": self.PASSWORD} for name in chosen]

    def stun(self, ipv6=False):
        return f"stun:[{self.ip6}]:3478" if ipv6 else f"stun:{self.ip}:3478"

    def relays(self, statistics):
        """Whether a path, as agents tell it, is over this relay."""
        ends = {statistics[name].rpartition(":")[0].strip("[]") for name in ("local_address", "remote_address")}
        return bool(ends & {self.ip, self.ip6})

    def log(self):
        with contextlib.suppress(OSError):
            return Path(f"{self.folder}/log").read_text(errors="replace")[-3000:]
        return ""

    def kill(self):
        """At once, as a crash does."""
        if self.process:
            os.kill(self.process.pid, 9)
            self.process.end()
            self.process = None

    def close(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
