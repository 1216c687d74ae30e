"""The tests make their own networks; see internet.py. On a machine that cannot they fail, and say what it takes.

Tests that take the fixture `context` run many at once, each with sites and ends of its own: all those selected begin with
the first one, those marked with `long` before the others.
"""

import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import internet as lab  # noqa: E402
import peers  # noqa: E402

AT_ONCE = 10
"""Most of the time each of them waits."""


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes much longer than others")


@pytest.fixture(scope="session")
def internet():
    why = lab.missing()
    if why:
        pytest.fail(why, pytrace=False)
    with lab.Internet() as made:
        yield made


@pytest.fixture(scope="session")
def relay(internet):
    """One coturn for all tests that do not kill it."""
    with lab.Relay(internet) as made:
        yield made


class Context:
    """What tests that run together share."""

    def __init__(self, internet, relay, folder):
        self.internet, self.relay, self.folder = internet, relay, folder
        self._made, self._kept, self._lock = {}, [], threading.Lock()
        self._pool, self._futures = ThreadPoolExecutor(AT_ONCE), {}

    def once(self, key, make):
        """Whatever it makes is made once, and shared."""
        with self._lock:
            is_first = key not in self._made
            made = self._made.setdefault(key, Future())
        if is_first:
            try:
                made.set_result(make())
            except BaseException as error:
                made.set_exception(error)
        return made.result()

    def keep(self, resource):
        """Closed at the end."""
        self._kept.append(resource)
        return resource

    def pion(self):
        """The program, built."""
        return self.once("pion", lambda: peers.build_pion(self.folder))

    def outcome(self, item):
        if not self._futures:
            items = [i for i in item.session.items if "context" in i.fixturenames]
            for each in sorted(items, key=lambda i: i.get_closest_marker("long") is None):
                parameters = each.callspec.params if hasattr(each, "callspec") else {}
                self._futures[each.nodeid] = self._pool.submit(each.obj, context=self, **parameters)
        return self._futures[item.nodeid].result()

    def close(self):
        for future in self._futures.values():
            future.cancel()
        self._pool.shutdown()
        for resource in self._kept:
            resource.close()


@pytest.fixture(scope="session")
def context(internet, relay, tmp_path_factory):
    made = Context(internet, relay, tmp_path_factory.mktemp("network"))
    yield made
    made.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if "context" not in pyfuncitem.fixturenames:
        return None
    pyfuncitem.funcargs["context"].outcome(pyfuncitem)
    return True
