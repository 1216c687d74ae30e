"""What bindings/web/reconnect.d.ts declares, by name: enough to hold it against the module, not a parser of TypeScript.

declared = Declarations()
declared.values                      # {"Connection": "class", "fetchSignaling": "function", ...}
declared.members["Metrics"]          # {"cacheHits", ...}, those with a ? included
declared.required["Metrics"]         # without those
declared.literals["Mode"]            # {"fast", ...} of a union of texts
declared.nested("Connection", "session")  # the members of a member's own braces
"""

import re

import hosts

PATH = hosts.ROOT / "bindings/web/reconnect.d.ts"


def _without_comments(text):
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)


def _statements(text):
    """Parts that end with a semicolon, or a block, outside of all brackets."""
    depth, start = 0, 0
    for index, character in enumerate(text):
        depth += (character in "({[") - (character in ")}]")
        if depth == 0 and (character == ";" or (character == "}" and re.match(r"\s*(export|$)", text[index + 1 :]))):
            yield text[start : index + 1].strip()
            start = index + 1


def _block(text):
    """Inside of the first braces."""
    start = depth = 0
    for index, character in enumerate(text):
        if character == "{":
            start = start or index + 1
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return text[start:index]
    return ""


def _members(block):
    found = {}
    for statement in _statements(block):
        if named := re.match(r"(?:readonly\s+)?(\w+)(\??)\s*[:(<]", statement):
            found.setdefault(named[1], []).append((named[2] == "", statement))
    return found


class Declarations:
    def __init__(self, text=None):
        self.values, self.members, self.required, self.literals, self._found = {}, {}, {}, {}, {}
        for statement in _statements(_without_comments(text or PATH.read_text())):
            kind, name, rest = re.match(r"export (class|function|interface|type) (\w+)(.*)", statement, re.S).groups()
            if kind in ("class", "function"):
                self.values[name] = kind
            if kind in ("class", "interface"):
                found = self._found[name] = _members(_block(rest))
                self.members[name] = set(found) - {"constructor"}
                self.required[name] = {one for one, all_ in found.items() if all_[0][0]} - {"constructor"}
            elif kind == "type":
                self.literals[name] = set(re.findall(r'"([\w-]+)"', rest))

    def nested(self, name, member):
        return set(_members(_block(self._found[name][member][0][1])))
