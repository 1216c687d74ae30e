"""How the package finds the library, its types, and its installation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import libreconnect
import pytest
from conftest import ROOT

PACKAGE = ROOT / "bindings" / "python" / "libreconnect"


def python(code, *, path=PACKAGE.parent, **environment):
    """Runs code in a process that has nothing but what is given."""
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


WHERE = "import libreconnect; print(libreconnect.library_path())"
FAILS = """
import libreconnect
try:
    libreconnect.Engine()
except libreconnect.LibraryNotFoundError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def library():
    """The library that all other tests use."""
    return Path(libreconnect.library_path()).resolve()


def prefix_with(folder, library):
    """A folder as `make install` leaves it."""
    (folder / "lib" / "pkgconfig").mkdir(parents=True)
    shutil.copy(library, folder / "lib" / "libreconnect.so.1")
    (folder / "lib" / "pkgconfig" / "reconnect.pc").write_text(
        f"prefix={folder}\nlibdir=${{prefix}}/lib\nName: reconnect\nDescription: x\nVersion: 0\n"
    )
    return folder


def test_the_environment_variable_comes_first(library, tmp_path):
    installed = prefix_with(tmp_path, library)
    named = {"LIBRECONNECT_LIBRARY": str(library), "PKG_CONFIG_PATH": str(installed / "lib/pkgconfig")}
    assert python(WHERE, **named) == str(library)


def test_the_library_beside_the_package_comes_second(library, tmp_path):
    installed = prefix_with(tmp_path / "prefix", library)
    shutil.copytree(PACKAGE, tmp_path / "libreconnect", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(library, tmp_path / "libreconnect" / "libreconnect.so.1")
    found = python(WHERE, path=tmp_path, PKG_CONFIG_PATH=str(installed / "lib/pkgconfig"))
    assert found == str(tmp_path / "libreconnect" / "libreconnect.so.1")


def test_the_directory_of_pkg_config_comes_third(library, tmp_path):
    installed = prefix_with(tmp_path / "prefix", library)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(library, other / "libreconnect.so.1")
    found = python(WHERE, PKG_CONFIG_PATH=str(installed / "lib/pkgconfig"), LD_LIBRARY_PATH=str(other))
    assert found == str(installed / "lib" / "libreconnect.so.1")


def test_the_loader_comes_last(library, tmp_path):
    shutil.copy(library, tmp_path / "libreconnect.so.1")
    found = python(WHERE, PKG_CONFIG="no-pkg-config-here", LD_LIBRARY_PATH=str(tmp_path))
    assert found == "libreconnect.so.1"


def test_what_was_tried_is_told():
    words = python(FAILS, PKG_CONFIG="no-pkg-config-here")
    for expected in [
        "LIBRECONNECT_LIBRARY: not set",
        str(PACKAGE / "libreconnect.so.1"),
        "no-pkg-config-here could not be run",
        "libreconnect.so.1: libreconnect.so.1: cannot open",
        "Install the library",
    ]:
        assert expected in words


def test_a_wrong_library_is_told(tmp_path):
    words = python(FAILS, LIBRECONNECT_LIBRARY=str(tmp_path / "missing.so"))
    assert "missing.so: no such file" in words and "pkg-config" not in words
    other = tmp_path / "other.c"
    other.write_text("unsigned reconnect_version(void) { return 99u << 16; }")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "other.so", other], check=True)
    words = python(FAILS, LIBRECONNECT_LIBRARY=str(tmp_path / "other.so"))
    assert "has no function" in words


def test_another_abi_is_told(tmp_path):
    names = __import__("libreconnect._abi", fromlist=["SIGNATURES"]).SIGNATURES
    source = tmp_path / "other.c"
    source.write_text("".join(f"unsigned {name}(void) {{ return 99u << 16; }}\n" for name in names))
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "other.so", source], check=True)
    words = python(FAILS, LIBRECONNECT_LIBRARY=str(tmp_path / "other.so"))
    assert "its ABI is version 99.0" in words


