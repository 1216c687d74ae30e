import os

import drivers
import hosts
import pytest

BROWSERS = os.environ.get("RECONNECT_TEST_BROWSERS", ",".join(drivers.NAMES)).split(",")


def pytest_generate_tests(metafunc):
    if "host" in metafunc.fixturenames:
        metafunc.parametrize("host", hosts.selected(), indirect=True, scope="session")
    elif "host_name" in metafunc.fixturenames:
        metafunc.parametrize("host_name", hosts.selected(), scope="session")
    if "browser" in metafunc.fixturenames:
        metafunc.parametrize("browser", BROWSERS, indirect=True, scope="session")


@pytest.fixture(scope="session")
def host(request):
    """One running host of each kind for all tests."""
    with hosts.Host(request.param) as host:
        yield host


@pytest.fixture(scope="session")
def browser(request):
    """One running browser of each kind for all tests: each host is an origin of its own."""
    with drivers.start(request.param, loopback=True) as browser:
        yield browser


class Page:
    """A tab on the example page of a host."""

    def __init__(self, tab, url):
        self.tab = tab
        self.url = url

    def open(self, query=""):
        self.tab.navigate(self.url + query)

    def run(self, body, *args, timeout=60):
        return self.tab.evaluate(LIBRARY + body, *args, timeout=timeout)

    def ready(self):
        """The result of the current connect."""
        return self.run("return await reconnectDemo.ready")

    def reload(self):
        self.tab.reload()
        return self.ready()

    def token(self):
        return self.run("return reconnectDemo.session.token")

    def echo(self, text):
        return self.run("return await reconnectDemo.send(args[0])", text)


# For the bodies that tests run in the page.
LIBRARY = """
  const bytes = (size) => {          // another pattern for each size
    const made = new Uint8Array(size);
    let state = (size * 2654435761 >>> 0) || 1;
    for (let i = 0; i < size; i++) {
      state ^= state << 13; state ^= state >>> 17; state ^= state << 5;
      made[i] = state;
    }
    return made;
  };
  // Of `size` bytes in UTF-8, with characters of one to four bytes.
  const text = (size) => "a\\u00e9\\u20ac\\u{1f600}".repeat(Math.floor(size / 10)) + "x".repeat(size % 10);
  const same = (sent, got) => {
    if (typeof sent === "string" || typeof got === "string") return sent === got;
    const view = new Uint8Array(got);
    return view.length === sent.length && view.every((byte, i) => byte === sent[i]);
  };
  const describe = (data) => typeof data === "string" ? `text of ${data.length} characters`
    : `${data.byteLength} bytes`;
  // Rejects when nothing happens: every wait has an end.
  const within = (promise, what, milliseconds = 20000) => {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error("waited too long for " + what)), milliseconds);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
  };
  const event = (target, name, milliseconds) => within(
    new Promise((resolve) => target.addEventListener(name, resolve, {once: true})), name, milliseconds);
  const echo = async (channel, data) => {
    const answer = event(channel, "message");
    channel.send(data);
    return (await answer).data;
  };
  // Sends everything at once, resolves with the echoes in the order of their arrival.
  const echoes = (channel, messages) => within(new Promise((resolve) => {
    const got = [];
    channel.addEventListener("message", function listen({data}) {
      if (got.push(data) < messages.length) return;
      channel.removeEventListener("message", listen);
      resolve(got);
    });
    for (const message of messages) channel.send(message);
  }), messages.length + " echoes", 50000);
"""


@pytest.fixture
def page(host, browser):
    """A new tab with empty storage on the host's page, not connected yet; afterwards nothing may
    have been logged as an error and the host must still run."""
    browser.console()
    tab = browser.new_tab()
    page = Page(tab, host.url)
    page.open("?connect=no")
    page.run("await reconnectDemo.forget(); localStorage.clear(); sessionStorage.clear()")
    yield page
    errors = [entry["text"] for entry in browser.console() if entry["level"] == "error"]
    tab.close_tab()
    assert host.alive(), "the host has ended:\n" + "\n".join(host.lines()[-20:])
    assert errors == []
