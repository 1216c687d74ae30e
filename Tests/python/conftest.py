"""The tests use the binding of the source tree and the library that pkg-config finds: `make test` builds both."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bindings" / "python"))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [sys.path[0], os.environ.get("PYTHONPATH")]))

PATIENCE = 20
"""For what must happen: nothing waits as long unless it is broken."""


def pytest_collection_modifyitems(items):
    """Tests that are coroutines run in a loop of their own, with a deadline."""
    for item in items:
        if asyncio.iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.coroutine)


def pytest_configure(config):
    config.addinivalue_line("markers", "coroutine: run in an event loop")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if not asyncio.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), 3 * PATIENCE))
    return True


@pytest.fixture(params=["127.0.0.1", "::1"])
def address(request):
    """An address of this machine: IPv4 and IPv6."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((request.param, 0))
    except OSError:
        pytest.skip(f"this machine has no {request.param}")
    return request.param
