#!/usr/bin/env python3
"""Meets the program with hostile inputs and judges every end. Needs the package blake3.

    tests/hostile/hostile.py PHOTONC [--count 5000] [--seed 1] [--jobs 1] [--only PATTERN] [--keep FOLDER]

Prints how many inputs of each kind ended how. Exit code 1 where one of them did what none may do; then each is named
with what it did, and `--only NAME --keep FOLDER` leaves it to be looked at."""

import argparse
import collections
import fnmatch
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import arguments
import bundles
import checkpoints
import outcomes
import prompts
import requests
import served
import templates
import tokenizers
import wire
from fixtures import GENERATE, Fixtures

# Generators and their shares of the inputs.
KINDS = [
    ("config", checkpoints.config, 13),
    ("header", checkpoints.header, 10),
    ("index", checkpoints.index, 4),
    ("weights", checkpoints.weights, 3),
    ("packed", checkpoints.packed, 4),
    ("weight-map", checkpoints.weight_map, 4),
    ("place", checkpoints.place, 2),
    ("manifest", bundles.manifest, 15),
    ("graph", bundles.graph, 10),
    ("onnx", bundles.onnx, 4),
    ("stored", bundles.stored, 4),
    ("place of bundle", bundles.place, 2),
    ("generation", bundles.generation, 4),
    ("tokenizer", tokenizers.tokenizer, 7),
    ("template", templates.template, 5),
    ("messages", prompts.messages, 3),
    ("prompts", prompts.prompts, 2),
    ("argument", arguments.argument, 4),
    ("http", requests.http, 12),
    ("http-raw", wire.http_raw, 4),
]


def inputs(seed, count, fixtures):
    """The first `count` inputs of a seed: those of a kind do not depend on the other kinds."""
    streams = [(generate(random.Random(f"{seed}:{kind}"), fixtures), share, kind) for kind, generate, share in KINDS]
    order = random.Random(f"{seed}:order")
    names = collections.Counter()
    for number in range(count):
        stream, _, _ = (
            streams[number % len(streams)]
            if count < 4 * len(streams)
            else order.choices(streams, [share for _, share, _ in streams])[0]
        )
        one = next(stream)
        names[one.kind, one.name] += 1
        if names[one.kind, one.name] > 1:
            one.name += f" ({names[one.kind, one.name]})"
        yield number, one


def size_of(folder):
    """Bytes of what a run is given: every file once."""
    sizes = {}
    for place, _, files in os.walk(folder):
        for name in files:
            there = os.lstat(os.path.join(place, name))
            sizes[there.st_ino] = there.st_size
    return sum(sizes.values())


