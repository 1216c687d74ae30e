"""With the relay policy nothing but the relay is asked, told or used: shown by every packet of the host."""

import re

import pytest
from capture import ICMP, TCP, UDP, Capture
from endpoints import Pair, agent, kinds
from internet import Site
from nat import PORT_RESTRICTED

POLICY_ALL, POLICY_RELAY = 1, 2
NOBODY = "stun:198.18.0.2:3478"
"""A STUN server that is not the relay: asking it would show."""
CANDIDATE = re.compile(r"candidate:\S+ \d+ \S+ \d+ (\S+) (\d+) typ (\w+)(.*)")


def candidates(end):
    """All that an end has told of itself, in descriptions and one by one."""
    texts = []
    for event in end.all("signal"):
        message = event["message"]
        texts.append(message.get("sdp") or (message.get("candidate") or {}).get("candidate") or "")
    return [found.groups() for text in texts for found in CANDIDATE.finditer(text)]


def strangers(capture, relay, ports):
    """Packets that are neither the relay's nor of the link itself. ICMP: what the relay sent when we had gone."""

    def is_known(packet):
        ip, port = packet.other
        return ip in (relay.ip, relay.ip6) and (
            port in ports if packet.protocol in (TCP, UDP) else packet.protocol == ICMP
        )

    return [packet for packet in capture.packets if packet.kind == "ip" and not is_known(packet)]


@pytest.mark.parametrize("begins", ["we", "they"])
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
@pytest.mark.parametrize("access", ["open", "nat", "both families"])
def test_only_the_relay_is_seen(context, access, transport, begins):
    relay = context.relay
    place = Site(context.internet, *([PORT_RESTRICTED] if access == "nat" else []), ipv6=access == "both families")
    other = Site(context.internet, ipv6=access == "both families")
    ports = {443 if transport == "tls" else 3478}
    with Capture(place.host) as capture:
        given = {"turn": relay.servers(transport), "ca": relay.authority.certificate, "tcp": 3}
        us = agent(place, "we", stun=[NOBODY], policy=POLICY_RELAY, impolite=True, interfaces=4, **given)
        them = agent(other, "they", stun=[relay.stun()], **given)
        with Pair(*((us, them) if begins == "we" else (them, us))) as pair:
            pair.connect()
            pair.stream()
            us.do("restart")
            us.wait("restart", state="recovered")
            pair.finish()
            path = kinds(us.statistics())
            assert (path.local, path.relay) == ("relay", transport), us.story()
            told = candidates(us)
    assert capture.packets
    assert not strangers(capture, relay, ports), strangers(capture, relay, ports)[:5]
    assert told, us.story()
    inside = {place.way.address, place.way.address6, place.way.public}
    for ip, _, kind, rest in told:
        assert kind == "relay" and ip in (relay.ip, relay.ip6), told
        assert not any(address and f" {address} " in f"{rest} " for address in inside), told
    assert them.all("signal"), "the other end has told of itself, and was not asked there"
    assert {kind for _, _, kind, _ in candidates(them)} - {"relay"}


def test_without_the_policy_more_is_seen(context):
    """What the other test looks for can be found."""
    relay = context.relay
    place, other = Site(context.internet, PORT_RESTRICTED), Site(context.internet)
    with Capture(place.host) as capture:
        given = {"turn": relay.servers("udp"), "ca": relay.authority.certificate}
        us = agent(place, "we", stun=[NOBODY], impolite=True, **given)
        with Pair(us, agent(other, "they", stun=[relay.stun()], **given)) as pair:
            pair.connect()
            told = candidates(us)
    assert {packet.other[0] for packet in strangers(capture, relay, {3478})} >= {other.way.address, "198.18.0.2"}
    assert {kind for _, _, kind, _ in told} - {"relay"}


def test_policy_of_one_peer(context):
    """The engine may ask a STUN server for its other peers; this one's other end hears and sees nothing of it."""
    relay = context.relay
    place, other = Site(context.internet, PORT_RESTRICTED), Site(context.internet)
    with Capture(place.host) as capture:
        given = {"turn": relay.servers("udp"), "ca": relay.authority.certificate}
        us = agent(place, "we", stun=[NOBODY], impolite=True, peer_policy=POLICY_RELAY, **given)
        with Pair(us, agent(other, "they", stun=[relay.stun()], **given)) as pair:
            pair.connect()
            pair.stream()
            pair.finish()
            told = candidates(us)
    assert {packet.other[0] for packet in strangers(capture, relay, {3478})} <= {"198.18.0.2"}
    assert {kind for _, _, kind, _ in told} == {"relay"}


def test_no_relay_means_no_connection(context):
    """Relay only, and the relay does not answer: nothing else is tried."""
    place, other = Site(context.internet), Site(context.internet)
    nowhere = [{"url": "turn:198.18.0.3:3478", "username": "alice", "password": "wrong"}]
    timers = {"connect_timeout_ms": 2500, "patience_ms": 1000, "restart_attempts": 0xFFFFFFFF}
    with Capture(place.host) as capture:
        us = agent(place, "we", turn=nowhere, policy=POLICY_RELAY, impolite=True, timers=timers)
        with Pair(us, agent(other, "they", timers=timers)) as pair:
            pair.begin()
            closed = us.wait("open|state", state=lambda s: s in (None, "closed"))
            assert closed["event"] == "state", us.story()
    others = {packet.other for packet in capture.packets if packet.kind == "ip" and packet.is_outgoing}
    assert others == {("198.18.0.3", 3478)}, others
    assert not candidates(us)
