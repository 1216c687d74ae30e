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


class BrowserClient:
    """A browser in a network namespace that measures connects."""

    def __init__(self, name, namespace):
        self.browser = drivers().start(name, namespace=namespace.prefix, prefs=FIREFOX_PREFERENCES)

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

    def close(self):
        self.browser.close()
