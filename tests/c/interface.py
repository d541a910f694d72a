#!/usr/bin/env python3
"""The C interface beside that of the last release: what programs were built with is still there, unchanged.

usage: tests/c/interface.py HEADER RELEASED [--library FILE]      compares; with --library, its symbols too
       tests/c/interface.py HEADER RELEASED --write VERSION       writes RELEASED: a release of VERSION hands out HEADER
       tests/c/interface.py HEADER RELEASED --self-test           changes of every kind are found, or allowed

RELEASED has a line for the release and one for every function, type and field. A function, a constant or a field that
is gone or another is an error. Structures that begin with `struct_size` may grow at their end, enumerations by
constants, and both and new functions need a PHOTONC_API_VERSION above the released one. Needs nothing but Python, and
`nm` for symbols.
"""

import argparse
import pathlib
import re
import subprocess
import sys

VERSION = r"#define PHOTONC_API_VERSION (\d+)"


def described(header):
    """The version, and each name of a header with its lines: one for a function, one for every field or constant."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", header, flags=re.DOTALL)
    version = int(re.search(VERSION, text)[1])
    text = re.sub(r"^\s*#[^\n]*|extern \"C\" \{|^\}\s*$", "", text, flags=re.MULTILINE)
    found = {}
    for declaration in re.findall(r"(?:[^;{}]|\{[^{}]*\})+;", text):
        flat = " ".join(declaration.split()).rstrip(";").strip()
        if whole := re.match(r"typedef (enum|struct) (\w+) \{ ?(.*?) ?\} \w+$", flat):
            kind, name, inside = whole.groups()
            parts = re.split(r"[,;] ?", inside)
            found[name] = [f"{kind} {name}", *(f"{kind} {name}: {part}" for part in parts if part)]
        elif flat:
            named = re.match(r"typedef struct \w+ (\w+)$|typedef .*\(\*(\w+)\)|.*?(\w+)\(", flat)
            found[next(filter(None, named.groups()))] = [flat]
    return version, found


def written(version, found, release):
    lines = [f"# The C interface of photonc {release}; tests/c/interface.py compares it.", f"interface {version}"]
    return "\n".join([*lines, *(line for name in sorted(found) for line in found[name])]) + "\n"


def read(text):
    """What `written` wrote: the version, and the lines."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return int(lines[0].split()[1]), lines[1:]


def may_grow(name, lines):
    return lines[0] == f"enum {name}" or lines[1:2] == [f"struct {name}: uint32_t struct_size"]


def complaints(released, header):
    """What breaks programs of the release, and what was added without a new version."""
    old_version, old = read(released)
    version, found = described(header)
    now = [line for name in sorted(found) for line in found[name]]
    wrong = [f"gone or changed: `{line}`" for line in old if line not in set(now)]
    for name, lines in found.items():
        known = [line for line in old if line == lines[0] or line.startswith(f"{lines[0]}: ")]
        if not known or set(known) - set(lines):
            continue
        if lines[: len(known)] != known and lines[0].startswith("struct"):
            wrong.append(f"moved: the fields of `{name}` have another order")
        elif lines[len(known) :] and not may_grow(name, lines):
            wrong.append(f"grown: `{name}` has no `struct_size`, so that its size is fixed")
    added = [line for line in now if line not in set(old)]
    if version < old_version or (added and version == old_version):
        names = "; ".join(added[:3])
        wrong.append(f"PHOTONC_API_VERSION is {version}, that of the release {old_version}: raise it for `{names}`")
    return wrong


def symbols(library):
    command = ["nm", "--dynamic", "--defined-only", "--format=posix", library]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {name for name in (line.split()[0] for line in listed) if name.startswith("photonc_")}


def differing_symbols(library, header):
    """Functions that the library has not, and those that no header names."""
    found = described(header)[1]
    declared = {name for name, [line, *_] in found.items() if line.endswith(")") and not line.startswith("typedef")}
    exported = symbols(library)
    missing = [f"not exported: `{name}`" for name in sorted(declared - exported)]
    return missing + [f"exported, and in no header: `{name}`" for name in sorted(exported - declared)]


def self_test(header):
    version, found = described(header)
    released = written(version, found, "0")
    raised = re.sub(VERSION, f"#define PHOTONC_API_VERSION {version + 1}", header)
    end = "#ifdef __cplusplus\n}"
    assert end in header
    new = header.replace(end, f"void photonc_new(void);\n\n{end}")
    grown = raised.replace("} photonc_model_info;", "  uint64_t more;\n} photonc_model_info;")
    cases = [
        (header, None),
        (new, "PHOTONC_API_VERSION"),
        (re.sub(VERSION, f"#define PHOTONC_API_VERSION {version + 1}", new), None),
        (grown, None),
        (raised.replace("PHOTONC_INTERNAL_ERROR = 7,", "PHOTONC_INTERNAL_ERROR = 7,\n  PHOTONC_NEW = 8,"), None),
        (raised.replace("PHOTONC_REFUSED = 2", "PHOTONC_REFUSED = 9"), "gone or changed"),
        (raised.replace("uint64_t vocab_size;\n", "uint32_t vocab_size;\n"), "gone or changed"),
        (
            raised.replace("void photonc_trajectory_free(struct", "int photonc_trajectory_free(struct"),
            "gone or changed",
        ),
        (re.sub(r"  uint64_t vocab_size;\n([^;]*;\n)", r"\1  uint64_t vocab_size;\n", raised), "moved"),
        (raised.replace("} photonc_prompt;", "  uint32_t more;\n} photonc_prompt;"), "grown"),
    ]
    for number, (changed, expected) in enumerate(cases):
        assert number == 0 or changed != header, f"case {number} changes nothing"
        told = complaints(released, changed)
        right = any(expected in one for one in told) if expected else not told
        assert right, f"case {number}: {told}, expected {expected}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("header", type=pathlib.Path)
    parser.add_argument("released", type=pathlib.Path)
    parser.add_argument("--library")
    parser.add_argument("--write", metavar="VERSION")
    parser.add_argument("--self-test", action="store_true")
    given = parser.parse_args()
    header = given.header.read_text()
    if given.self_test:
        return self_test(header)
    if given.write:
        given.released.write_text(written(*described(header), given.write))
        return 0
    wrong = complaints(given.released.read_text(), header)
    if given.library:
        wrong += differing_symbols(given.library, header)
    for one in wrong:
        print(f"{given.header}: {one}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
