"""What can happen between two visits of a page: nothing, time, other networks, other servers, thieves and floods.

Each test has an origin of its own (web.Site), between the page and the host: there signaling can be watched, held up
and cut. The first two run with every host; what follows is the library's doing, and runs with one.
"""

import contextlib
import hmac
import json
import re
import secrets
import signal
import socket
import struct
import subprocess
import threading
import zlib

import drivers
import hosts
import network
import pytest
import stores
import web
from hosts import until
from page import Page

# One attempt at a time: what wins does not depend on the clock. Where it must, the attempt is a patient one.
QUICK = "?policy=fallback"
PATIENT = QUICK + "&fast-timeout=20000"
CACHE = [
    *("ipv6HostCandidates", "ipv6SrflxCandidates", "ipv4HostCandidates", "ipv4SrflxCandidates"),
    *("ipv6RelayCandidates", "ipv4RelayCandidates", "lastSuccessfulProtocol", "timestamp", "sessionId"),
]
TICKET = ["ufrag", "pwd", "fingerprint", "candidates", "sctpPort", "maxMessageSize", "expires"]

# What a page has left, in both places: for its own next load and for the next tab.
LEFT = """
  const left = (name) => localStorage.getItem("webrtc_connection_" + name);
  const leave = (name, text) => { for (const one of [localStorage, sessionStorage]) one.setItem("webrtc_connection_" + name, text); };
  const change = (name, made) => leave(name, JSON.stringify({...JSON.parse(left(name)), ...made(JSON.parse(left(name)))}));
"""


@pytest.fixture
def visit(browser):
    """Makes pages: visit(host, tickets) is a tab on an origin of its own in front of the host."""
    with contextlib.ExitStack() as stack:

        def visit(host, tickets=True):
            site = stack.enter_context(web.Site(host))
            tab = browser.new_tab()
            stack.callback(tab.close_tab)
            page = Page(tab, site.url, tickets)
            page.site = site
            return page

        yield visit


@pytest.fixture
def c_host():
    """A C host with a log of its own."""
    with hosts.Host("c") as host:
        yield host
        assert host.alive(), "the host has ended:\n" + "\n".join(host.lines()[-20:])


def away(page, body="", *args):
    """Leaves the page, does something to what it has left, and stays on an empty page of the same origin."""
    page.tab.navigate(page.site.url + "blank")
    return page.tab.evaluate(LEFT + body, *args)


def connect(page, query=PATIENT):
    page.open(query)
    return page.ready()


def attempts(result):
    return [f"{one['mode']} {one['state']}" for one in result["attempts"]]


def reasons(result):
    return {f"{one['mode']} {one['state']}": one["reason"] for one in result["attempts"] if one["reason"]}


def candidates(text):
    """Address and port of each candidate, in order."""
    return [(found[1], int(found[2])) for found in re.finditer(r"candidate:\S+ 1 udp \d+ (\S+) (\d+) ", text, re.I)]


# ---- The first connection, and the ways back


