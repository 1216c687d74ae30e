"""Chromium and Firefox against the Go, Python and C hosts through the example page."""

import os
import socket
import stat

import hosts
import pytest
from page import Page

SIZES = [0, 1, 1200, 16384, 65535, 65536, 262144]
STEPS = ["prepared", "answer", "ice", "dtls", "open", "echo"]


# ---- Connecting


def test_connects(page):
    page.open()
    result = page.ready()
    assert (result["mode"], result["fallback"], result["tokenSent"]) == ("normal", None, False)
    assert result["certificate"] == "new"
    assert list(result["timings"]) == STEPS
    assert sorted(result["timings"].values()) == list(result["timings"].values())
    states = page.run(
        """const {peer, channel} = reconnectDemo;
           return [channel.id, channel.negotiated, channel.readyState, peer.sctp.transport.state]"""
    )
    assert states == [1, True, "open", "connected"]
    assert page.echo("hello") == "hello"


def test_shows_every_step_and_the_mode(page):
    page.open()
    page.ready()
    shown = page.run(
        """return {title: document.getElementById("title").textContent,
                   steps: [...document.querySelectorAll("#steps .value")].map((e) => e.textContent)}"""
    )
    assert shown["title"].startswith("Connected in ") and shown["title"].endswith("normal")
    assert len(shown["steps"]) == len(STEPS) and all(s.endswith("ms") for s in shown["steps"])


def test_echoes_on_an_in_band_channel_from_the_start(page):
    page.open("?channel=in-band")
    assert page.ready()["mode"] == "normal"
    assert page.run("return reconnectDemo.channel.negotiated") is False
    assert page.echo("hello") == "hello"


def test_connects_ten_times_in_a_row(page):
    page.open("?connect=no")
    modes = page.run(
        """const modes = [];
           for (let i = 0; i < 10; i++) modes.push((await reconnectDemo.reconnect()).mode);
           return modes"""
    )
    assert modes == ["normal"] + ["fast"] * 9
    assert page.echo("still here") == "still here"


def test_connects_over_ipv6(host_name, browser):
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).bind((hosts.ADDRESS6, 0))
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with hosts.Host(host_name, address=hosts.ADDRESS6) as host:
        tab = browser.new_tab()
        page = Page(tab, host.url)
        page.open()
        assert hosts.ADDRESS6 in page.ready()["address"]
        assert page.echo("six") == "six"
        assert page.reload()["mode"] == "fast"
        tab.close_tab()


# ---- Messages


@pytest.mark.parametrize("channel", ["negotiated", "in-band"])
@pytest.mark.parametrize("kind", ["text", "binary"])
def test_echoes_every_size(page, kind, channel):
    page.open()
    page.ready()
    wrong = page.run(
        """const [sizes, kind, which] = args;
           const channel = which === "negotiated" ? reconnectDemo.channel : await reconnectDemo.openChannel("sizes");
           const wrong = [];
           for (const size of sizes) {
             const data = kind === "text" ? text(size) : bytes(size);
             const got = await echo(channel, data);
             if (!same(data, got)) wrong.push(`${describe(data)} came back as ${describe(got)}`);
           }
           return wrong""",
        SIZES,
        kind,
        channel,
    )
    assert wrong == []


def test_keeps_the_order_of_mixed_messages(page):
    page.open()
    page.ready()
    wrong = page.run(
        """const messages = [];
           for (let i = 0; i < 208; i++) {
             const size = [1, 1200, 0, 16384, 30, 65536, 5, 700, 262000, 12, 2, 1201, 4000][i % 13];
             messages.push(i % 3 ? bytes(size) : `${i} ` + text(size));
           }
           const got = await echoes(reconnectDemo.channel, messages);
           return got.flatMap((data, i) => same(messages[i], data) ? [] :
             [`${i}: ${describe(messages[i])} came back as ${describe(data)}`])""",
    )
    assert wrong == []


