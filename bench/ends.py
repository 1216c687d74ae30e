"""The two ends of one connection, and what carries their signaling.

An end is a program (native/paths.c, peers/src/pionpeers/pionpaths) or a page in a browser. All of them follow the same
lines and answer with the same lines, which the head of pionpaths/main.go lists. Times are CLOCK_MONOTONIC in seconds.
"""

import contextlib
import http.server
import json
import queue
import subprocess
import threading
import time

from browsers import drivers

PATIENCE_S = 15.0
LIBRARY = "libreconnect"


class EndError(Exception):
    """A program or page ended, or did not answer."""


class End:
    """What programs and pages have in common: lines out, lines in, events."""

    def __init__(self, name):
        self.name = name
        self.on_signal = lambda text: None
        self.events = []
        self._changed = threading.Condition()
        self._answers = queue.SimpleQueue()

    def write(self, line):
        raise NotImplementedError

    def take(self, line):
        """One line of the end."""
        word, _, rest = line.partition(" ")
        if word == "S":
            self.on_signal(rest)
        elif word == "E":
            when, _, what = rest.partition(" ")
            with self._changed:
                self.events.append((float(when), what))
                self._changed.notify_all()
        elif word:
            self._answers.put((word, rest))

    def ended(self):
        self._answers.put((None, ""))
        with self._changed:
            self.events.append((time.monotonic(), "ended"))
            self._changed.notify_all()

    def ask(self, word, answer=None, patience=PATIENCE_S):
        """What the end answers to this line."""
        if word:
            self.write(word)
        wanted = answer or word
        while True:
            try:
                found, rest = self._answers.get(timeout=patience)
            except queue.Empty:
                raise EndError(f"{self.name} does not answer to {word or wanted}") from None
            if found is None:
                raise EndError(f"{self.name} has ended: {self.last_words()}")
            if found == wanted:
                return rest

    def last_words(self):
        return ""

    def begin(self):
        with self._changed:
            self.events.clear()
        self.write("G")

    def wait_for(self, what, patience=PATIENCE_S):
        """The time of the first event of that name since the beginning."""
        deadline = time.monotonic() + patience
        with self._changed:
            while True:
                for when, name in self.events:
                    if name == what:
                        return when
                    if name == "ended":
                        raise EndError(f"{self.name} has ended: {self.last_words()}")
                left = deadline - time.monotonic()
                if left <= 0:
                    seen = ", ".join(name for _, name in self.events)
                    raise EndError(f"{self.name}: no {what} after {patience:g} s ({seen})")
                self._changed.wait(left)

    def totals(self):
        """Messages received and sent so far."""
        received, sent = self.ask("?").split()
        return int(received), int(sent)

    def dump(self):
        return json.loads(self.ask("D"))


class ProgramEnd(End):
    """A program in a namespace."""

    def __init__(self, name, namespace, command, env=None):
        super().__init__(name)
        self.tail = []
        self.process = namespace.start(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=env,
        )
        for stream, take in ((self.process.child.stdout, self.take), (self.process.child.stderr, self._mutter)):
            threading.Thread(target=self._read, args=(stream, take), daemon=True).start()
        self.ask(None, "ready")

    def _read(self, stream, take):
        with contextlib.suppress(ValueError):  # closed while reading: the program has been ended
            for line in stream:
                take(line.rstrip("\n"))
        if take == self.take:
            self.ended()

    def _mutter(self, line):
        self.tail.append(line)
        del self.tail[:-20]

    def last_words(self):
        return " ".join(self.tail[-3:])

    def write(self, line):
        try:
            self.process.child.stdin.write(line + "\n")
        except (OSError, ValueError):
            raise EndError(f"{self.name} has ended: {self.last_words()}") from None

    def close(self):
        self.process.end()


class PageEnd(End):
    """A page in a browser of its own. It reads lines from an event stream and posts its own, over loopback."""

    def __init__(self, name, namespace, browser, offers):
        super().__init__(name)
        self._out = queue.SimpleQueue()
        self._server = namespace.call(lambda: http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler_of(self)))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        port = self._server.server_address[1]
        # All interfaces are gathered, with their addresses, by pages that may use the microphone, and by no others.
        switches = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        try:
            self.browser = drivers().start(browser, namespace=namespace.prefix, args=switches)
            self.browser.navigate(f"http://127.0.0.1:{port}/?{'offer' if offers else 'answer'}")
            self.ask(None, "ready", patience=30)
        except BaseException:
            self._server.shutdown()
            raise

    def version(self):
        return self.browser.version()

    def write(self, line):
        self._out.put(line)

    def serve(self, handler):
        """One request of the page."""
        if handler.command == "POST":
            body = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
            respond(handler, "text/plain", "")
            for line in body.splitlines():
                self.take(line)
        elif handler.path == "/clock":
            respond(handler, "text/plain", f"{time.monotonic():.6f}")
        elif handler.path == "/in":
            handler.send_response(200)
            handler.send_header("Content-Type", "text/event-stream")
            handler.send_header("Cache-Control", "no-store")
            handler.end_headers()
            while (line := self._out.get()) is not None:
                handler.wfile.write(f"data: {line}\n\n".encode())
        else:
            respond(handler, "text/html; charset=utf-8", PAGE)

    def close(self):
        self._out.put(None)
        with contextlib.suppress(Exception):
            self.browser.close()
        self._server.shutdown()
        self._server.server_close()


def respond(handler, kind, text):
    data = text.encode()
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def handler_of(end):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self):
            with contextlib.suppress(OSError):
                if self.path == "/in":
                    self.close_connection = True
                end.serve(self)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    return Handler


