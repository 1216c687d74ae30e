"""The page and a host without signaling, in Chromium and Firefox: a site in front of the host serves
the page, and cuts or delays what goes to /offer."""

import os
import signal

import hosts
import pytest
import web
from page import Page

# One attempt at a time, and a patient one: what wins does not depend on the clock.
PATIENT = "?policy=fallback&fast-timeout=20000"

# A Connection of a test's own on the same page, with another key and storage in memory.
OWN = """
  const R = await import("./reconnect.js");
  const textStorage = () => {
    const items = new Map();
    return {items, getItem: (name) => items.has(name) ? items.get(name) : null,
      setItem: (name, text) => { items.set(name, text); }, removeItem: (name) => { items.delete(name); }};
  };
  const storageOf = (kept) => ({local: textStorage(), session: textStorage(),
    certificates: {get: async () => kept, put: async (one) => { kept = one; }, delete: async () => { kept = undefined; }}});
  const connectionOf = (change) => {
    const attempts = [];
    const connection = new R.Connection({key: "own", channels: [{label: "echo", id: 1}], policy: "fallback",
      signaling: R.fetchSignaling("offer"), storage: storageOf(), ...change});
    connection.addEventListener("attempt", ({detail: {mode, state}}) => attempts.push(`${mode} ${state}`));
    return Object.assign(connection, {attempts});
  };
"""


@pytest.fixture
def site(host):
    with web.Site(host) as site:  # a port, so an origin, of its own: nothing is kept there yet
        yield site


@pytest.fixture
def page(site, browser):
    tab = browser.new_tab()
    yield Page(tab, site.url, tickets=True)
    tab.close_tab()


def ticket(page):
    return page.run("return reconnectDemo.session.ticket")


@pytest.mark.parametrize("policy", ["race", "fallback"])
def test_reload_without_signaling(page, site, policy):
    page.open(f"?policy={policy}&fast-timeout=20000")
    first = page.ready()
    assert (first["mode"], len(site.offers)) == ("normal", 1)
    assert site.offers[0]["ticket"] is True
    assert ticket(page)["ufrag"].startswith("lrc1/")
    site.reachable = False
    for _ in range(3):
        result = page.reload()
        assert (result["mode"], result["fallback"], result["certificate"]) == ("zero-signaling", None, "kept")
        assert list(result["timings"]) == ["prepared", "ice", "dtls", "open", "echo"]
        assert result["fingerprint"] == first["fingerprint"]
        assert page.echo("back") == "back"
    assert len(site.offers) == 1


def test_page_keeps_its_own_description(page, site):
    page.open(PATIENT)
    page.ready()
    site.reachable = False
    assert page.reload()["mode"] == "zero-signaling"
    ours, theirs = page.run(
        """const ufrag = ({sdp}) => /^a=ice-ufrag:(.*)$/m.exec(sdp)[1].trim();
           const {peer} = reconnectDemo;
           return [ufrag(peer.localDescription), ufrag(peer.remoteDescription)]"""
    )
    assert theirs.startswith("lrc1/") and not ours.startswith("lrc1/")


def test_ticket_is_faster_than_slow_signaling(page, site):
    page.open("?fast-timeout=20000")
    page.ready()
    site.gate.clear()
    result = page.reload()
    assert result["mode"] == "zero-signaling"
    assert [(one["mode"], one["state"]) for one in result["attempts"]] == [
        ("zero-signaling", "started"),
        ("normal", "started"),
        ("normal", "stopped"),
        ("zero-signaling", "won"),
    ]
    site.gate.set()


def test_ticket_and_token_are_renewed_over_the_channel(page, site):
    page.open(PATIENT)
    page.ready()
    first = ticket(page)
    site.reachable = False
    for _ in range(2):
        assert page.reload()["mode"] == "zero-signaling"
        # Comes right after the connection; the reload before it would be with the ticket from before.
        page.run(
            """const {connection} = reconnectDemo;
               if (connection.session.ticket.ufrag === args[0]) await event(connection, "ticket")""",
            first["ufrag"],
        )
        renewed = ticket(page)
        assert renewed["ufrag"] != first["ufrag"] and renewed["fingerprint"] == first["fingerprint"]
        assert page.token().startswith("session-")
        first = renewed
    # The token is one to come back with as well.
    site.reachable = True
    page.run("reconnectDemo.connection.close()")
    page.open(PATIENT + "&tickets=no")
    assert page.ready()["mode"] == "fast"


def test_heartbeat_is_answered(page):
    page.open()
    page.ready()
    time = page.run(
        """const {metrics} = reconnectDemo.connection;
           await within((async () => { while (metrics.roundTripTime === null) await new Promise((r) => setTimeout(r, 20)); })(), "a pong");
           return metrics.roundTripTime"""
    )
    assert 0 <= time < 20000


