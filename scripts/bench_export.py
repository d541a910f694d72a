#!/usr/bin/env python3
"""Export time against the time to copy, sync and hash (BLAKE3) the bytes it writes, in turns in one run.

usage: bench_export.py PHOTONC MODEL WORKDIR [--runs 5]

Prints one line per run and the median ratio. WORKDIR is on the file system to be measured and is emptied.
"""
import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

from blake3 import blake3


def timed(action):
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def export(photonc, model, out):
    process = subprocess.Popen([photonc, "export", model, "-o", out, "-q"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"export of {model} failed with exit code {process.returncode}")
    return usage.ru_maxrss / 1024


def copy_sync_hash(source, target):
    """What any tool that makes a checked copy must do: read, write, make durable, hash."""
    with open(source, "rb") as reader, open(target, "wb") as writer:
        shutil.copyfileobj(reader, writer, 8 << 20)
        writer.flush()
        os.fsync(writer.fileno())
    return blake3(max_threads=blake3.AUTO).update_mmap(target).hexdigest()


def main():
    # In a process of its own, because a child's peak memory counts what its parent had mapped.
    if sys.argv[1:2] == ["--copy"]:
        copy_sync_hash(*sys.argv[2:4])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photonc")
    parser.add_argument("model")
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    options.workdir.mkdir(parents=True, exist_ok=True)
    bundle, copy = options.workdir / "bundle", options.workdir / "copy"
    ratios = []
    for run in range(options.runs):
        shutil.rmtree(bundle, ignore_errors=True)
        os.sync()
        exported, peak_mib = timed(lambda: export(options.photonc, options.model, bundle))
        weights = bundle / "onnx/weights/model.safetensors"
        os.sync()
        again = [sys.executable, __file__, "--copy", weights, copy]
        copied, _ = timed(lambda: subprocess.run(again, check=True))
        copy.unlink()
        ratios.append(exported / copied)
        size = weights.stat().st_size / 1e9
        print(f"run {run + 1}: {size:.2f} GB, export {exported:.2f} s, copy + sync + hash {copied:.2f} s, "
              f"ratio {ratios[-1]:.2f}, peak {peak_mib:.0f} MiB", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}")


main()