def test_keeps_channels_apart(page):
    page.open()
    page.ready()
    wrong = page.run(
        """const channels = await Promise.all(["a", "b", "c"].map((label) => reconnectDemo.openChannel(label)));
           const sent = channels.map((channel) => Array.from({length: 60}, (_, i) =>
             `${channel.label} ${i} ` + text(i % 7 ? 40 : 50000)));
           const got = await Promise.all(channels.map((channel, i) => echoes(channel, sent[i])));
           return got.flatMap((list, i) => list.filter((data, k) => data !== sent[i][k])).length""",
    )
    assert wrong == 0


def test_unordered_channel_loses_nothing(page):
    page.open()
    page.ready()
    difference = page.run(
        """const channel = await reconnectDemo.openChannel("unordered", {ordered: false});
           const messages = Array.from({length: 200}, (_, i) => `${i} ` + text(i % 10 ? 20 : 20000));
           const got = await echoes(channel, messages);
           return {same: got.sort().join() === messages.sort().join(), ordered: channel.ordered}""",
    )
    assert difference == {"same": True, "ordered": False}


@pytest.mark.parametrize(
    "init",
    [
        {"maxRetransmits": 0},
        {"ordered": False, "maxRetransmits": 2},
        {"ordered": False, "maxPacketLifeTime": 500},
    ],
    ids=["no retransmits", "unordered, 2 retransmits", "unordered, 500 ms"],
)
def test_unreliable_channel_never_repeats(page, init):
    page.open()
    page.ready()
    numbers = page.run(
        """const channel = await reconnectDemo.openChannel("unreliable", args[0]);
           const numbers = [];
           // Messages may be lost, the last one too: it is repeated, under new numbers, until one arrives.
           await within(new Promise((resolve) => {
             channel.addEventListener("message", ({data}) => {
               numbers.push(Number(data));
               if (Number(data) >= 100) { clearInterval(again); resolve(); }
             });
             for (let i = 0; i < 100; i++) channel.send(String(i));
             let last = 100;
             const again = setInterval(() => channel.send(String(last++)), 20);
           }), "an echo");
           return numbers""",
        init,
    )
    assert len(set(numbers)) == len(numbers)
    assert numbers and set(numbers) <= set(range(max(numbers) + 1))
    if init.get("ordered", True):
        assert numbers == sorted(numbers)


# ---- Channels


@pytest.mark.parametrize(
    "label, protocol",
    [
        ("", ""),
        ("chat", "json"),
        ("Größe 日本語 😀", "protocol/ü"),
        ("long " + "x" * 2000, "y" * 1000),
        ('quote " backslash \\ line\r\na=x', "\0"),
    ],
    ids=["empty", "plain", "unicode", "long", "hostile"],
)
def test_opens_in_band_channels_of_any_label(page, label, protocol):
    page.open()
    page.ready()
    seen = page.run(
        """const channel = await reconnectDemo.openChannel(args[0], {protocol: args[1]});
           return [channel.label, channel.protocol, await echo(channel, "text"),
             same(bytes(3000), await echo(channel, bytes(3000)))]""",
        label,
        protocol,
    )
    assert seen == [label, protocol, "text", True]


def test_channel_closed_by_the_page_closes_on_both_sides(page):
    page.open()
    page.ready()
    seen = page.run(
        """const seen = [];
           for (let i = 0; i < 5; i++) {
             const channel = await reconnectDemo.openChannel("short " + i);
             const got = await echo(channel, "message " + i);
             const closed = event(channel, "close");   // comes when the host has reset its side too
             channel.close();
             await closed;
             seen.push([got, channel.readyState]);
           }
           return seen""",
    )
    assert seen == [[f"message {i}", "closed"] for i in range(5)]
    assert page.echo("the first channel lives") == "the first channel lives"


