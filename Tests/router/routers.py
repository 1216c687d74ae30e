"""Router processes and their clients.

with Router("--window", "10") as router:
    ada = router.client("room", "ada")      # joined
    ada.say("hello")                        # waits for the receipt
    ada.hear()                              # the next message for ada: {"sequence", "from", "data", ...}
    ada.cut()                               # the network ends: no close, no leave
    ada.join()                              # comes back with what it has; ada.returned says how
    ada.join(other_router)
"""

import json
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote, urlsplit

import drivers
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20
TOKENS = {name: f"access-token-of-{name}" for name in ("ada", "ben", "cat")}


def until(condition, what, timeout=PATIENCE):
    """What `condition` returns as soon as that is true; a test waits for nothing else."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited too long for {what() if callable(what) else what}"
        time.sleep(0.01)
    return value


class Router:
    """A running router, ready for clients."""

    def __init__(self, *options, http="127.0.0.1:0", tokens=TOKENS, **environment):
        command = [sys.executable, str(ROOT / "examples" / "python" / "router.py"), "--http", http]
        settings = {"ROUTER_TOKENS": ",".join(f"{user}:{token}" for user, token in tokens.items())}
        settings |= {"ALLOWED_ORIGINS": "", "REDIS_URL": "", **environment}
        self.process = drivers.Process(command + [str(option) for option in options], settings)
        try:
            self.url = self.process.wait_for(r"listening on (http://\S+)", 30).group(1)
        except BaseException:
            self.process.end()
            raise
        self.host = urlsplit(self.url).netloc

    def alive(self):
        return self.process.alive()

    def lines(self):
        return self.process.lines

    def kill(self):
        """Without a chance to put anything in order."""
        os.kill(self.process.pid, signal.SIGKILL)
        until(lambda: not self.alive(), "the router's end")

    def stop(self):
        """In order, as a deploy does. Its exit status."""
        os.kill(self.process.pid, signal.SIGTERM)
        until(lambda: not self.alive(), "the router's end")
        return self.process._child.returncode

    def socket(self, room):
        return f"ws://{self.host}/webrtc/rooms/{quote(room, safe='')}/socket"

    def client(self, room, user, **options):
        return Client(self, room, user, **options).join()

    def ask(self, path, user=None, body=None, token=None, method=None, **headers):
        """Status, decoded body and headers."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if user or token:
            headers["Authorization"] = f"Bearer {token or TOKENS[user]}"
        request = urllib.request.Request(self.url + path.lstrip("/"), data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return response.status, decoded(response.read()), response.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, decoded(error.read()), error.headers

    def end(self):
        self.process.end()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.end()


def decoded(body):
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


class Client:
    """A client as docs/python-router.md describes it, for one thread."""

    def __init__(self, router, room, user, origin=None, max_queue=None):
        self.router = router
        self.room = room
        self.user = user
        self.origin = origin
        self.max_queue = max_queue  # frames that are read ahead; None: all
        self.access = TOKENS.get(user)
        self.websocket = None
        self.position = None
        self.token = None
        self.returned = None  # the last reconnection-detected
        self.heard = []  # messages not asked for yet
        self.receipts = []
        self.others = []  # frames of all other kinds
        self.sequences = []
        self.retry_after = None

    def connect(self, router=None):
        self.router = router or self.router
        self.websocket = connect(
            self.router.socket(self.room),
            origin=self.origin,
            compression=None,
            max_size=None,
            open_timeout=PATIENCE,
            close_timeout=1,
            ping_interval=None,
            max_queue=self.max_queue,
            proxy=None,
            legacy=True,
        )
        return self

    def join(self, router=None, **changes):
        """Connects and joins, with what the client has from last time; waits until that is answered."""
        self.connect(router)
        self.returned, self.heard, self.receipts, self.others = None, [], [], []
        hello = {"type": "join", "access": self.access, "position": self.position, "token": self.token, **changes}
        self.send(**hello)
        came_back = hello["position"] is not None or hello["token"] is not None
        frame = self.wait(lambda: self.find("joined"), "joined")
        if came_back or "position" not in frame:
            self.wait(lambda: self.returned, "reconnection-detected")
        return self

    def send(self, **frame):
        self.websocket.send(json.dumps(frame))

    def find(self, kind):
        for frame in self.others:
            if frame["type"] == kind:
                return frame
        return None

    def receive(self, timeout=PATIENCE):
        frame = json.loads(self.websocket.recv(timeout))
        kind = frame["type"]
        if kind == "messages":
            for message in frame["messages"]:
                self.heard.append(message)
                self.sequences.append(message["sequence"])
        elif kind == "sent":
            self.receipts.append(frame)
        else:
            self.others.append(frame)
        if kind == "joined":
            self.token = frame["token"]
        if kind == "reconnection-detected":
            self.returned = frame
            if frame["missed_message_count"]:
                return  # the last of them brings the position
        if kind == "retry":
            self.retry_after = frame["retry_after"]
        if frame.get("position"):
            self.position = frame["position"]

    def wait(self, condition, what):
        deadline = time.monotonic() + PATIENCE
        while not (value := condition()):
            left = deadline - time.monotonic()
            assert left > 0, f"{self.user} waited too long for {what}"
            self.receive(left)
        return value

    def say(self, data, **more):
        """Publishes; the receipt."""
        self.send(type="message", data=data, **more)
        self.wait(lambda: self.receipts or self.find("error"), "a receipt")
        assert self.receipts, self.others
        return self.receipts.pop(0)

    def refused(self, **frame):
        """The error that a frame leads to."""
        self.send(**frame)
        error = self.wait(lambda: self.find("error"), "an error")
        self.others.remove(error)
        return error

    def hear(self, count=None):
        """The data of the next message, or of so many."""
        messages = self.listen(1 if count is None else count)
        return messages[0]["data"] if count is None else [message["data"] for message in messages]

    def listen(self, count):
        self.wait(lambda: len(self.heard) >= count, f"{count} messages, {self.heard}")
        messages, self.heard = self.heard[:count], self.heard[count:]
        return messages

    def pong(self):
        """Everything that the router had sent before is here."""
        self.send(type="ping")
        pong = self.wait(lambda: self.find("pong"), "pong")
        self.others.remove(pong)

    def closed(self):
        """The code with which the router closes."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.receive(max(0.1, deadline - time.monotonic()))
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else None

    def close(self):
        """With a close frame, without a leave."""
        self.websocket.close()

    def cut(self):
        """As when the network ends: no close frame."""
        try:
            self.websocket.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the router was faster

    def leave(self):
        self.send(type="leave")
        assert self.wait(lambda: self.find("left"), "left") and self.closed() == 1000
        self.position = self.token = None
