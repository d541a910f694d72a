#!/usr/bin/env python3
"""Has every system call by which the program writes fail, one in each run, and judges what is left. Needs strace.

    tests/faults/faults.py PHOTONC [--full] [--only PATTERN] [--jobs N] [--keep FOLDER]

Without --full a sample of them. Exit code 1 where a run did what none may do; then each is named with a command that
does it again. Exit code 77 where nothing can be traced."""

import argparse
import collections
import concurrent.futures
import fnmatch
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import tracing
from commands import CASES, Inputs, contents
from expectations import Judge, errors, harmless
from order import disorder

SAMPLE = 60
SKIPPED = 77


class Point:
    """A call of a case that is to fail with an error."""

    def __init__(self, case, call, place, error):
        self.case, self.call, self.place, self.error = case, call, place, error

    @property
    def name(self):
        return f"{self.case.name}/{self.call.name}/{self.call.thread}.{self.call.number}/{self.error}"


class Bench:
    """Runs cases in a folder of its own."""

    def __init__(self, program, folder, inputs):
        self.program, self.folder, self.inputs = program, folder, inputs
        folder.mkdir()
        self.out = folder / "out"

    def _run(self, case, inject=None, more=(), traced=True):
        printed = self.out / case.target if case.how == "printed" else self.folder / "stdout"
        command = case.command(self.program, self.inputs, self.out) + list(more)
        cwd = self.out / case.cwd if case.cwd else self.folder
        return tracing.run(command, self.folder, cwd, printed, inject, traced)

    def undisturbed(self, case):
        """The judge of a case, its calls that are about the output, and what is wrong with their order."""
        case.prepare(self.inputs, self.out)
        old = contents(self.out / case.target)
        run = self._run(case)
        if run.code:
            sys.exit(f"{case.name} fails without a fault: {run.stderr}")
        judge = Judge(case, old, contents(self.out / case.target))
        return judge, list(self._about(run.calls)), disorder(case, run.calls, self.out)

    def _about(self, calls):
        """The calls that are about the output. Of those that close something, files that are written: closing a folder
        cannot fail for want of room, and the standard library says so."""
        written = set()
        for call in calls:
            place = call.place(self.out)
            if call.opens_to_write:
                written.add(place)
            if place and (call.name != "close" or place in written):
                yield call, place

    def disturbed(self, judge, point):
        """Faults of a run in which a call fails, and of the next; and the calls that failed."""
        case, found = point.case, []
        case.prepare(self.inputs, self.out)
        run = self._run(case, tracing.injection(point.call, point.error))
        hit = [call for call in run.calls if call.injected]
        reasons = [harmless(call, point.error, call.place(self.out)) for call in hit]
        reason = "; ".join(dict.fromkeys(reasons)) if all(reasons) and hit else None
        if not hit:
            return "missed", [], hit, run
        found = list(judge.first(run, self.out, point.error, reason))
        code = run.code
        fresh = contents(self.out / case.target) == judge.new and case.how == "whole"
        again = self._run(case, more=case.again if fresh else (), traced=False)
        found += judge.second(again, self.out)
        return ("fault" if found else "harmless" if code == 0 else "refused"), found, hit, run


def sample(points, most):
    """As many points, the same every time, chosen so that every command, call and error is among them before one comes
    again."""
    seen, chosen, left = collections.Counter(), [], list(points)
    random.Random(1).shuffle(left)
    features = lambda point: (
        (point.case.name,),
        (point.case.name, point.call.name),
        (point.call.name, point.error),
        (point.case.name, point.error),
    )
    while left and len(chosen) < most:
        best = min(left, key=lambda point: sum(seen[feature] for feature in features(point)))
        seen.update(features(best))
        chosen.append(best)
        left.remove(best)
    return chosen


def table(counts):
    """Commands and calls by outcomes, as Markdown."""
    columns = ("refused", "harmless", "missed", "fault")
    rows = [["command", "call", *columns], ["---", "---"] + ["---:"] * len(columns)]
    for case, call in sorted({key[:2] for key in counts}):
        rows.append([case, call, *(counts[case, call, column] for column in columns)])
    rows.append(["all", "", *(sum(n for key, n in counts.items() if key[2] == column) for column in columns)])
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("--full", action="store_true", help="every call with every error")
    parser.add_argument("--only", default="*", help="points whose COMMAND/CALL/THREAD.NUMBER/ERROR fits this pattern")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for what runs with a fault left")
    options = parser.parse_args()
    unable = tracing.unable()
    if unable:
        print(unable)
        sys.exit(SKIPPED)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="photonc-faults-") as work:
        work = Path(work).resolve()
        faults = trial(options, work)
    print(f"\n{time.monotonic() - began:.0f} s; {faults} faults")
    sys.exit(1 if faults else 0)


def trial(options, work):
    program = options.program.resolve()
    inputs = Inputs(program, work / "in")
    benches = [Bench(program, work / f"bench{number}", inputs.folder) for number in range(options.jobs)]
    judges, points, faults = {}, [], 0
    for case in CASES:
        if not fnmatch.fnmatchcase(case.name, options.only.split("/")[0]):
            continue
        judge, calls, wrong = benches[0].undisturbed(case)
        judges[case.name] = judge
        for problem in wrong:
            faults += 1
            print(f"order: {case.name}: {problem}", flush=True)
        points += [Point(case, call, place, error) for call, place in calls for error in errors(call)]
    points = [point for point in points if fnmatch.fnmatchcase(point.name, options.only)]
    every, counts, reached = len(points), collections.Counter(), set()
    points = points if options.full else sample(points, SAMPLE)
    free = list(benches)

    def one(point):
        bench = free.pop()
        try:
            outcome, found, hit, run = bench.disturbed(judges[point.case.name], point)
            places = [(call.thread, call.name, call.place(bench.out)) for call in hit]
            if found and options.keep:
                target = options.keep / point.name.replace("/", " ")
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(bench.folder, target, symlinks=True)
            return point, outcome, found, places, run
        finally:
            free.append(bench)

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for point, outcome, found, places, run in pool.map(one, points):
            counts[point.case.name, point.call.name, outcome] += 1
            reached.update((point.case.name, *place) for place in places)
            if found:
                faults += 1
                again = f"tests/faults/faults.py PHOTONC --full --only '{point.name}' --keep FOLDER"
                print(f"fault: {point.name}: {point.place or '.'}", *found, again, sep="\n    ", flush=True)
                print("    " + " ".join(run.stderr.split())[:400], flush=True)
    print(table(counts))
    print(f"\n{len(points)} of {every} runs with a fault, of {len(judges)} commands")
    missed = {(point.case.name, point.call.thread, point.call.name, point.place) for point in points} - reached
    for case, thread, name, place in sorted(missed):
        print(f"not reached: {case}: {name} of thread {thread} on {place}")
    return faults


if __name__ == "__main__":
    main()