def test_messages_sent_before_close_arrive(page):
    page.open()
    page.ready()
    got = page.run(
        """const channel = await reconnectDemo.openChannel("last words");
           const got = [];
           const all = within(new Promise((resolve) => channel.addEventListener("message", ({data}) => {
             if (got.push(data) === 20) resolve();
           })), "20 echoes");
           for (let i = 0; i < 20; i++) channel.send(`${i} ` + text(5000));
           await all;
           const closed = event(channel, "close");
           channel.close();
           await closed;
           return got.length""",
    )
    assert got == 20


def test_many_channels(page):
    page.open()
    page.ready()
    wrong = page.run(
        """const channels = await Promise.all(Array.from({length: 60}, (_, i) => reconnectDemo.openChannel("c" + i)));
           const got = await Promise.all(channels.map((channel) => echo(channel, "on " + channel.label)));
           const wrong = got.filter((data, i) => data !== "on c" + i);
           const closed = Promise.all(channels.map((channel) => event(channel, "close")));
           for (const channel of channels) channel.close();
           await closed;
           return wrong"""
    )
    assert wrong == []
    assert page.echo("hello") == "hello"


# ---- Coming back


def test_reload_comes_back_fast(page):
    page.open()
    first = page.ready()
    token = page.token()
    assert token
    for _ in range(3):
        result = page.reload()
        assert (result["mode"], result["fallback"], result["trigger"]) == ("fast", None, "reload")
        assert (result["tokenSent"], result["certificate"]) == (True, "kept")
        assert result["fingerprint"] == first["fingerprint"]
        renewed = page.token()
        assert renewed and renewed != token
        token = renewed
        assert page.echo("back") == "back"
    chips = page.run('return [...document.querySelectorAll("#rows .chip")].map((e) => e.textContent)')
    assert chips == ["fast", "fast", "fast", "normal"]


def test_tab_opened_after_the_first_was_left_comes_back_fast(page, browser):
    page.open()
    first = page.ready()
    later = Page(browser.new_tab(), page.url)
    later.open("?connect=no")
    page.leave()
    later.wait_for_what_is_left()
    later.open()
    result = later.ready()
    later.tab.close_tab()
    assert (result["mode"], result["fingerprint"]) == ("fast", first["fingerprint"])


def test_forgotten_session_is_a_new_one(page):
    page.open()
    first = page.ready()
    page.run("await reconnectDemo.forget()")
    result = page.reload()
    assert (result["mode"], result["tokenSent"]) == ("normal", False)
    assert result["fingerprint"] != first["fingerprint"]


def test_unknown_token_gets_a_new_session(page):
    made_up = "session-" + "A" * 22
    page.open()
    page.ready()  # leaves a cache entry
    page.run(
        """reconnectDemo.connection.close();
           sessionStorage.setItem("webrtc_connection_session", args[0])""",
        made_up,
    )
    page.open()
    result = page.ready()
    assert (result["mode"], result["tokenSent"]) == ("normal", True)
    assert page.token() not in (None, made_up)


# Connects by hand with a certificate of its own; the answer's mode and an echo.
STRANGER = """
  const stranger = async (url, sessionToken, content) => {
    const certificate = await RTCPeerConnection.generateCertificate({name: "ECDSA", namedCurve: "P-256"});
    const peer = new RTCPeerConnection({certificates: [certificate]});
    try {
      const channel = peer.createDataChannel("hand");
      await peer.setLocalDescription();
      const response = await fetch(url, {method: "POST", headers: {"Content-Type": content},
        body: JSON.stringify({type: "offer", sdp: peer.localDescription.sdp, sessionToken, unknown: {a: [1]}})});
      const answer = await response.json();
      await peer.setRemoteDescription({type: "answer", sdp: answer.sdp});
      await event(channel, "open");
      return {mode: answer.connectionMode, token: answer.sessionToken, echo: await echo(channel, "hello")};
    } finally {
      peer.close();
    }
  };
"""


