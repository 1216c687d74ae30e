"""Ends of connections as seen from the tests: programs in host namespaces that talk JSON lines (agent.py says which), and
pairs of them whose signaling the test carries, or does not."""

import collections
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import netns
from internet import PATIENCE

HERE = Path(__file__).resolve().parent


class Endpoint:
    """One program."""

    def __init__(self, site, command, environment=None, name=""):
        self.site, self.name = site, name
        self.events = []
        self.other = None
        self.carries = True
        self._news = threading.Condition()
        self._ended = False
        self._errors = tempfile.TemporaryFile()
        self.process = site.host.start(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment
        )
        self._writing = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.child.stdout:
            if not line.startswith(b"{"):  # pion prints its log here
                line = json.dumps({"event": "log", "at": time.monotonic(), "text": line.decode().strip()})
            self._take(json.loads(line))
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _take(self, event):
        if event["event"] == "signal":
            self._carry(event["message"])
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def _carry(self, message):
        if self.carries and self.other:
            self.other.do("signal", message=message)

    def do(self, what, **members):
        line = json.dumps({"do": what, **members}) + "\n"
        with self._writing:
            try:
                self.process.child.stdin.write(line.encode())
                self.process.child.stdin.flush()
            except (BrokenPipeError, ValueError):
                pass  # it has ended; whoever waits for it is told

    def mark(self):
        """Where the events are now, for `wait`."""
        with self._news:
            return len(self.events)

    def wait(self, what, since=0, patience=PATIENCE, **members):
        """The first event since then with these members; values may be functions that judge."""
        found = self.first(what, since, patience, **members)
        if found is None:
            both = self.story() + (f"\n{self.other.story()}" if self.other else "")
            raise AssertionError(f"{self.name}: waited too long for {what} {members or ''}\n{both}")
        return found

    def first(self, what, since=0, patience=PATIENCE, **members):
        """Likewise; None if it does not come."""
        deadline = time.monotonic() + patience
        with self._news:
            while True:
                for event in self.events[since:]:
                    if event["event"] in what.split("|") and self._fits(event, members):
                        return event
                since = max(since, len(self.events))
                if self._ended:
                    raise AssertionError(f"{self.name} has ended, waiting for {what}\n{self.story()}")
                if not self._news.wait(max(0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    return None

    @staticmethod
    def _fits(event, members):
        return all(
            judge(event.get(name)) if callable(judge) else event.get(name) == judge for name, judge in members.items()
        )

    def ask(self, what, answer, **members):
        since = self.mark()
        self.do(what, **members)
        return self.wait(answer, since)

    def statistics(self):
        return self.ask("statistics", "statistics")

    def all(self, what, **members):
        with self._news:
            return [e for e in self.events if e["event"] == what and self._fits(e, members)]

    def states(self):
        return [event["state"] for event in self.all("state")]

    def story(self, count=60):
        """What it said and printed, for a failure."""
        with self._news:
            events = list(self.events)
        lines = []
        for event in events[-count:]:
            rest = {k: v for k, v in event.items() if k not in ("event", "at")}
            lines.append(f"  {event['at']:.3f} {event['event']} {json.dumps(rest)[:300]}")
        return "\n".join([f"--- {self.name}", *lines, self.printed()])

    def printed(self):
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-2000:]

    def close(self):
        """Its input's end is its end."""
        try:
            with self._writing:
                self.process.child.stdin.close()
            self.process.child.wait(5)
        except (OSError, subprocess.TimeoutExpired):
            pass
        self._reader.join(5)
        self.process.end()
        self._errors.close()


def agent(site, name="", **settings):
    """libreconnect."""
    # Without the site's packages it starts three times as fast.
    command = [sys.executable, "-I", "-S", "-c", START, str(HERE), json.dumps(settings)]
    return Endpoint(site, command, name=name)


START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import agent, json; agent.Agent(json.loads(sys.argv[1])).run()"
)


class Pair:
    """Two ends, `a` that begins and `b`, and the signaling between them."""

    def __init__(self, a, b):
        self.a, self.b = a, b
        a.other, b.other = b, a

    def begin(self):
        self.a.do("begin")

    def carry(self, carries):
        """False: what either end says to the other is lost from now on."""
        self.a.carries = self.b.carries = carries

    def connect(self):
        self.begin()
        for end in (self.a, self.b):
            end.wait("open")
        return self

    # -------------------------------------------------------------- the numbered stream

    def stream(self, rate=50):
        for end in (self.a, self.b):
            end.do("send", rate=rate)
        self.flows()

    def flows(self, more=10):
        """Waits until so many further messages have come both ways."""
        for end in (self.a, self.b):
            end.ask("expect", "reached", count=1)
        have = [end.all("reached")[-1]["received"] for end in (self.a, self.b)]
        marks = [end.mark() for end in (self.a, self.b)]
        for end, count in zip((self.a, self.b), have, strict=True):
            end.do("expect", count=count + more)
        for end, mark in zip((self.a, self.b), marks, strict=True):
            end.wait("reached", mark)

    def finish(self):
        """Stops the stream: every message has come once and in order, over the one connection there ever was."""
        for end, other in ((self.a, self.b), (self.b, self.a)):
            sent = end.ask("halt", "halted")["sent"]
            assert sent > 0
            assert other.ask("expect", "reached", count=sent)["received"] == sent
        for end in (self.a, self.b):
            problems = end.all("problem") + end.all("channel closed") + end.all("refused")
            assert not problems, f"{problems}\n{end.story()}"
            assert "closed" not in end.states(), end.story()
            assert len(end.all("open")) == 1, end.story()

    def story(self):
        return self.a.story() + "\n" + self.b.story()

    def close(self):
        closing = [threading.Thread(target=end.close) for end in (self.a, self.b)]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


KIND = collections.namedtuple("KIND", "local remote transport relay")


def kinds(statistics):
    """Of the path in use: the candidates' types, the transport, and that to our relay."""
    reflexive = {"srflx": "reflexive", "prflx": "reflexive"}
    local, remote = statistics["local_type"], statistics["remote_type"]
    return KIND(
        reflexive.get(local, local),
        reflexive.get(remote, remote),
        statistics["transport"],
        statistics["relay_transport"],
    )


__all__ = ["KIND", "Endpoint", "Pair", "agent", "kinds", "netns"]
