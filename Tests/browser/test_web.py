"""The browser client, bindings/web/reconnect.js, in Chromium and Firefox: by itself, with peers and
signaling that do as they are told."""

import re

import hosts
import pytest
import web
from declarations import Declarations
from page import LIBRARY, Page

# A world in the page: fake peers whose behaviour a test writes, storage in memory, signaling that answers.
WORLD = """
  const R = await import("/reconnect.js");
  const FINGERPRINT = "sha-256 " + Array(32).fill("AB").join(":");
  const CANDIDATES = ["candidate:1 1 udp 2130706431 2001:db8::1 4000 typ host",
    "candidate:2 1 udp 1694498815 192.0.2.1 4000 typ srflx raddr 0.0.0.0 rport 0"];
  const ticketOf = (change = {}) => ({ufrag: "lrc1/" + "A".repeat(90), pwd: "p".repeat(32), fingerprint: FINGERPRINT,
    candidates: CANDIDATES, sctpPort: 5000, maxMessageSize: 262144, expires: Date.now() + 3600e3, ...change});
  const SDP = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
    "c=IN IP4 0.0.0.0", "a=mid:0", ...CANDIDATES.map((line) => "a=" + line), ""].join("\\r\\n");
  const TOKEN = "session-" + "T".repeat(22), RENEWED = "session-" + "R".repeat(22);
  const answerOf = (change = {}) => ({type: "answer", sdp: SDP, connectionMode: "normal", sessionToken: TOKEN, ...change});
  const later = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

  class FakeChannel extends EventTarget {
    constructor(label, init) { super(); Object.assign(this, {label, init, readyState: "connecting", bufferedAmount: 0, sent: []}); }
    send(data) { this.sent.push(JSON.parse(data)); if (this.heard) this.heard(JSON.parse(data)); }
    say(data) { this.dispatchEvent(new MessageEvent("message", {data: typeof data === "string" ? data : JSON.stringify(data)})); }
    become(state) { this.readyState = state === "close" ? "closed" : state; this.dispatchEvent(new Event(state)); }
  }
  const world = {peers: [], local: "1", behave: (peer) => peer.open()};
  class FakePeer extends EventTarget {
    constructor(configuration) {
      super();
      Object.assign(this, {configuration, channels: [], iceConnectionState: "new", connectionState: "new", sctp: null, taken: []});
      world.peers.push(this);
    }
    createDataChannel(label, init) { const made = new FakeChannel(label, init); this.channels.push(made); return made; }
    // One key for all, as if the certificate had been kept.
    async setLocalDescription() { this.localDescription = {type: "offer", sdp: `v=0\\r\\na=fingerprint:${FINGERPRINT}\\r\\n`}; }
    async setRemoteDescription({sdp}) {
      this.remote = sdp;
      this.hasTicket = sdp.includes("a=ice-ufrag:lrc1/");
      if (!this.isClosed) world.behave(this);
    }
    async addIceCandidate(candidate) { this.taken.push(candidate); if (this.takes) this.takes(candidate); }
    async getStats() { return new Map(world.reports || []); }
    open() {
      this.iceConnectionState = this.connectionState = "connected";
      this.dispatchEvent(new Event("connectionstatechange"));
      for (const channel of this.channels) channel.become("open");
    }
    failIce() { this.iceConnectionState = "failed"; this.dispatchEvent(new Event("iceconnectionstatechange")); }
    close() { this.isClosed = true; this.connectionState = "closed"; }
    get control() { return this.channels.find(({label}) => label === "reconnect"); }
  }
  const textStorage = () => {
    const items = new Map();
    return {items, getItem: (name) => items.has(name) ? items.get(name) : null,
      setItem: (name, text) => { items.set(name, String(text)); }, removeItem: (name) => { items.delete(name); }};
  };
  const storageOf = () => {
    let kept;
    return {local: textStorage(), session: textStorage(),
      certificates: {get: async () => kept, put: async (one) => { kept = one; }, delete: async () => { kept = undefined; }}};
  };
  const signalingOf = (...answers) => {
    const made = {offers: [], contexts: [], sent: [], exchange(offer, context) {
      made.offers.push(offer);
      made.contexts.push(context);
      const next = answers.length > 1 ? answers.shift() : answers[0];
      return {answer: Promise.resolve(typeof next === "function" ? next(offer, context) : next || answerOf()),
        sendCandidate: (candidate) => made.sent.push(candidate)};
    }};
    return made;
  };
  const open = [];
  const connectionOf = (change = {}) => {
    const told = {attempts: [], warnings: [], caches: [], states: [], lost: [], log: []};
    const connection = new R.Connection({signaling: signalingOf(), channels: [{label: "echo", id: 1}], fastTimeout: 80,
      normalTimeout: 300, createPeer: (configuration) => new FakePeer(configuration), storage: storageOf(),
      log: (line) => told.log.push(line), ...change});
    open.push(connection);
    connection.addEventListener("attempt", ({detail}) => told.attempts.push(`${detail.mode} ${detail.state} ${detail.reason}`));
    connection.addEventListener("warning", ({detail}) => told.warnings.push(`${detail.what} ${detail.error.kind}`));
    connection.addEventListener("cache", ({detail}) => told.caches.push(`${detail.action} ${detail.valid} ${detail.reason}`));
    connection.addEventListener("state", ({detail}) => told.states.push(detail.state));
    connection.addEventListener("lost", ({detail}) => told.lost.push(detail.kind));
    return Object.assign(connection, {told});
  };
  // Storage as a connection has left it that had this token, and a ticket if there is one.
  const visited = async (ticket, change = {}) => {
    const storage = storageOf();
    const connection = connectionOf({storage, signaling: signalingOf(answerOf({ticket})), ...change});
    await connection.connect();
    await later(0);
    connection.close();
    world.peers.length = 0;
    return storage;
  };
  // Statistics of pairs by family: the first is in use, all have answered.
  const answered = (...families) => families.flatMap((family, index) => [
    [`pair ${family}`, {type: "candidate-pair", state: "succeeded", nominated: index === 0, remoteCandidateId: family}],
    [family, {type: "remote-candidate", address: {ipv6: "2001:db8::1", ipv4: "192.0.2.1"}[family]}]]);
  const failure = (promise) => promise.then(() => null, (error) => error);
  const verdict = (does) => { try { does(); return "taken"; } catch (error) {
    return error instanceof R.ReconnectError ? error.kind : String(error); } };
  try {
"""
END = "\n} finally { for (const connection of open) connection.close(); }"


class Blank(Page):
    """A tab on an empty page of a site with the module."""

    def world(self, body, *args, timeout=30):
        return self.tab.evaluate(LIBRARY + WORLD + body + END, *args, timeout=timeout)


@pytest.fixture(scope="module")
def site():
    with web.Site() as site:
        yield site


@pytest.fixture
def blank(site, browser):
    browser.console()
    tab = browser.new_tab()
    page = Blank(tab, site.url + "blank")
    page.open()
    yield page
    errors = [entry["text"] for entry in browser.console() if entry["level"] == "error"]
    tab.close_tab()
    assert errors == []


# ---- What comes from outside


