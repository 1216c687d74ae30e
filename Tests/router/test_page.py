"""The page of two panes, in real browsers."""

from __future__ import annotations

import socket

import drivers
import pytest
from routers import Router


@pytest.fixture(scope="module")
def started(browser_name):
    with drivers.start(browser_name) as browser:
        yield browser


@pytest.fixture
def browser(started):
    """A new tab; each router is an origin of its own."""
    started.console()
    tab = started.new_tab()
    yield tab
    tab.close_tab()


@pytest.fixture
def demo():
    with Router("--demo") as router:
        yield router


def run(browser, body, *arguments):
    return browser.evaluate(HELP + body, *arguments, timeout=60)


HELP = """
  await routerDemo.ready;
  const {ada, ben} = routerDemo.panes;
  const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
  const until = async (condition, what) => {
    for (let i = 0; i < 1000; i++) { if (condition()) return; await sleep(20); }
    throw new Error("waited too long for " + what);
  };
  const text = (pane, selector) => pane.section.querySelector(selector).textContent;
  const back = async (pane) => {
    const before = pane.returns.length;
    pane.connect();
    await until(() => pane.returns.length > before, "a return");
    const {missed} = pane.returns.at(-1);
    await until(() => pane.messages.filter(({replayed}) => replayed).length >= missed, "the missed messages");
  };
"""


def errors(browser):
    return [entry["text"] for entry in browser.browser.console() if entry["level"] == "error"]


def test_cut_off_and_back_complete(browser, demo):
    browser.navigate(demo.url)
    found = run(
        browser,
        """
        await ada.send("one");
        await until(() => ben.messages.length === 1, "the first message");
        ben.section.querySelector(".switch").click();
        await until(() => text(ben, ".chip") === "cut off", "the cut");
        const cut = [text(ben, ".chip"), text(ben, ".switch"), document.getElementById("title").textContent];
        const waiting = ben.send("from afar");
        for (const word of ["two", "three", "four"]) await ada.send(word);
        await sleep(1200);
        ben.section.querySelector(".switch").click();
        await until(() => ben.returns.length === 1, "the return");
        await until(() => ben.messages.length === 4, "the missed messages");
        const sequence = await waiting;
        await until(() => ada.messages.length === 1, "what had waited");
        return {
          cut, sequence, returned: ben.returns[0], heard: ben.messages.map(({data}) => data),
          replayed: ben.messages.map(({replayed}) => replayed),
          verdict: text(ben, ".verdict dd"), missed: text(ben, ".missed dd"), duration: text(ben, ".duration dd"),
          title: document.getElementById("title").textContent, chip: text(ben, ".chip"), ada: ada.messages[0].data,
          shown: [...ben.section.querySelectorAll(".talk li.replayed")].map((item) => item.firstChild.textContent),
        };""",
    )
    assert found["cut"] == ["cut off", "Come back", "ben is cut off"]
    assert found["heard"] == ["one", "two", "three", "four"] and found["shown"] == ["two", "three", "four"]
    assert found["replayed"] == [False, True, True, True]
    assert found["returned"]["recovered"] is True and found["returned"]["missed"] == 3
    assert 1 < found["returned"]["disconnectDuration"] < 60
    assert (found["verdict"], found["missed"], found["chip"]) == ("recovered", "3 messages", "connected")
    assert found["duration"].endswith(" s") and float(found["duration"][:-2]) >= 1
    assert found["title"] == "ben is back, complete"
    assert found["sequence"] == 5 and found["ada"] == "from afar"
    assert errors(browser) == []


def test_a_reload_comes_back_too(browser, demo):
    browser.navigate(demo.url + "?room=reloaded")
    run(browser, 'await ada.send("before"); await until(() => ben.messages.length === 1, "it");')
    browser.reload()
    found = run(
        browser,
        """await until(() => ben.returns.length && ada.returns.length, "both returns");
           await ada.send("after");
           await until(() => ben.messages.some(({data}) => data === "after"), "it");
           return [ben.returns[0].recovered, ada.returns[0].recovered, ben.messages.map(({data}) => data)];""",
    )
    assert found == [True, True, ["after"]]
    assert errors(browser) == []


