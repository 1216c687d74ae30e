"""The network changes while a numbered stream runs both ways: no message is lost, doubled or reordered, and the
connection is the same one all the time. Nothing here asserts how long anything takes; outages last as long as the
scenario says."""

import time

import pytest
from endpoints import Pair, agent
from internet import Relay, Site
from nat import PORT_RESTRICTED, SYMMETRIC
from page import chromium
from peers import pion

# Longer than any outage here: RFC 7675's 30 s would end a connection that is away for a minute.
PATIENT = {"failed_timeout_ms": 180000}
BRIDGES = 4
"""The hosts' interfaces are veth pairs, which an engine takes for a container's unless the default route is there."""
HOME = [PORT_RESTRICTED]


def ends(context, a, b, relays=None, timers=None, **more):
    relays = [context.relay] if relays is None else relays
    turn = [server for relay in relays for server in relay.servers("udp", "tcp")]
    given = {
        "stun": [context.relay.stun()],
        "turn": turn,
        "interfaces": BRIDGES,
        "timers": {**PATIENT, **(timers or {})},
    }
    return Pair(agent(a, "a", **given, **more), agent(b, "b", impolite=True, **given, **more))


def wait_for_standby(end):
    deadline = time.monotonic() + 30
    while not end.statistics()["standby"]:
        assert time.monotonic() < deadline, f"no standby\n{end.story()}"
        time.sleep(0.05)  # nothing tells; only asking does


@pytest.mark.parametrize("after", [0, 1000], ids=["repetition", "gap"])
def test_a_repetition_or_a_gap_would_be_seen(context, after):
    """What the other tests look for can be found."""
    with ends(context, Site(context.internet), Site(context.internet)).connect() as pair:
        pair.stream()
        pair.a.ask("halt", "halted")
        pair.a.do("send", rate=50, after=after)
        pair.b.wait("problem")
        assert pair.a.ask("halt", "halted")["sent"] > 0


@pytest.mark.parametrize("other", ["open", "nat"])
def test_interface_goes_down_and_the_other_one_takes_over_without_signaling(context, other):
    a, b = Site(context.internet, ways=[HOME, HOME]), Site(context.internet, *(HOME if other == "nat" else []))
    with ends(context, a, b).connect() as pair:
        pair.stream()
        wait_for_standby(pair.a)
        pair.carry(False)
        used = pair.a.statistics()["local_address"]
        way = next(way for way in a.ways if way.address in used or way.public in used)
        mark = pair.a.mark()
        way.down()
        pair.a.wait("path", mark)
        pair.flows()
        pair.finish()


@pytest.mark.parametrize("other", ["open", "nat"])
def test_silent_path_is_left_for_the_other_one_without_signaling(context, other):
    """Nothing tells that it is dead, but that nothing comes."""
    a, b = Site(context.internet, ways=[HOME, HOME]), Site(context.internet, *(HOME if other == "nat" else []))
    with ends(context, a, b).connect() as pair:
        pair.stream()
        wait_for_standby(pair.a)
        pair.carry(False)
        used = pair.a.statistics()["local_address"]
        way = next(way for way in a.ways if way.address in used or way.public in used)
        mark = pair.a.mark()
        way.cut()
        pair.a.wait("path", mark, kind="failover")
        pair.flows()
        pair.finish()


def test_only_interface_goes_down_and_a_new_one_comes_up(context):
    """From one network to another, with nothing in between."""
    a, b = Site(context.internet, ways=[HOME, []]), Site(context.internet, *HOME)
    a.ways[1].down()
    with ends(context, a, b).connect() as pair:
        pair.stream()
        marks = pair.a.mark()
        a.ways[0].down()
        a.ways[1].up()
        pair.a.wait("path", marks)
        pair.flows()
        pair.finish()


@pytest.mark.parametrize("access", ["open", "nat"])
def test_address_changes(context, access):
    a, b = Site(context.internet, *(HOME if access == "nat" else [])), Site(context.internet, *HOME)
    with ends(context, a, b).connect() as pair:
        pair.stream()
        mark = pair.a.mark()
        a.way.renumber()
        pair.a.wait("path", mark)
        pair.flows()
        pair.finish()


def test_default_route_moves(context):
    a, b = Site(context.internet, ways=[HOME, HOME]), Site(context.internet, *HOME)
    with ends(context, a, b).connect() as pair:
        pair.stream()
        mark = pair.a.mark()
        a.ways[1].prefer(1)
        pair.a.wait("network", mark, changes=lambda bits: bits & 2)
        pair.flows()
        a.ways[0].cut()
        pair.flows()
        pair.finish()


def test_relay_dies_and_another_one_takes_over(context):
    a, b = Site(context.internet, SYMMETRIC), Site(context.internet, SYMMETRIC)
    with Relay(context.internet) as one, Relay(context.internet) as two:
        with ends(context, a, b, relays=[one, two]).connect() as pair:
            pair.stream()
            path = pair.a.statistics()
            assert one.relays(path) or two.relays(path), pair.story()  # one of each, perhaps
            used, other = (one, two) if one.relays(path) else (two, one)
            marks = pair.a.mark()
            used.kill()
            pair.a.wait("path", marks)
            pair.flows()
            paths = pair.a.statistics(), pair.b.statistics()
            assert any(other.relays(path) for path in paths), pair.story()
            assert not any(used.relays(path) for path in paths), pair.story()
            pair.finish()


