"""Real browsers for tests and benchmarks, behind one small interface.

    with start("chromium") as browser:          # or "firefox"; fresh profile, headless
        browser.navigate("http://127.0.0.1:8080/")
        result = browser.evaluate("return await reconnectDemo.ready")
        browser.reload()                        # the profile (storage, certificate) stays
        second = browser.new_tab()              # navigate, evaluate, reload, ... of its own
        print(browser.console())                # what pages have logged since the last call

start(name, ...) takes
    headless=True        False needs a display
    profile=None         a folder to use and keep; without it a fresh one, removed at the end
    namespace=()         command prefix, e.g. ("ip", "netns", "exec", "client"); the whole browser
                         runs behind it, and control connections are opened inside its network
                         namespace, which needs its loopback interface up
    args=()              further command line arguments of the browser
    prefs=None           Firefox preferences (dict); ignored by Chromium
    loopback=False       let WebRTC gather loopback addresses (hosts that offer 127.0.0.1 or ::1)
    env=None             further environment variables (dict)

evaluate(body, *args, timeout=30) runs `body` as the body of an async function in the page. The
arguments are in `args`; what it returns must fit JSON. A thrown error becomes a BrowserError.

Chromium is driven by chromedriver (WebDriver, JSON over HTTP), Firefox by WebDriver BiDi on its own
remote debugging port. Every wait has a deadline and ends in a BrowserError. Calls on one browser,
tabs included, must come from one thread; to run two tabs at once, start the work in both (store the
promise in `window`), then wait for each.
"""

import atexit
import base64
import contextlib
import ctypes
import http.client
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

NAMES = ("chromium", "firefox")
START_DEADLINE = 60.0
CLONE_NEWNET = 0x40000000


class BrowserError(Exception):
    """A page threw, a command failed, or a deadline has passed."""


def start(name, **options):
    """Starts "chromium" or "firefox" and returns it with one tab open on about:blank."""
    kinds = {"chromium": Chromium, "firefox": Firefox}
    if name not in kinds:
        raise ValueError(f"no such browser: {name!r} (one of {', '.join(NAMES)})")
    return kinds[name](**options)


def find(*commands):
    """The first of these commands that is installed."""
    for command in commands:
        path = shutil.which(command)
        if path:
            return path
    raise BrowserError(f"not installed: {' or '.join(commands)}")


def connect_inside(pid, host, port, timeout):
    """A TCP connection opened in the network namespace of process `pid`."""
    theirs = f"/proc/{pid}/ns/net"
    if os.path.samefile(theirs, "/proc/self/ns/net"):
        return socket.create_connection((host, port), timeout)
    outcome = []

    def work():  # setns changes this thread only, and this thread ends right after
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            with open(theirs) as namespace:
                if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns {theirs}")
            outcome.append(socket.create_connection((host, port), timeout))
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    return outcome[0]


class Process:
    """A child process in a process group of its own, its output watched line by line."""

    def __init__(self, command, env=None):
        self.command = command
        self.lines = []
        self._changed = threading.Condition()
        self._ended = False
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            text=True,
            errors="replace",
        )
        self.pid = self._child.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        atexit.register(self.end)

    def _read(self):
        for line in self._child.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                del self.lines[:-2000]
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, pattern, timeout, times=1):
        """The match of the first line that fits `pattern`, or of the second and so on."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                matches = self.matches(pattern)
                if len(matches) >= times:
                    return matches[times - 1]
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    why = "ended" if self._ended else f"did not say so in {timeout:g} s"
                    tail = "\n".join(self.lines[-20:])
                    raise BrowserError(f"{self.command[0]} {why}, waiting for {pattern!r}:\n{tail}")
                self._changed.wait(left)

    def matches(self, pattern):
        """Those of all lines that fit `pattern`."""
        return [match for line in self.lines if (match := re.search(pattern, line))]

    def alive(self):
        return self._child.poll() is None

    def wait(self, timeout):
        """Until it has ended."""
        try:
            self._child.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise BrowserError(f"{self.command[0]} has not ended in {timeout:g} s") from error

    def end(self):
        """Ends the process group by its id and reaps the child."""
        atexit.unregister(self.end)
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.pid, number)
            except (ProcessLookupError, PermissionError):
                break  # the group is gone
            try:
                self._child.wait(5)
            except subprocess.TimeoutExpired:
                continue
        self._child.wait()


def end_by_id(pid, timeout=5.0):
    """Ends a process that is no child of ours, if it still runs."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    import select

    try:
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], timeout)[0]:
                return
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


