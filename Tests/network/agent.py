"""One end of a connection, in a host's network namespace: an engine with one peer that negotiates by itself.

    agent.py '{"stun": [...], "turn": [{"url": ..., "username": ..., "password": ...}], "ca": PATH, ...}'

Reads commands as JSON lines, writes what happens as JSON lines; ends with its input. Commands:

    {"do": "begin"}                      begins the negotiation
    {"do": "signal", "message": ...}     what the other end's {"event": "signal", "message": ...} said
    {"do": "restart"}                    restarts ICE
    {"do": "send", "rate": 50}           sends 1, 2, 3, ... as text, so many a second; "after": 7 begins with 8
    {"do": "halt"}                       stops that: {"event": "halted", "sent": N}
    {"do": "expect", "count": N}         {"event": "reached", ...} as soon as N messages have come, in order
    {"do": "statistics"}                 {"event": "statistics", ...}, members as in reconnect_peer_statistics_t
    {"do": "timers", ...}, {"do": "turn", "servers": [...]}
"""

import ctypes
import json
import os
import select
import sys
import time
from pathlib import Path

import header

ROOT = Path(__file__).resolve().parents[2]
BATCH = 64


class Stream:
    """Numbered messages: what comes must be 1, 2, 3, and so on."""

    def __init__(self, send, tell):
        self.send, self.tell = send, tell
        self.sent = self.received = self.expected = 0
        self.pause = self.due = None

    def start(self, rate):
        self.pause, self.due = 1 / rate, time.monotonic()

    def wait(self):
        """Milliseconds until the next one is due; None: never."""
        return None if self.due is None else max(0, (self.due - time.monotonic()) * 1000)

    def step(self):
        while self.due is not None and time.monotonic() >= self.due and self.send(str(self.sent + 1)):
            self.sent += 1
            self.due += self.pause
            if time.monotonic() - self.due > 1:  # the queue was full for a while: no flood afterwards
                self.due = time.monotonic()

    def halt(self):
        self.due = None
        self.tell("halted", sent=self.sent)

    def take(self, text):
        if text != str(self.received + 1):
            self.tell("problem", text=f"message {text[:20]} came after {self.received}")
        self.received += 1
        self.check()

    def expect(self, count):
        self.expected = count
        self.check()

    def check(self):
        if self.expected and self.received >= self.expected:
            self.expected = 0
            self.tell("reached", received=self.received)