def test_first_connection(visit, host):
    page = visit(host)
    result = connect(page)
    assert (result["mode"], result["fallback"], result["tokenSent"]) == ("normal", None, False)
    assert attempts(result) == ["zero-signaling skipped", "fast skipped", "normal started", "normal won"]
    assert reasons(result) == {
        "zero-signaling skipped": "no-ticket",
        "fast skipped": "no-cache",
        "normal started": "no-cache",
    }
    (offer,) = page.site.offers
    assert (offer["type"], offer["ticket"], "sessionToken" in offer) == ("offer", True, False)
    token, fingerprint = page.run(
        """return [reconnectDemo.session.token, /^a=fingerprint:(.*)$/m.exec(reconnectDemo.peer.remoteDescription.sdp)[1].trim()]"""
    )
    answered = page.run("return reconnectDemo.peer.remoteDescription.sdp")
    kept = away(
        page,
        """return {now: Date.now(), cache: JSON.parse(left("cache")), order: Object.keys(JSON.parse(left("cache"))),
             ticket: JSON.parse(left("ticket")), token: left("session"),
             own: [sessionStorage.getItem("webrtc_connection_session"), JSON.parse(sessionStorage.getItem("webrtc_connection_ticket"))]}""",
    )
    cache, ticket = kept["cache"], kept["ticket"]
    assert kept["order"][: len(CACHE)] == CACHE and set(cache) <= {*CACHE, "lastConnectedIPv6"}
    groups = CACHE[:6]
    offered = [one["candidate"] for name in groups for one in cache[name]]
    assert all(set(one) == {"candidate", "sdpMid", "sdpMLineIndex"} for name in groups for one in cache[name])
    assert sorted(candidates("\n".join(offered))) == sorted(candidates(answered))
    assert cache["ipv4HostCandidates"] and (hosts.ADDRESS in cache["ipv4HostCandidates"][0]["candidate"])
    assert cache["lastSuccessfulProtocol"] == "ipv4" and cache.get("lastConnectedIPv6", False) is False
    assert cache["sessionId"] == kept["token"] == token and re.fullmatch(r"session-[\w-]{22,}", token)
    assert isinstance(cache["timestamp"], int) and 0 < cache["timestamp"] <= kept["now"]
    assert set(ticket) - {"derivedInit"} == {*TICKET, "client", "timestamp"}
    assert ticket["ufrag"].startswith("lrc1/") and 10 <= len(ticket["ufrag"]) <= 200
    assert len(ticket["pwd"]) >= 22 and ticket["fingerprint"].lower() == fingerprint.lower()
    assert ticket["candidates"] == offered
    assert (ticket["sctpPort"], ticket["maxMessageSize"] >= 0) == (5000, True)
    assert ticket["timestamp"] <= kept["now"] < ticket["expires"]
    assert ticket["client"] == result["fingerprint"] and ticket["client"] != ticket["fingerprint"]
    assert kept["own"] == [token, ticket]


def test_reload_is_fast(visit, host):
    page = visit(host, tickets=False)
    first = connect(page)
    before = host.metric("reconnect_requests_total", mode="fast")
    result = page.reload()
    assert (first["mode"], result["mode"], result["fallback"]) == ("normal", "fast", None)
    assert attempts(result) == ["zero-signaling skipped", "fast started", "fast won"]
    assert result["fingerprint"] == first["fingerprint"]
    assert host.metric("reconnect_requests_total", mode="fast") == before + 1
    assert page.echo("back") == "back"


def test_reload_needs_no_signaling(visit, host):
    page = visit(host)
    first = connect(page, "?fast-timeout=20000")
    for reachable in (True, False):
        # The answer is held back, so that only the ticket can win the race; then there is none at all.
        page.site.reachable = reachable
        page.site.gate.clear()
        result = page.reload()
        page.site.gate.set()
        assert (result["mode"], result["fallback"]) == ("zero-signaling", None)
        assert "answer" not in result["timings"] and result["attempts"][-1]["state"] == "won"
        assert result["fingerprint"] == first["fingerprint"]
        assert page.echo("back") == "back"
    # With signaling as quick as it can be either may win; there is a connection in any case.
    page.site.reachable = True
    assert page.reload()["mode"] in ("zero-signaling", "normal")
    assert page.echo("back again") == "back again"


