"""Chromium as an end of a connection: what agent.py does, in a page. One browser for each site; ends in it take turns."""

import json
import sys
import threading
import time

from endpoints import HERE, Endpoint

sys.path.insert(0, str(HERE.parent / "browser"))

import drivers  # noqa: E402

PAGE = """
window.end = (() => {
  const events = [];
  let wake = () => {};
  const tell = (event, members = {}) => { events.push({event, at: performance.now() / 1000, ...members}); wake(); };
  const settings = args[0];
  const iceServers = settings.stun.map((urls) => ({urls}));
  for (const server of settings.turn) iceServers.push({urls: server.url, username: server.username, credential: server.password});
  const peer = new RTCPeerConnection({iceServers});
  const channel = peer.createDataChannel("stream", {negotiated: true, id: 0});
  let sent = 0, received = 0, expected = 0, timer = null, early = [];
  const check = () => {
    if (expected && received >= expected) { expected = 0; tell("reached", {received}); }
  };
  channel.onopen = () => tell("open");
  channel.onclose = () => tell("channel closed");
  channel.onmessage = ({data}) => {
    if (data !== String(received + 1)) tell("problem", {text: `message ${data} came after ${received}`});
    received += 1;
    check();
  };
  peer.onconnectionstatechange = () => tell("state", {state: peer.connectionState});
  peer.onicecandidate = ({candidate}) => tell("signal", {message: {candidate: candidate && candidate.toJSON()}});
  const describe = async () => {
    await peer.setLocalDescription();
    tell("signal", {message: {type: peer.localDescription.type, sdp: peer.localDescription.sdp}});
  };
  const commands = {
    begin: describe,
    restart() { peer.restartIce(); return describe(); },
    async signal({message}) {
      if (message.sdp) {
        await peer.setRemoteDescription({type: message.type, sdp: message.sdp});
        for (const candidate of early.splice(0)) await peer.addIceCandidate(candidate);
        if (message.type === "offer") await describe();
      } else if (!peer.remoteDescription) {
        early.push(message.candidate);
      } else {
        await peer.addIceCandidate(message.candidate);
      }
    },
    send({rate}) { timer = setInterval(() => { sent += 1; channel.send(String(sent)); }, 1000 / rate); },
    halt() { clearInterval(timer); tell("halted", {sent}); },
    expect({count}) { expected = count; check(); },
    async statistics() {
      const figures = {local_type: "", remote_type: "", transport: "", relay_transport: ""};
      const report = await peer.getStats();
      for (const row of report.values()) {
        if (row.type !== "transport" || !row.selectedCandidatePairId) continue;
        const pair = report.get(row.selectedCandidatePairId);
        const local = report.get(pair.localCandidateId), remote = report.get(pair.remoteCandidateId);
        figures.local_type = local.candidateType;
        figures.remote_type = remote.candidateType;
        figures.transport = local.protocol;
        figures.relay_transport = local.relayProtocol || "";
      }
      tell("statistics", figures);
    },
  };
  tell("ready");
  return {
    peer,
    async step(list) {
      for (const command of list) {
        try { await commands[command.do](command); } catch (error) { tell("problem", {text: `${command.do}: ${error}`}); }
      }
      if (!events.length) await new Promise((resolve) => { wake = resolve; setTimeout(resolve, 50); });
      return events.splice(0);
    },
  };
})();
"""


class Browser:
    def __init__(self, site):
        self.turn = threading.Lock()
        self.browser = drivers.start("chromium", namespace=site.host.prefix)

    def close(self):
        self.browser.close()


class Page(Endpoint):
    def __init__(self, browser, site, settings, name):
        self.site, self.name = site, name
        self.events, self.other, self.carries = [], None, True
        self._news = threading.Condition()
        self._ended = self._closing = False
        self._commands = []
        self._browser = browser
        browser.turn.acquire()
        browser.browser.evaluate(PAGE, settings)
        self._reader = threading.Thread(target=self._run, daemon=True)
        self._reader.start()

    def _run(self):
        try:
            while not self._closing:
                with self._news:
                    commands, self._commands = self._commands, []
                events = self._browser.browser.evaluate("return await end.step(args[0])", commands)
                for event in events:
                    self._take(event)
            self._browser.browser.evaluate("end.peer.close()")
        except drivers.BrowserError as error:
            self._take({"event": "problem", "at": time.monotonic(), "text": str(error)})
        with self._news:
            self._ended = True
            self._news.notify_all()

    def do(self, what, **members):
        with self._news:
            self._commands.append({"do": what, **json.loads(json.dumps(members))})

    def printed(self):
        return ""

    def close(self):
        self._closing = True
        self._reader.join()
        self._browser.turn.release()


def chromium(context, site, name="chromium", **settings):
    browser = context.once(("chromium", site), lambda: context.keep(Browser(site)))
    return Page(browser, site, settings, name)