def test_structs_have_the_sizes_of_the_header(tmp_path):
    """ctypes has its own idea of alignment: compare with the C compiler's."""
    from libreconnect import _abi

    structs = {
        "reconnect_engine_config_t": _abi.EngineConfig,
        "reconnect_engine_statistics_t": _abi.EngineStatistics,
        "reconnect_event_t": _abi.Event,
        "reconnect_channel_config_t": _abi.ChannelConfig,
        "reconnect_peer_config_t": _abi.PeerConfig,
        "reconnect_connector_config_t": _abi.ConnectorConfig,
        "reconnect_peer_statistics_t": _abi.PeerStatistics,
        "reconnect_turn_server_t": _abi.TURNServer,
        "reconnect_timers_t": _abi.Timers,
    }
    lines = []
    expected = []
    for name, struct in structs.items():
        lines.append(f'printf("%zu\\n", sizeof({name}));')
        expected.append(__import__("ctypes").sizeof(struct))
        for field, *_ in struct._fields_:
            lines.append(f'printf("%zu\\n", offsetof({name}, {field}));')
            expected.append(getattr(struct, field).offset)
    source = tmp_path / "sizes.c"
    source.write_text("#include <reconnect.h>\n#include <stdio.h>\nint main(void) {" + "\n".join(lines) + "return 0; }")
    subprocess.run(["cc", f"-I{ROOT / 'include'}", "-o", tmp_path / "sizes", source], check=True)
    sizes = subprocess.run([tmp_path / "sizes"], check=True, capture_output=True, text=True).stdout.split()
    assert [int(size) for size in sizes] == expected


def test_statuses_are_those_of_the_header():
    import re

    header = (ROOT / "include" / "reconnect.h").read_text()
    declared = {name: int(value) for name, value in re.findall(r"RECONNECT_([A-Z_]+) = (-\d+)", header)}
    assert {status.name: status.value for status in libreconnect.Status if status} == declared
    assert len(libreconnect.ReconnectError.__subclasses__()) == len(declared)


def test_numbers_are_those_of_the_header(tmp_path):
    """Every enumeration, and every constant that this package has of its own."""
    from libreconnect import _abi

    prefixes = {
        libreconnect.ICEMode: "ICE",
        libreconnect.LogLevel: "LOG",
        libreconnect.FastReload: "FAST_RELOAD",
        libreconnect.Interfaces: "INTERFACES",
        libreconnect.Policy: "",
        libreconnect.Mode: "MODE",
        libreconnect.PeerState: "PEER",
        libreconnect.AttemptState: "ATTEMPT",
        libreconnect.ConnectorState: "CONNECTOR",
        libreconnect.Switch: "SWITCH",
        libreconnect.ICEPolicy: "ICE_POLICY",
        libreconnect.TCP: "TCP",
        libreconnect.Negotiation: "NEGOTIATION",
        libreconnect.TURNState: "TURN",
        libreconnect.PathChange: "PATH",
        libreconnect.RestartState: "RESTART",
    }
    expected = {
        "_".join(filter(None, ["RECONNECT", prefix, name])): int(value)
        for kind, prefix in prefixes.items()
        for name, value in kind.__members__.items()
        if name != "NONE" or kind is libreconnect.LogLevel
    }
    expected |= {
        f"RECONNECT_{name}": value
        for name, value in vars(_abi).items()
        if name.startswith(("EVENT_", "FLAG_", "INTERFACES_", "ICE_", "TCP_", "NEGOTIATION_", "NETWORK_"))
        or name in ("TEXT", "BINARY", "RELIABLE")
    }
    assert len(expected) > 60
    lines = "".join(f'printf("%lld\\n", (long long){name});' for name in expected)
    source = tmp_path / "numbers.c"
    source.write_text(f"#include <reconnect.h>\n#include <stdio.h>\nint main(void) {{ {lines} return 0; }}")
    subprocess.run(["cc", f"-I{ROOT / 'include'}", "-o", tmp_path / "numbers", source], check=True)
    numbers = subprocess.run([tmp_path / "numbers"], check=True, capture_output=True, text=True).stdout.split()
    assert dict(zip(expected, map(int, numbers))) == expected
    events = set(
        __import__("re").findall(r"RECONNECT_EVENT_\w+(?= = )", (ROOT / "include" / "reconnect.h").read_text())
    )
    assert events == {name for name in expected if name.startswith("RECONNECT_EVENT_")}