def test_what_cannot_be_recovered_is_said(browser):
    with Router("--demo", "--window", "3") as router:
        browser.navigate(router.url)
        found = run(
            browser,
            """ben.cut();
               for (let i = 0; i < 5; i++) await ada.send(String(i));
               await back(ben);
               return [ben.returns[0], text(ben, ".verdict dd"), document.getElementById("title").textContent,
                       ben.messages.length];""",
        )
        assert found[0]["recovered"] is False and found[0]["reason"] == "trimmed"
        assert found[1:] == ["lost", "ben is back, not complete", 0]


def test_the_page_comes_back_by_itself_after_the_router_was_killed(browser, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        http = f"127.0.0.1:{probe.getsockname()[1]}"
    options = ["--demo", "--store", f"sqlite:{tmp_path / 'rooms'}"]
    with Router(*options, http=http) as router:
        browser.navigate(router.url)
        run(browser, 'await ada.send("kept"); await until(() => ben.messages.length === 1, "it");')
        router.kill()
        run(
            browser,
            """await until(() => text(ben, ".chip") === "coming back", "the loss");
               window.waiting = ada.send("said meanwhile");""",
        )
    with Router(*options, http=http):
        found = run(
            browser,
            """await until(() => ben.returns.length && ada.returns.length, "the returns");
               const sequence = await window.waiting;
               await until(() => ben.messages.length === 2, "what was said meanwhile");
               return [sequence, ben.returns.at(-1).recovered, ada.returns.at(-1).recovered,
                       ben.messages.map(({data}) => data)];""",
        )
        assert found == [2, True, True, ["kept", "said meanwhile"]]


def test_two_windows_of_one_user_the_newest_counts(browser, demo):
    browser.navigate(demo.url + "?room=same")
    run(browser, "")
    tab = browser.browser.new_tab()
    tab.navigate(demo.url + "?room=same")
    run(tab, 'await ada.send("hello"); await until(() => ben.messages.length === 1, "it");')
    found = run(browser, 'await until(() => text(ben, ".chip") === "ended", "the end"); return text(ada, ".chip");')
    assert found == "ended"
    assert run(tab, 'return text(ben, ".chip")') == "connected"
    tab.close_tab()


@pytest.mark.parametrize("width", [320, 390, 1000])
def test_it_fits(browser, demo, width):
    browser.navigate(demo.url)
    browser.viewport(width, 800)
    found = run(
        browser,
        """await ada.send("long ".repeat(60)); await ada.send("w".repeat(300));
           await until(() => ben.messages.length === 2, "them");
           ben.cut(); await ada.send("x"); await back(ben);
           await until(() => text(ben, ".verdict dd") === "recovered", "all that a return shows");
           const page = document.documentElement;
           const small = [...document.querySelectorAll("button, input")].filter((item) => item.offsetParent && item.offsetHeight < 44);
           return [page.scrollWidth <= page.clientWidth, small.length,
                   [...document.querySelectorAll(".pane")].map((pane) => pane.scrollWidth <= pane.clientWidth)];""",
    )
    assert found == [True, 0, [True, True]]


def test_with_users_of_its_own_the_page_asks_for_a_token(browser):
    with Router() as router:
        browser.navigate(router.url)
        found = browser.evaluate(
            """await routerDemo.ready;
               const login = document.getElementById("login");
               const before = login.hidden;
               document.getElementById("access").value = args[0];
               login.requestSubmit();
               await routerDemo.panes.you.open;
               return [before, login.hidden];""",
            "access-token-of-ada",
        )
        assert found == [False, True]
        run_with_wrong_token(browser, router)


def run_with_wrong_token(browser, router):
    browser.navigate(router.url + "?room=other")
    found = browser.evaluate(
        """await routerDemo.ready;
           document.getElementById("access").value = "wrong";
           document.getElementById("login").requestSubmit();
           for (let i = 0; i < 500; i++) {
             const chip = document.querySelector(".pane .chip");
             if (chip && chip.textContent === "ended") return document.getElementById("lead").textContent;
             await new Promise((resolve) => setTimeout(resolve, 20));
           }
           return null;"""
    )
    assert found and "access token" in found
