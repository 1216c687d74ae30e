import os

import drivers
import hosts
import pytest
from page import Page

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
