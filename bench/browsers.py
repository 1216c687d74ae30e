"""Connects measured inside real browsers.

The browsers are driven by Tests/browser/drivers.py (another file with the same interface can be named
in BROWSER_DRIVERS). The measuring function runs on the page GET /ping of the host under test, which
has no scripts of its own, so that signaling is of the same origin.
"""

import importlib.util
import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# A page measures with its own clock, which Firefox makes coarse on purpose.
FIREFOX_PREFERENCES = {
    "privacy.reduceTimerPrecision": False,
    "privacy.resistFingerprinting": False,
}


def drivers():
    path = os.environ.get("BROWSER_DRIVERS") or os.path.join(ROOT, "Tests", "browser", "drivers.py")
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} is missing: browsers cannot be driven")
    spec = importlib.util.spec_from_file_location("browser_drivers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# `args[0]` has count, lanes (connects in progress at once), negotiated (channel id or null), gather
# (send the offer only when gathering is complete) and timeout (ms for one connect).
MEASURE = r"""
const {count, lanes, negotiated, gather, timeout} = args[0];

async function connect() {
  const steps = {ok: false};
  // Signaling travels on a connection that is already open.
  await (await fetch('/ping', {cache: 'no-store'})).text();
  let clock;
  const late = new Promise((_, reject) => {
    clock = setTimeout(() => reject(new Error('no echo after ' + timeout + ' ms')), timeout);
  });
  const start = performance.now();
  const since = () => performance.now() - start;
  const peer = new RTCPeerConnection();
  try {
    peer.addEventListener('iceconnectionstatechange', () => {
      if (peer.iceConnectionState === 'connected') steps.ice_ms ??= since();
    });
    const failed = new Promise((_, reject) => {
      peer.addEventListener('connectionstatechange', () => {
        if (peer.connectionState === 'failed') reject(new Error('the connection failed'));
      });
    });
    const channel = peer.createDataChannel('connect', negotiated === null ? {} : {negotiated: true, id: negotiated});
    const echoed = new Promise((resolve) => {
      channel.onopen = () => { steps.open_ms = since(); channel.send('x'); };
      channel.onmessage = () => { steps.ms = since(); resolve(); };
    });
    await Promise.race([failed, late, (async () => {
      await peer.setLocalDescription(await peer.createOffer());
      steps.offer_ms = since();
      if (gather && peer.iceGatheringState !== 'complete') {
        await new Promise((resolve) => peer.addEventListener('icegatheringstatechange', () => {
          if (peer.iceGatheringState === 'complete') resolve();
        }));
        steps.gathered_ms = since();
      }
      const response = await fetch('/offer', {
        method: 'POST',
        headers: {'Content-Type': 'application/json'},
        body: JSON.stringify({type: 'offer', sdp: peer.localDescription.sdp}),
      });
      if (!response.ok) throw new Error('HTTP ' + response.status + ': ' + await response.text());
      const answer = await response.json();
      steps.answer_ms = since();
      await peer.setRemoteDescription({type: answer.type, sdp: answer.sdp});
      await echoed;
    })()]);
    steps.ok = true;
  } catch (error) {
    steps.error = String(error);
  } finally {
    clearTimeout(clock);
    peer.close();
  }
  return steps;
}

const results = [];
let left = count;
async function lane() {
  while (left-- > 0) {
    try {
      results.push(await connect());
    } catch (error) {
      results.push({ok: false, error: String(error)});
    }
  }
}
await Promise.all(Array.from({length: lanes}, lane));
return results;
"""

# Reloads, with nothing between them and the library: a page that keeps what it needs in variables, and that writes the
# description of a ticket itself (docs/formats.md). `args[0]` has mode, count, lanes, channel (id of the negotiated
# channel), timeout (ms), and prepare: make that many clients first, each with a certificate, session and ticket.
RELOAD = r"""
const {mode, count, lanes, channel, timeout, prepare} = args[0];
const CONTROL = {negotiated: true, id: 255};

const descriptionOf = (ticket) => [
  'v=0', 'o=- 1 1 IN IP4 0.0.0.0', 's=-', 't=0 0', 'a=group:BUNDLE 0', 'a=ice-lite',
  'm=application 9 UDP/DTLS/SCTP webrtc-datachannel', 'c=IN IP4 0.0.0.0', 'a=mid:0',
  'a=ice-ufrag:' + ticket.ufrag, 'a=ice-pwd:' + ticket.pwd, 'a=fingerprint:' + ticket.fingerprint,
  'a=setup:passive', 'a=sctp-port:' + ticket.sctpPort, 'a=max-message-size:' + ticket.maxMessageSize,
  ...ticket.candidates.map((line) => 'a=' + line), 'a=end-of-candidates', ''].join('\r\n');

// `mode` is that of the measurement, or "first".
async function connect(client, mode) {
  const steps = {ok: false, mode};
  // Signaling travels on a connection that is already open.
  await (await fetch('/ping', {cache: 'no-store'})).text();
  let clock;
  const late = new Promise((_, reject) => {
    clock = setTimeout(() => reject(new Error('no echo after ' + timeout + ' ms')), timeout);
  });
  const start = performance.now();
  const since = () => performance.now() - start;
  const peer = new RTCPeerConnection(mode === 'normal' ? {} : {certificates: [client.certificate]});
  try {
    const failed = new Promise((_, reject) => {
      peer.addEventListener('connectionstatechange', () => {
        if (peer.connectionState !== 'failed') return;
        const dtls = peer.sctp && peer.sctp.transport ? peer.sctp.transport.state : 'none';
        reject(new Error(`the connection failed (ICE ${peer.iceConnectionState}, DTLS ${dtls})`));
      });
    });
    peer.addEventListener('iceconnectionstatechange', () => {
      if (peer.iceConnectionState === 'connected') steps.ice_ms ??= since();
    });
    const echo = peer.createDataChannel('echo', {negotiated: true, id: channel});
    if (mode !== 'normal') {
      peer.createDataChannel('reconnect', CONTROL).onmessage = ({data}) => {
        const message = JSON.parse(data);
        if (message.type === 'ticket') client.ticket = message.ticket;
        if (message.sessionToken) client.token = message.sessionToken;
      };
    }
    const echoed = new Promise((resolve) => {
      echo.onopen = () => { steps.open_ms = since(); echo.send('x'); };
      echo.onmessage = () => { steps.ms = since(); resolve(); };
    });
    let answer = null;
    await Promise.race([failed, late, (async () => {
      await peer.setLocalDescription(await peer.createOffer());
      steps.offer_ms = since();
      if (mode === 'zero-signaling') {
        await peer.setRemoteDescription({type: 'answer', sdp: descriptionOf(client.ticket)});
      } else {
        const offer = {type: 'offer', sdp: peer.localDescription.sdp};
        if (mode !== 'normal') offer.ticket = true;
        if (mode === 'fast') offer.sessionToken = client.token;
        const response = await fetch('/offer', {
          method: 'POST',
          headers: {'Content-Type': 'application/json'},
          body: JSON.stringify(offer),
        });
        if (!response.ok) throw new Error('HTTP ' + response.status + ': ' + await response.text());
        answer = await response.json();
        steps.answer_ms = since();
        if (mode === 'fast' && answer.connectionMode !== 'fast') throw new Error('the answer is not fast');
        await peer.setRemoteDescription({type: 'answer', sdp: answer.sdp});
      }
      await echoed;
    })()]);
    if (answer && mode !== 'normal') [client.token, client.ticket] = [answer.sessionToken, answer.ticket];
    if (mode === 'first' && !client.ticket) throw new Error('the host gives no tickets');
    steps.ok = true;
  } catch (error) {
    steps.error = String(error);
    steps.failed_ms = since();
  } finally {
    clearTimeout(clock);
    peer.close();
  }
  return steps;
}

if (prepare) {
  window.clients = [];
  for (let index = 0; index < prepare; index++) {
    const certificate = await RTCPeerConnection.generateCertificate({name: 'ECDSA', namedCurve: 'P-256'});
    const client = {certificate, token: null, ticket: null};
    const {ok, error} = await connect(client, 'first');
    if (!ok) throw new Error('the first connect: ' + error);
    window.clients.push(client);
  }
}
const results = [];
let left = count;
async function lane(client) {
  while (left-- > 0) {
    try {
      results.push(await connect(client, mode));
    } catch (error) {
      results.push({ok: false, error: String(error)});
    }
  }
}
await Promise.all(window.clients.slice(0, lanes).map(lane));
return results;
"""

# The example page's first echo, and what the page itself took; milliseconds since the navigation began.
COLD = r"""
const {mode, page, timings, fallback} = await reconnectDemo.ready;
const [navigation] = performance.getEntriesByType('navigation');
const module = performance.getEntriesByType('resource').find(({name}) => name.endsWith('/reconnect.js'));
return {
  ok: true, mode, ms: page, connect_ms: timings.echo,
  tcp_tls_ms: navigation.connectEnd - navigation.connectStart,
  page_ms: navigation.responseEnd, module_ms: module ? module.responseEnd : null,
};
"""


class BrowserClient:
    """A browser in a network namespace that measures connects."""

    def __init__(self, name, namespace, args=()):
        self.browser = drivers().start(name, namespace=namespace.prefix, prefs=FIREFOX_PREFERENCES, args=args)

    def version(self):
        return self.browser.version()

    def open(self, url):
        self.browser.navigate(url + "/ping")

    def connect(self, url, count, lanes=1, negotiated=None, gather=False, timeout=15.0):
        options = {
            "count": count,
            "lanes": lanes,
            "negotiated": negotiated,
            "gather": gather,
            "timeout": timeout * 1000,
        }
        return self.browser.evaluate(MEASURE, options, timeout=60 + count * (timeout + 5) / lanes)

    def reload(self, url, mode, count, lanes=1, channel=1, timeout=15.0, prepare=0):
        options = {
            "mode": mode,
            "count": count,
            "lanes": lanes,
            "channel": channel,
            "timeout": timeout * 1000,
            "prepare": prepare,
        }
        return self.browser.evaluate(RELOAD, options, timeout=60 + (count + prepare) * (timeout + 5) / lanes)

    def visit(self, url):
        """The example page, until it is connected."""
        self.browser.navigate(url)
        return self.browser.evaluate(COLD)

    def forget(self):
        self.browser.evaluate("reconnectDemo.close(); await reconnectDemo.forget();")

    def visit_again(self):
        self.browser.reload()
        return self.browser.evaluate(COLD)

    def close(self):
        self.browser.close()