def test_candidates_are_judged_field_by_field(blank):
    good = [
        "candidate:1 1 udp 2130706431 192.0.2.1 4000 typ host",
        "candidate:a+/9 1 UDP 1 2001:db8::1 65535 typ srflx raddr :: rport 0",
        "candidate:1 1 tcp 1 1:2:3:4:5:6:7:8 9 typ relay raddr 192.0.2.1 rport 9 tcptype passive generation 0",
        "candidate:1 1 udp 1 ::ffff:192.0.2.1 1 typ prflx",
        "candidate:1 1 udp 1 127.0.0.1 1 typ host",
    ]
    start = "candidate:1 1 udp 1 "
    bad = [
        "",
        "x" * 600,
        "a=" + good[0],
        good[0] + "\r\na=setup:active",
        good[0] + "\n",
        good[0] + " generation",
        good[0].replace("host", "guest"),
        good[0].replace("udp", "dccp"),
        good[0].replace("4000", "0"),
        good[0].replace("4000", "65536"),
        good[0].replace("2130706431", "4294967295"),
        good[0].replace(":1 1", ":1 0"),
        good[0].replace("candidate:1", "candidate:" + "f" * 33),
        good[1].replace("::", "::x"),
        good[1].replace("rport 0", "rport 65536"),
        good[2].replace("passive", "maybe"),
        *[
            f"{start}{address} 4000 typ host"
            for address in [
                "256.0.0.1",
                "1.2.3",
                "01.2.3.4",
                "0.0.0.0",
                "224.0.0.1",
                "255.255.255.255",
                "::",
                "ff02::1",
                "1::2::3",
                "1:2:3:4:5:6:7",
                "1:2:3:4:5:6:7:8:9",
                "1:2:3:4:5:6:7::8",
                "fe80::1%eth0",
                "12345::1",
                "host.local",
                ":1:2:3:4:5:6:7:8",
            ]
        ],
    ]
    # The last one has a :: that stands for one group; RFC 4291 allows it.
    bad.remove(f"{start}1:2:3:4:5:6:7::8 4000 typ host")
    wrong = blank.world(
        """const [good, bad] = args;
           return [...good.filter((line) => verdict(() => R.parseCandidate(line)) !== "taken"),
             ...[...bad, null, 7, {}, [bad]].filter((line) => verdict(() => R.parseCandidate(line)) !== "protocol")]""",
        good,
        bad,
    )
    assert wrong == []


def test_tickets_are_judged_field_by_field(blank):
    wrong = blank.world(
        """const bad = [null, [], "ticket", {}, ...[
             {ufrag: "lrc1/"}, {ufrag: "lrc2/" + "A".repeat(90)}, {ufrag: "lrc1/" + "A".repeat(200)}, {ufrag: "lrc1/AAAA\\r\\na=x"},
             {ufrag: "lrc1/AAAAA="}, {ufrag: 7}, {pwd: "short"}, {pwd: "p".repeat(257)}, {pwd: "p".repeat(30) + "\\n"},
             {fingerprint: "sha-256 AB"}, {fingerprint: FINGERPRINT + ":AB"}, {fingerprint: "md5 " + FINGERPRINT.slice(8)},
             {fingerprint: FINGERPRINT + "\\r\\na=x"}, {candidates: []}, {candidates: Array(33).fill(CANDIDATES[0])},
             {candidates: [CANDIDATES[0] + "\\r\\na=x"]}, {candidates: CANDIDATES[0]}, {candidates: [7]}, {sctpPort: "5000"},
             {sctpPort: 0}, {sctpPort: 65536}, {maxMessageSize: -1}, {maxMessageSize: 1.5}, {expires: "soon"}, {expires: NaN},
             {expires: 0}, {derivedInit: 1},
           ].map(ticketOf)];
           const missing = Object.keys(ticketOf()).map((name) => { const one = ticketOf(); delete one[name]; return one; });
           const good = [{}, {unknown: {a: [1]}}, {derivedInit: false}, {maxMessageSize: 0}].map(ticketOf);
           return [...[...bad, ...missing].filter((one) => verdict(() => R.parseTicket(one)) !== "protocol"),
             ...good.filter((one) => verdict(() => R.parseTicket(one)) !== "taken"),
             ...Object.keys(R.parseTicket(good[1])).filter((name) => name === "unknown")]"""
    )
    assert wrong == []


def test_answers_and_candidate_messages_are_judged(blank):
    wrong = blank.world(
        """const bad = [null, [], 7, {}, ...[{type: "offer"}, {sdp: 7}, {sdp: ""}, {sdp: "x"}, {sdp: "v=0" + "x".repeat(300000)},
             {connectionMode: "quick"}, {connectionMode: undefined}, {sessionToken: 7}, {sessionToken: ""},
             {sessionToken: "a b"}, {sessionToken: "x".repeat(600)}].map(answerOf)];
           const good = [{}, {connectionMode: "fast"}, {sessionToken: undefined}, {unknown: 1}].map(answerOf);
           const badCandidates = [null, {}, 7, {candidate: 7}, {candidate: "x"}, {candidate: {}}, {candidate: {candidate: 7}},
             {candidate: {candidate: "candidate:" + "x".repeat(600)}}, {candidate: {candidate: "candidate:1\\r\\na=x"}},
             {candidate: {candidate: CANDIDATES[0], sdpMid: 7}}, {candidate: {candidate: CANDIDATES[0], sdpMLineIndex: -1}}];
           const ends = [{candidate: null}, {candidate: {candidate: ""}}, {candidate: {candidate: "end-of-candidates"}}];
           return [...bad.filter((one) => verdict(() => R.parseAnswer(one)) !== "protocol"),
             ...good.filter((one) => verdict(() => R.parseAnswer(one)) !== "taken"),
             ...badCandidates.filter((one) => verdict(() => R.parseCandidateMessage(one)) !== "protocol"),
             ...ends.filter((one) => R.parseCandidateMessage(one) !== null)]"""
    )
    assert wrong == []


def test_description_of_a_ticket_is_the_documented_one(blank):
    text = (hosts.ROOT / "docs/formats.md").read_text()
    template = re.search(r"^```\n(v=0\n.*?)```", text, re.M | re.S).group(1)
    made = blank.world("const ticket = ticketOf(); return [ticket, R.descriptionOf(ticket)]")
    ticket, description = made
    lines = []
    for line in template.splitlines():
        if line == "a=<candidates, one line each>":
            lines += ["a=" + candidate for candidate in ticket["candidates"]]
        else:
            lines.append(re.sub(r"<(\w+)>", lambda match: str(ticket[match.group(1)]), line))
    assert description == "".join(line + "\r\n" for line in lines)


# ---- The first visit