class Agent:
    def __init__(self, settings):
        library = os.environ.get("LIBRECONNECT_LIBRARY") or str(ROOT / "build/lib/libreconnect.so.1")
        self.abi = abi = header.load(library)
        self.detail = ctypes.create_string_buffer(512)
        self.engine = abi.structs["engine"]()
        self.peer = abi.structs["peer"]()
        self.channel = None
        self.stream = Stream(self.send, self.tell)
        stun = [url.encode() for url in settings.get("stun", [])]
        turn = settings.get("turn", [])
        config = abi.make(
            "engine_config",
            stun_servers=(ctypes.c_char_p * len(stun))(*stun),
            stun_server_count=len(stun),
            turn_servers=self.servers(turn),
            turn_server_count=len(turn),
            turn_ca_path=settings.get("ca"),
            tcp=settings.get("tcp", 0),
            interfaces=settings.get("interfaces", 0),
            ice_policy=settings.get("policy", 0),
            timers=self.timers(settings.get("timers", {})),
            log_level=settings.get("log_level", abi.LOG_INFO),
        )
        self.strict(abi.call("engine_create", config, ctypes.byref(self.engine), self.detail, 512))
        style = abi.NEGOTIATION_IMPOLITE if settings.get("impolite") else abi.NEGOTIATION_POLITE
        channel = abi.make("channel_config", negotiated=1, id=0, tag=7)
        peer = abi.make("peer_config", negotiation=style, tag=1, channels=channel, channel_count=1)
        peer.ice_policy = settings.get("peer_policy", 0)
        self.strict(abi.call("peer_create", self.engine, peer, ctypes.byref(self.peer)))
        descriptor = ctypes.c_int()
        self.strict(abi.call("event_fd", self.engine, ctypes.byref(descriptor)))
        self.descriptor = descriptor.value
        self.events = (abi.structs["event"] * BATCH)()

    def strict(self, status):
        self.abi.check(status, self.detail.value.decode(errors="replace"))

    def servers(self, servers):
        return (self.abi.structs["turn_server"] * len(servers))(*[self.abi.make("turn_server", **s) for s in servers])

    def timers(self, timers):
        return self.abi.make("timers", **timers)

    @staticmethod
    def tell(event, **members):
        sys.stdout.write(json.dumps({"event": event, "at": time.monotonic(), **members}) + "\n")
        sys.stdout.flush()

    def send(self, text):
        data = text.encode()
        status = self.abi.call("send", self.channel, ctypes.c_uint32(self.abi.TEXT), data, len(data))
        if status not in (0, self.abi.WOULD_BLOCK):
            self.tell("problem", text=f"sending {text}: {self.abi.name('', status)}")
            self.stream.due = None
        return status == 0

    # ----------------------------------------------------------------- commands

    def obey(self, command):
        abi, what = self.abi, command.pop("do")
        if what in ("begin", "restart"):
            self.strict(abi.call("peer_restart", self.peer))
        elif what == "signal":
            message = json.dumps(command["message"]).encode()
            status = abi.call("peer_signal", self.peer, message, len(message), self.detail, 512)
            if status != 0:
                self.tell("refused", status=abi.name("", status), text=self.detail.value.decode(errors="replace"))
        elif what == "send":
            self.stream.sent = command.get("after", self.stream.sent)
            self.stream.start(command["rate"])
        elif what == "halt":
            self.stream.halt()
        elif what == "expect":
            self.stream.expect(command["count"])
        elif what == "statistics":
            self.strict(abi.call("peer_query_statistics", self.peer, ctypes.c_uint64(9)))
        elif what == "timers":
            self.strict(abi.call("engine_set_timers", self.engine, self.timers(command), self.detail, 512))
        elif what == "turn":
            servers = command["servers"]
            arguments = (self.servers(servers), len(servers), self.detail, 512)
            self.strict(abi.call("engine_set_turn_servers", self.engine, *arguments))
        else:
            raise ValueError(what)

    # ------------------------------------------------------------------- events

    def take(self):
        count = ctypes.c_size_t()
        abi = self.abi
        while True:
            arguments = (ctypes.byref(self.events), BATCH, ctypes.c_int32(0), ctypes.byref(count))
            self.strict(abi.call("poll", self.engine, *arguments))
            if count.value == 0:
                return
            for event in self.events[: count.value]:
                self.convert(event)
            abi.call("release", self.engine, ctypes.c_uint64(self.events[0].batch))

    def convert(self, event):
        abi, kind = self.abi, event.type
        data = ctypes.string_at(event.data, event.size)
        text, extra = data.decode(errors="replace"), ctypes.string_at(event.extra, event.extra_size).decode()
        why = {"status": abi.name("", event.status), "text": text}
        if kind == abi.EVENT_MESSAGE:
            self.stream.take(text)
        elif kind == abi.EVENT_PEER_SIGNAL:
            self.tell("signal", message=json.loads(text))
        elif kind == abi.EVENT_CHANNEL_OPEN:
            self.channel = abi.structs["channel"](event.channel.id)
            self.tell("open")
        elif kind == abi.EVENT_CHANNEL_CLOSED:
            self.stream.due = None
            self.tell("channel closed", **why)
        elif kind == abi.EVENT_PEER_STATE:
            self.tell("state", state=abi.name("PEER_", event.number), **why)
        elif kind == abi.EVENT_PATH:
            why = abi.name("PATH_", event.kind)
            self.tell("path", local=text, remote=extra, kind=why, number=event.number)
        elif kind == abi.EVENT_RESTART:
            self.tell("restart", state=abi.name("RESTART_", event.number), attempt=event.kind, **why)
        elif kind == abi.EVENT_NETWORK:
            self.tell("network", online=event.number, changes=event.kind, text=text)
        elif kind == abi.EVENT_TURN:
            self.tell("turn", state=abi.name("TURN_", event.number), url=text, extra=extra, status=why["status"])
        elif kind == abi.EVENT_STATISTICS:
            figures = abi.structs["peer_statistics"].from_buffer_copy(data.ljust(1024, b"\0"))
            values = ((name, getattr(figures, name)) for name, *_ in figures._fields_)
            values = {name: v.decode() if isinstance(v, bytes) else v for name, v in values}
            self.tell("statistics", **values)
        elif kind == abi.EVENT_LOG:
            self.tell("log", text=text)

    def run(self):
        poller = select.poll()
        poller.register(0, select.POLLIN)
        poller.register(self.descriptor, select.POLLIN)
        self.tell("ready")
        rest = b""
        while True:
            for descriptor, _ in poller.poll(self.stream.wait()):
                if descriptor != 0:
                    continue
                read = os.read(0, 1 << 16)
                if not read:
                    self.abi.call("engine_destroy", self.engine)
                    return
                *lines, rest = (rest + read).split(b"\n")
                for line in lines:
                    self.obey(json.loads(line))
            self.take()
            self.stream.step()


if __name__ == "__main__":
    Agent(json.loads(sys.argv[1])).run()