class Trial:
    """Runs inputs in folders of their own."""

    def __init__(self, photonc, fixtures, folder, keep):
        self.photonc, self.fixtures, self.folder, self.keep = photonc, fixtures, folder, keep
        self.run = outcomes.Runner()
        base = [
            self.run([photonc, *command], fixtures.folder)
            for command in (["export", "m", "-o", "again", "-q"], ["generate", "b", *GENERATE], ["verify", "b", "-q"])
        ]
        if any(done.code for done in base):
            sys.exit("the sound inputs are refused:\n" + "\n".join(done.stderr.decode() for done in base))
        self.limits = outcomes.Limits(max(done.peak_bytes for done in base))
        self.tokens = base[1].stdout
        shutil.rmtree(fixtures.folder / "again")
        self.server = served.Server(photonc, fixtures.folder, folder / "server.log")

    def __call__(self, numbered):
        number, one = numbered
        return self._served(number, one) if one.run else self._commanded(number, one)

    def _served(self, number, one):
        end = one.run(self.server)
        if end.outcome == outcomes.ACCEPTED and not one.accept:
            end.outcome, end.shown = "let in", "nothing says that this may be"
        if end.outcome in outcomes.FAULTS and self.keep:
            target = Path(self.keep) / f"{number}"
            target.mkdir(parents=True, exist_ok=True)
            (target / "REQUEST").write_bytes(b"".join(piece for piece in self.server.sent if isinstance(piece, bytes)))
            (target / "ANSWER").write_bytes(self.server.received)
        return number, one.kind, one.name, end.outcome, end.shown, end.last, end.cpu_seconds, end.peak_bytes

    def end(self):
        """Ends the server; where that brings a fault to light, it is the one result."""
        fault = self.server.stop()
        return [(-1, "http", "the end of the server", *fault, "", 0.0, 0)] if fault else []

    def _commanded(self, number, one):
        folder = self.folder / f"input{number}"
        folder.mkdir()
        one.make(self.fixtures, folder)
        size = size_of(folder) + one.extra_bytes
        outcome, shown, done = outcomes.ACCEPTED, "", None
        for command in one.commands:
            done = self.run([self.photonc, *command], folder, one.stdin)
            outcome, shown = outcomes.judge(done, self.limits, size, one.names, one.prints_text)
            if outcome != outcomes.ACCEPTED:
                break
        if outcome == outcomes.ACCEPTED and not one.accept:
            outcome, shown = "let in", "nothing says that this may be"
        elif outcome == outcomes.ACCEPTED and one.same and done.stdout != self.tokens:
            outcome, shown = "let in", "other tokens than the sound input's"
        if outcome in outcomes.FAULTS and self.keep:
            target = Path(self.keep) / f"{number}"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(folder, target, symlinks=True, copy_function=_copy)
            (target / "COMMAND").write_text("\n".join(repr(["photonc", *command]) for command in one.commands) + "\n")
            (target / "STDERR").write_bytes(done.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        last = done.stderr.decode("utf-8", "replace").strip().replace("\n", " ")[:300]
        return number, one.kind, one.name, outcome, shown, last, done.cpu_seconds, done.peak_bytes


def _copy(source, target, **options):
    if os.path.isfile(source):
        shutil.copy2(source, target, **options)


def table(counts):
    """Kinds by outcomes as Markdown; outcomes that nothing had are left out."""
    kinds = [
        kind for kind in dict.fromkeys(kind for kind, _, _ in KINDS) if any(counted == kind for counted, _ in counts)
    ]
    columns = [
        column
        for column in outcomes.COLUMNS
        if column in outcomes.COLUMNS[:2] or any(counts[kind, column] for kind in kinds)
    ]
    rows = [["kind", "inputs", *columns], ["---"] + ["---:"] * (len(columns) + 1)]
    for kind in kinds:
        numbers = [counts[kind, column] for column in columns]
        rows.append([kind, sum(numbers), *numbers])
    rows.append(["all", sum(counts.values()), *(sum(counts[kind, column] for kind in kinds) for column in columns)])
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photonc")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="*", help="inputs whose KIND/NAME fits this pattern")
    parser.add_argument("--keep", help="folder for the inputs that brought a fault about")
    parser.add_argument("--list-accepted", action="store_true", help="name every input that was accepted")
    options = parser.parse_args()
    photonc = os.path.abspath(options.photonc)
    started = time.monotonic()
    counts, faults, slowest, largest = collections.Counter(), [], 0.0, 0
    with tempfile.TemporaryDirectory(prefix="photonc-hostile-") as work:
        sound, runs = Path(work) / "sound", Path(work) / "runs"
        sound.mkdir()
        runs.mkdir()
        fixtures = Fixtures(photonc, sound)
        trial = Trial(photonc, fixtures, runs, options.keep)
        chosen = (
            (number, one)
            for number, one in inputs(options.seed, options.count, fixtures)
            if fnmatch.fnmatchcase(f"{one.kind}/{one.name}", options.only)
        )
        ended = _ended(trial, chosen) if options.jobs == 1 else _in_parallel(trial, chosen, options.jobs)
        for number, kind, name, outcome, shown, last, cpu, peak in ended:
            counts[kind, outcome] += 1
            slowest, largest = max(slowest, cpu), max(largest, peak)
            if outcome in outcomes.FAULTS:
                faults.append(number)
                print(f"{outcome}: {number} {kind}/{name}: {shown}\n    {visible(last)}", flush=True)
            elif options.list_accepted and outcome == outcomes.ACCEPTED:
                print(f"accepted: {number} {kind}/{name}", flush=True)
    print(table(counts))
    seconds = time.monotonic() - started
    print(f"\nseed {options.seed}, {sum(counts.values())} inputs in {seconds:.0f} s; {len(faults)} faults")
    print(f"the longest run took {slowest:.1f} s of processor time, the largest {largest >> 20} MiB")
    sys.exit(1 if faults else 0)


def visible(text):
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)


def _ended(trial, chosen):
    """What became of each, and at last of the server that some of them met."""
    try:
        yield from map(trial, chosen)
        yield from trial.end()
    finally:
        trial.server.kill()


def _in_parallel(trial, chosen, jobs):
    """What makes an input cannot be sent to another process: each goes through all and runs its own."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def work(own):
        trial.run = outcomes.Runner()
        trial.server = served.Server(trial.photonc, trial.fixtures.folder, trial.folder / f"server{own}.log")
        try:
            for found in _ended(trial, (one for at, one in enumerate(chosen) if at % jobs == own)):
                queue.put(found)
        finally:
            queue.put(None)

    workers = [context.Process(target=work, args=(own,)) for own in range(jobs)]
    for worker in workers:
        worker.start()
    left = jobs
    while left:
        found = queue.get()
        if found is None:
            left -= 1
        else:
            yield found
    for worker in workers:
        worker.join()
        if worker.exitcode:
            sys.exit("an input could not be made")


if __name__ == "__main__":
    main()
