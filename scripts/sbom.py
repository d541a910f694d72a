#!/usr/bin/env python3
"""The bill of materials of a program, as CycloneDX 1.5: what `cargo metadata` says is in it, with licences and sums.

    cargo metadata --locked --format-version 1 --filter-platform TARGET .. |
        scripts/sbom.py --package photonc --target TARGET --lock Cargo.lock

Crates that are linked are `required`, those that only build are `excluded`; what tests use is left out. SOURCE_DATE_EPOCH
is its time, so that the same sources give the same bytes.
"""

import argparse
import json
import os
import re
import sys
from datetime import datetime, timezone


def sums(lock):
    """SHA-256 of each crate by name and version."""
    found = {}
    for entry in lock.split("[[package]]")[1:]:
        fields = dict(re.findall(r'^(name|version|checksum) = "([^"]*)"$', entry, re.MULTILINE))
        found[fields["name"], fields["version"]] = fields.get("checksum")
    return found


def reached(nodes, root):
    """Crates that are linked, and all that are used, from the root on: what a crate that only builds needs only builds too."""
    linked, used = set(), set()
    waiting = [(root, True)]
    while waiting:
        node, is_linked = waiting.pop()
        if node in (linked if is_linked else used):
            continue
        used.add(node)
        if is_linked:
            linked.add(node)
        for dependency in nodes[node]["deps"]:
            kinds = {kind["kind"] for kind in dependency["dep_kinds"]}
            if None in kinds:
                waiting.append((dependency["pkg"], is_linked))
            if "build" in kinds:
                waiting.append((dependency["pkg"], False))
    return linked, used


def component(package, checksum, kind, scope=None):
    purl = f"pkg:cargo/{package['name']}@{package['version']}"
    told = {"type": kind, "bom-ref": purl, "name": package["name"], "version": package["version"]}
    if scope:
        told["scope"] = scope
    if checksum:
        told["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package.get("license"):
        # Older crates write a slash for OR.
        told["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    told["purl"] = purl
    return told


def bill(metadata, lock, name, target):
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    own = [one for one in metadata["workspace_members"] if packages[one]["name"] == name]
    if len(own) != 1:
        raise SystemExit(f"sbom.py: the workspace has {len(own)} packages named {name}, expected 1")
    [root] = own
    linked, used = reached(nodes, root)
    checksums = sums(lock)

    def checksum(package):
        return checksums.get((package["name"], package["version"]))

    def reference(node):
        return f"pkg:cargo/{packages[node]['name']}@{packages[node]['version']}"

    def needs(node):
        kinds = {None, "build"}
        found = (one for one in nodes[node]["deps"] if kinds & {kind["kind"] for kind in one["dep_kinds"]})
        return sorted(reference(one["pkg"]) for one in found)

    time = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), timezone.utc)
    listed = sorted(used - {root}, key=reference)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": component(packages[root], None, "application"),
            "properties": [{"name": "cargo:target", "value": target}],
        },
        "components": [
            component(packages[node], checksum(packages[node]), "library", "required" if node in linked else "excluded")
            for node in listed
        ],
        "dependencies": [{"ref": reference(node), "dependsOn": needs(node)} for node in sorted(used, key=reference)],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", required=True, help="the package that has the program")
    parser.add_argument("--target", required=True, help="what it is built for")
    parser.add_argument("--lock", required=True, help="Cargo.lock, for the sums")
    options = parser.parse_args()
    if "SOURCE_DATE_EPOCH" not in os.environ:
        parser.error("SOURCE_DATE_EPOCH is not set; `git log -1 --format=%ct` is the time of the commit")
    with open(options.lock, encoding="utf-8") as file:
        lock = file.read()
    json.dump(bill(json.load(sys.stdin), lock, options.package, options.target), sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
