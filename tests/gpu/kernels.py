"""Runs every kernel of the CUDA runtime on random values against NumPy in f64, then times the launches that decide the
speed of generation. The cases and their launches come from `cases.json`, which `tests/launch_cases.rs` writes.

    python3 tests/gpu/kernels.py                     on the first GPU (an H100 for the timings to mean anything)
    python3 tests/gpu/kernels.py --emulate           on this CPU, through tests/harness/emulate.h; no timings
    python3 tests/gpu/kernels.py --only attend       cases whose description has the word

Exits with 1 where a result is wrong."""

import argparse
import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import checks
import general_checks
import machine as machines
from values import STRUCTS, Buffer, rounded

HERE = os.path.dirname(os.path.abspath(__file__))
LONGEST_DRAW = (1 << 20) + 7
SOURCES = {"linear": "linear.cu", "attend": "attention.cu", "append_keys": "attention.cu", "sample": "sample.cu",
           "uniforms": "sample.cu", "rope": "general_attention.cu", "append": "general_attention.cu",
           "attend_general": "general_attention.cu", "route": "experts.cu", "experts_up": "experts.cu",
           "experts_down": "experts.cu"}
# CODE_SCHEMES of crates/photonc-launch/src/cuda/kernels.rs.
SCHEMES = ["int8", "int4", "fp8"]


def unit(case):
    name = case["launch"]["name"]
    skinny = re.match(r"linear_skinny_m(\d+)_", name)
    if skinny:
        return ("skinny.cu", case["dtype"], int(skinny[1]))
    if case["op"] in ["codes", "dequantize"]:
        return ("codes.cu", case["dtype"], SCHEMES.index(case["scheme"]))
    attention = re.match(r"attend_(window|stream)", name)
    if attention:
        return (attention[1] + ".cu", case["dtype"], case["head_dim"])
    return (SOURCES.get(case["op"], "rows.cu"), case["dtype"], case.get("head_dim", 0))


def described(case):
    left_out = {"launch", "timed"}
    return " ".join(f"{key}={value}" for key, value in case.items() if key not in left_out and value != "")


def heavy(case):
    """Too much work for the emulation."""
    if case["op"] in ["linear", "codes"]:
        return case["rows"] * case["k"] * case["n"] > 3e8 or case["k"] * case["n"] > 8e6
    return case["timed"] if "timed" in case else False


class Bench:
    """One case's buffers and launch."""

    def __init__(self, device, case, seed):
        self.device, self.case, self.buffers = device, case, []
        self.random = np.random.default_rng(seed)
        self.inputs = {}

    def buffer(self, count, dtype, values=None, skew=0):
        made = Buffer(self.device, int(count), dtype, values, skew)
        self.buffers.append(made)
        return made

    def draw(self, *shape, scale=1.0):
        """Random values that the type holds exactly; large arrays repeat at a distance that no row has."""
        count = int(np.prod(shape))
        values = rounded(self.random.standard_normal(min(count, LONGEST_DRAW)) * scale, self.case["dtype"])
        return np.resize(values, shape)

    def run(self, kind, fields, overlap=False):
        self.arguments = STRUCTS[kind](**fields)
        self.device.launch(unit(self.case), self.case["launch"], self.arguments, overlap)

    def free(self):
        for buffer in self.buffers:
            buffer.free()


def check_all(device, cases):
    """The number of wrong cases; prints the worst error of each kind and every wrong case."""
    worst, wrong = {}, 0
    for number, case in enumerate(cases):
        bench = Bench(device, case, number)
        try:
            name = "check_" + case["op"]
            ratio = getattr(checks, name, None) or getattr(general_checks, name)
            ratio = ratio(bench)
        except AssertionError as error:
            ratio, note = float("inf"), str(error)
        else:
            note = ""
        bench.free()
        key = (case["launch"]["name"], case["dtype"])
        worst[key] = max(worst.get(key, (0.0, 0)), (ratio, 0))[0], worst.get(key, (0, 0))[1] + 1
        if not ratio <= 1.0:
            wrong += 1
            print(f"WRONG {described(case)}: error is {ratio:.3g} of the tolerance {note}")
    print(f"{'kernel':24} {'type':5} cases  worst error / tolerance")
    for (name, dtype), (ratio, count) in sorted(worst.items()):
        print(f"{name:24} {dtype:5} {count:5}  {ratio:.3f}")
    return wrong


def time_all(device, cases):
    """A table of the timed cases: microseconds a launch, GB/s or TFLOP/s, and the part of the ceiling."""
    print(f"{'timed (H100: 3110 GB/s, 800 TFLOP/s)':86} {'us':>8} {'GB/s':>6} {'TF/s':>6} {'of ceiling':>10} {'overlapped us':>14}")
    for number, case in enumerate(case for case in cases if case.get("timed")):
        bench = Bench(device, case, number)
        launches, moved, flops = getattr(checks, "time_" + case["op"])(bench)
        count = len(launches)
        plain = device.time_ms([lambda one=one: one(False) for one in launches], 15) * 1e3 / count
        overlapped = device.time_ms([lambda one=one: one(True) for one in launches], 15) * 1e3 / count
        part = max(moved / 3.11e12, flops / 800e12) * 1e6 / min(plain, overlapped)
        name = f"{case['launch']['name']} {described(case)}"[:86]
        print(f"{name:86} {plain:8.2f} {moved / plain / 1e3:6.0f} {flops / plain / 1e6:6.1f} {part:10.0%} {overlapped:14.2f}")
        bench.free()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emulate", action="store_true")
    parser.add_argument("--header", default=os.path.join(HERE, "..", "harness", "emulate.h"))
    parser.add_argument("--only", default="")
    parser.add_argument("--dtype", default="", choices=["", "f32", "bf16", "f16"])
    parser.add_argument("--no-timing", action="store_true")
    options = parser.parse_args()
    with open(os.path.join(HERE, "cases.json")) as file:
        cases = json.load(file)
    cases = [case for case in cases if options.dtype in ("", case["dtype"])]
    cases = [case for case in cases if options.only in f"{case['launch']['name']} {described(case)}"]
    if options.emulate:
        dtypes = sorted({case["dtype"] for case in cases})
        if len(dtypes) > 1:
            # Each emulated unit keeps its threads' stacks: a process for each type keeps memory small.
            again = [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--dtype"]
            sys.exit(max(subprocess.run([*again, dtype]).returncode for dtype in dtypes))
        device = machines.Emulation(options.header)
        cases = [case for case in cases if not heavy(case)]
    else:
        device = machines.Gpu()
    began = time.monotonic()
    device.load({unit(case) for case in cases})
    print(f"{len({unit(case) for case in cases})} units compiled in {time.monotonic() - began:.1f} s")
    wrong = check_all(device, cases)
    print(f"{len(cases)} cases, {wrong} wrong, {time.monotonic() - began:.1f} s")
    if wrong:
        sys.exit(1)
    if device.name == "gpu" and not options.no_timing:
        time_all(device, cases)


if __name__ == "__main__":
    main()