def test_page_that_stays_needs_no_signaling(visit, c_host):
    """Not one packet of TCP: the signaling function does not ask anybody."""
    page = visit(c_host)
    page.open("?connect=no")
    page.run(
        """const {Connection, fetchSignaling} = await import("./reconnect.js");
           window.calls = {made: 0, answered: 0};
           window.stopped = false;
           const asked = fetchSignaling("offer");
           const signaling = {exchange(offer, context) {
             calls.made += 1;
             if (stopped) return {answer: Promise.reject(new Error("the signaling server is stopped"))};
             const {answer} = asked.exchange(offer, context);
             return {answer: answer.then((got) => { calls.answered += 1; return got; })};
           }};
           window.own = new Connection({key: "own", signaling, channels: [{label: "echo", id: 1}]});
           await own.connect();
           stopped = true;"""
    )
    for round_ in range(2):
        mode, timings, said, calls = page.run(
            """const {mode, timings} = await own.reconnect();
               return [mode, Object.keys(timings), await echo(own.channels.get("echo"), "hello"), calls]"""
        )
        assert (mode, said) == ("zero-signaling", "hello")
        assert timings == ["prepared", "ice", "dtls", "open"]
        assert calls == {"made": 2 + round_, "answered": 1}
    page.run("own.close()")
    assert len(page.site.offers) == 1
    assert c_host.metric("reconnect_requests_total", mode="normal") == 1
    assert c_host.metric("reconnect_requests_total", mode="fast") == 0
    assert c_host.metric("reconnect_requests_total", mode="zero_signaling") == 2


# ---- Time. The server's side of it runs on virtual time in Tests/ReloadTests: lifetimeCountsFromTheEndOfTheConnection
# (sessions), endAtTheSecond (tickets), areGoodForFiveMinutes (caches of native clients).


@pytest.mark.parametrize("tickets", [True, False], ids=["tickets", "no tickets"])
def test_five_minutes_later_it_is_a_first_connection(visit, c_host, tickets):
    page = visit(c_host, tickets)
    first = connect(page)
    aged = 'change("cache", ({timestamp}) => ({timestamp: timestamp - args[0]}));'
    away(page, aged, 200_000)
    assert connect(page)["mode"] == ("zero-signaling" if tickets else "fast")
    away(page, aged, 301_000)
    if tickets:
        away(page, 'change("ticket", () => ({expires: Date.now() - 1000}))')
    offers = len(page.site.offers)
    result = connect(page)
    assert (result["mode"], result["tokenSent"]) == ("normal", False)
    assert attempts(result) == ["zero-signaling skipped", "fast skipped", "normal started", "normal won"]
    why = {
        "zero-signaling skipped": "expired" if tickets else "off",
        "fast skipped": "stale",
        "normal started": "stale",
    }
    assert reasons(result) == why
    assert [("sessionToken" in offer) for offer in page.site.offers[offers:]] == [False]
    # Nobody is to be recognised by a session that is over.
    assert result["fingerprint"] != first["fingerprint"]
    assert page.reload()["mode"] == ("zero-signaling" if tickets else "fast")


# ---- Networks


