"""Every kind of access with every other one, with TURN and without: matrix.py says what must come of it."""

import time

import pytest
from endpoints import Pair, agent, kinds
from internet import PATIENCE, Site
from matrix import SITES, objection, outcome
from page import chromium
from peers import aiortc, pion

TCP = 3
"""Active and passive."""
# Where nothing can connect, that is told soon; where something must, all have the time they need.
HOPELESS = {"patience_ms": 1000, "connect_timeout_ms": 2500, "restart_attempts": 0xFFFFFFFF}


def site(context, side, name):
    """Shared by all cells: each has ports of its own."""
    return context.once((side, name), lambda: Site(context.internet, *SITES[name]["kinds"], **options(name)))


def options(name):
    return {key: value for key, value in SITES[name].items() if key != "kinds"}


def settings(context, name, turn):
    relay, ipv6 = context.relay, name == "ipv6"
    servers = relay.servers(ipv6=ipv6) if turn else []
    return {"stun": [relay.stun(ipv6)], "turn": servers, "ca": relay.authority.certificate}


def ours(context, side, name, turn, timers=None):
    more = {"timers": timers} if timers else {}
    place = site(context, side, name)
    return agent(place, f"{side} ({name})", impolite=side == "b", tcp=TCP, **settings(context, name, turn), **more)


def settle(pair, a, b, turn, patience=PATIENCE):
    """The best path need not be the first one, nor both ends' at the same moment: they tell when theirs changes."""
    deadline = time.monotonic() + patience
    while True:
        marks = pair.a.mark(), pair.b.mark()
        wrong = objection(a, b, turn, kinds(pair.a.statistics()), kinds(pair.b.statistics()))
        if not wrong:
            return
        assert time.monotonic() < deadline, f"{a} with {b}: {wrong}\n{pair.story()}"
        for end, mark in zip((pair.a, pair.b), marks, strict=True):
            end.first("path", mark, patience=0.5)


@pytest.mark.parametrize("turn", [False, True], ids=["alone", "turn"])
@pytest.mark.parametrize("b", SITES)
@pytest.mark.parametrize("a", SITES)
def test_libreconnect(context, a, b, turn):
    expected = outcome(a, b, turn)
    timers = HOPELESS if expected == "." else None
    with Pair(ours(context, "a", a, turn, timers), ours(context, "b", b, turn, timers)) as pair:
        if expected == ".":
            pair.begin()
            closed = pair.a.wait("open|state", state=lambda s: s in (None, "closed"))
            assert closed["event"] == "state", f"{a} connects with {b}\n{pair.story()}"
            assert closed["status"] in ("ice_failed", "timeout"), pair.story()
        else:
            pair.connect()
            settle(pair, a, b, turn)


FOREIGN = [
    ("open", "open", False),
    ("open", "full", False),
    ("symmetric", "open", False),
    ("port", "port", False),
    ("double", "address", False),
    ("symmetric", "address", False),
    ("ipv6", "ipv6", False),
    ("port", "symmetric", True),
    ("symmetric", "symmetric", True),
    ("no-udp", "port", True),
    ("tls", "symmetric", True),
]
# What the other implementation's own access may be with TURN, beyond those above.
THEIRS = {
    "pion": [("port", "no-udp", True), ("no-udp", "tls", True)],
    "aiortc": [("port", "no-udp", True)],
    "chromium": [("port", "no-udp", True)],
}
MAKE = {
    "pion": lambda context, place, **given: pion(context.pion(), place, **given),
    "aiortc": lambda context, place, **given: aiortc(place, **given),
    "chromium": chromium,
}


@pytest.mark.long
@pytest.mark.parametrize("begins", ["ours", "theirs"])
@pytest.mark.parametrize(
    ("other", "a", "b", "turn"),
    [(other, *cell) for other, more in THEIRS.items() for cell in FOREIGN + more],
)
def test_other_implementations(context, other, a, b, turn, begins):
    assert outcome(a, b, turn) != "."
    us = ours(context, "a", a, turn)
    them = MAKE[other](context, site(context, "b", b), name=f"{other} ({b})", **settings(context, b, turn))
    with Pair(*((us, them) if begins == "ours" else (them, us))) as pair:
        pair.connect()
        pair.stream()
        pair.finish()
