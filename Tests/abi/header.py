"""What include/reconnect.h declares: its functions, with the kind of every parameter."""

import re
from pathlib import Path

FUNCTION = re.compile(r"([\w\s\*]+?)\b(reconnect_\w+)\s*\(([^()]*)\)\s*;")
HANDLES = {
    "reconnect_engine_t": "ENGINE",
    "reconnect_peer_t": "PEER",
    "reconnect_channel_t": "CHANNEL",
    "reconnect_connector_t": "CONNECTOR",
    "reconnect_replay_t": "REPLAY",
}
NUMBERS = {
    "uint16_t": "U16",
    "uint32_t": "U32",
    "int32_t": "I32",
    "reconnect_status_t": "I32",
    "uint64_t": "U64",
    "int64_t": "I64",
    "size_t": "SIZE",
}
WITH_SIZE = ("CONFIG", "SERVERS", "FILLED", "EVENTS", "OUT", "OPERATIONS", "TAKEN")
RESULTS = {"reconnect_status_t": "STATUS", "uint32_t": "NUMBER", "const char *": "TEXT_RESULT"}


class Parameter:
    def __init__(self, text):
        text = " ".join(text.split())
        match = re.fullmatch(r"(.*?)(\w+)", text)
        if not match:
            raise ValueError(f"not a parameter: {text!r}")
        self.type = match[1].strip().replace(" *", "*").replace("*", " *").strip()
        self.name = match[2]
        self.pointee = re.sub(r"^const |\s*\*$", "", self.type) if self.type.endswith("*") else None
        self.kind = self._kind()

    def _kind(self):
        if self.type in HANDLES:
            return HANDLES[self.type]
        if self.name in ("operation_size", "event_size"):
            return "UNIT"
        if self.name == "taken":
            return "TAKEN"
        if self.type == "const reconnect_replay_operation_t *":
            return "OPERATIONS"
        if self.type in NUMBERS:
            return NUMBERS[self.type]
        if self.type == "const char *const *":
            return "STRINGS"
        if self.type in ("const char *", "const void *"):
            return "BYTES"
        if self.type == "char *":
            return "DETAIL" if self.name == "detail" else "BUFFER"
        if self.type == "const reconnect_turn_server_t *":
            return "SERVERS"
        if re.fullmatch(r"const reconnect_(\w+_config|timers)_t \*", self.type):
            return "CONFIG"
        if re.fullmatch(r"reconnect_\w+_statistics_t \*", self.type):
            return "FILLED"
        if self.type in ("reconnect_event_t *", "reconnect_replay_event_t *"):
            return "EVENTS"
        if self.type.endswith("*") and not self.type.startswith("const"):
            return "OUT"
        raise ValueError(f"the sweep has no values for a parameter of type {self.type!r}")

    @property
    def size(self):
        """A C expression: the bytes behind a pointer to one object."""
        return f"sizeof({self.pointee})" if self.kind in WITH_SIZE else "1"


class Function:
    def __init__(self, result, name, parameters):
        self.result = " ".join(result.split()).replace("*", " *").replace("  ", " ")
        self.name = name
        text = parameters.strip()
        self.parameters = [] if text in ("", "void") else [Parameter(p) for p in text.split(",")]
        for before, after in zip(self.parameters, self.parameters[1:], strict=False):
            if before.kind == "UNIT":
                after.kind = "TIMES"


def functions(path):
    """All functions of the header, in its order."""
    text = Path(path).read_text()
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    text = re.sub(r"^\s*#.*$", " ", text, flags=re.M)
    text = re.sub(r'extern "C"\s*\{', " ", text)
    return [Function(*match) for match in FUNCTION.findall(text)]


def table(path):
    """The header's functions as a C table for sweep.c."""
    rows = []
    for function in functions(path):
        parameters = ", ".join(f'{{{p.kind}, "{p.name}", {p.size}}}' for p in function.parameters)
        rows.append(
            f'    {{"{function.name}", FUNCTION({function.name}), {RESULTS[function.result]}, '
            f"{len(function.parameters)}, {{{parameters or '{0, 0, 0}'}}}}},\n"
        )
    return f"static const function_t functions[] = {{\n{''.join(rows)}}};\n"


if __name__ == "__main__":
    print(table(Path(__file__).resolve().parent.parent.parent / "include" / "reconnect.h"), end="")