def test_types_are_complete(tmp_path):
    use = tmp_path / "use.py"
    use.write_text(
        "import libreconnect\n"
        "from libreconnect import aio\n\n\n"
        "def read(engine: libreconnect.Engine) -> None:\n"
        "    for event in engine.events():\n"
        "        if isinstance(event, libreconnect.MessageEvent):\n"
        "            reveal_type(event.channel)\n"
        "            reveal_type(event.data)\n"
        "        if isinstance(event, libreconnect.ConnectorEvent):\n"
        "            reveal_type(event.peer)\n\n\n"
        "async def watch(engine: aio.Engine) -> None:\n"
        "    async for event in engine.events():\n"
        "        if isinstance(event, libreconnect.ChannelOpenEvent):\n"
        "            reveal_type(event.channel)\n"
        "            async for message in event.channel:\n"
        "                await event.channel.send(message)\n\n\n"
        "async def connect(engine: aio.Engine) -> None:\n"
        "    async def signaling(offer: str) -> str:\n"
        "        return offer\n\n"
        "    async with engine.connector(signaling=signaling) as connector:\n"
        "        reveal_type((await connector.connect()).peer)\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", PACKAGE, use],
        env={**os.environ, "MYPYPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    said = run.stdout.replace("Union[builtins.str, builtins.bytes]", "str | bytes").replace("builtins.", "")
    said = said.replace("Union[libreconnect.engine.Peer, None]", "libreconnect.engine.Peer | None")
    for revealed in [
        '"libreconnect.engine.Channel"',
        '"libreconnect.aio.Channel"',
        '"str | bytes"',
        '"libreconnect.engine.Peer | None"',
        '"libreconnect.aio.Peer"',
    ]:
        assert revealed in said


def test_installs_with_pip(tmp_path, library):
    source = tmp_path / "source"
    shutil.copytree(PACKAGE.parent, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path / "site"]
    probe = subprocess.run([sys.executable, "-c", "import setuptools, wheel"], capture_output=True)
    offline = ["--no-index", "--no-build-isolation"] if probe.returncode == 0 else []
    run = subprocess.run([*install, *offline, source], capture_output=True, text=True, timeout=120)
    if run.returncode != 0 and "No matching distribution found for setuptools" in run.stdout + run.stderr:
        pytest.skip("neither setuptools and wheel nor a package index are here")
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "site" / "libreconnect" / "py.typed").exists()
    assert python(WHERE, path=tmp_path / "site", LIBRECONNECT_LIBRARY=str(library)) == str(library)


def blocks(path, language):
    """The code of a README."""
    import re

    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.S)


def test_examples_of_the_readme_run_as_written(library):
    first, second, third, fourth, fifth = blocks(PACKAGE.parent / "README.md", "python")
    assert python(first, LIBRECONNECT_LIBRARY=str(library)) == "hello NORMAL"
    assert python(second, LIBRECONNECT_LIBRARY=str(library)) == "hello"
    assert python(third, LIBRECONNECT_LIBRARY=str(library)) == "NORMAL\nZERO_SIGNALING"
    assert python(fourth, LIBRECONNECT_LIBRARY=str(library)) == "hello"
    assert python(fifth, LIBRECONNECT_LIBRARY=str(library)) == "RECOVERED ['hello']"


def test_example_of_the_go_readme_runs_as_written(library, tmp_path):
    example, *_ = blocks(ROOT / "bindings" / "go" / "README.md", "go")
    (tmp_path / "main.go").write_text(example)
    (tmp_path / "go.mod").write_text(
        f"module readme\n\ngo 1.19\n\nrequire reconnect v0.0.0\n\nreplace reconnect => {ROOT / 'bindings' / 'go'}\n"
    )
    run = subprocess.run(
        ["go", "run", "."],
        cwd=tmp_path,
        env={**os.environ, "LD_LIBRARY_PATH": str(library.parent)},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout) == (0, "hello normal\n"), run.stderr
