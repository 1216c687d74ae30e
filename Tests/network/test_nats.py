"""The laboratory itself: each NAT is what its name says (RFC 4787, found out as in RFC 5780), each line carries what it
should, and nothing else. Without this the other tests would prove nothing."""

import contextlib
import os
import select
import socket
import ssl
import subprocess
import sys

import netns
import pytest
from internet import PATIENCE, ROOT, Internet, Site, binding
from nat import (
    ADDRESS,
    ADDRESS_RESTRICTED,
    FULL_CONE,
    ONLY_TLS,
    OPEN,
    PORT,
    PORT_RESTRICTED,
    SYMMETRIC,
    UDP_BLOCKED,
)

KINDS = {
    "no NAT": ([], OPEN, OPEN),
    "full cone": ([FULL_CONE], OPEN, OPEN),
    "address-restricted": ([ADDRESS_RESTRICTED], OPEN, ADDRESS),
    "port-restricted": ([PORT_RESTRICTED], OPEN, PORT),
    "symmetric": ([SYMMETRIC], PORT, PORT),
    "double": ([PORT_RESTRICTED, PORT_RESTRICTED], OPEN, PORT),
    "symmetric behind full cone": ([SYMMETRIC, FULL_CONE], PORT, PORT),
    "full cone behind full cone": ([FULL_CONE, FULL_CONE], OPEN, OPEN),
}


class World:
    """Sockets of servers on the Internet, by (server, port)."""

    def __init__(self, internet, stack):
        self.sockets = {}
        for server in Internet.SERVERS[:2]:
            for port in (4001, 4002):
                endpoint = stack.enter_context(internet.socket())
                endpoint.bind((server, port))
                endpoint.settimeout(PATIENCE)
                self.sockets[server, port] = endpoint

    def sees(self, host, server, port):
        """From where a datagram of the host comes."""
        host.sendto(b"hello", (server, port))
        data, source = self.sockets[server, port].recvfrom(100)
        assert data == b"hello"
        return source


@pytest.fixture
def world(internet):
    with contextlib.ExitStack() as stack:
        yield World(internet, stack)


def mapping(world, host):
    (one, two) = Internet.SERVERS[:2]
    first = world.sees(host, one, 4001)
    assert world.sees(host, one, 4001) == first, "the same destination sees the same port"
    # Two other ports: one may be drawn twice.
    by_port = {world.sees(host, one, 4002)}
    by_address = {world.sees(host, two, 4001), world.sees(host, two, 4002)}
    if by_port | by_address == {first}:
        return OPEN, first
    return (ADDRESS if by_port == {first} else PORT), first


def gets(world, host, outside, senders):
    """Which of the senders' datagrams reach the host. What the host asked for itself comes last: then all others have
    had their chance, because the line keeps the order."""
    one = Internet.SERVERS[0]
    for name, endpoint in senders.items():
        endpoint.sendto(name.encode(), outside)
    world.sockets[one, 4001].sendto(b"the end", outside)
    found = set()
    while (data := host.recv(100)) != b"the end":
        found.add(data.decode())
    return found


def filtering(internet, world, host):
    one, two, _ = Internet.SERVERS
    outside = world.sees(host, one, 4001)
    with internet.socket() as same:
        same.bind((one, 4009))
        found = gets(world, host, outside, {"same address": same, "another": world.sockets[two, 4009 - 8]})
    return {frozenset(): PORT, frozenset({"same address"}): ADDRESS}.get(frozenset(found), OPEN)


@pytest.mark.parametrize("name", KINDS)
def test_nat_is_what_its_name_says(internet, world, name):
    kinds, expected_mapping, expected_filtering = KINDS[name]
    site = Site(internet, *kinds)
    with contextlib.closing(site), site.socket() as first, site.socket() as second:
        for host in (first, second):
            host.settimeout(PATIENCE)
            host.bind((site.way.address, 0))
        found, source = mapping(world, first)
        assert found == expected_mapping
        assert source[0] == site.way.public
        # A socket of its own: what the first one has sent has opened nothing for it.
        assert filtering(internet, world, second) == expected_filtering


@pytest.mark.parametrize("name", [n for n, k in KINDS.items() if k[0] and k[0][0].mapping == OPEN])
def test_what_came_first_from_outside_does_not_change_the_mapping(internet, world, name):
    """Two that call each other at once: the first packet is refused, and must not cost the port."""
    one, two, _ = Internet.SERVERS
    site = Site(internet, *KINDS[name][0])
    with contextlib.closing(site), site.socket() as host:
        host.settimeout(PATIENCE)
        host.bind((site.way.address, 0))
        source = world.sees(host, one, 4001)
        world.sockets[two, 4001].sendto(b"too early", source)
        world.sockets[two, 4001].sendto(b"too early", source)
        assert world.sees(host, two, 4001) == source
        world.sockets[two, 4001].sendto(b"now", source)
        while host.recv(100) != b"now":
            pass


