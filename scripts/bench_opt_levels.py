#!/usr/bin/env python3
"""Two optimisation levels of one model against each other, in turns in one run: tokens/s of `generate` in tract, and the
time of a run-ahead in ONNX Runtime where that is installed.

usage: bench_opt_levels.py PHOTONC MODEL WORKDIR [--levels 0 2] [--rounds 9] [--regime 64/256] [--run-ahead 4]

Exports MODEL at both levels into WORKDIR. Prints one line per round, then per engine and clock the best of each level and
the ratio of the second level to the first: of the bests, and the median over rounds. Above 1 the second level is faster.
On a machine that does other things, the CPU clock (tokens per second of processor time, loading left out) is the one to
trust.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import time


def export(photonc, model, bundle, level):
    shutil.rmtree(bundle, ignore_errors=True)
    command = [photonc, "export", model, "-o", bundle, f"-O{level}", "-q"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def tract(photonc, bundle, options):
    """Tokens/s by the clock, the median of the repetitions, and by the processor."""
    command = [photonc, "bench", bundle, "--backend", "tract", "--regime", options.regime, "--json"]
    command += ["--run-ahead", str(options.run_ahead), "--repetitions"]

    def run(repetitions):
        process = subprocess.Popen([*command, str(repetitions)], stdout=subprocess.PIPE, text=True)
        report = json.loads(process.stdout.read())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"bench of {bundle} failed with exit code {process.returncode}")
        return report, usage.ru_utime + usage.ru_stime

    # Two numbers of repetitions differ by generations alone: loading drops out.
    (_, short), (report, long) = run(1), run(1 + options.repetitions)
    return report["tokens_per_second"], report["new_tokens"] * options.repetitions / (long - short)


class Steps:
    """A run-ahead in ONNX Runtime: `coarse` step by step, then one `expand`. The values are not followed from graph to
    graph; every run has the shapes of a generation, and what a step costs does not depend on what it computes."""

    def __init__(self, runtime, numpy, bundle, options):
        self.meta = options.run_ahead
        manifest = json.loads((bundle / "photon.json").read_text())
        self.tokens = self.meta * manifest["model"]["meta_tokens"]
        threads = runtime.SessionOptions()
        threads.intra_op_num_threads = options.threads
        sizes = {"batch": 1, "meta": self.meta, "capacity": options.capacity}
        random = numpy.random.default_rng(0)

        def value(port):
            shape = [eval(dim, {"__builtins__": {}}, sizes) for dim in port["shape"]]
            if port["dtype"] == "i64":
                return numpy.full(shape, options.capacity // 2 if port["name"] == "lengths" else 1, numpy.int64)
            return random.uniform(0.1, 0.9, shape).astype(numpy.float32)

        self.runs = {}
        for graph in ("coarse", "expand"):
            path = bundle / manifest["onnx"]["portable"][graph]["file"]
            session = runtime.InferenceSession(path, threads, providers=["CPUExecutionProvider"])
            self.runs[graph] = session, {port["name"]: value(port) for port in manifest["graphs"][graph]["inputs"]}

    def tokens_per_second(self):
        best = [float("inf")] * 2
        for _ in range(5):
            starts = time.perf_counter(), time.process_time()
            for graph, times in (("coarse", self.meta), ("expand", 1)):
                session, inputs = self.runs[graph]
                for _ in range(times):
                    session.run(None, inputs)
            ends = time.perf_counter(), time.process_time()
            best = [min(so_far, end - start) for so_far, start, end in zip(best, starts, ends)]
        return tuple(self.tokens / seconds for seconds in best)


def summary(engine, levels, rounds):
    for clock, name in enumerate(("wall", "CPU")):
        first, second = ([level[clock] for level in measured] for measured in zip(*rounds))
        paired = statistics.median(after / before for before, after in zip(first, second))
        print(f"{engine}, {name}: best -O{levels[0]} {max(first):.1f} tokens/s, best -O{levels[1]} {max(second):.1f} "
              f"tokens/s, ratio of bests {max(second) / max(first):.3f}, median ratio {paired:.3f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photonc")
    parser.add_argument("model")
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--levels", nargs=2, default=["0", "2"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--regime", default="64/256")
    parser.add_argument("--repetitions", type=int, default=4, help="generations of a round in tract")
    parser.add_argument("--run-ahead", type=int, default=4)
    parser.add_argument("--capacity", type=int, default=32, help="cache slots in ONNX Runtime, in meta-contexts")
    parser.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime")
    options = parser.parse_args()
    options.workdir.mkdir(parents=True, exist_ok=True)
    bundles = [options.workdir / f"bundle-O{level}" for level in options.levels]
    for bundle, level in zip(bundles, options.levels):
        export(options.photonc, options.model, bundle, level)
    engines = {"tract": [lambda bundle=bundle: tract(options.photonc, bundle, options) for bundle in bundles]}
    try:
        import numpy
        import onnxruntime
        steps = [Steps(onnxruntime, numpy, bundle, options) for bundle in bundles]
        engines[f"ONNX Runtime {onnxruntime.__version__}"] = [step.tokens_per_second for step in steps]
    except ImportError:
        print("ONNX Runtime: not measured, the Python package `onnxruntime` is not there")
    rounds = {engine: [] for engine in engines}
    for number in range(options.rounds):
        for engine, (first, second) in engines.items():
            # The level that goes first changes, so that a machine that slows down favours neither.
            if number % 2:
                after, before = second(), first()
            else:
                before, after = first(), second()
            rounds[engine].append((before, after))
            ratios = ", ".join(f"{name} {after[clock] / before[clock]:.3f}" for clock, name in enumerate(("wall", "CPU")))
            print(f"round {number + 1}, {engine}: {before[0]:.1f} and {after[0]:.1f} tokens/s, ratios {ratios}", flush=True)
    for engine, measured in rounds.items():
        summary(engine, options.levels, measured)


main()
