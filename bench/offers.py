"""How long a host takes to answer an offer: POST /offer against GET /ping on one open connection.

Run inside the host's network namespace; prints one JSON line. The offers are complete but nobody
connects: the host forgets them by its own deadline.
"""

import http.client
import json
import secrets
import socket
import sys
import time
from urllib.parse import urlsplit

OFFER = """v=0
o=- {number} 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
a=extmap-allow-mixed
a=msid-semantic: WMS
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=ice-ufrag:{ufrag}
a=ice-pwd:{password}
a=ice-options:trickle
a=fingerprint:sha-256 {fingerprint}
a=setup:actpass
a=mid:0
a=sctp-port:5000
a=max-message-size:262144
"""


def offer():
    text = OFFER.format(
        number=secrets.randbits(62),
        ufrag=secrets.token_hex(4),
        password=secrets.token_hex(12),
        fingerprint=":".join(f"{byte:02X}" for byte in secrets.token_bytes(32)),
    )
    return json.dumps({"type": "offer", "sdp": text.replace("\n", "\r\n")}).encode()


class Connection:
    """HTTP/1.1 with each request in one write, so that no acknowledgement is waited for."""

    def __init__(self, url):
        location = urlsplit(url)
        self.host = location.netloc
        self.socket = socket.create_connection((location.hostname, location.port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, method, path, body=b""):
        """Milliseconds and the body of the response."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        start = time.perf_counter()
        self.socket.sendall(head.encode() + b"\r\n" + body)
        response = http.client.HTTPResponse(self.socket, method=method)
        response.begin()
        text = response.read()
        took = (time.perf_counter() - start) * 1000
        if response.status != 200:
            raise RuntimeError(f"{path}: HTTP {response.status} {text[:200]!r}")
        return took, text


def main():
    url, count = sys.argv[1].rstrip("/"), int(sys.argv[2])
    connection = Connection(url)
    pings, posts = [], []
    for index in range(count + 5):
        ping, _ = connection.ask("GET", "/ping")
        body = offer()
        post, text = connection.ask("POST", "/offer", body)
        if json.loads(text)["type"] != "answer":
            raise RuntimeError("not an answer")
        if index >= 5:
            pings.append(ping)
            posts.append(post)
    difference = sorted(post - ping for post, ping in zip(posts, pings))
    print(
        json.dumps(
            {
                "bench": "answer",
                "count": count,
                "median_ms": difference[len(difference) // 2],
                "p95_ms": difference[int(len(difference) * 0.95)],
                "ping_median_ms": sorted(pings)[len(pings) // 2],
            }
        )
    )


if __name__ == "__main__":
    main()
