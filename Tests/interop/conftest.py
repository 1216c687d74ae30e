import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "browser"))

import hosts  # noqa: E402

# aiortc and pion are tried against one host: the library below is the same for all.
DEFAULT = "python"


@pytest.fixture(scope="session")
def host():
    name = hosts.selected()[0] if "RECONNECT_TEST_HOSTS" in hosts.os.environ else DEFAULT
    with hosts.Host(name) as host:
        yield host


@pytest.fixture(autouse=True)
def host_survives(host):
    yield
    assert host.alive(), "the host has ended:\n" + "\n".join(host.lines()[-20:])
