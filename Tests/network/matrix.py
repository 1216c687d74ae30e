"""What must connect with what, and how: RFC 5128's and RFC 8445's theory as a table."""

from nat import ADDRESS_RESTRICTED, FULL_CONE, ONLY_TLS, PORT_RESTRICTED, SYMMETRIC, UDP_BLOCKED

SITES = {
    "open": {"kinds": []},
    "full": {"kinds": [FULL_CONE]},
    "address": {"kinds": [ADDRESS_RESTRICTED]},
    "port": {"kinds": [PORT_RESTRICTED]},
    "symmetric": {"kinds": [SYMMETRIC]},
    "double": {"kinds": [PORT_RESTRICTED, PORT_RESTRICTED]},
    "ipv6": {"kinds": [], "ipv4": False, "ipv6": True},
    "no-udp": {"kinds": [UDP_BLOCKED]},
    "tls": {"kinds": [ONLY_TLS]},
}

# How a pair of sites connects without a relay. Rows and columns in the order above; the table is symmetric.
#
#   d  directly over UDP. A site without NAT is seen with its own address ("host"), one behind a NAT with the address that
#      the NAT gave it ("reflexive": known from STUN, or learned from a check).
#   t  directly over TCP (RFC 6544): one of them lets no UDP through, and the other one can be connected to.
#   .  not at all
#
# Why not:
#   symmetric with port-restricted, and so with symmetric and double: the port that the symmetric NAT takes for this peer
#     is known to nobody, and the other NAT lets in only what comes from a port that was sent to. Towards an
#     address-restricted NAT the unknown port does not matter, and a full cone takes it from anybody.
#   IPv6 with IPv4: there is no path between the two families.
#   no UDP: nobody can be connected to behind a NAT; only a site without one can.
#   TLS: only port 443 leaves, and no peer listens there.
DIRECT = """
    d d d d d d . t .
    d d d d d d . . .
    d d d d d d . . .
    d d d d . d . . .
    d d d . . . . . .
    d d d d . d . . .
    . . . . . . d . .
    t . . . . . . . .
    . . . . . . . . .
"""

# With a TURN server (UDP, TCP, and TLS on port 443, IPv4 and IPv6) everything connects: directly where it can, and
# otherwise relayed (r). Who lets no UDP through cannot reach the other's host or NAT: the relay that he is on does, with
# UDP. Two of those need both their relays.
RELAYS_NEEDED = {("no-udp", "no-udp"), ("no-udp", "tls"), ("tls", "no-udp"), ("tls", "tls")}


def outcome(a, b, turn):
    names = list(SITES)
    cell = [line.split() for line in DIRECT.strip().splitlines()][names.index(a)][names.index(b)]
    return "r" if cell == "." and turn else cell


def seen_as(name):
    """The type of a site's address for others, on a direct path."""
    return "reflexive" if SITES[name]["kinds"] else "host"


def objection(a, b, turn, ours, theirs):
    """What is wrong with the path of the ends `a` and `b`, as each of them tells it; None: nothing."""
    expected = outcome(a, b, turn)
    if expected == "r":
        relays = sum("relay" in (mine.local, other.remote) for mine, other in ((ours, theirs), (theirs, ours)))
        if relays < 1 + ((a, b) in RELAYS_NEEDED):
            return f"{relays} ends are relayed"
        for name, end in ((a, ours), (b, theirs)):
            allowed = {"tls": ("tls",), "no-udp": ("tls", "tcp")}.get(name, ("udp", "tcp", "tls"))
            if end.local == "relay" and end.relay not in allowed:
                return f"{name} reaches its relay over {end.relay!r}"
        return None
    if (ours.remote, theirs.remote) != (seen_as(b), seen_as(a)):
        return f"{a} is seen as {theirs.remote}, {b} as {ours.remote}"
    if "relay" in (ours.local, ours.remote, theirs.local, theirs.remote):
        return "it is relayed"
    if {ours.transport, theirs.transport} != {"tcp" if expected == "t" else "udp"}:
        return f"it is over {ours.transport} and {theirs.transport}"
    return None
