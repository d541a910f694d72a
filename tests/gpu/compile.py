"""Compiles every unit of kernels with NVRTC, without a GPU, and checks that registers suffice: at most SPILLED_BYTES of
a thread's registers may go to memory.

    python3 tests/gpu/compile.py                 every unit for sm_90, the paper's widths for sm_80, sm_100 and sm_120
    python3 tests/gpu/compile.py --all           every unit for all of them

Prints one line a unit and exits with 1 where a kernel spills more; a unit that does not compile ends the program."""

import argparse
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from machine import TYPES, Compiler, macros

ARCHS = ["80", "90", "100", "120"]
# CHECKED_HEAD_DIMS, SKINNY_ROWS and CODE_SCHEMES of crates/photonc-launch/src/cuda/kernels.rs.
SKINNY_ROWS = [8, 16, 32, 64]
CODE_SCHEMES = [0, 1, 2]
HEAD_DIMS = [2, 8, 14, 52, 56, 60, 64, 128, 256]
PAPER_HEAD_DIMS = [52, 56, 60]
SPILLED_BYTES = 64


def units(arch, everything):
    full = everything or arch == "90"
    for dtype in TYPES if full else ["bf16"]:
        for source in ["linear.cu", "rows.cu", "sample.cu"]:
            yield arch, source, dtype, 0
        for rows in SKINNY_ROWS if dtype != "f32" else []:
            yield arch, "skinny.cu", dtype, rows
        for scheme in CODE_SCHEMES:
            yield arch, "codes.cu", dtype, scheme
        for head_dim in HEAD_DIMS if full else PAPER_HEAD_DIMS:
            for source in ["attention.cu", "window.cu", "stream.cu"]:
                yield arch, source, dtype, head_dim


def spills(log):
    """Bytes stored and loaded for spilled registers, by kernel."""
    found, kernel = {}, ""
    for line in log.splitlines():
        kernel = (re.findall(r"(?:Compiling entry function|Function properties for) '?(\w+)", line) or [kernel])[-1]
        for stored, loaded in re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            found[kernel] = max(int(stored), int(loaded))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true")
    options, compiler, failed = parser.parse_args(), Compiler(), False

    def compile_one(unit):
        arch, source, dtype, size = unit
        began = time.monotonic()
        flags = [f"--gpu-architecture=sm_{arch}", "--std=c++17", "--ptxas-options=-v", *macros(source, dtype, size)]
        cubin, log = compiler.compile(source, flags)
        return spills(log), len(cubin), time.monotonic() - began

    every = [unit for arch in ARCHS for unit in units(arch, options.all)]
    with ThreadPoolExecutor(2) as pool:
        for unit, (found, size, seconds) in zip(every, pool.map(compile_one, every)):
            if not found:
                sys.exit(f"{unit}: the compiler reported no kernels")
            worst = max(found, key=found.get)
            wrong = found[worst] > SPILLED_BYTES
            failed |= wrong
            print(f"sm_{unit[0]:4} {unit[1]:13} {unit[2]:5} {unit[3]:4} {len(found):3} kernels {size >> 10:5} KiB {seconds:5.1f} s  "
                  f"most spilled: {worst} {found[worst]} bytes{'  TOO MUCH' if wrong else ''}", flush=True)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
