"""reconnect.h for ctypes, read from the header itself: the laboratory's programs are started by the hundred, and this
takes a few milliseconds.

    abi = header.load("build/lib/libreconnect.so.1")
    config = abi.make("engine_config", port=4000)        # struct_size is filled in
    abi.check(abi.call("engine_create", config, engine, detail, len(detail)))
    abi.EVENT_MESSAGE, abi.name("RESTART_", 2)
"""

import ctypes
import re
from pathlib import Path

HEADER = Path(__file__).resolve().parents[2] / "include" / "reconnect.h"
TYPES = {
    "uint16_t": ctypes.c_uint16,
    "uint32_t": ctypes.c_uint32,
    "int32_t": ctypes.c_int32,
    "uint64_t": ctypes.c_uint64,
    "int64_t": ctypes.c_int64,
    "size_t": ctypes.c_size_t,
    "double": ctypes.c_double,
    "char": ctypes.c_char,
    "reconnect_status_t": ctypes.c_int32,
}
STRUCT = re.compile(r"typedef struct(?: \w+)? \{([^{}]*)\} reconnect_(\w+)_t;")
MEMBER = re.compile(r"(const char \*const \*|const char \*|[\w ]+?\*|\w+) ?(\w+)(?:\[(\d+)\])?")
CONSTANT = re.compile(r"RECONNECT_(\w+) = (-?\d+)")


class ABI:
    def __init__(self, library, text):
        self.library = ctypes.CDLL(library)
        self.structs = {}
        text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
        self.constants = {name: int(value) for name, value in CONSTANT.findall(text)}
        types = dict(TYPES)
        for body, name in STRUCT.findall(text):
            fields = []
            for line in filter(None, (" ".join(part.split()) for part in body.split(";"))):
                kind, member, count = MEMBER.fullmatch(line).groups()
                if kind == "const char *":
                    member_type = ctypes.c_char_p
                else:
                    member_type = ctypes.c_void_p if kind.endswith("*") else types[kind]
                fields.append((member, member_type * int(count) if count else member_type))
            types[f"reconnect_{name}_t"] = self.structs[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
        self.handles = tuple(self.structs[name] for name in ("engine", "peer", "channel"))

    def __getattr__(self, name):
        try:
            return self.constants[name]
        except KeyError:
            raise AttributeError(name) from None

    def name(self, prefix, value):
        """The rest of the name of a constant, in lower case."""
        for name, number in self.constants.items():
            if number == value and name.startswith(prefix):
                return name.removeprefix(prefix).lower()
        return str(value)

    def make(self, struct, **members):
        made = self.structs[struct]()
        if hasattr(made, "struct_size"):
            made.struct_size = ctypes.sizeof(made)
        for name, value in members.items():
            setattr(made, name, self.plain(made, name, value))
        return made

    @staticmethod
    def plain(struct, name, value):
        assert hasattr(struct, name), f"{type(struct).__name__} has no {name}"
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, (ctypes.Structure, ctypes.Array)):
            struct.__dict__.setdefault("kept", []).append(value)  # a pointer does not keep what it points to
            return ctypes.addressof(value)
        return value

    def call(self, function, *arguments):
        """Handles go by value, other structs by reference, None is NULL."""
        native = [
            ctypes.byref(a) if isinstance(a, ctypes.Structure) and not isinstance(a, self.handles) else a
            for a in (ctypes.c_size_t(a) if isinstance(a, int) else a for a in arguments)
        ]
        return getattr(self.library, f"reconnect_{function}")(*native)

    def check(self, status, what=""):
        if status != 0:
            raise RuntimeError(f"{self.name('', status).upper()} {what}".strip())


def load(library):
    return ABI(library, HEADER.read_text())