class Signaling:
    """Carries signals between two ends, each `delay_s` late, in order."""

    def __init__(self, one, other, delay_s):
        self.delay_s = delay_s
        self.one, self.other = one, other
        self._lanes = []
        for source, target in ((one, other), (other, one)):
            lane = queue.SimpleQueue()
            self._lanes.append(lane)
            source.on_signal = lambda text, lane=lane: lane.put((time.monotonic() + self.delay_s, text))
            threading.Thread(target=self._carry, args=(lane, target), daemon=True).start()

    def _carry(self, lane, target):
        while (item := lane.get()) is not None:
            due, text = item
            time.sleep(max(0.0, due - time.monotonic()))
            with contextlib.suppress(EndError):
                target.write(f"S {text}")

    def close(self):
        for lane in self._lanes:
            lane.put(None)


PAGE = r"""<!doctype html><meta charset="utf-8"><title>One end</title><script type="module">
const offers = location.search === '?offer';
const INTERVAL_MS = 10, MESSAGE_BYTES = 100;
let offset = 0, peer = null, waiting = [], record = null, timer = 0;

// Lines go out in order: one request at a time.
const lines = [];
let posting = false;
async function say(line) {
  lines.push(line);
  if (posting) return;
  posting = true;
  while (lines.length) await fetch('/out', {method: 'POST', body: lines.splice(0).join('\n')});
  posting = false;
}

const now = () => performance.now() / 1000 + offset;
async function setClock() {
  let best = Infinity;
  for (let round = 0; round < 15; round++) {
    const before = performance.now();
    const theirs = Number(await (await fetch('/clock', {cache: 'no-store'})).text());
    const took = performance.now() - before;
    if (took < best) [best, offset] = [took, theirs - (before + took / 2) / 1000];
  }
}

function event(name) {
  const time = now();
  record.events.push([time, name]);
  say(`E ${time.toFixed(6)} ${name}`);
}
const signal = (message) => say('S ' + JSON.stringify(message));

function begin() {
  record = {arrivals: [], events: [], sent: 0, received: 0, wrong: 0};
  event('begin');
  if (!offers) return;
  makePeer();
  use(peer.createDataChannel('numbers'));
}

function makePeer() {
  const mine = peer = new RTCPeerConnection();
  waiting = [];
  mine.onicecandidate = ({candidate}) => candidate && signal({candidate});
  mine.onnegotiationneeded = async () => {
    await mine.setLocalDescription();
    signal({description: mine.localDescription});
  };
  mine.oniceconnectionstatechange = () => {
    if (mine !== peer) return;
    const state = mine.iceConnectionState;
    event(state);
    // What pages do: the side that offered restarts as soon as it is told.
    if (offers && (state === 'disconnected' || state === 'failed')) {
      event('restart');
      mine.restartIce();
    }
  };
  mine.ondatachannel = ({channel}) => use(channel);
}

async function receive({description, candidate}) {
  if (!peer && description && description.type === 'offer') makePeer();
  if (!peer) return;
  const mine = peer;
  if (candidate) {
    if (!mine.remoteDescription) waiting.push(candidate);
    else await mine.addIceCandidate(candidate);
    return;
  }
  await mine.setRemoteDescription(description);
  for (const early of waiting.splice(0)) await mine.addIceCandidate(early);
  if (description.type !== 'offer') return;
  await mine.setLocalDescription();
  signal({description: mine.localDescription});
}

function use(channel) {
  channel.binaryType = 'arraybuffer';
  channel.onopen = () => {
    event('open');
    const message = new DataView(new ArrayBuffer(MESSAGE_BYTES));
    const start = performance.now();
    clearInterval(timer);
    timer = setInterval(() => {
      // As many as are due: a timer that was late is made up for.
      for (const due = (performance.now() - start) / INTERVAL_MS; record.sent < due;) {
        message.setUint32(0, record.sent++);
        channel.send(message.buffer);
      }
    }, INTERVAL_MS);
  };
  channel.onmessage = ({data}) => {
    if (data.byteLength !== MESSAGE_BYTES || new DataView(data).getUint32(0) !== record.received) record.wrong++;
    record.received++;
    record.arrivals.push(now());
  };
}

async function dump() {
  record.pair = '';
  for (const report of peer ? (await peer.getStats()).values() : []) {
    if (report.type !== 'transport') continue;
    const stats = await peer.getStats();
    const pair = stats.get(report.selectedCandidatePairId);
    const text = ({candidateType, address, port}) => `${candidateType} ${address}:${port}`;
    if (pair) record.pair = `${text(stats.get(pair.localCandidateId))} ${text(stats.get(pair.remoteCandidateId))}`;
  }
  say('D ' + JSON.stringify(record));
}

let turn = Promise.resolve();
function obey(line) {
  const word = line.slice(0, 1), rest = line.slice(2);
  switch (word) {
  case 'G': return begin();
  case 'S': return receive(JSON.parse(rest));
  case '?': return say(`? ${record.received} ${record.sent}`);
  case 'T': clearInterval(timer); return say(`T ${record.sent}`);
  case 'D': return dump();
  case 'X':
    clearInterval(timer);
    if (peer) peer.close();
    peer = null;
    return say('X');
  }
}

await setClock();
const stream = await navigator.mediaDevices.getUserMedia({audio: true});
for (const track of stream.getTracks()) track.stop();
new EventSource('/in').onmessage = ({data}) => {
  turn = turn.then(() => obey(data)).catch((error) => record && event('error ' + error));
};
say('ready');
</script>"""
