"""JSON that means harm: values of every wrong kind, and changes of one place in a document. Documents are changed as
Python values and written by `dump`, which also writes what no JSON library would: the same key twice, bare words, any
number."""

import copy
import json

ESCAPE = "\x1b]0;owned\x07\x1b[2J"


class Raw(str):
    """Text that is written as it is."""


class Pairs(list):
    """An object as a list of pairs: keys may repeat."""


def deep(depth, kind="list"):
    return Raw("[" * depth + "]" * depth if kind == "list" else '{"a":' * depth + "0" + "}" * depth)


VALUES = {
    "null": None,
    "true": True,
    "false": False,
    "0": 0,
    "1": 1,
    "-1": -1,
    "3": 3,
    "2^31": 2**31,
    "2^53+1": 2**53 + 1,
    "2^63": 2**63,
    "2^63-1": 2**63 - 1,
    "2^64-1": 2**64 - 1,
    "2^64": 2**64,
    "10^40": 10**40,
    "half": 0.5,
    "-0.0": -0.0,
    "1e308": 1e308,
    "-1e308": -1e308,
    "denormal": 5e-324,
    "1e19": 1e19,
    "nan": Raw("NaN"),
    "infinity": Raw("-Infinity"),
    "overflow": Raw("1e999"),
    "5000-digits": Raw("9" * 5000),
    "empty-text": "",
    "text": "x",
    "number-text": "16",
    "nul": "\0",
    "escape": ESCAPE,
    "surrogate": Raw('"\\ud800"'),
    "bidi": "\u202egnp.exe",
    "100KB-text": "y" * 100_000,
    "up": "../../x",
    "absolute": "/etc/passwd",
    "device": "/dev/zero",
    "empty-list": [],
    "list": [1, "a", None],
    "list-10000": [0] * 10_000,
    "empty-object": {},
    "object": {"a": 1},
    "deep-100": deep(100),
    "deep-100000": deep(100_000),
    "deep-object": deep(5000, "object"),
}


def dump(value) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(key)}: {dump(item)}" for key, item in value) + "}"
    if isinstance(value, dict):
        return dump(Pairs(value.items()))
    if isinstance(value, list):
        return "[" + ", ".join(map(dump, value)) + "]"
    return json.dumps(value)


def places(document, prefix=()):
    """Paths of every value but the document itself."""
    if isinstance(document, dict):
        items = list(document.items())
    elif isinstance(document, list):
        items = list(enumerate(document))
    else:
        return
    for key, value in items:
        yield (*prefix, key)
        yield from places(value, (*prefix, key))


def at(document, path):
    for key in path:
        document = document[key]
    return document


class Change:
    """One change of a document: what was done where, what stood there and what stands there now; `touched` are the
    same of every place that reads otherwise."""

    def __init__(self, document, what, path, old, new, touched=None):
        self.document, self.what, self.path, self.old, self.new = document, what, path, old, new
        self.touched = [(path, old, new)] if touched is None else touched

    @property
    def name(self):
        return f"{self.what}:{'.'.join(map(str, self.path))}"

    @property
    def same_type(self):
        return same_type(self.old, self.new)


def same_type(old, new):
    """Whether both are values of the same JSON type."""
    if isinstance(old, (Raw, Pairs)) or isinstance(new, (Raw, Pairs)):
        return False
    number = (int, float)
    if isinstance(old, number) and not isinstance(old, bool):
        return isinstance(new, number) and not isinstance(new, bool)
    return type(old) is type(new)


def same(old, new):
    """Whether both are one value."""
    return same_type(old, new) and old == new


GONE = Raw("")


def changed(rng, document, only=None, keep=None):
    """One change of a copy of `document`, at a path that begins with `only`, if given, and that `keep` takes."""
    found = [path for path in places(document) if only is None or path[: len(only)] == only]
    if keep is not None:
        found = [path for path in found if keep(path)]
    path = rng.choice(found)
    document = copy.deepcopy(document)
    parent, key = at(document, path[:-1]), path[-1]
    old = parent[key]
    roll = rng.random()
    if roll < 0.12:
        if isinstance(parent, dict):
            del parent[key]
        else:
            parent.pop(key)
        return Change(document, "without", path, old, GONE)
    if roll < 0.17 and isinstance(parent, dict):
        name, new = rng.choice(list(VALUES.items()))
        pairs = Pairs(parent.items())
        place = rng.randrange(len(pairs) + 1)
        # Readers keep the last.
        last = place > list(parent).index(key)
        pairs.insert(place, (key, new))
        document = _with(document, path[:-1], pairs)
        return Change(document, f"twice-{name}", path, old, new if last else old)
    if roll < 0.22 and isinstance(parent, dict):
        other = rng.choice([ESCAPE, key.upper() + "x", "", "\u202e" + key, "k" * 70_000, " " + key, "unknown"])
        name, new = rng.choice(list(VALUES.items()))
        parent[other] = new
        return Change(document, f"more-{name}", (*path[:-1], other[:40]), GONE, new)
    if roll < 0.30 and len(parent) > 1:
        others = [one for one in (parent if isinstance(parent, dict) else range(len(parent))) if one != key]
        other = rng.choice(others)
        parent[key], parent[other] = parent[other], parent[key]
        touched = [(path, old, parent[key]), ((*path[:-1], other), parent[key], old)]
        return Change(document, f"swap-{other}", path, old, parent[key], touched)
    if roll < 0.36:
        new = rng.choice([[old], str(old) if not isinstance(old, (dict, list)) else "x", {"a": old}])
        parent[key] = new
        return Change(document, "wrapped", path, old, new)
    if roll < 0.55 and isinstance(old, (int, float)) and not isinstance(old, bool):
        new = rng.choice([old + 1, old - 1, old * 2, -old, old * 1000, old // 2, old + 0.25])
        parent[key] = new
        return Change(document, f"to-{new}", path, old, new)
    if roll < 0.60 and isinstance(old, str) and old:
        where = rng.randrange(len(old))
        new = rng.choice([old[:where] + old[where + 1 :], old + "x", old.swapcase(), old[:where] + ESCAPE, old * 300])
        parent[key] = new
        return Change(document, "text", path, old, new)
    name, new = rng.choice(list(VALUES.items()))
    parent[key] = new
    return Change(document, name, path, old, new)


def _with(document, path, value):
    if not path:
        return value
    at(document, path[:-1])[path[-1]] = value
    return document
