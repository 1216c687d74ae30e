"""The router example, as operators and clients meet it: its processes, WebSockets, HTTP, stores, its page."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The processes and browsers of the browser tests; the binding of the source tree.
for folder in ("bindings/python", "Tests/browser"):
    sys.path.insert(0, str(ROOT / folder))

import pytest  # noqa: E402
from routers import Router  # noqa: E402

BROWSERS = os.environ.get("RECONNECT_TEST_BROWSERS", "chromium,firefox").split(",")


@pytest.fixture(scope="module")
def router():
    """One with rooms in memory for many tests; each uses a room of its own."""
    with Router("--rate", "10000", "--burst", "10000") as router:
        yield router
        assert router.alive(), "\n".join(router.lines()[-20:])


@pytest.fixture
def room(request):
    return "".join(character if character.isalnum() else "-" for character in request.node.name)[:100]


def pytest_generate_tests(metafunc):
    if "browser_name" in metafunc.fixturenames:
        metafunc.parametrize("browser_name", BROWSERS, scope="module")