def test_first_connect_is_normal_and_keeps_the_documented_entry(blank):
    seen = blank.world(
        """const storage = storageOf();
           const connection = connectionOf({storage, signaling: signalingOf(answerOf({ticket: ticketOf()}))});
           const result = await connection.connect();
           await later(0);
           const offer = connection.told && world.peers.length;
           return {result, peers: offer, told: connection.told, entry: JSON.parse(storage.local.items.get("webrtc_connection_cache")),
             names: [...storage.local.items.keys()], session: connection.session.token, age: Date.now() -
             JSON.parse(storage.local.items.get("webrtc_connection_cache")).timestamp, control: world.peers[0].control.init}"""
    )
    assert seen["result"]["mode"] == "normal" and seen["result"]["fallback"] is None and seen["peers"] == 1
    assert list(seen["result"]["timings"]) == ["prepared", "answer", "ice", "dtls", "open"]
    assert seen["told"]["attempts"] == [
        "zero-signaling skipped no-ticket",
        "fast skipped no-cache",
        "normal started no-cache",
        "normal won null",
    ]
    assert seen["told"]["states"][:2] == ["connecting", "connected"] and seen["told"]["warnings"] == []
    assert seen["control"] == {"negotiated": True, "id": 255}
    entry = seen["entry"]
    timestamp = entry.pop("timestamp")
    assert isinstance(timestamp, int) and 0 <= seen["age"] < 60000
    six, four = [
        [{"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0}]
        for line in [
            "candidate:1 1 udp 2130706431 2001:db8::1 4000 typ host",
            "candidate:2 1 udp 1694498815 192.0.2.1 4000 typ srflx raddr 0.0.0.0 rport 0",
        ]
    ]
    assert entry == {
        "ipv6HostCandidates": six,
        "ipv6SrflxCandidates": [],
        "ipv4HostCandidates": [],
        "ipv4SrflxCandidates": four,
        "ipv6RelayCandidates": [],
        "ipv4RelayCandidates": [],
        "lastSuccessfulProtocol": "both",
        "sessionId": "session-" + "T" * 22,
    }
    # The ticket is the live page's own until it leaves.
    assert seen["names"] == ["webrtc_connection_cache"]


def test_log_lines_have_the_documented_form(blank):
    log = blank.world(
        """const storage = await visited(ticketOf());
           const back = connectionOf({storage, tickets: false, signaling: signalingOf(answerOf({connectionMode: "fast"}), answerOf())});
           world.behave = (peer) => { if (world.peers.length > 1) peer.open(); };
           await back.connect();
           await later(0);
           return back.told.log"""
    )
    forms = [
        r"\[CACHE\] Action=load Age=0s Valid=true IPv6=1 IPv4=1 Protocol=both",
        r"\[FAST_RELOAD\] Session=TTTTTTTT Mode=fast Protocol=both Duration=\d+ms Result=fallback",
        r"\[CACHE\] Action=clear Age=0s Valid=false IPv6=0 IPv4=0 Protocol=none",
        r"\[CACHE\] Action=save Age=0s Valid=true IPv6=1 IPv4=1 Protocol=both",
        r"\[CANDIDATE\] IPv6 Host=1 IPv6 srflx=0 IPv4 srflx=1 IPv4 relay=0",
        r"\[NORMAL\] Session=TTTTTTTT Mode=normal Protocol=both Duration=\d+ms Result=success",
    ]
    assert [re.fullmatch(form, line) is not None for form, line in zip(forms, log, strict=True)] == [True] * len(
        forms
    ), log


def test_module_leaves_nothing_global(blank):
    names = blank.run(
        """const before = new Set(Object.getOwnPropertyNames(globalThis));
           const {Connection} = await import("/reconnect.js");
           return [Object.getOwnPropertyNames(globalThis).filter((name) => !before.has(name)), typeof Connection]"""
    )
    assert names == [[], "function"]


# ---- Coming back: with a ticket


def test_ticket_needs_no_signaling(blank):
    seen = blank.world(
        """const storage = await visited(ticketOf());
           const left = [storage.local.items.has("webrtc_connection_ticket"), storage.session.items.has("webrtc_connection_ticket")];
           const signaling = signalingOf(() => new Promise(() => {}));
           const back = connectionOf({storage, signaling});
           const taken = [storage.local.items.has("webrtc_connection_ticket"), storage.session.items.has("webrtc_connection_ticket")];
           const result = await back.connect();
           await later(0);
           const first = world.peers[0];
           return {left, taken, mode: result.mode, timings: Object.keys(result.timings), attempts: back.told.attempts,
             first: [first.hasTicket, first.remote === R.descriptionOf(ticketOf({expires: 1}))], metrics: back.metrics,
             others: world.peers.slice(1).map((peer) => peer.isClosed), aborted: signaling.contexts.map(({signal}) => signal.aborted),
             tokens: signaling.offers.map((offer) => "sessionToken" in offer)}"""
    )
    assert (seen["left"], seen["taken"]) == ([True, True], [False, False])
    assert (seen["mode"], seen["timings"]) == ("zero-signaling", ["prepared", "ice", "dtls", "open"])
    assert seen["first"] == [True, True]
    assert seen["attempts"] == [
        "zero-signaling started null",
        "normal started race",
        "normal stopped overtaken",
        "zero-signaling won null",
    ]
    # The race's other side is closed, its exchange given up, and it would have been a new session.
    assert (seen["others"], seen["tokens"]) == ([True], [False] * len(seen["tokens"]))
    assert all(seen["aborted"])
    assert seen["metrics"]["attempts"]["zero-signaling"]["both"] == 1
    assert (seen["metrics"]["cacheHits"], seen["metrics"]["connections"]["zero-signaling"]) == (1, 1)


def test_ticket_attempt_starts_first(blank):
    order = blank.world(
        """const storage = await visited(ticketOf());
           const order = [];
           const signaling = signalingOf(() => { order.push("offer"); return answerOf(); });
           world.behave = (peer) => { order.push(peer.hasTicket ? "ticket" : "answer"); };
           const back = connectionOf({storage, signaling, fastTimeout: 1000, normalTimeout: 1000});
           back.connect().catch(() => {});
           await later(50);
           return order"""
    )
    assert order[0] == "ticket" and sorted(order) == ["answer", "offer", "ticket"]


def test_normal_attempt_that_is_first_wins_the_race(blank):
    seen = blank.world(
        """const storage = await visited(ticketOf());
           world.behave = (peer) => { if (!peer.hasTicket) peer.open(); };
           const back = connectionOf({storage, fastTimeout: 5000, signaling: signalingOf(answerOf({sessionToken: RENEWED}))});
           const {mode, fallback} = await back.connect();
           await later(0);
           return {mode, fallback, attempts: back.told.attempts, closed: world.peers.map((peer) => Boolean(peer.isClosed)),
             token: back.session.token === RENEWED, ticket: back.session.ticket, fallbacks: back.metrics.fallbacks.both}"""
    )
    assert (seen["mode"], seen["fallback"], seen["fallbacks"]) == ("normal", None, {})
    assert seen["attempts"][-2:] == ["zero-signaling stopped overtaken", "normal won null"]
    assert seen["closed"] == [True, False]
    # The ticket belonged to the session before.
    assert (seen["token"], seen["ticket"]) == (True, None)


@pytest.mark.parametrize("how, reason", [("refused", "ice"), ("silent", "timeout")])
@pytest.mark.parametrize("policy", ["race", "fallback"])
def test_ticket_that_fails_is_followed_by_one_normal_attempt(blank, policy, how, reason):
    seen = blank.world(
        """const [policy, how] = args;
           const storage = await visited(ticketOf());
           world.behave = (peer) => {
             if (!peer.hasTicket) setTimeout(() => peer.open(), 150);
             else if (how === "refused") peer.failIce();
           };
           const signaling = signalingOf();
           const back = connectionOf({storage, policy, signaling});
           const {mode, fallback} = await back.connect();
           await later(0);
           return {mode, fallback, attempts: back.told.attempts, offers: signaling.offers.length, peers: world.peers.length,
             ticket: back.session.ticket, fallbacks: back.metrics.fallbacks.both}""",
        policy,
        how,
    )
    assert (seen["mode"], seen["fallback"], seen["offers"], seen["peers"]) == ("normal", "ice", 1, 2)
    assert seen["attempts"] == [
        "zero-signaling started null",
        *(["normal started race"] if policy == "race" else []),
        f"zero-signaling failed {reason}",
        *([f"normal started {reason}"] if policy == "fallback" else []),
        "normal won null",
    ]
    assert (seen["ticket"], seen["fallbacks"]) == (None, {reason: 1})


def test_connected_is_not_won(blank):
    seen = blank.world(
        """const storage = await visited(ticketOf());
           world.behave = (peer) => {
             if (!peer.hasTicket) return void setTimeout(() => peer.open(), 30);
             peer.iceConnectionState = peer.connectionState = "connected";   // and the server refuses in silence
             peer.dispatchEvent(new Event("connectionstatechange"));
           };
           const back = connectionOf({storage, fastTimeout: 2000});
           return (await back.connect()).mode"""
    )
    assert seen == "normal"


@pytest.mark.parametrize(
    "ticket, reason",
    [
        ("{expires: Date.now() - 1}", "expired"),
        ("{expires: Date.now() + 300}", "expired"),
        ("{derivedInit: true}", "derived-init"),
    ],
)
def test_ticket_that_is_of_no_use_is_not_tried(blank, ticket, reason):
    attempts = blank.world(
        """const storage = await visited(ticketOf(eval(`(${args[0]})`)));
           const back = connectionOf({storage});
           await back.connect();
           return back.told.attempts""",
        ticket,
    )
    assert attempts[0] == f"zero-signaling skipped {reason}"
    assert attempts[1].startswith("fast started")


def test_stored_ticket_that_is_not_valid_is_not_used(blank):
    seen = blank.world(
        """const seen = [];
           for (const change of [() => "{", () => "[]", () => "x".repeat(100000), (text) => text.replace("lrc1/", "lrc9/"),
               (text) => text.replace("192.0.2.1 4000", "192.0.2.1 4000 typ host\\\\r\\\\na=x"),
               (text) => JSON.stringify({...JSON.parse(text), timestamp: Date.now() + 1e7}),
               (text) => JSON.stringify({...JSON.parse(text), client: 7})]) {
             const storage = await visited(ticketOf());
             for (const side of [storage.local, storage.session]) {
               side.setItem("webrtc_connection_ticket", change(side.getItem("webrtc_connection_ticket")));
             }
             const back = connectionOf({storage});
             seen.push([(await back.connect()).mode, back.told.attempts[0], back.told.warnings.slice(0, 1)]);
             back.close();
           }
           return seen"""
    )
    assert seen == [["normal", "zero-signaling skipped no-ticket", ["ticket protocol"]]] * 7


def test_ticket_of_another_certificate_is_not_used(blank):
    seen = blank.world(
        """const storage = await visited(ticketOf());
           await storage.certificates.delete();
           const back = connectionOf({storage});
           const gone = [(await back.connect()).mode, back.told.attempts.slice(0, 2)];
           back.close();
           const other = await visited(ticketOf());
           const text = other.session.getItem("webrtc_connection_ticket");
           other.session.setItem("webrtc_connection_ticket", text.replace('"client":"sha-256 AB', '"client":"sha-256 CD'));
           const second = connectionOf({storage: other});
           return [gone, [(await second.connect()).mode, second.told.attempts.slice(0, 3), world.peers.some((peer) => peer.hasTicket)]]"""
    )
    assert seen[0] == ["normal", ["zero-signaling skipped certificate", "normal started certificate"]]
    assert seen[1][0] == "normal" and seen[1][2] is False
    assert seen[1][1][2] == "zero-signaling failed dtls"


# ---- Coming back: with a session


def test_session_makes_it_fast(blank):
    seen = blank.world(
        """const storage = await visited(undefined);
           const signaling = signalingOf(answerOf({connectionMode: "fast", sessionToken: RENEWED}));
           const back = connectionOf({storage, signaling});
           const {mode, tokenSent, certificate} = await back.connect();
           return [mode, tokenSent, certificate, signaling.offers[0].sessionToken === TOKEN, signaling.offers[0].ticket,
             back.session.token === RENEWED]"""
    )
    assert seen == ["fast", True, "kept", True, True, True]


def test_fast_attempt_that_fails_is_followed_by_one_normal_one_and_no_more(blank):
    seen = blank.world(
        """const storage = await visited(undefined);
           const signaling = signalingOf(answerOf({connectionMode: "fast"}), answerOf());
           world.behave = () => {};
           const back = connectionOf({storage, signaling});
           const error = await failure(back.connect());
           await later(300);   // more than another attempt would need to begin
           return {kind: error.kind, timeout: error.timeout, attempts: back.told.attempts, states: back.told.states,
             offers: signaling.offers.map((offer) => "sessionToken" in offer), peers: world.peers.map((peer) => peer.isClosed),
             cache: storage.local.items.has("webrtc_connection_cache"), token: back.session.token, failures: back.metrics.failures}"""
    )
    assert (seen["kind"], seen["timeout"], seen["offers"]) == ("ice", True, [True, False])
    assert seen["attempts"][1:] == [
        "fast started null",
        "fast failed timeout",
        "normal started timeout",
        "normal failed timeout",
    ]
    assert (seen["states"][:2], seen["peers"]) == (["connecting", "failed"], [True, True])
    # Nothing of a failure is kept.
    assert (seen["cache"], seen["token"], seen["failures"]) == (False, None, 1)


def test_session_that_the_server_does_not_know_is_told(blank):
    seen = blank.world(
        """const storage = await visited(undefined);
           const signaling = signalingOf(answerOf({sessionToken: RENEWED}));
           world.behave = (peer) => setTimeout(() => peer.open(), 120);   // the fast timeout does not count any more
           const back = connectionOf({storage, signaling});
           const {mode, fallback, tokenSent} = await back.connect();
           return {mode, fallback, tokenSent, attempts: back.told.attempts, offers: signaling.offers.length,
             fallbacks: back.metrics.fallbacks.both, token: back.session.token === RENEWED}"""
    )
    assert (seen["mode"], seen["fallback"], seen["tokenSent"], seen["offers"]) == ("normal", None, True, 1)
    assert seen["attempts"][1:] == [
        "fast started null",
        "fast failed session-unknown",
        "normal started session-unknown",
        "normal won null",
    ]
    assert (seen["fallbacks"], seen["token"]) == ({"session-unknown": 1}, True)


def test_signaling_that_does_not_answer_costs_nothing_that_is_kept(blank):
    seen = blank.world(
        """const seen = [];
           for (const ticket of [undefined, ticketOf()]) {
             const storage = await visited(ticket);
             world.behave = (peer) => {};
             const signaling = signalingOf(() => Promise.reject(new R.ReconnectError("unreachable", "away")), answerOf({connectionMode: "fast"}));
             const back = connectionOf({storage, signaling});
             const {kind} = await failure(back.connect());
             world.behave = (peer) => peer.open();
             seen.push([kind, (await back.connect()).mode]);
             back.close();
           }
           return seen"""
    )
    assert seen == [["unreachable", "fast"], ["unreachable", "zero-signaling"]]


# ---- Storage


@pytest.mark.parametrize(
    "change",
    [
        "() => ''",
        "() => '{'",
        "() => 'null'",
        "() => '[]'",
        "() => '7'",
        "() => '['.repeat(60000)",
        "() => JSON.stringify('x'.repeat(5000000))",
        "(e) => ({...e, ipv6HostCandidates: undefined})",
        "(e) => ({...e, ipv6HostCandidates: {}})",
        "(e) => ({...e, ipv6HostCandidates: e.ipv4SrflxCandidates})",
        "(e) => ({...e, ipv6HostCandidates: Array(33).fill(e.ipv6HostCandidates[0])})",
        "(e) => ({...e, ipv6HostCandidates: [null]})",
        "(e) => ({...e, ipv6HostCandidates: [{candidate: 'candidate:1 1 udp 1 ff02::1 1 typ host'}]})",
        "(e) => ({...e, ipv6HostCandidates: [{...e.ipv6HostCandidates[0], sdpMid: 7}]})",
        "(e) => ({...e, ipv6HostCandidates: [{...e.ipv6HostCandidates[0], sdpMLineIndex: '0'}]})",
        "(e) => ({...e, ipv6RelayCandidates: 'none'})",
        "(e) => ({...e, lastSuccessfulProtocol: 'ipv5'})",
        "(e) => ({...e, timestamp: 'now'})",
        "(e) => ({...e, timestamp: null})",
        "(e) => ({...e, timestamp: -1})",
        "(e) => ({...e, timestamp: Date.now() + 60000})",
        "(e) => ({...e, sessionId: 7})",
        "(e) => ({...e, sessionId: ''})",
        "(e) => ({...e, sessionId: 'a\\nb'})",
        "(e) => ({...e, lastConnectedIPv6: 'yes'})",
        "(e) => JSON.parse('{\"__proto__\": ' + JSON.stringify(e) + '}')",
    ],
)
def test_cache_that_cannot_be_used_means_normal(blank, change):
    seen = blank.world(
        """const storage = await visited(undefined);
           const made = eval(args[0])(JSON.parse(storage.local.getItem("webrtc_connection_cache")));
           storage.local.setItem("webrtc_connection_cache", typeof made === "string" ? made : JSON.stringify(made));
           const signaling = signalingOf();
           const back = connectionOf({storage, signaling});
           const {mode} = await back.connect();
           return [mode, "sessionToken" in signaling.offers[0], back.told.caches[0], back.told.warnings, back.metrics.cacheMisses]""",
        change,
    )
    assert seen == ["normal", False, "load false corrupt", ["cache protocol"], 1]


def test_cache_of_the_first_format_and_unknown_members_are_fine(blank):
    modes = blank.world(
        """const modes = [];
           for (const change of [(e) => { delete e.ipv4HostCandidates; delete e.ipv6RelayCandidates; }, (e) => { e.unknown = {a: 1}; }]) {
             const storage = await visited(undefined);
             const entry = JSON.parse(storage.local.getItem("webrtc_connection_cache"));
             change(entry);
             storage.local.setItem("webrtc_connection_cache", JSON.stringify(entry));
             const back = connectionOf({storage, signaling: signalingOf(answerOf({connectionMode: "fast"}))});
             modes.push((await back.connect()).mode);
             back.close();
           }
           return modes"""
    )
    assert modes == ["fast", "fast"]


def test_stale_cache_means_normal(blank):
    seen = blank.world(
        """const seen = [];
           for (const age of [299000, 301000]) {
             const storage = await visited(undefined);
             const entry = JSON.parse(storage.local.getItem("webrtc_connection_cache"));
             storage.local.setItem("webrtc_connection_cache", JSON.stringify({...entry, timestamp: Date.now() - age}));
             const back = connectionOf({storage, signaling: signalingOf((offer) => answerOf({connectionMode: offer.sessionToken ? "fast" : "normal"}))});
             seen.push([(await back.connect()).mode, back.told.caches[0], back.told.warnings.length]);
             back.close();
           }
           return seen"""
    )
    assert seen == [["fast", "load true null", 0], ["normal", "load false stale", 0]]


@pytest.mark.parametrize("method", ["getItem", "setItem", "removeItem", "all", "missing"])
def test_storage_that_throws_means_normal(blank, method):
    seen = blank.world(
        """const [method] = args;
           const broken = () => {
             const storage = textStorage();
             const fail = () => { throw new DOMException("full", "QuotaExceededError"); };
             for (const name of method === "all" ? ["getItem", "setItem", "removeItem"] : [method]) storage[name] = fail;
             return storage;
           };
           const storage = method === "missing" ? {get local() { throw new Error("off"); }, get session() { throw new Error("off"); },
             certificates: {get: async () => { throw new Error("off"); }, put: async () => { throw new Error("off"); }, delete: async () => {}}}
             : {...storageOf(), local: broken(), session: broken()};
           const back = connectionOf({storage, signaling: signalingOf(answerOf({ticket: ticketOf()}))});
           const first = await back.connect();
           await back.forget();
           const second = await back.reconnect();
           back.close();
           return [first.mode, second.mode, back.told.warnings.length > 0]""",
        method,
    )
    assert seen == ["normal", "normal", method != "removeItem"]


def test_session_lives_in_one_tab_at_a_time(blank):
    seen = blank.world(
        """const first = await visited(ticketOf());
           // A second tab shares localStorage and the certificate, a reload has its own sessionStorage too.
           const tab = (storage) => connectionOf({storage, signaling: signalingOf(answerOf({sessionToken: RENEWED, ticket: ticketOf()}))});
           const other = {...first, session: textStorage()};
           const reloaded = tab(first);
           const mine = [(await reloaded.connect()).mode, reloaded.session.token === TOKEN];
           const live = [...first.session.items.keys()];
           reloaded.close();
           first.session.items.clear();                       // the tab is closed
           const later_ = tab({...other});
           const handed = [(await later_.connect()).mode, later_.session.token === TOKEN];
           const copied = {...other, session: textStorage()};
           for (const [name, text] of other.session.items) copied.session.setItem(name, text);
           later_.disconnect();
           const token = later_.session.token;
           later_.close = () => {};                            // it lives on in its tab
           return [mine, handed, [...live, ...copied.session.items.keys()], [...first.local.items.keys()]]"""
    )
    assert seen[0] == ["zero-signaling", True] and seen[1] == ["zero-signaling", True]
    # A duplicate of the live tab finds neither token nor ticket.
    assert (seen[2], seen[3]) == ([], ["webrtc_connection_cache"])


def test_certificate_lives_as_long_as_the_session(blank):
    seen = blank.world(
        """const storage = storageOf();
           const certificates = [];
           const put = storage.certificates.put;
           storage.certificates.put = (one) => { certificates.push(one); return put(one); };
           const visit = async (change) => {
             const connection = connectionOf({storage});
             const {certificate} = await connection.connect();
             const used = world.peers.at(-1).configuration.certificates[0];
             connection.close();
             return [certificate, certificates.indexOf(used)];
           };
           const seen = [await visit(), await visit()];
           storage.local.items.clear();
           storage.session.items.clear();
           return [...seen, await visit()]"""
    )
    assert seen == [["new", 0], ["kept", 0], ["new", 1]]


def test_certificate_that_cannot_be_used_is_replaced(blank):
    seen = blank.world(
        """const seen = [];
           for (const ticket of [undefined, ticketOf()]) {
             const storage = await visited(ticket);
             const bad = await storage.certificates.get();
             const back = connectionOf({storage, createPeer: (configuration) => {
               if (configuration.certificates[0] === bad) throw new DOMException("expired", "InvalidAccessError");
               return new FakePeer(configuration);
             }});
             const {mode, certificate} = await back.connect();
             seen.push([mode, certificate, (await storage.certificates.get()) !== bad]);
             back.close();
           }
           return seen"""
    )
    assert seen == [["normal", "new", True]] * 2


def test_without_certificate_nothing_is_kept(blank):
    seen = blank.world(
        """const storage = storageOf();
           const signaling = signalingOf(answerOf({ticket: ticketOf()}));
           const one = connectionOf({storage, signaling, certificate: false});
           const first = await one.connect();
           const second = await one.reconnect();
           one.close();
           return [first.mode, second.mode, first.certificate, storage.local.items.size + storage.session.items.size,
             await storage.certificates.get() === undefined, signaling.offers.some((offer) => offer.ticket || offer.sessionToken),
             world.peers.some(({configuration}) => configuration.certificates)]"""
    )
    assert seen == ["normal", "normal", "off", 0, True, False, False]


# ---- Switches


def test_kill_switch_leaves_the_cache_unused(blank):
    seen = blank.world(
        """const storage = await visited(ticketOf());
           const kept = storage.local.getItem("webrtc_connection_cache");
           let during = null;
           const signaling = signalingOf((offer) => {
             during = during || storage.local.getItem("webrtc_connection_cache");
             return answerOf({ticket: ticketOf()});
           });
           const back = connectionOf({storage, enabled: false, signaling});
           const off = [(await back.connect()).mode, back.told.attempts.slice(0, 2), "sessionToken" in signaling.offers[0], during === kept];
           back.setEnabled(true);
           const on = (await back.reconnect()).mode;
           back.setEnabled(false);
           return [off, on, (await back.reconnect()).mode]"""
    )
    assert seen == [
        ["normal", ["zero-signaling skipped disabled", "fast skipped disabled"], False, True],
        "zero-signaling",
        "normal",
    ]


def test_network_change_clears_the_cache(blank):
    seen = blank.world(
        """const storage = await visited(undefined);
           const back = connectionOf({storage, heartbeat: {interval: 10000}});
           dispatchEvent(new Event("online"));
           const before = storage.local.items.has("webrtc_connection_cache");
           const {mode} = await back.connect();
           const connected = storage.local.items.has("webrtc_connection_cache");
           dispatchEvent(new Event("online"));
           const changed = storage.local.items.has("webrtc_connection_cache");
           const {control} = world.peers.at(-1);
           control.say({type: "pong", id: control.sent.at(-1).id});   // the path has outlived the change
           return [before, mode, connected, changed, storage.local.items.has("webrtc_connection_cache"), back.told.caches]"""
    )
    assert seen[:5] == [False, "normal", True, False, True]
    assert "clear false network-change" in seen[5]


def test_one_connection_for_a_key(blank):
    seen = blank.world(
        """const first = connectionOf();
           const second = verdict(() => connectionOf());
           const other = verdict(() => connectionOf({key: "other"}));
           first.close();
           first.close();
           return [second, other, verdict(() => connectionOf()), (await failure(first.connect())).kind]"""
    )
    assert seen == ["busy", "taken", "taken", "closed"]


def test_keys_keep_apart_what_they_keep(blank):
    names = blank.world(
        """const storage = storageOf();
           for (const key of [undefined, "b"]) {
             const one = connectionOf({storage, key, signaling: signalingOf(answerOf({ticket: ticketOf()}))});
             await one.connect();
             one.close();
           }
           return [...storage.local.items.keys()].sort()"""
    )
    assert names == [f"webrtc_connection_{name}{key}" for name in ("cache", "session", "ticket") for key in ("", ":b")]


def test_options_are_checked(blank):
    verdicts = blank.world(
        """return [{signaling: null}, {signaling: {}}, {key: ""}, {fastTimeout: 0}, {policy: "both"}, {channels: {}},
             {channels: [{id: 1}]}, {channels: [{label: "a", id: 255}]}, {channels: [{label: "a", id: 1}, {label: "b", id: 1}]},
             {channels: [{label: "a"}, {label: "a"}]}, {heartbeat: 7}, {heartbeat: {misses: 0}}, {reconnect: {base: 0}},
             {headStart: -1}, {headStart: 1001}, {headStart: "50"}]
             .map((change) => verdict(() => connectionOf(change)))"""
    )
    assert verdicts == ["argument"] * len(verdicts)


def test_connect_twice_is_one_connect(blank):
    seen = blank.world(
        """const signaling = signalingOf();
           const one = connectionOf({signaling});
           const both = [one.connect(), one.connect()];
           const [first, second] = await Promise.all(both);
           const third = await one.connect();
           const closing = one.reconnect();
           one.disconnect();
           return [first === second, second === third, signaling.offers.length, (await failure(closing)).kind, one.state]"""
    )
    assert seen == [True, True, 1, "closed", "idle"]


# ---- The control channel


def test_ticket_comes_over_the_control_channel(blank):
    seen = blank.world(
        """const storage = await visited(ticketOf());
           const back = connectionOf({storage, signaling: signalingOf(() => new Promise(() => {}))});
           await back.connect();
           const {control} = world.peers[0];
           const fresh = ticketOf({ufrag: "lrc1/" + "B".repeat(90), candidates: [CANDIDATES[1]]});
           control.say({type: "ticket", ticket: fresh, sessionToken: RENEWED});
           const entry = JSON.parse(storage.local.getItem("webrtc_connection_cache"));
           const held = [back.session.ticket.ufrag === fresh.ufrag, back.session.token === RENEWED, entry.sessionId === RENEWED,
             entry.ipv6HostCandidates.length, entry.ipv4SrflxCandidates.length];
           back.close();
           return [held, JSON.parse(storage.session.getItem("webrtc_connection_ticket")).ufrag === fresh.ufrag]"""
    )
    assert seen == [[True, True, True, 0, 1], True]


def test_hostile_control_messages_are_warnings(blank):
    seen = blank.world(
        """const one = connectionOf({signaling: signalingOf(answerOf({ticket: ticketOf()}))});
           await one.connect();
           const {control} = world.peers[0];
           const before = JSON.stringify(one.session);
           const hostile = ["", "{", "[]", "null", "7", "x".repeat(100000), {}, {type: 7}, {type: "ticket"}, {type: "ticket", ticket: {}},
             {type: "ticket", ticket: ticketOf({candidates: ["x"]})}, {type: "ticket", ticket: ticketOf(), sessionToken: 7},
             {type: "ping"}, {type: "ping", id: "1"}, {type: "ping", id: 1.5}, {type: "ping", id: 1e300}, {type: "pong", id: null}];
           for (const message of hostile) control.say(message);
           const {length} = one.told.warnings;
           control.dispatchEvent(new MessageEvent("message", {data: new ArrayBuffer(8)}));
           control.say({type: "news", of: "tomorrow"});        // unknown types are ignored
           const after = one.told.warnings.length;
           for (let i = 0; i < 5000; i++) control.say("{");
           return [length === hostile.length, after - length, one.told.warnings.every((text) => text === "control protocol"),
             one.told.warnings.length <= 100, JSON.stringify(one.session) === before, one.state, control.sent.length]"""
    )
    assert seen == [True, 1, True, True, True, "connected", 0]


def test_answers_pings_within_reason(blank):
    seen = blank.world(
        """const one = connectionOf();
           await one.connect();
           const {control} = world.peers[0];
           control.say({type: "ping", id: 7});
           control.bufferedAmount = 1e6;
           control.say({type: "ping", id: 8});
           return control.sent"""
    )
    assert seen == [{"type": "pong", "id": 7}]


@pytest.mark.parametrize("heartbeat", ["{interval: 20, misses: 3}", "{interval: 20, misses: 3, adaptive: true}"])
def test_heartbeat_finds_a_silent_server(blank, heartbeat):
    seen = blank.world(
        """const one = connectionOf({heartbeat: eval(`(${args[0]})`), reconnect: {base: 1, max: 1, attempts: 1}});
           await one.connect();
           const first = world.peers[0];
           let answers = true;
           first.control.heard = ({type, id}) => { if (type === "ping" && answers) first.control.say({type: "pong", id}); };
           first.control.say({type: "pong", id: first.control.sent[0].id});
           await later(300);
           const alive = [one.state, first.control.sent.length > 3, one.metrics.roundTripTime !== null];
           answers = false;
           const lost = event(one, "lost");
           world.behave = (peer) => { peer.open(); peer.control.heard = ({id}) => peer.control.say({type: "pong", id}); };
           await lost;
           const closed = [first.isClosed, first.connectionState];
           await event(one, "connected");
           return [alive, closed, one.told.lost, one.state, one.metrics.losses, world.peers.length]""",
        heartbeat,
    )
    assert seen == [["connected", True, True], [True, "closed"], ["lost"], "connected", 1, 2]


def test_data_is_a_heartbeat_too(blank):
    state = blank.world(
        """const one = connectionOf({heartbeat: {interval: 20, misses: 2}});
           await one.connect();
           const {control, channels} = world.peers[0];
           control.say({type: "pong", id: 1});
           for (let i = 0; i < 40; i++) { await later(10); channels[0].say("data"); }
           return one.state"""
    )
    assert state == "connected"


def test_server_without_pongs_is_not_lost(blank):
    seen = blank.world(
        """const one = connectionOf({heartbeat: {interval: 10, misses: 2}});
           await one.connect();
           const {control} = world.peers[0];
           await later(200);
           return [one.state, one.told.warnings, control.sent.length]"""
    )
    assert seen == ["connected", ["heartbeat protocol"], 2]


def test_channel_that_closes_is_the_end(blank):
    seen = blank.world(
        """const one = connectionOf();
           await one.connect();
           world.peers[0].channels[0].become("close");
           await later(20);
           return [one.state, one.told.lost, one.peer, world.peers.length]"""
    )
    assert seen == ["failed", ["ended"], None, 1]


def test_reconnect_gives_up(blank):
    seen = blank.world(
        """const signaling = signalingOf(answerOf(), () => Promise.reject(new R.ReconnectError("unreachable")));
           const one = connectionOf({signaling, reconnect: {base: 1, max: 2, attempts: 3}});
           await one.connect();
           world.peers[0].channels[0].become("close");
           await later(300);
           return [one.state, signaling.offers.length, one.told.warnings]"""
    )
    assert seen == ["failed", 4, ["reconnect unreachable"]]


# ---- Signaling


def test_candidates_travel_both_ways_with_their_end(blank):
    seen = blank.world(
        """const signaling = signalingOf((offer, {onCandidate}) => {
             onCandidate({candidate: CANDIDATES[0], sdpMid: "0"});    // before the answer
             setTimeout(() => { onCandidate({candidate: CANDIDATES[1], sdpMid: "0"}); onCandidate(null); world.peers[0].open(); }, 20);
             return later(10).then(() => answerOf());
           });
           world.behave = (peer) => {
             for (const candidate of [{candidate: CANDIDATES[1], toJSON: () => ({candidate: CANDIDATES[1]})}, null]) {
               peer.dispatchEvent(Object.assign(new Event("icecandidate"), {candidate}));
             }
           };
           const one = connectionOf({signaling});
           await one.connect();
           return [world.peers[0].taken.map(({candidate}) => candidate), signaling.sent]"""
    )
    lines = [
        "candidate:1 1 udp 2130706431 2001:db8::1 4000 typ host",
        "candidate:2 1 udp 1694498815 192.0.2.1 4000 typ srflx raddr 0.0.0.0 rport 0",
    ]
    assert seen == [[*lines, ""], [{"candidate": lines[1]}, None]]


def test_fetch_signaling_says_what_went_wrong(blank):
    seen = blank.world(
        """const honest = globalThis.fetch;
           const seen = [];
           const ask = async (respond, init) => {
             globalThis.fetch = respond;
             const {answer} = R.fetchSignaling("/offer", init).exchange({type: "offer", sdp: "v=0"}, {signal: new AbortController().signal});
             seen.push(await answer.then(({type}) => type, ({kind, detail}) => `${kind} ${detail.slice(0, 40)}`));
           };
           try {
             await ask(async () => new Response(JSON.stringify(answerOf())));
             await ask(async () => new Response("no\\n", {status: 503}));
             await ask(async () => { throw new TypeError("no network"); });
             await ask(async () => new Response("{"));
             await ask(async () => new Response("[]"));
             await ask(async () => new Response("x".repeat(300000)));
             await ask((_, {signal}) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("aborted")))), {timeout: 50});
           } finally {
             globalThis.fetch = honest;
           }
           return seen"""
    )
    assert seen == [
        "answer",
        "refused HTTP 503 no",
        "unreachable no network",
        "protocol the answer is no JSON",
        "protocol the answer is no object",
        "protocol an answer of more than 262144 bytes is t",
        "unreachable no answer within 0.05 s",
    ]


FAKE_SOCKET = """
  class FakeSocket extends EventTarget {
    constructor(state) { super(); Object.assign(this, {readyState: state, sent: []}); }
    send(text) { this.sent.push(JSON.parse(text)); }
    say(data) { this.dispatchEvent(new MessageEvent("message", {data: typeof data === "string" ? data : JSON.stringify(data)})); }
    become(state, name) { this.readyState = state; this.dispatchEvent(Object.assign(new Event(name), {code: 1006})); }
  }
  const exchangeOn = (signaling, sdp = "v=0") => {
    const controller = new AbortController(), candidates = [];
    const exchange = signaling.exchange({type: "offer", sdp}, {signal: controller.signal, onCandidate: (one) => candidates.push(one)});
    return {...exchange, controller, candidates, told: exchange.answer.then(({sdp}) => sdp, ({kind}) => kind)};
  };
"""


def test_socket_of_the_callers_own(blank):
    seen = blank.world(
        FAKE_SOCKET
        + """const socket = new FakeSocket(0);
           const signaling = R.webSocketSignaling(socket);
           const first = exchangeOn(signaling, "v=0 first");
           first.sendCandidate({candidate: "a"});
           const early = socket.sent.length;
           socket.become(1, "open");
           first.sendCandidate(null);
           socket.say("not for us");
           socket.say({type: "chat", text: "hello"});
           socket.say({candidate: {candidate: CANDIDATES[0], sdpMid: "0"}});
           // Given up before its answer: that one must not be taken for the next.
           first.controller.abort();
           const second = exchangeOn(signaling, "v=0 second");
           socket.say(answerOf({sdp: "v=0 to the first"}));
           socket.say(answerOf({sdp: "v=0 to the second"}));
           socket.say({candidate: null});
           const told = [await first.told, await second.told];
           const third = exchangeOn(signaling);
           socket.say(answerOf({connectionMode: "odd"}));
           const fourth = exchangeOn(signaling);
           const bad = await third.told;
           socket.become(3, "close");
           return {early, sent: socket.sent.slice(0, 3), told, bad, gone: await fourth.told, candidates: [first.candidates.length, second.candidates],
             later: await exchangeOn(signaling).told}"""
    )
    assert seen == {
        "early": 0,
        "sent": [{"type": "offer", "sdp": "v=0 first"}, {"candidate": {"candidate": "a"}}, {"candidate": None}],
        "told": ["closed", "v=0 to the second"],
        "bad": "protocol",
        "gone": "unreachable",
        "candidates": [1, [None]],
        "later": "unreachable",
    }


# ---- IPv6 goes ahead where it has worked

# What a peer was given: with the description, and after it. Once it has everything it opens.
GIVEN = """
  const given = ({remote, taken}) => [(remote.match(/^a=(candidate|end-of-candidates).*/gm) || []).map((line) => line.slice(2)),
    taken.map(({candidate}) => candidate)];
  const whole = (peer) => {
    if (/ 192\\.0\\.2\\.1 /.test(peer.remote)) return peer.open();
    peer.takes = () => { if (peer.taken.length === 1 + peer.hasTicket) peer.open(); };
  };
"""


@pytest.mark.parametrize("tickets", [True, False], ids=["zero-signaling", "fast"])
@pytest.mark.parametrize(
    ["answered", "start", "is_ahead"],
    [(["ipv6"], 50, True), (["ipv6"], 0, False), (["ipv4", "ipv6"], 50, True), (["ipv4"], 50, False), ([], 50, False)],
    ids=["worked", "switched off", "works beside IPv4", "did not work", "nobody knows"],
)
def test_ipv6_has_a_head_start_where_it_worked(blank, tickets, answered, start, is_ahead):
    seen = blank.world(
        GIVEN
        + """const [families, headStart, tickets] = args;
           world.reports = answered(...families);
           const storage = await visited(tickets ? ticketOf() : undefined);
           world.behave = whole;
           const signaling = signalingOf(answerOf({connectionMode: "fast"}));
           const back = connectionOf({storage, headStart, signaling, policy: "fallback", fastTimeout: 20000});
           const {mode} = await back.connect();
           return [mode, ...given(world.peers[0]), back.told.warnings]""",
        answered,
        start,
        tickets,
    )
    six = "candidate:1 1 udp 2130706431 2001:db8::1 4000 typ host"
    four = "candidate:2 1 udp 1694498815 192.0.2.1 4000 typ srflx raddr 0.0.0.0 rport 0"
    end = ["end-of-candidates"] if tickets else []
    assert seen[0] == ("zero-signaling" if tickets else "fast")
    if is_ahead:
        assert seen[1:] == [[six], [four, *("" for _ in end)], []]
    else:
        assert seen[1:] == [[six, four, *end], [], []]


def test_ipv4_follows_when_ipv6_fails(blank):
    """It does not wait for the end of the head start: without IPv4 the attempt would have failed."""
    seen = blank.world(
        GIVEN
        + """world.reports = answered("ipv6");
           const storage = await visited(ticketOf());
           world.behave = (peer) => { whole(peer); setTimeout(() => peer.failIce(), 0); };
           const back = connectionOf({storage, headStart: 1000, policy: "fallback", fastTimeout: 20000});
           const {mode} = await back.connect();
           return [mode, back.told.attempts, given(world.peers[0])[1].length]"""
    )
    assert seen == ["zero-signaling", ["zero-signaling started null", "zero-signaling won null"], 2]


def test_trickled_ipv4_waits_for_ipv6_too(blank):
    seen = blank.world(
        """world.reports = answered("ipv6");
           const storage = await visited(undefined);
           world.behave = () => {};
           const signaling = signalingOf((offer, {onCandidate}) => {
             setTimeout(() => {
               onCandidate({candidate: CANDIDATES[1].replace("192.0.2.1", "192.0.2.2"), sdpMid: "0"});
               onCandidate({candidate: CANDIDATES[0].replace("::1", "::2"), sdpMid: "0"});
               onCandidate(null);
             }, 0);
             return answerOf({connectionMode: "fast"});
           });
           const back = connectionOf({storage, signaling, fastTimeout: 20000});
           const done = back.connect();
           const taken = await within(new Promise((resolve) => {
             const look = () => world.peers[0] && world.peers[0].taken.length === 4 ? resolve(world.peers[0].taken) : setTimeout(look, 10);
             look();
           }), "all candidates");
           world.peers[0].open();
           await done;
           return taken.map(({candidate}) => (/ (\\S+) 4000 /.exec(candidate) || ["", candidate])[1])"""
    )
    assert seen == ["2001:db8::2", "192.0.2.1", "192.0.2.2", ""]


def test_ipv6_that_answers_second_is_known_next_time(blank):
    seen = blank.world(
        """world.reports = answered("ipv4");
           const storage = storageOf();
           const connection = connectionOf({storage});
           const kept = () => {
             const {lastSuccessfulProtocol, lastConnectedIPv6} = JSON.parse(storage.local.items.get("webrtc_connection_cache"));
             return [lastSuccessfulProtocol, lastConnectedIPv6, connection.metrics.ipv6Available];
           };
           const told = [];
           const both = within(new Promise((resolve) => {
             connection.addEventListener("cache", ({detail: {action}}) => {
               if (action === "save") told.push(kept());
               if (told.length === 3) resolve();
             });
           }), "the other family");
           await connection.connect();
           await later(0);
           world.reports = answered("ipv4", "ipv6");
           await both;
           return told"""
    )
    assert seen == [["both", None, None], ["ipv4", False, False], ["both", False, True]]


def test_hidden_page_gives_no_head_start(blank):
    """Its timers are late."""
    seen = blank.world(
        GIVEN
        + """world.reports = answered("ipv6");
           const storage = await visited(ticketOf());
           const back = connectionOf({storage, policy: "fallback", fastTimeout: 20000});
           Object.defineProperty(document, "visibilityState", {get: () => "hidden", configurable: true});
           try { await back.connect(); } finally { delete document.visibilityState; }
           return given(world.peers[0])[0].length"""
    )
    assert seen == 3


def test_network_change_ends_the_head_start(blank):
    """What worked elsewhere says nothing about here."""
    seen = blank.world(
        GIVEN
        + """world.reports = answered("ipv6");
           const storage = await visited(ticketOf());
           const back = connectionOf({storage, policy: "fallback", fastTimeout: 20000});
           window.dispatchEvent(new Event("online"));
           const {mode} = await back.connect();
           return [mode, given(world.peers[0])[0].length]"""
    )
    assert seen == ["zero-signaling", 3]


# ---- The declarations for TypeScript say what the module has, no more and no less


@pytest.fixture(scope="module")
def declared():
    return Declarations()


@pytest.fixture(scope="module")
def source():
    text = (hosts.ROOT / "bindings/web/reconnect.js").read_text()
    return re.sub(r"/\*.*?\*/|(?<=[ ;{])// [^\n]*", "", text, flags=re.S)


def test_exports_and_members_are_the_declared_ones(blank, declared):
    seen = blank.world(
        """const connection = connectionOf();
           delete connection.told;
           const own = (value) => [...Object.keys(value), ...Object.getOwnPropertyNames(Object.getPrototypeOf(value))]
             .filter((name) => name !== "constructor");
           const error = new R.ReconnectError("ice", "detail", {cause: 7});
           return {exports: Object.entries(R).map(([name, value]) => [name, /^class/.test(value) ? "class" : typeof value]),
             connection: own(connection), metrics: Object.keys(connection.metrics), session: Object.keys(connection.session),
             error: Object.keys(error), cause: error.cause, signaling: own(R.webSocketSignaling("ws://127.0.0.1:1/")),
             storage: Object.keys(R.certificateStorage())}"""
    )
    assert dict(seen["exports"]) == declared.values
    listening = {"addEventListener", "removeEventListener"}  # declared for the types of the events
    assert set(seen["connection"]) == declared.members["Connection"] - listening
    assert set(seen["metrics"]) == declared.members["Metrics"]
    assert set(seen["session"]) == declared.nested("Connection", "session")
    assert {*seen["error"], "cause"} == declared.members["ReconnectError"] and seen["cause"] == 7
    assert declared.members["Signaling"] <= set(seen["signaling"])
    assert set(seen["storage"]) == declared.members["CertificateStorage"]


def test_what_is_parsed_has_the_declared_members(blank, declared):
    seen = blank.world(
        """const ticket = ticketOf({derivedInit: true, other: 1});
           const groups = R.extractCandidates(SDP);
           const entry = {...groups, timestamp: Date.now(), sessionId: TOKEN, lastConnectedIPv6: true, other: 1};
           const keys = (value) => Object.keys(value);
           return {Ticket: keys(R.parseTicket(ticket)), Answer: keys(R.parseAnswer({...answerOf({ticket}), other: 1})),
             CacheEntry: keys(R.parseCacheEntry(JSON.stringify(entry))), Candidate: keys(R.parseCandidate(CANDIDATES[0]))}"""
    )
    assert {name: set(keys) for name, keys in seen.items()} == {name: declared.members[name] for name in seen}


def test_events_are_the_declared_ones(blank, declared, source):
    told = set(re.findall(r'#tell\("(\w+)"', source))
    assert told == declared.members["ConnectionEventMap"]
    seen = blank.world(
        """const storage = await visited(ticketOf());
           const details = {};
           const hear = (connection) => {
             for (const name of args[0]) {
               connection.addEventListener(name, ({detail}) => { details[name] = [...new Set([...details[name] || [], ...Object.keys(detail)])]; });
             }
             return connection;
           };
           const back = hear(connectionOf({storage}));
           storage.local.setItem("webrtc_connection_cache", "{");       // a warning
           const {timings} = await back.connect();
           details.timings = Object.keys(timings);
           back.peer.dispatchEvent(Object.assign(new Event("datachannel"), {channel: new FakeChannel("theirs", {})}));
           back.peer.control.say({type: "ticket", ticket: ticketOf()});
           back.peer.failIce();
           return details""",
        sorted(told),
    )
    named = {"datachannel": {"channel"}, "timings": {"prepared", "ice", "dtls", "open"}}
    for name in told - {"datachannel"}:
        named[name] = declared.members[f"{name.capitalize()}Detail"]
    assert {name: set(keys) for name, keys in seen.items()} == named
    assert named["timings"] < declared.members["Timings"]


def test_options_and_words_are_the_declared_ones(declared, source):
    read = set(re.findall(r"[oO]ptions\.(\w+)", source))
    read |= {"storage"} if re.search(r"\{storage = \{\}\} = options", source) else set()
    own = {"interval", "misses"}  # of the heartbeat
    assert read - own == declared.members["ConnectionOptions"]
    assert own < declared.members["HeartbeatOptions"]
    defaults = re.search(r"const DEFAULTS = \{(.*?)\};", source, re.S)[1]
    assert set(re.findall(r"(\w+):", defaults)) <= declared.members["ConnectionOptions"]
    assert declared.required["ConnectionOptions"] == {"signaling"}
    kinds = set(re.findall(r'(?:new ReconnectError|this\.#failure|\.stop|#drop)\("([\w-]+)"', source))
    kinds |= set(re.findall(r'failureOf\([^()]*, "(\w+)"\)', source)) | set(re.findall(r'kind = "(\w+)"', source))
    stages = set(re.findall(r'"(\w+)"', re.search(r"get #stage\(\) \{(.*)\}", source)[1])) | {"ended", "lost"}
    assert kinds | stages == declared.literals["ErrorKind"]
    assert set(re.findall(r'#setState\("(\w+)"', source)) | {"idle"} == declared.literals["State"]
    assert set(re.findall(r'"([\w-]+)"', re.search(r"const MODES = (.*);", source)[1])) == declared.literals["Mode"]
    assert (
        set(re.findall(r'"(\w+)"', re.search(r"const PROTOCOLS = (.*);", source)[1])) == declared.literals["Protocol"]
    )