@pytest.mark.parametrize("policy", ["fallback", "race"])
def test_blocked_candidates_fall_back(visit, c_host, policy):
    """The other half, a fast answer whose candidates lead nowhere: test_failed_fast_attempt_is_followed_by_one_normal_one."""
    page = visit(c_host)
    connect(page, f"?policy={policy}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((hosts.ADDRESS, 0))
        silent.settimeout(20)
        ufrag = away(
            page,
            """change("ticket", ({candidates}) => ({candidates: candidates.map((line) => line.replace(/^((\\S+ ){5})\\d+/, "$1" + args[0]))}));
               return JSON.parse(left("ticket")).ufrag""",
            silent.getsockname()[1],
        )
        # The race is held until the ticket has been tried.
        page.site.gate.clear()
        page.open(f"?policy={policy}")
        assert ufrag.encode() in silent.recv(2048)
        page.site.gate.set()
        result = page.ready()
    assert result["mode"] == "normal"
    if policy == "fallback":
        assert result["fallback"] == "ice"
        assert attempts(result) == [
            "zero-signaling started",
            "zero-signaling failed",
            "normal started",
            "normal won",
        ]
        told = reasons(result)
        assert told["zero-signaling failed"] == told["normal started"] and told["normal started"] in ("timeout", "ice")
    else:
        assert attempts(result)[:2] == ["zero-signaling started", "normal started"]
        assert attempts(result)[-1] == "normal won" and "zero-signaling won" not in attempts(result)
    assert page.echo("hello") == "hello"
    # What did not work is not kept, what did is.
    page.site.reachable = False
    assert page.reload()["mode"] == "zero-signaling"


@pytest.fixture(scope="session")
def cable():
    if why := network.missing():
        pytest.skip(why)
    with network.Cable() as cable:
        yield cable


@pytest.fixture(scope="session")
def far_browser(browser, cable):
    """The same browser in a network of its own."""
    with drivers.start(browser.name, namespace=cable.client.prefix) as far:
        yield far


@pytest.fixture
def far_visit(far_browser, cable):
    """Signaling runs beside the cable: what happens to addresses there does not touch it."""
    with contextlib.ExitStack() as stack:

        def visit(host, tickets=True):
            site = stack.enter_context(web.Site(host, inside=cable.client))
            stack.callback(far_browser.navigate, "about:blank")
            page = Page(far_browser, site.url, tickets)
            page.site = site
            return page

        yield visit


def test_server_address_changes(far_visit, cable):
    old, new = "10.99.0.1", "10.99.1.1"
    with (
        cable.addresses(f"{old}/24"),
        hosts.Host("c", address=None, inside=cable.server) as host,
    ):
        page = far_visit(host)
        assert connect(page)["mode"] == "normal"
        ticket = "return reconnectDemo.session.ticket.candidates.join('\\n')"
        ((address, port),) = candidates(page.run(ticket))
        assert address == old
        renewed = """window.renewed = within(new Promise((resolve) => {
            const look = () => { if (reconnectDemo.session.ticket.candidates.some((line) => line.includes(args[0]))) resolve(); };
            reconnectDemo.connection.addEventListener("ticket", look);
          }), "a ticket with the new address")"""
        page.run(renewed + "; return 1", f" {new} ")
        with cable.addresses(f"{new}/24"):
            # The connected page is told.
            page.run("await window.renewed")
            assert sorted(candidates(page.run(ticket))) == [(old, port), (new, port)]
            cable.remove(f"{old}/24")
            host.wait_for(rf"^addresses: (?!.*\b{re.escape(old)}\b).*\b{re.escape(new)}\b")
            # No answer has the old one any more.
            _, answer, _ = host.post("offer", page.site.offers[0])
            assert candidates(answer.replace("\\r\\n", "\n")) == [(new, port)] * answer.count("candidate:")
            assert old not in answer
            # A reload comes back over the new one, with the ticket alone.
            page.site.reachable = False
            result = page.reload()
            assert result["mode"] == "zero-signaling"
            assert page.echo("there") == "there"
            assert candidates(until(lambda: other_ticket(page, old), "a ticket without the old address")) == [
                (new, port)
            ]
            assert page.reload()["mode"] == "zero-signaling"


def other_ticket(page, old):
    text = page.run("return reconnectDemo.session.ticket.candidates.join('\\n')")
    return None if old in text else text


def test_ipv6_first(far_visit, cable):
    """Answers and tickets name IPv6 first and with the higher priority. Of two families that both work a browser takes
    the one that answers first; so at first only IPv6 works here. From then on it has a head start, a long one in this
    test, and is used although IPv4 works as well. When it works no more the same ticket leads to IPv4."""
    four, six = "10.99.0.100", "fd99::100"
    with (
        cable.addresses("10.99.0.1/24", "fd99::1/64"),
        hosts.Host("c", address=None, inside=cable.server) as host,
    ):
        page = far_visit(host)
        cable.block(four)

        def connected(mode, address, path):
            result = page.ready()
            assert (result["mode"], result["fallback"]) == (mode, None)
            assert until(lambda: page.run(SELECTED), "the selected pair") == address
            learned = "return JSON.parse(localStorage.getItem('webrtc_connection_cache')).lastConnectedIPv6"
            until(lambda: page.run(learned) is (path == "ipv6"), f"the cache to say {path}")
            return page.run(
                "return [reconnectDemo.peer.remoteDescription.sdp, reconnectDemo.session.ticket.candidates.join('\\n')]"
            )

        page.open(PATIENT)
        for offered in connected("normal", "fd99::1", "ipv6"):
            assert [address for address, _ in candidates(offered)] == ["fd99::1", "10.99.0.1"]
            first, second = (int(each) for each in re.findall(r"candidate:\S+ 1 udp (\d+) ", offered, re.I))
            assert first > second
        page.site.reachable = False
        page.tab.reload()
        connected("zero-signaling", "fd99::1", "ipv6")
        away(page)
        cable.unblock(four)
        for _ in range(3):
            page.open(PATIENT + "&head-start=1000")
            connected("zero-signaling", "fd99::1", "ipv6")
        page.site.reachable, page.tickets = True, False
        page.open(PATIENT + "&head-start=1000")
        result = page.ready()
        assert (result["mode"], until(lambda: page.run(SELECTED), "the selected pair")) == ("fast", "fd99::1")
        page.site.reachable, page.tickets = False, True
        # The way by IPv6 is gone: the same attempt finds the other one.
        away(page)
        cable.block(six)
        page.open(PATIENT)
        connected("zero-signaling", "10.99.0.1", "ipv4")
        cable.unblock(six)
        counted = [host.metric("reconnect_connections_total", protocol=one) for one in ("ipv6", "ipv4")]
        assert counted == [6, 1]


def test_programs_take_ipv6_first(cable):
    """The library's own client chooses: IPv6, though the other family works as well."""
    with (
        cable.addresses("10.99.0.1/24", "fd99::1/64"),
        hosts.Host("c", http="10.99.0.1:0", address=None, inside=cable.server) as host,
    ):
        client = [str(hosts.ROOT / "build/examples/client-c"), "--url", host.url.rstrip("/"), "--times", "3"]
        done = subprocess.run([*cable.client.prefix, *client], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert host.metric("reconnect_connections_total", protocol="ipv6") >= 3
        assert host.metric("reconnect_connections_total", protocol="ipv4") == 0


# The other side's address of the path in use.
SELECTED = """
  const reports = await reconnectDemo.peer.getStats();
  let pair = null;
  reports.forEach((one) => {
    if (one.type === "candidate-pair" && (one.selected || one.nominated && one.state === "succeeded")) pair = one;
  });
  const remote = pair && reports.get(pair.remoteCandidateId);
  return remote && (remote.address || remote.ip);
"""


# ---- Servers


def port_of(page):
    return candidates(page.run("return reconnectDemo.peer.remoteDescription.sdp"))[0][1]


@pytest.mark.parametrize("tickets", [True, False], ids=["zero-signaling", "fast"])
def test_killed_server_knows_its_clients(visit, tmp_path, tickets):
    options = ["--certificate", str(tmp_path / "host.pem"), "--session-store", f"sqlite:{tmp_path / 'sessions.db'}"]
    server = "return /^a=fingerprint:(.*)$/m.exec(reconnectDemo.peer.remoteDescription.sdp)[1].trim().toUpperCase()"
    with hosts.Host("c", *options) as host:
        page = visit(host, tickets)
        first = connect(page)
        before, port = page.run(server), port_of(page)
        client = host.wait_for(r": session \S{8} of client (\w+), normal, connection 1, ")[1]
        host.kill()
    with hosts.Host("c", *options, http=host.http, udp=port) as again:
        page.site.host = again
        page.site.reachable = not tickets
        result = page.reload()
        assert result["mode"] == ("zero-signaling" if tickets else "fast")
        assert (page.run(server), result["fingerprint"]) == (before, first["fingerprint"])
        assert page.echo("again") == "again"
        assert again.metric("reconnect_requests_total", mode="normal") == 0
        # With a ticket nothing waits for the file, and the handshake may be over before it has been read.
        number = r"\d+" if tickets else "2"
        again.wait_for(rf": session \S{{8}} of client {client}, {result['mode']}, connection {number}, ")


STORE_IS_AVAILABLE = r"^session store: available$"


def test_two_servers_with_one_redis(visit, tmp_path):
    with stores.Redis() as redis:
        options = ["--certificate", str(tmp_path / "host.pem"), "--session-store", redis.url]
        with hosts.Host("c", *options) as one, hosts.Host("c", *options) as other:
            page = visit(one, tickets=False)
            assert connect(page)["mode"] == "normal"
            # Each reload lands on the other one.
            for host in (other, one):
                page.site.host = host
                before = host.metric("reconnect_requests_total", mode="fast")
                assert page.reload()["mode"] == "fast"
                assert host.metric("reconnect_requests_total", mode="fast") == before + 1
                assert page.echo("there") == "there"
            # Without Redis every answer is normal, and nothing fails.
            there = {host: len(host.matches(STORE_IS_AVAILABLE)) for host in (one, other)}
            redis.end()
            one.wait_for(r"^session store: unavailable: ")
            assert one.metric("reconnect_store_up") == 0
            assert page.reload()["mode"] == "normal"
            assert page.echo("without") == "without"
            assert one.metric("reconnect_normal_answers_total", reason="store_unavailable") == 1
            # It is back, and empty.
            redis.start()
            for host in (one, other):
                host.wait_for(STORE_IS_AVAILABLE, times=there[host] + 1)
                assert host.metric("reconnect_store_up") == 1
            assert page.reload()["mode"] in ("normal", "fast")  # by when the hosts have told it what they know
            page.site.host = other
            assert page.reload()["mode"] == "fast"
            assert page.echo("as before") == "as before"


# ---- Others


@pytest.mark.parametrize("tickets", [True, False], ids=["zero-signaling", "fast"])
def test_two_tabs_at_once(visit, browser, c_host, tickets):
    page = visit(c_host, tickets)
    other = Page(browser.new_tab(), page.url, tickets)
    both = (page, other)
    query = PATIENT + "&connect=no"
    for tab in both:
        assert connect(tab)["mode"] == "normal"
    tokens = [tab.token() for tab in both]
    assert tokens[0] != tokens[1]
    page.site.reachable = not tickets
    for tab in both:
        tab.open(query)
    for tab in both:  # both are under way before one is waited for
        tab.run("reconnectDemo.reconnect()")
    mode = "zero-signaling" if tickets else "fast"
    assert [tab.ready()["mode"] for tab in both] == [mode, mode]
    assert [page.echo("one"), other.echo("two")] == ["one", "two"]
    other.tab.close_tab()
    # Each has come back to its own.
    clients = re.findall(r"session \S+ of client (\w+), (\S+), connection (\d+)", "\n".join(c_host.lines()))
    visits = {}
    for client, how, number in clients:
        visits.setdefault(client, []).append((how, number))
    assert list(visits.values()) == [[("normal", "1"), (mode, "2")]] * 2


@pytest.mark.parametrize("what", ["token", "ticket"])
def test_thief_gets_a_session_of_its_own(visit, c_host, what):
    """Another origin is another profile: it has no part in the owner's certificate."""
    tickets = what == "ticket"
    owner, thief = visit(c_host, tickets), visit(c_host, tickets)
    connect(owner)
    token, ticket = owner.run("return [reconnectDemo.session.token, reconnectDemo.session.ticket]")
    connect(thief, QUICK)
    if tickets:
        away(thief, 'change("ticket", () => ({...args[0], client: ""})); leave("session", args[1])', ticket, token)
        refused = {"reason": "other_fingerprint"}
        counter = "reconnect_tickets_refused_total"
    else:
        away(thief, 'change("cache", () => ({sessionId: args[0]})); leave("session", args[0])', token)
        refused = {"reason": "other_fingerprint"}
        counter = "reconnect_normal_answers_total"
    before = c_host.metric(counter, **refused)
    result = connect(thief, QUICK)
    assert result["mode"] == "normal"
    failed = "zero-signaling failed" if tickets else "fast failed"
    assert failed in attempts(result)
    until(lambda: c_host.metric(counter, **refused) == before + 1, f"{counter} {refused}")
    assert thief.echo("mine") == "mine" and thief.token() not in (None, token)
    # The owner does not notice, and comes back as before.
    assert owner.run("return reconnectDemo.state") == "connected"
    assert owner.echo("still here") == "still here" and owner.token() == token
    owner.site.reachable = not tickets
    assert owner.reload()["mode"] == ("zero-signaling" if tickets else "fast")


# ---- Switches


def test_switch_thrown_during_a_reload(visit, c_host):
    page = visit(c_host, tickets=False)
    connect(page)
    assert page.reload()["mode"] == "fast"
    page.site.gate.clear()
    offers = len(page.site.offers)
    page.tab.reload()
    page.site.wait_for_offers(offers + 1)
    c_host.signal(signal.SIGUSR1)
    c_host.wait_for(r"^fast reload: off, by host: ")
    page.site.gate.set()
    result = page.ready()
    assert (result["mode"], result["tokenSent"]) == ("normal", True)
    assert page.echo("hello") == "hello"
    assert c_host.metric("reconnect_normal_answers_total", reason="disabled") == 1
    # Off stays off, and what is needed to come back stays too.
    assert page.reload()["mode"] == "normal"
    c_host.signal(signal.SIGUSR2)
    c_host.wait_for(r"^fast reload: on, by host: ")
    assert page.reload()["mode"] == "fast"
    assert c_host.metric("reconnect_requests_total", mode="normal") == 3


def test_switched_off_server_refuses_tickets(visit, c_host):
    page = visit(c_host)
    connect(page, QUICK)
    c_host.signal(signal.SIGUSR1)
    c_host.wait_for(r"^fast reload: off, by host: ")
    result = page.reload()
    assert (result["mode"], "zero-signaling failed" in attempts(result)) == ("normal", True)
    assert c_host.metric("reconnect_tickets_refused_total", reason="disabled") >= 1
    assert c_host.metric("reconnect_tickets_accepted_total") == 0
    assert page.echo("hello") == "hello"


def test_page_switched_off_while_connecting_keeps_what_it_has(visit, c_host):
    page = visit(c_host)
    connect(page)
    away(page)
    page.open(PATIENT + "&connect=no")
    until(lambda: page.run("return reconnectDemo.connection !== null"), "the module")
    page.run("const {connection} = reconnectDemo; connection.setEnabled(false)")
    kept = "return localStorage.getItem('webrtc_connection_cache') !== null"
    page.site.gate.clear()
    page.run("reconnectDemo.reconnect()")
    page.site.wait_for_offers(2)
    assert page.run(kept) is True and page.run("return reconnectDemo.session.ticket !== null") is True
    page.run("reconnectDemo.connection.setEnabled(true)")
    page.site.gate.set()
    result = page.ready()
    assert (result["mode"], result["tokenSent"]) == ("normal", False)
    assert reasons(result)["normal started"] == "disabled"
    page.site.reachable = False
    assert connect(page)["mode"] == "zero-signaling"


def test_failing_fast_connects_trip_the_switch_and_it_comes_back(visit):
    options = ["--trip-min", "3", "--trip-rearm", "3000", "--fast-timeout", "100"]
    with hosts.Host("c", *options) as host:
        page = visit(host, tickets=False)
        connect(page)
        token, (offer,) = page.token(), page.site.offers
        # The next load's offer waits at the door while fast answers fail, one after the other.
        page.site.gate.clear()
        page.tab.reload()
        page.site.wait_for_offers(2)
        for _ in range(3):
            status, answer, _ = host.post("offer", {**offer, "sessionToken": token})
            assert status == 200 and json.loads(answer)["connectionMode"] == "fast"
        host.wait_for(r"^fast reload: partial, by tripped: 3 of 3 fast connects failed")
        page.site.gate.set()
        result = page.ready()
        assert (result["mode"], result["tokenSent"]) == ("normal", True)
        assert host.metric("reconnect_normal_answers_total", reason="disabled") == 1
        assert host.metric("reconnect_fast_reload_trips_total") == 1
        assert host.metric("reconnect_fast_reload", setting="on") == 1  # the host's own choice stands
        host.wait_for(r"^fast reload: on, by rearmed: ")
        assert host.metric("reconnect_fast_reload_tripped") == 0
        assert page.reload()["mode"] == "fast"
        assert page.echo("hello") == "hello"


# ---- A flood


def check(ufrag, pwd):
    """A connectivity check as a client with this ticket sends it (RFC 8445 section 7.2.4)."""

    def attribute(kind, value):
        return struct.pack(">HH", kind, len(value)) + value + bytes(-len(value) % 4)

    def message(extra):
        return struct.pack(">HHI", 1, len(body) + extra, 0x2112A442) + name + body

    name = secrets.token_bytes(12)
    body = attribute(0x0006, f"{ufrag}:evil".encode())
    body += attribute(0x0024, struct.pack(">I", 1845501695)) + attribute(0x802A, secrets.token_bytes(8))
    body += attribute(0x0008, hmac.digest(pwd.encode(), message(24), "sha1"))
    body += attribute(0x8028, struct.pack(">I", zlib.crc32(message(8)) ^ 0x5354554E))
    return message(0)


class Flood:
    """Ten thousand and more forged tickets from one source, until it is told to end."""

    LEAST = 10_000
    ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    def __init__(self, host, port, ticket):
        self.host, self.to, self.ticket = host, ("127.0.0.1", port), ticket
        self.sent = 0
        self.answers = 0
        self.error = None
        self.begun, self.ends = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.run)

    def forged(self, number):
        ufrag, pwd = self.ticket["ufrag"], self.ticket["pwd"]
        if number % 4 == 0:  # a made-up password for a real ticket
            return ufrag, "x" * len(pwd)
        if number % 4 == 1:  # a damaged ticket
            at = 5 + number % (len(ufrag) - 5)
            return ufrag[:at] + ("A" if ufrag[at] != "A" else "B") + ufrag[at + 1 :], pwd
        if number % 4 == 2:  # made up from nothing
            return "lrc1/" + "".join(secrets.choice(self.ALPHABET) for _ in ufrag[5:]), pwd
        return ufrag[: 9 + number % (len(ufrag) - 10)], pwd  # cut

    def taken(self):
        return self.host.metric("reconnect_datagrams_dropped_total") >= self.sent

    def run(self):
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
                source.bind(("127.0.0.2", 0))
                source.setblocking(False)
                while self.sent < self.LEAST or not self.ends.is_set():
                    for _ in range(100):
                        source.sendto(check(*self.forged(self.sent)), self.to)
                        self.sent += 1
                    # Not faster than the kernel's buffer takes them: one that it drops would prove nothing.
                    until(self.taken, lambda: f"{self.sent} dropped datagrams")
                    self.begun.set()
                with contextlib.suppress(BlockingIOError):
                    while source.recv(2048):
                        self.answers += 1
        except BaseException as error:
            self.error = error
            self.begun.set()

    def __enter__(self):
        self.thread.start()
        assert self.begun.wait(60)
        return self

    def __exit__(self, *exception):
        self.ends.set()
        self.thread.join()


def test_flood_of_forged_tickets_disturbs_nobody(visit, c_host):
    """What each kind costs the engine: tenThousandForgedTicketsAllocateNothing in Tests/EngineTests."""
    page = visit(c_host)
    connect(page)
    ticket = page.run("return reconnectDemo.session.ticket")
    page.site.reachable = False
    with Flood(c_host, port_of(page), ticket) as flood:
        begun = flood.sent
        modes = [page.reload()["mode"] for _ in range(2)]
        said = page.echo("here")
    assert flood.error is None and begun < flood.sent >= flood.LEAST
    assert (modes, said) == (["zero-signaling"] * 2, "here")
    assert flood.answers == 0
    # Peers were made for the page alone.
    assert c_host.metric("reconnect_tickets_accepted_total") == 2
    assert c_host.metric("reconnect_requests_total") == 3
    assert sum("connecting" in line or ": connected after" in line for line in c_host.lines()) <= 6
    # They were taken for what they are made to look like.
    assert c_host.metric("reconnect_tickets_dropped_total") >= flood.LEAST / 2