def test_stolen_token_is_useless_without_the_key(page):
    page.open()
    page.ready()
    token = page.token()
    thief = page.run(STRANGER + 'return await stranger("offer", args[0], "application/json")', token)
    assert (thief["mode"], thief["echo"]) == ("normal", "hello")
    assert thief["token"] and thief["token"] != token
    # The owner did not notice, and comes back as before.
    assert page.echo("still connected") == "still connected"
    assert page.token() == token
    assert page.reload()["mode"] == "fast"


def test_new_certificate_with_the_kept_token_is_normal(page):
    page.open()
    first = page.ready()
    token = page.token()
    page.run(
        """const opening = indexedDB.deleteDatabase("reconnect-demo");
           await event(opening, "success")"""
    )
    result = page.reload()
    assert (result["mode"], result["tokenSent"], result["certificate"]) == ("normal", True, "new")
    assert result["fingerprint"] != first["fingerprint"]
    assert page.token() != token
    assert page.reload()["mode"] == "fast"


def test_two_tabs_have_a_session_each(page, browser):
    other = Page(browser.new_tab(), page.url)
    for tab in (page, other):
        tab.open("?connect=no")
    for tab in (page, other):
        tab.run("reconnectDemo.reconnect()")
    assert [page.ready()["mode"], other.ready()["mode"]] == ["normal", "normal"]
    assert page.token() != other.token()
    for tab in (page, other):
        tab.run("window.many = Array.from({length: 50}, (_, i) => reconnectDemo.send(text(1000) + i))")
    for tab in (page, other):
        got = tab.run("return (await Promise.all(window.many)).map((data, i) => data === text(1000) + i)")
        assert got == [True] * 50
    # Both keep their tokens; the certificate is shared by now.
    for tab in (page, other):
        tab.open()
        tab.ready()
    assert [page.reload()["mode"], other.reload()["mode"]] == ["fast", "fast"]
    assert [page.echo("one"), other.echo("two")] == ["one", "two"]
    other.tab.close_tab()


# ---- What can go wrong


def test_failed_fast_attempt_is_followed_by_one_normal_one(page):
    page.open()
    page.ready()
    result = page.run(
        # The first answer leads to a port where nobody listens.
        """const honest = window.fetch;
           const offers = [];
           window.fetch = async (...request) => {
             offers.push(JSON.parse(request[1].body));
             const answer = await (await honest(...request)).json();
             if (offers.length === 1) answer.sdp = answer.sdp.replace(/^(a=candidate:(\\S+ ){5})\\d+/gm, "$19");
             return new Response(JSON.stringify(answer));
           };
           const result = await reconnectDemo.reconnect();
           return {...result, offers: offers.map((offer) => "sessionToken" in offer)}"""
    )
    assert (result["mode"], result["fallback"], result["offers"]) == ("normal", "ice", [True, False])
    assert list(result["timings"]) == ["fallback", *STEPS]
    assert page.echo("hello") == "hello"


def test_failed_normal_attempt_is_not_repeated(page):
    page.open("?connect=no")
    failure = page.run(
        """let offers = 0;
           window.fetch = async () => { offers++; return new Response("sdp: line 1: no", {status: 400}); };
           const {kind, detail} = await reconnectDemo.reconnect().catch((failure) => failure);
           return {kind, detail, offers, state: reconnectDemo.state, title: document.getElementById("title").textContent}"""
    )
    assert failure == {
        "kind": "refused",
        "detail": "HTTP 400 sdp: line 1: no",
        "offers": 1,
        "state": "failed",
        "title": "The host refused",
    }


def test_connects_without_storage(page):
    page.open("?connect=no")
    result = page.run(
        """Object.defineProperty(window, "indexedDB", {get() { throw new Error("not here"); }});
           Object.defineProperty(window, "sessionStorage", {get() { throw new Error("not here"); }});
           Object.defineProperty(window, "localStorage", {get() { throw new Error("not here"); }});
           return await reconnectDemo.reconnect()"""
    )
    assert (result["mode"], result["certificate"]) == ("normal", "not kept")
    assert "IndexedDB" in page.run('return document.getElementById("kept-certificate").textContent')
    assert page.echo("hello") == "hello"