def test_full_cone_is_closed_before_the_host_has_sent(internet, world):
    site = Site(internet, FULL_CONE)
    with contextlib.closing(site), site.socket() as host:
        host.settimeout(PATIENCE)
        host.bind((site.way.address, 5555))
        outside = (site.way.public, 5555)
        world.sockets[Internet.SERVERS[1], 4001].sendto(b"early", outside)
        assert world.sees(host, Internet.SERVERS[0], 4001) == outside
        world.sockets[Internet.SERVERS[1], 4001].sendto(b"late", outside)
        assert host.recv(100) == b"late"


def reaches(site, address, port, patience=PATIENCE):
    with site.socket(socket.SOCK_STREAM) as stream:
        stream.settimeout(patience)
        return stream.connect_ex((address, port)) == 0


def answers(site, address, patience=PATIENCE):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with site.socket(family=family) as probe:
        probe.settimeout(patience)
        probe.connect((address, 3478))
        probe.send(binding(address))
        try:
            return probe.recv(1500)[:2] == b"\x01\x01"
        except TimeoutError:
            return False


def shakes(site, relay, address):
    """A TLS handshake with the relay, by its authority."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    context = ssl.create_default_context(cafile=relay.authority.certificate)
    with site.socket(socket.SOCK_STREAM, family) as stream:
        stream.settimeout(PATIENCE)
        stream.connect((address, 443))
        with context.wrap_socket(stream, server_hostname=address) as secure:
            return secure.version().startswith("TLS")


def test_coturn_is_reached_over_udp_tcp_and_tls(internet, relay):
    with contextlib.closing(Site(internet, SYMMETRIC)) as site:
        assert answers(site, relay.ip)
        assert reaches(site, relay.ip, 3478)
        assert shakes(site, relay, relay.ip)


def test_coturn_is_reached_over_ipv6_alone(internet, relay):
    with contextlib.closing(Site(internet, ipv4=False, ipv6=True)) as site:
        assert answers(site, relay.ip6)
        assert shakes(site, relay, relay.ip6)
        with pytest.raises(OSError), site.socket() as probe:
            probe.connect((relay.ip, 3478))


def test_firewalls_let_through_what_they_say(internet, relay):
    with (
        contextlib.closing(Site(internet, UDP_BLOCKED)) as blocked,
        contextlib.closing(Site(internet, ONLY_TLS)) as tls,
    ):
        # That nothing comes can only be waited for; everything that does come takes well under a millisecond.
        assert not answers(blocked, relay.ip, 0.3)
        assert not answers(tls, relay.ip, 0.3)
        assert reaches(blocked, relay.ip, 3478)
        assert not reaches(tls, relay.ip, 3478, 0.3)
        assert shakes(blocked, relay, relay.ip)
        assert shakes(tls, relay, relay.ip)


def test_private_networks_of_different_sites_do_not_meet(internet):
    with contextlib.closing(Site(internet, FULL_CONE)) as here, contextlib.closing(Site(internet, FULL_CONE)) as there:
        with here.socket() as sender, there.socket() as receiver:
            receiver.bind((there.way.address, 5555))
            receiver.settimeout(0.3)
            sender.sendto(b"lost", (there.way.address, 5555))
            with pytest.raises(TimeoutError):
                receiver.recv(100)


def test_lines_are_cut_and_mended_and_routes_moved(internet, world):
    one = Internet.SERVERS[0]
    with contextlib.closing(Site(internet, ways=[[PORT_RESTRICTED], []])) as site, site.socket() as host:
        host.settimeout(PATIENCE)
        first, second = site.ways
        assert world.sees(host, one, 4001)[0] == first.public
        first.cut()
        host.sendto(b"lost", (one, 4002))
        first.mend()
        assert world.sees(host, one, 4002)[0] == first.public
        second.prefer(1)
        assert world.sees(host, one, 4001)[0] == second.public
        second.down()
        assert world.sees(host, one, 4001)[0] == first.public
        second.up()
        second.renumber()
        assert world.sees(host, one, 4001)[0] == second.public != f"198.18.{second.number}.2"
        with site.socket() as bound:  # from an address of the other interface, by the other interface
            bound.settimeout(PATIENCE)
            bound.bind((first.address, 0))
            assert world.sees(bound, one, 4001)[0] == first.public


KILLED = """
import sys
sys.path[:0] = [{here!r}]
import internet
with internet.Internet() as made:
    relay = internet.Relay(made)
    site = internet.Site(made, internet.FULL_CONE)
    print(made.space.name, site.host.name, relay.process.pid, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_run_left_is_removed_by_the_next(internet):
    program = KILLED.format(here=str(ROOT / "Tests/network"))
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with child:
        *spaces, coturn = child.stdout.readline().split()
        child.kill()
        child.wait()
    left = os.pidfd_open(int(coturn))
    try:
        assert set(spaces) <= set(netns.clean())
        assert select.select([left], [], [], PATIENCE)[0], "coturn still runs"
    finally:
        os.close(left)
    assert internet.space.name in netns._ip("netns", "list"), "those in use stay"