def test_tab_opened_after_the_first_was_left_needs_no_signaling(page, site, browser):
    page.open(PATIENT)
    page.ready()
    later = Page(browser.new_tab(), page.url, tickets=True)
    later.open("?connect=no")
    page.leave()
    later.wait_for_what_is_left()
    site.reachable = False
    later.open(PATIENT)
    result = later.ready()
    later.tab.close_tab()
    assert result["mode"] == "zero-signaling"


def test_two_tabs_come_back_each_with_its_own_ticket(page, site, browser):
    other = Page(browser.new_tab(), page.url, tickets=True)
    for one in (page, other):
        one.open(PATIENT)
        assert one.ready()["mode"] == "normal"
    assert ticket(page)["ufrag"] != ticket(other)["ufrag"]
    site.reachable = False
    for one in (page, other):
        assert one.reload()["mode"] == "zero-signaling"
    assert [page.echo("one"), other.echo("two")] == ["one", "two"]
    assert page.token() != other.token()
    other.tab.close_tab()


@pytest.mark.parametrize("how", ["stolen", "forged", "truncated"])
def test_bad_ticket_falls_back(page, site, how):
    page.open(PATIENT)
    page.ready()
    seen = page.run(
        OWN
        + """const storage = storageOf(await RTCPeerConnection.generateCertificate({name: "ECDSA", namedCurve: "P-256"}));
           const ticket = {...reconnectDemo.session.ticket, client: "", timestamp: Date.now()};
           const {ufrag} = ticket;
           if (args[0] === "forged") ticket.ufrag = ufrag.slice(0, 40) + (ufrag[40] === "A" ? "B" : "A") + ufrag.slice(41);
           if (args[0] === "truncated") ticket.ufrag = ufrag.slice(0, 60);
           storage.session.setItem("webrtc_connection_ticket:own", JSON.stringify(ticket));
           const thief = connectionOf({storage});
           const {mode, fallback} = await thief.connect();
           const own = thief.session.token;
           thief.close();
           return {mode, fallback: fallback !== null, attempts: thief.attempts, isOwn: own !== reconnectDemo.session.token}""",
        how,
    )
    assert seen == {
        "mode": "normal",
        "fallback": True,
        "attempts": ["zero-signaling started", "zero-signaling failed", "normal started", "normal won"],
        "isOwn": True,
    }
    # The owner does not notice, and comes back as before.
    assert page.run("return reconnectDemo.state") == "connected"
    assert page.echo("still here") == "still here"
    site.reachable = False
    assert page.reload()["mode"] == "zero-signaling"


def test_switched_off_page_is_normal(page, site):
    page.open(PATIENT)
    page.ready()
    modes = page.run(
        """const modes = [];
           for (const enabled of [false, true]) {
             reconnectDemo.connection.setEnabled(enabled);
             modes.push((await reconnectDemo.reconnect()).mode);
           }
           return modes"""
    )
    assert modes == ["normal", "zero-signaling"]


def test_host_that_was_killed_takes_its_tickets(host_name, browser, tmp_path):
    certificate = str(tmp_path / "certificate.pem")
    tab = browser.new_tab()
    with hosts.Host(host_name, "--certificate", certificate) as first, web.Site(first) as site:
        page = Page(tab, site.url, tickets=True)
        page.open(PATIENT)
        page.ready()
        port = int(ticket(page)["candidates"][0].split()[5])
        os.killpg(first.process.pid, signal.SIGKILL)
        first.process.wait(20)
        with hosts.Host(host_name, "--certificate", certificate, udp=port):
            site.reachable = False
            assert page.reload()["mode"] == "zero-signaling"
            assert page.echo("again") == "again"
    tab.close_tab()


def test_host_that_stops_answering_is_noticed(host_name, browser):
    tab = browser.new_tab()
    with hosts.Host(host_name) as host, web.Site(host) as site:
        page = Page(tab, site.url, tickets=True)
        page.open("?connect=no")
        page.run(
            OWN
            + """window.own = connectionOf({heartbeat: {interval: 100, misses: 3}});
               await own.connect();
               window.lost = event(own, "lost");"""
        )
        os.killpg(host.process.pid, signal.SIGSTOP)
        try:
            seen = page.run("const {detail} = await window.lost; return [detail.kind, own.state]")
        finally:
            os.killpg(host.process.pid, signal.SIGCONT)
        assert seen == ["lost", "failed"]
        assert page.run("const {mode} = await own.connect(); own.close(); return mode") in ("zero-signaling", "normal")
    tab.close_tab()


def test_signaling_over_a_socket(page, site):
    page.open("?connect=no")
    seen = page.run(
        OWN
        + """const own = connectionOf({signaling: R.webSocketSignaling(args[0], {warm: true}), tickets: false});
           const modes = [];
           for (let i = 0; i < 3; i++) {
             modes.push((await own.reconnect()).mode);
             const channel = own.channels.get("echo");
             modes.push(await echo(channel, "hello"));
           }
           own.close();
           return modes""",
        site.socket,
    )
    assert seen == ["normal", "hello", "fast", "hello", "fast", "hello"]
    assert site.sockets == 1  # kept open