@pytest.mark.parametrize("kept", ["'text'", "{expires: Date.now() + 1e9}", "expired"])
def test_unusable_certificate_is_replaced(page, kept):
    page.open()
    page.ready()
    page.run(
        """const kept = args[0] !== "expired" ? eval(`(${args[0]})`) :
             await RTCPeerConnection.generateCertificate({name: "ECDSA", namedCurve: "P-256", expires: 1});
           const opening = indexedDB.open("reconnect-demo", 1);
           await event(opening, "success");
           const put = opening.result.transaction("certificates", "readwrite").objectStore("certificates").put(kept, "dtls");
           await event(put, "success");
           opening.result.close()""",
        kept,
    )
    result = page.reload()
    assert (result["mode"], result["certificate"]) == ("normal", "new")
    assert page.reload()["mode"] == "fast"


def test_host_that_stops_and_starts_again(host_name, browser, tmp_path):
    certificate = tmp_path / "certificate.pem"
    tab = browser.new_tab()
    with hosts.Host(host_name, "--certificate", str(certificate)) as host:
        page = Page(tab, host.url)
        page.open()
        page.ready()
        assert stat.S_IMODE(os.stat(certificate).st_mode) == 0o600
        fingerprint = "return /^a=fingerprint:(.*)$/m.exec(reconnectDemo.peer.remoteDescription.sdp)[1]"
        before = page.run(fingerprint)
        page.run(
            """window.ended = new Promise((resolve) => reconnectDemo.subscribe((change) => {
                 if (change.state === "failed") resolve(change.failure.kind);
               }))"""
        )
    assert page.run("return await within(window.ended, 'the end', 55000)") in ("ended", "lost")
    kind = page.run("return (await reconnectDemo.reconnect().catch((failure) => failure)).kind")
    assert kind == "unreachable"
    with hosts.Host(host_name, "--certificate", str(certificate), http=host.http):
        result = page.run("return await reconnectDemo.reconnect()")
        assert (result["mode"], result["fallback"]) == ("normal", None)
        assert page.run(fingerprint) == before
        tab.close_tab()


# ---- The host's HTTP side


def test_serves_the_page_and_ping(host):
    status, text, headers = host.get("")
    assert (status, headers.get_content_type()) == (200, "text/html")
    assert text == (hosts.ROOT / "examples/page/index.html").read_text()
    assert host.get("ping")[:2] == (200, "pong")
    assert host.get("no-such-thing")[0] == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe\x00",
        b'{"type":"offer"}',
        b'{"type":"offer","sdp":7}',
        b'{"type":"answer","sdp":"v=0"}',
        b'{"type":"offer","sdp":"v=0\\r\\n"}',
        b'{"type":"offer","sdp":"' + b"x" * 2_000_000 + b'"}',
        b"[" * 100_000,
    ],
    ids=lambda body: f"{body[:24]!r} of {len(body)}",
)
def test_refuses_malformed_offers(host, body):
    try:
        status, text, _ = host.post("offer", body)
    except OSError:
        assert len(body) > 1_000_000  # closing early on an endless body is fine
    else:
        assert 400 <= status < 500
    assert host.alive()
    assert host.get("ping")[:2] == (200, "pong")


def test_takes_an_offer_of_any_content_type(page):
    page.open()
    page.ready()
    result = page.run(STRANGER + 'return await stranger("offer", undefined, "text/plain")')
    assert (result["mode"], result["echo"]) == ("normal", "hello")


def test_page_of_the_allowed_origin_connects(page, host):
    page.open()
    page.ready()
    with hosts.Host(host.name, "--cors", page.url.rstrip("/")) as other:
        # text/plain needs no preflight request.
        result = page.run(STRANGER + 'return await stranger(args[0], undefined, "text/plain")', other.url + "offer")
    assert (result["mode"], result["echo"]) == ("normal", "hello")
