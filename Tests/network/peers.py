"""Ends made with other implementations, driven as agent.py is."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from endpoints import HERE, Endpoint

DEBIAN = "/usr/share/gocode"


def build_pion(folder):
    """The program. Without modules an import path that ends in /v3 resolves only for sources inside a GOPATH that have a
    go.mod beside them, which is otherwise unused."""
    source = Path(folder) / "src" / "network"
    source.mkdir(parents=True)
    shutil.copy(HERE / "pion" / "main.go", source)
    (source / "go.mod").write_text("module network\n")
    program = Path(folder) / "pion"
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": f"{folder}:{DEBIAN}", "GOFLAGS": ""}
    command = ["go", "build", "-o", program, "network"]
    built = subprocess.run(command, env=environment, cwd=source, capture_output=True, text=True, timeout=600)
    assert built.returncode == 0, built.stderr
    return program


def environment(settings):
    """Go's and OpenSSL's way to say whom to trust."""
    return {**os.environ, "SSL_CERT_FILE": settings["ca"]} if settings.get("ca") else None


def pion(program, site, name="pion", **settings):
    return Endpoint(site, [program, json.dumps(settings)], environment(settings), name)


def aiortc(site, name="aiortc", **settings):
    command = [sys.executable, str(HERE / "aiortc_agent.py"), json.dumps(settings)]
    return Endpoint(site, command, environment(settings), name)