def test_relay_that_is_not_in_use_dies(context):
    a, b = Site(context.internet, *HOME), Site(context.internet, *HOME)
    with Relay(context.internet) as unused:
        with ends(context, a, b, relays=[unused]).connect() as pair:
            pair.stream()
            before = pair.a.statistics()
            assert not unused.relays(before), pair.story()
            unused.kill()
            pair.flows(100)
            assert pair.a.statistics()["path_changes"] == before["path_changes"], pair.story()
            pair.finish()


def test_relay_comes_back(context):
    """There is no other one: the relay is needed, and is away for a moment."""
    a, b = Site(context.internet, SYMMETRIC), Site(context.internet, SYMMETRIC)
    with Relay(context.internet) as only:
        with ends(context, a, b, relays=[only]).connect() as pair:
            pair.stream()
            marks = pair.a.mark()
            only.kill()
            only.start()
            pair.a.wait("path", marks)
            pair.flows()
            pair.finish()


@pytest.mark.parametrize("access", ["open", "nat"])
def test_both_ends_move_at_once(context, access):
    nats = HOME if access == "nat" else []
    a, b = Site(context.internet, *nats), Site(context.internet, *nats)
    with ends(context, a, b).connect() as pair:
        pair.stream()
        marks = pair.a.mark(), pair.b.mark()
        a.way.renumber()
        b.way.renumber()
        for end, mark in zip((pair.a, pair.b), marks, strict=True):
            end.wait("path", mark)
        pair.flows()
        pair.finish()


def outage(context, seconds, begin, end):
    a, b = Site(context.internet, *HOME), Site(context.internet, *HOME)
    with ends(context, a, b).connect() as pair:
        pair.stream()
        begin(a.way)
        time.sleep(seconds)
        end(a.way)
        pair.flows()
        pair.finish()


@pytest.mark.long
@pytest.mark.parametrize("seconds", [60, 10, 1])
def test_network_is_away_silently(context, seconds):
    outage(context, seconds, lambda way: way.cut(), lambda way: way.mend())


@pytest.mark.long
@pytest.mark.parametrize("seconds", [60, 10, 1])
def test_network_is_away_with_its_interface(context, seconds):
    outage(context, seconds, lambda way: way.down(), lambda way: way.up())


def test_failed_restart_harms_nothing_and_a_later_one_works(context):
    a, b = Site(context.internet, *HOME), Site(context.internet, *HOME)
    with ends(context, a, b, timers={"restart_timeout_ms": 700}).connect() as pair:
        pair.stream()
        pair.carry(False)
        before = pair.a.statistics()
        mark = pair.a.mark()
        pair.a.do("restart")
        pair.a.wait("restart", mark, state="failed")
        pair.flows(100)
        after = pair.a.statistics()
        assert (after["local_address"], after["remote_address"]) == (before["local_address"], before["remote_address"])
        assert not pair.a.all("path", kind="restarted"), pair.a.story()
        pair.carry(True)
        pair.a.do("restart")
        pair.a.wait("restart", mark, state="recovered")
        pair.flows()
        assert pair.a.statistics()["generation"] > 0
        pair.finish()


def test_restart_moves_to_a_new_path_without_a_gap(context):
    a, b = Site(context.internet, *HOME), Site(context.internet, *HOME)
    with ends(context, a, b).connect() as pair:
        pair.stream()
        for end in (pair.a, pair.b, pair.a):
            mark = end.mark()
            end.do("restart")
            end.wait("restart", mark, state="recovered")
            pair.flows()
        assert pair.a.statistics()["restarts"] == 3
        pair.finish()


def recovers(pair, us, who, attempts=3):
    """An end restarts. That may fail, and harms nothing then: a check of the other side's new generation can overtake our
    answer, and Chromium then stays with that pair."""
    for _ in range(attempts):
        mark = us.mark()
        who.do("restart")
        ended = us.wait("restart", mark, state=lambda state: state in ("recovered", "failed"))
        pair.flows()
        if ended["state"] == "recovered":
            return
    raise AssertionError(f"no restart of {attempts} recovers\n{pair.story()}")


@pytest.mark.parametrize("who", ["we", "they"])
@pytest.mark.parametrize("other", ["pion", "chromium"])
def test_restart_with_other_implementations(context, other, who):
    """Our address changes, and then one of us restarts, and again."""
    a, b = Site(context.internet, *HOME), Site(context.internet, *HOME)
    given = {"stun": [context.relay.stun()], "turn": context.relay.servers("udp")}
    us = agent(a, "we", **given, timers=PATIENT)
    them = pion(context.pion(), b, **given) if other == "pion" else chromium(context, b, **given)
    with Pair(us, them).connect() as pair:
        pair.stream()
        for _ in range(2):
            recovers(pair, us, us if who == "we" else them)
        if who == "we":
            mark = us.mark()
            a.way.renumber()
            us.wait("path", mark)
            pair.flows()
        pair.finish()


def test_both_ends_restart_at_once(context):
    a, b = Site(context.internet, *HOME), Site(context.internet, *HOME)
    with ends(context, a, b).connect() as pair:
        pair.stream()
        for _ in range(5):
            marks = pair.a.mark(), pair.b.mark()
            pair.a.do("restart")
            pair.b.do("restart")
            for end, mark in zip((pair.a, pair.b), marks, strict=True):
                end.wait("restart", mark, state="recovered")
            pair.flows()
        pair.finish()