class Tab:
    """One page. Made by Browser.new_tab; a browser itself behaves as its first tab."""

    def __init__(self, browser, handle):
        self.browser = browser
        self.handle = handle

    def navigate(self, url, timeout=30.0):
        """Loads the address and returns after the page's load event."""
        self.browser._navigate(self.handle, url, timeout)

    def reload(self, timeout=30.0):
        self.browser._reload(self.handle, timeout)

    def evaluate(self, body, *args, timeout=30.0):
        """Runs the body of an async function in the page and returns its JSON value."""
        outcome = self.browser._run(self.handle, WRAPPER % body, json.dumps(args), timeout)
        outcome = json.loads(outcome)
        if "error" in outcome:
            raise BrowserError(outcome["error"])
        return outcome.get("value")

    def screenshot(self, path, timeout=30.0):
        """Writes what the viewport shows as a PNG file."""
        data = base64.b64decode(self.browser._screenshot(self.handle, timeout))
        with open(path, "wb") as file:
            file.write(data)

    def viewport(self, width, height, scale=1.0, dark=None, timeout=10.0):
        """Sets the layout size in CSS pixels; `dark` sets the colour scheme (Chromium only: for
        Firefox give start() the preference layout.css.prefers-color-scheme.content-override)."""
        self.browser._viewport(self.handle, width, height, scale, dark, timeout)

    def close_tab(self, timeout=10.0):
        self.browser._close_tab(self.handle, timeout)


# `json` holds the arguments; the outcome is a JSON text too, so that both drivers carry one string.
WRAPPER = """async (json) => {
  const args = JSON.parse(json);
  try {
    const value = await (async () => { %s
    })();
    return JSON.stringify({value});
  } catch (error) {
    return JSON.stringify({error: String(error && error.stack ? error + "\\n" + error.stack : error)});
  }
}"""


