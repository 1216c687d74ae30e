"""A web server for the browser client's tests: the page, the module, and signaling that can be cut.

with Site(host) as site:        # or Site() with no host behind it; inside=namespace serves there
    site.url                    # the example page; site.url + "blank" is an empty one
    site.offers                 # the offers that came, as dicts
    site.wait_for_offers(2)     # until there are as many
    site.reachable = False      # connections to /offer are closed without a word
    site.gate.clear()           # offers wait until it is set
    site.socket                 # the address of the same signaling over a WebSocket
"""

import base64
import hashlib
import http.server
import json
import struct
import threading

import hosts

FILES = {
    "/": (hosts.ROOT / "examples/page/index.html", "text/html; charset=utf-8"),
    "/reconnect.js": (hosts.ROOT / "bindings/web/reconnect.js", "text/javascript; charset=utf-8"),
}
BLANK = b'<!doctype html><html lang="en"><head><title>blank</title><link rel="icon" href="data:,"></head></html>'
ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


class Site:
    def __init__(self, host=None, inside=None):
        self.host = host
        self.gate = threading.Event()
        self.gate.set()
        self.offers = []
        self._came = threading.Condition()
        self.sockets = 0
        self.reachable = True
        site = self

        class Handler(Requests):
            pass

        Handler.site = site
        made = (http.server.ThreadingHTTPServer, ("127.0.0.1", 0), Handler)
        self._server = inside.call(*made) if inside else made[0](*made[1:])
        self._server.daemon_threads = True
        port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{port}/"
        self.socket = f"ws://127.0.0.1:{port}/socket"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def answer(self, offer):
        """What the host says to an offer: status and body."""
        with self._came:
            self.offers.append(json.loads(offer))
            self._came.notify_all()
        self.gate.wait(20)
        status, answer, _ = self.host.post("offer", offer)
        return status, answer.encode()

    def wait_for_offers(self, count, timeout=20):
        with self._came:
            assert self._came.wait_for(lambda: len(self.offers) >= count, timeout), (
                f"waited too long for {count} offers"
            )

    def end(self):
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.end()


class Requests(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site = None

    def log_message(self, *arguments):
        pass

    def reply(self, status, body, kind="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-cache")
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/socket":
            self.talk()
        elif path in FILES:
            file, kind = FILES[path]
            self.reply(200, file.read_bytes(), kind)
        elif path == "/blank":
            self.reply(200, BLANK, "text/html")
        else:
            self.reply(404, b"not here")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/offer" or not self.site.reachable or self.site.host is None:
            self.close_connection = True
            return
        status, answer = self.site.answer(body)
        try:
            self.reply(status, answer, "application/json")
        except ConnectionError:
            self.close_connection = True  # the page has found a faster way

    # ---- A WebSocket with whole text messages, no more (RFC 6455)

    def talk(self):
        key = self.headers["Sec-WebSocket-Key"].encode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key + ACCEPT).digest()).decode())
        self.end_headers()
        self.close_connection = True
        self.site.sockets += 1
        while self.site.reachable and (message := self.receive()) is not None:
            decoded = json.loads(message)
            if decoded.get("type") == "offer":
                _, answer = self.site.answer(message)
                self.send(answer)

    def receive(self):
        head = self.rfile.read(2)
        if len(head) < 2 or head[0] & 0x0F == 8:
            return None
        size = head[1] & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", self.rfile.read(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self.rfile.read(8))
        mask = self.rfile.read(4)
        masked = self.rfile.read(size)
        return bytes(byte ^ mask[index % 4] for index, byte in enumerate(masked))

    def send(self, message):
        size = len(message)
        head = bytes([0x81, size]) if size < 126 else bytes([0x81, 126]) + struct.pack(">H", size)
        self.wfile.write(head + message)
        self.wfile.flush()
