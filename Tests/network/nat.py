"""NATs made of the kernel's connection tracking, by nftables (RFC 4787's terms).

Linux keeps the source port where it is free, and behind each of these NATs is one host only: masquerading maps a port to
the same port whoever it talks to (endpoint-independent mapping), and lets in what answers (address- and port-dependent
filtering). The more open kinds are the same with a set of what the host has sent to: what comes from there is let in
as new connections to the host. The symmetric one takes a port at random for each destination.
"""

from dataclasses import dataclass

OPEN = "endpoint-independent"
ADDRESS = "address-dependent"
PORT = "address- and port-dependent"


@dataclass(frozen=True)
class Kind:
    """What one NAT, or a firewall that is one too, does."""

    mapping: str
    filtering: str
    udp: bool = True
    tcp: str = ""
    """Of nftables: which TCP leaves; empty: all."""


FULL_CONE = Kind(OPEN, OPEN)
ADDRESS_RESTRICTED = Kind(OPEN, ADDRESS)
PORT_RESTRICTED = Kind(OPEN, PORT)
SYMMETRIC = Kind(PORT, PORT)
UDP_BLOCKED = Kind(OPEN, PORT, udp=False)
ONLY_TLS = Kind(OPEN, PORT, udp=False, tcp="tcp dport 443")

# Drops what nobody asked for before connection tracking confirms it: what a NAT has seen from outside must not take the
# port that the host's own packet to there will need (two that call each other at once would look symmetric).
CLOSED = 'chain closed { type filter hook input priority filter; iifname "outer" ct state new drop; }'

LET_IN = {
    PORT: "",
    ADDRESS: """
        set contacted { type inet_service . ipv4_addr; flags dynamic; timeout 300s; size 65535; }
        chain note { type filter hook forward priority filter; oifname "outer" update @contacted { udp sport . ip daddr }; }
        chain in { type nat hook prerouting priority dstnat; iifname "outer" udp dport . ip saddr @contacted dnat to INNER; }
    """,
    OPEN: """
        set mapped { type inet_service; flags dynamic; timeout 300s; size 65535; }
        chain note { type filter hook forward priority filter; oifname "outer" update @mapped { udp sport }; }
        chain in { type nat hook prerouting priority dstnat; iifname "outer" udp dport @mapped dnat to INNER; }
    """,
}


def rules(kind, inner):
    """The ruleset of a router with the devices `inner` and `outer`, for the one host `inner`."""
    masquerade = "masquerade" if kind.mapping == OPEN else "masquerade fully-random"
    firewall = ["ct state established,related accept"]
    if not kind.udp:
        firewall.insert(0, "meta l4proto udp drop")
    if kind.tcp:
        firewall += [f"{kind.tcp} accept", "drop"]
    return f"""
    table ip nat {{
        chain out {{ type nat hook postrouting priority srcnat; oifname "outer" {masquerade}; }}
        {CLOSED}
        {LET_IN[kind.filtering].replace("INNER", inner)}
    }}
    table ip firewall {{
        chain out {{ type filter hook forward priority filter + 10; {"; ".join(firewall)}; }}
    }}
    """