class Browser(Tab):
    """What Chromium and Firefox share: the life of the process and of the profile."""

    name = ""

    def __init__(
        self,
        headless=True,
        profile=None,
        namespace=(),
        args=(),
        prefs=None,
        loopback=False,
        env=None,
    ):
        self._fresh = profile is None
        self.profile = profile or tempfile.mkdtemp(prefix=f"reconnect-{self.name}-")
        os.makedirs(self.profile, exist_ok=True)
        self.process = None
        self._closed = False
        try:
            first = self._launch(headless, list(namespace), list(args), prefs or {}, loopback, env)
        except BaseException:
            self.close()
            raise
        super().__init__(self, first)

    def new_tab(self, timeout=10.0):
        """Opens a further tab on about:blank, in the same profile."""
        return Tab(self, self._new_tab(timeout))

    def console(self):
        """Log entries and uncaught errors of all tabs since the last call, oldest first:
        {"level": "error" | "warning" | "info" | "debug", "text": ...}."""
        return self._console()

    def version(self):
        """Name and version as the browser reports it."""
        return self._version

    def close(self):
        """Ends the browser by its process id; a fresh profile is removed."""
        if self._closed:
            return
        self._closed = True
        try:
            self._quit()
        except (BrowserError, OSError):
            pass
        if self.process:
            self.process.end()
        if self._fresh:
            shutil.rmtree(self.profile, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


class Chromium(Browser):
    name = "chromium"

    def _launch(self, headless, namespace, args, prefs, loopback, env):
        self._session = None
        self._browser_pid = None
        self._current = None
        # --enable-unsafe-... and the like belong to the caller's `args`.
        switches = [
            f"--user-data-dir={self.profile}",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-background-timer-throttling",
            "--disable-backgrounding-occluded-windows",
            "--disable-renderer-backgrounding",
            "--disable-component-update",
            "--disable-dev-shm-usage",
            "--disable-sync",
        ]
        if headless:
            switches.append("--headless=new")
        if os.geteuid() == 0:
            switches.append("--no-sandbox")
        if loopback:
            switches.append("--allow-loopback-in-peer-connection")
        switches += args

        driver = find("chromedriver")
        self.process = Process(namespace + [driver, "--port=0"], env)
        port = self.process.wait_for(r"started successfully on port (\d+)", START_DEADLINE)
        self._port = int(port.group(1))
        session = self._call(
            "POST",
            "/session",
            {
                "capabilities": {
                    "alwaysMatch": {
                        "browserName": "chrome",
                        "goog:chromeOptions": {
                            "binary": find("chromium", "chromium-browser", "google-chrome"),
                            "args": switches,
                        },
                        "goog:loggingPrefs": {"browser": "ALL"},
                    }
                }
            },
            START_DEADLINE,
        )
        self._session = f"/session/{session['sessionId']}"
        capabilities = session["capabilities"]
        self._version = f"Chromium {capabilities.get('browserVersion', '')}"
        self._browser_pid = capabilities.get("goog:processID")
        self._current = self._call("GET", f"{self._session}/window", None, 10.0)
        return self._current

    def _call(self, method, path, body, timeout):
        """One WebDriver command (W3C WebDriver, section 6)."""
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self._port)
            connection.sock = connect_inside(self.process.pid, "127.0.0.1", self._port, timeout)
            connection.sock.settimeout(timeout)
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            value = json.loads(connection.getresponse().read())["value"]
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            raise BrowserError(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()
        if isinstance(value, dict) and "error" in value:
            raise BrowserError(f"{value['error']}: {value.get('message', '')}")
        return value

    def _in(self, handle, method, path, body, timeout):
        """A command for one tab."""
        if self._current != handle:
            self._call("POST", f"{self._session}/window", {"handle": handle}, timeout)
            self._current = handle
        return self._call(method, self._session + path, body, timeout)

    def _deadlines(self, handle, **milliseconds):
        self._in(handle, "POST", "/timeouts", milliseconds, 10.0)

    def _navigate(self, handle, url, timeout):
        self._deadlines(handle, pageLoad=int(timeout * 1000))
        self._in(handle, "POST", "/url", {"url": url}, timeout + 5)

    def _reload(self, handle, timeout):
        self._deadlines(handle, pageLoad=int(timeout * 1000))
        self._in(handle, "POST", "/refresh", {}, timeout + 5)

    def _run(self, handle, function, argument, timeout):
        self._deadlines(handle, script=int(timeout * 1000))
        script = f"const done = arguments[1]; ({function})(arguments[0]).then(done);"
        body = {"script": script, "args": [argument]}
        return self._in(handle, "POST", "/execute/async", body, timeout + 5)

    def _screenshot(self, handle, timeout):
        return self._in(handle, "GET", "/screenshot", None, timeout)

    def cdp(self, command, parameters=None, handle=None, timeout=10.0):
        """A DevTools command in the tab, e.g. ("Network.emulateNetworkConditions", {...})."""
        body = {"cmd": command, "params": parameters or {}}
        return self._in(handle or self.handle, "POST", "/goog/cdp/execute", body, timeout)

    def _viewport(self, handle, width, height, scale, dark, timeout):
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.cdp("Emulation.setDeviceMetricsOverride", size, handle, timeout)
        if dark is not None:
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            self.cdp("Emulation.setEmulatedMedia", {"features": [scheme]}, handle, timeout)

    def _new_tab(self, timeout):
        # From a tab that is there: the current one may have been closed.
        new = self._in(self.handle, "POST", "/window/new", {"type": "tab"}, timeout)
        return new["handle"]

    def _close_tab(self, handle, timeout):
        self._in(handle, "DELETE", "/window", None, timeout)
        self._current = None

    def _console(self):
        # The log belongs to the session: entries of all tabs come with any of them.
        entries = self._in(self.handle, "POST", "/se/log", {"type": "browser"}, 10.0)
        levels = {"SEVERE": "error", "WARNING": "warning", "INFO": "info"}
        return [{"level": levels.get(e["level"], "debug"), "text": e["message"]} for e in entries]

    def _quit(self):
        if self._session:
            try:
                self._call("DELETE", self._session, None, 10.0)
            finally:
                if self._browser_pid:
                    end_by_id(self._browser_pid)


class Firefox(Browser):
    name = "firefox"

    def _launch(self, headless, namespace, args, prefs, loopback, env):
        self._socket = None
        self._open = contextlib.ExitStack()
        wanted = {
            # No requests of its own; the other preferences for automation are Firefox's default
            # as soon as the remote protocol is on.
            "app.normandy.enabled": False,
            "browser.shell.checkDefaultBrowser": False,
            "datareporting.policy.dataSubmissionEnabled": False,
            "network.captive-portal-service.enabled": False,
            "network.connectivity-service.enabled": False,
            "media.peerconnection.ice.loopback": loopback,
            **prefs,
        }
        with open(os.path.join(self.profile, "user.js"), "w") as file:
            for key, value in wanted.items():
                file.write(f"user_pref({json.dumps(key)}, {json.dumps(value)});\n")

        command = [find("firefox-esr", "firefox"), "--profile", self.profile]
        command += ["--no-remote", "--new-instance", "--remote-debugging-port=0"]
        if headless:
            command.append("--headless")
        home = {"HOME": self.profile} if self._fresh else {}  # nothing is left outside of it
        self.process = Process(namespace + command + args, {**home, **(env or {})})
        found = self.process.wait_for(r"BiDi listening on ws://([^:/]+):(\d+)", START_DEADLINE)

        from websockets.sync.client import connect

        host, port = found.group(1), int(found.group(2))
        self._socket = self._open.enter_context(
            connect(
                f"ws://{host}:{port}/session",
                sock=connect_inside(self.process.pid, host, port, 10.0),
                max_size=None,
                compression=None,
                ping_interval=None,
                proxy=None,
            )
        )
        self._last = 0
        self._logged = queue.SimpleQueue()
        session = self._call("session.new", {"capabilities": {}}, START_DEADLINE)
        self._version = f"Firefox {session['capabilities'].get('browserVersion', '')}"
        self._call("session.subscribe", {"events": ["log.entryAdded"]}, 10.0)
        return self._call("browsingContext.getTree", {}, 10.0)["contexts"][0]["context"]

    def _call(self, method, params, timeout):
        """One BiDi command; events that come before its answer are kept."""
        self._last += 1
        deadline = time.monotonic() + timeout
        try:
            self._socket.send(json.dumps({"id": self._last, "method": method, "params": params}))
            while True:
                answer = json.loads(self._socket.recv(max(0.0, deadline - time.monotonic())))
                if answer.get("type") == "event":
                    self._event(answer)
                elif answer.get("id") == self._last:
                    break
        except TimeoutError as error:
            raise BrowserError(f"{method}: no answer in {timeout:g} s") from error
        except Exception as error:  # the socket's own exceptions: the browser has gone
            raise BrowserError(f"{method}: {error!r}") from error
        if answer["type"] == "error":
            raise BrowserError(f"{answer['error']}: {answer.get('message', '')}")
        return answer["result"]

    def _event(self, event):
        if event["method"] == "log.entryAdded":
            entry = event["params"]
            level = {"warn": "warning"}.get(entry["level"], entry["level"])
            text = entry.get("text") or ""
            for frame in (entry.get("stackTrace") or {}).get("callFrames", []):
                text += f"\n  {frame['functionName']} {frame['url']}:{frame['lineNumber'] + 1}"
            self._logged.put({"level": level, "text": text})

    def _navigate(self, handle, url, timeout):
        params = {"context": handle, "url": url, "wait": "complete"}
        self._call("browsingContext.navigate", params, timeout)

    def _reload(self, handle, timeout):
        self._call("browsingContext.reload", {"context": handle, "wait": "complete"}, timeout)

    def _run(self, handle, function, argument, timeout):
        params = {
            "functionDeclaration": function,
            "arguments": [{"type": "string", "value": argument}],
            "target": {"context": handle},
            "awaitPromise": True,
        }
        result = self._call("script.callFunction", params, timeout)
        if result["type"] == "exception":
            raise BrowserError(result["exceptionDetails"]["text"])
        return result["result"]["value"]

    def _screenshot(self, handle, timeout):
        return self._call("browsingContext.captureScreenshot", {"context": handle}, timeout)["data"]

    def _viewport(self, handle, width, height, scale, dark, timeout):
        params = {
            "context": handle,
            "viewport": {"width": width, "height": height},
            "devicePixelRatio": scale,
        }
        self._call("browsingContext.setViewport", params, timeout)

    def _new_tab(self, timeout):
        return self._call("browsingContext.create", {"type": "tab"}, timeout)["context"]

    def _close_tab(self, handle, timeout):
        self._call("browsingContext.close", {"context": handle}, timeout)

    def _console(self):
        # Entries travel in order before the answer of a later command.
        self._call("session.status", {}, 10.0)
        entries = []
        while not self._logged.empty():
            entries.append(self._logged.get())
        return entries

    def _quit(self):
        if self._socket:
            try:
                self._call("browser.close", {}, 10.0)
            finally:
                self._open.close()
