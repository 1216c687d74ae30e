"""Finds and loads libreconnect.so."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator

from . import _abi
from .errors import LibraryNotFoundError

ENVIRONMENT = "LIBRECONNECT_LIBRARY"
SONAME = "libreconnect.so.1"
NAMES = (SONAME, "libreconnect.so")

_lock = threading.Lock()
_loaded: tuple[ctypes.CDLL, str] | None = None


def _pkg_config_directory() -> tuple[str | None, str]:
    """The directory that pkg-config knows, or None and why not."""
    command = os.environ.get("PKG_CONFIG", "pkg-config")
    try:
        run = subprocess.run(
            [command, "--variable=libdir", "reconnect"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"{command} could not be run: {error}"
    directory = run.stdout.strip()
    if run.returncode != 0 or not directory:
        return None, f"{command} does not know a package reconnect"
    return directory, ""


def candidates(tried: list[str]) -> Iterator[str]:
    """The files to try, in order. What rules out a whole place is appended to `tried`."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        yield named  # whoever names a file wants that one and no other
        return
    tried.append(f"environment variable {ENVIRONMENT}: not set")
    here = os.path.dirname(os.path.abspath(__file__))
    for name in NAMES:
        yield os.path.join(here, name)
    directory, reason = _pkg_config_directory()
    if directory is None:
        tried.append(reason)
    else:
        for name in NAMES:
            yield os.path.join(directory, name)
    yield SONAME  # the system's loader: LD_LIBRARY_PATH, ld.so.cache


def _open(path: str) -> ctypes.CDLL:
    if os.sep in path and not os.path.exists(path):
        raise OSError("no such file")
    library = ctypes.CDLL(path)
    for name, (parameters, result) in _abi.SIGNATURES.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise OSError(f"has no function {name}") from None
        function.argtypes = parameters
        function.restype = result
    version: int = library.reconnect_version()
    if version >> 16 != _abi.ABI_MAJOR:
        raise OSError(f"its ABI is version {version >> 16}.{version & 0xFFFF}, this package needs {_abi.ABI_MAJOR}.x")
    return library


def load() -> ctypes.CDLL:
    """The library. Loaded once; raises LibraryNotFoundError with everything that was tried."""
    global _loaded
    with _lock:
        if _loaded is None:
            tried: list[str] = []
            for path in candidates(tried):
                try:
                    _loaded = _open(path), path
                    break
                except OSError as error:
                    tried.append(f"{path}: {error}")
            else:
                raise LibraryNotFoundError(
                    "libreconnect.so was not found. Tried:\n"
                    + "\n".join(f"  {each}" for each in tried)
                    + f"\nInstall the library, or set {ENVIRONMENT} to its file."
                )
        return _loaded[0]


def library_path() -> str:
    """The file that is in use, as it was given to the loader."""
    load()
    assert _loaded is not None
    return _loaded[1]


def library_version() -> str:
    """The version of the library that is in use, for example "0.1.0"."""
    text: bytes = load().reconnect_version_string()
    return text.decode()
