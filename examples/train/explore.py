"""Trains every configuration at once on one device, evaluates all, and packs the best.

Owns: which runs there are, their share of the clock, the ranking, and what is kept. Goes on where it was stopped, as
long as its `--work` folder is there.

    python3 examples/train/explore.py --data DATA --out OUT --budget-seconds 480
    python3 examples/train/explore.py --data DATA --out OUT --smoke       # one minute on a CPU

OUT/metrics.json: all figures, curves and samples. OUT/<run>.tar: checkpoint of a kept run. OUT/logs.tar: the rest.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import time

import torch

import data
import evaluate
import kneser_ney
import train

HERE = pathlib.Path(__file__).resolve().parent
RUNS = (
    "vanilla c2x2-a0 c2x2-a0.3 c2x2-a0.3-x c4x2-a0 c4x2-a0.3 c4x4-a0 c4x4-a0.3 "
    "c8x1-a0.3 c16x1-a0 c16x1-a0.3 c16x1-a0.3-s2 c16x1-a0.3-x c16x2-a0.3 c32x1-a0.3-x"
).split()
SMOKE_RUNS = "c2x2-a0.3 c16x1-a0.3-x vanilla".split()
# Every file that comes back holds one checkpoint of at most 10 MB.
KEPT = 5


def start(name, args, deadline):
    """A run as a process of its own; its output goes to its folder."""
    folder = args.work / name
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, HERE / "train.py", "--run", name, "--deadline", str(deadline)]
    for setting in ("data", "work", "tokens", "rows", "length", "rate", "dropout", "weight_decay", "curve_windows",
                    "eval_windows", "sample_rows", "save_seconds", "device"):
        command += ["--" + setting.replace("_", "-"), str(getattr(args, setting))]
    if args.smoke:
        command.append("--smoke")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    log = open(folder / "log.txt", "a")
    return subprocess.Popen([str(c) for c in command], stdout=log, stderr=subprocess.STDOUT, env=environment)


def run_all(names, args, started):
    """Runs at most `--jobs` at a time, sharing out the clock; names of those that failed."""
    end = started + args.budget_seconds
    waiting = [n for n in names if not (args.work / n / "result.json").exists()]
    rounds = -(-len(waiting) // args.jobs) if waiting else 1
    share = (end - args.reserve_seconds - time.time()) / rounds
    running, failed = {}, []
    while waiting or running:
        while waiting and len(running) < args.jobs:
            name = waiting.pop(0)
            running[name] = start(name, args, min(time.time() + share, end - args.reserve_seconds))
        for name, process in list(running.items()):
            if process.poll() is not None:
                del running[name]
                print(f"{time.time() - started:6.0f} s  {name}: {'done' if process.returncode == 0 else 'FAILED'}", flush=True)
                if process.returncode:
                    failed.append(name)
        if time.time() > end:
            # Their state is saved; a later call goes on from it.
            for name, process in running.items():
                process.terminate()
                failed.append(name)
            return failed + waiting
        time.sleep(0.2)
    return failed


def trigram(corpus, args):
    """The baseline on the windows that every run is scored on."""
    model = kneser_ney.Trigram(corpus.train, corpus.vocab_size)
    rows = evaluate.windows(corpus.heldout, args.eval_windows)
    last = rows[:, evaluate.PROMPT :]
    before, earlier = rows[:, evaluate.PROMPT - 1 : -1], rows[:, evaluate.PROMPT - 2 : -2]
    return evaluate.summary(-model.probabilities(earlier, before, last).log(), corpus.lengths[last])


def rank(results):
    """PHOTON runs by mean held-out bits per byte of the two protocols, best first."""
    photon = [r for r in results if r["chunks"]]
    return sorted(photon, key=lambda r: r["hiergen"]["bits_per_byte"] + r["recgen"]["bits_per_byte"])


def keep(results):
    """The best runs, and always the best shape's run without reconstruction loss."""
    best = rank(results)
    names = [r["run"] for r in best]
    twin = [r["run"] for r in best if r["alpha"] == 0 and not r["exposure"]]
    shape = [r["run"] for r in best if r["alpha"] == 0 and r["chunks"] == best[0]["chunks"]]
    return list(dict.fromkeys(names[: KEPT - 1] + shape[:1] + twin[:1]))[:KEPT]


def pack(out, args, names, results, baseline, failed, seconds):
    metrics = {"data": baseline["data"], "kneser_ney": baseline["trigram"], "heldout_text": baseline["text"],
               "device": torch.cuda.get_device_name() if args.device == "cuda" else args.device,
               "torch": torch.__version__, "seconds": round(seconds, 1), "failed": failed, "runs": results}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    for name in keep(results) if any(r["chunks"] for r in results) else []:
        with tarfile.open(out / f"{name}.tar", "w") as tar:
            for file in ("config.json", "model.safetensors", "result.json"):
                tar.add(args.work / name / file, f"{name}/{file}")
            tar.add(args.data / "tokenizer.json", f"{name}/tokenizer.json")
    with tarfile.open(out / "logs.tar", "w") as tar:
        for name in names:
            if (args.work / name / "log.txt").exists():
                tar.add(args.work / name / "log.txt", f"{name}.txt")


def line(name, figures):
    p = [f"{figures[f'perplexity_{d}']:8.1f}" for d in evaluate.DISTANCES]
    return f"{name:28} {figures['bits_per_byte']:.4f} {' '.join(p)}"


def report(results, baseline):
    print(f"{'':28} bits/byte  perplexity of the next 16, 64, 256 tokens")
    print(line("Kneser-Ney trigram", baseline["trigram"]))
    for result in results:
        for protocol in ("vanilla", "hiergen", "recgen"):
            if protocol in result:
                found = result["samples"][protocol]
                print(line(f"{result['run']} {protocol}", result[protocol]), f"  words known {found['known_words']:.3f}"
                      f"  distinct bigrams {found['distinct_bigrams']:.3f}")
    print(f"held-out text: {baseline['text']}")


def main():
    started = time.time()
    args = arguments()
    names = args.runs.split(",") if args.runs else SMOKE_RUNS if args.smoke else RUNS
    for name in names:
        train.parse_run(name)
    args.out.mkdir(parents=True, exist_ok=True)
    corpus = data.Data(args.data)
    if args.smoke:
        args.reserve_seconds = min(args.reserve_seconds, args.budget_seconds / 4)
    failed = run_all(names, args, started)
    baseline = {"data": corpus.record, "trigram": trigram(corpus, args),
                "text": evaluate.heldout_statistics(corpus, args.sample_rows)}
    found = [args.work / n / "result.json" for n in names]
    results = [json.loads(path.read_text()) for path in found if path.exists()]
    pack(args.out, args, names, results, baseline, failed, time.time() - started)
    report(results, baseline)
    if failed:
        sys.exit(f"not finished: {', '.join(failed)}; their logs are in logs.tar, and the same command goes on")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    train.add_settings(parser)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--budget-seconds", type=float, default=480)
    parser.add_argument("--reserve-seconds", type=float, default=110, help="of the budget, for evaluation and packing")
    parser.add_argument("--jobs", type=int, default=16, help="runs at a time")
    parser.add_argument("--runs", default="", help="names, separated by commas; default: all of them")
    return train.finish(parser.parse_args())


if __name__ == "__main__":
    main()
