"""The tests make their own networks; see internet.py. On a machine that cannot they fail, and say what it takes."""

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "bindings" / "python")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [sys.path[1], os.environ.get("PYTHONPATH")]))

import internet as lab  # noqa: E402


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
