"""pion as the offerer against an example host: pion/main.go, built with Debian's pion."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

DEBIAN = "/usr/share/gocode"
SCENARIOS = ["sizes", "order", "channels", "unordered", "unreliable", "close", "returns"]


@pytest.fixture(scope="session")
def pion(tmp_path_factory):
    """The built program. Without modules an import path that ends in /v3 resolves only for sources
    inside a GOPATH that have a go.mod beside them, which is otherwise unused."""
    path = tmp_path_factory.mktemp("go")
    source = path / "src" / "interop"
    source.mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "pion" / "main.go", source)
    (source / "go.mod").write_text("module interop\n")
    program = path / "pion"
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": f"{path}:{DEBIAN}", "GOFLAGS": ""}
    built = subprocess.run(
        ["go", "build", "-o", program, "interop"],
        env=environment,
        cwd=source,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert built.returncode == 0, built.stderr
    return program


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_pion(pion, host, scenario):
    done = subprocess.run([pion, "-url", host.url, scenario], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
