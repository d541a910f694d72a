#!/usr/bin/env python3
"""Latency of `photonc serve` against the rate of requests, by NVIDIA's aiperf, RecGen and HierGen: a table and a plot.

usage: .deps/load/bin/python scripts/bench_serve.py URL MODEL TOKENIZER [--rates 0.5 1 2 4 8] [--protocols recgen hiergen]
                                                    [--prompt-tokens 128] [--new-tokens 128] [--seconds 20] [--plot FILE.svg]

Needs `scripts/setup-test-deps.sh --clients`. TOKENIZER is a folder with tokenizer.json and a tokenizer_config.json of
{"tokenizer_class": "PreTrainedTokenizerFast"}. Requests arrive at random (Poisson) at each rate for `--seconds`; those under way
then are waited for. Every request draws all its tokens: ends of sequences are ignored. Printed for each rate: requests/s and
tokens/s that came, TTFT and ITL in ms at p50 and p99, refused requests (429). ITL is aiperf's: (end - first token) / (tokens - 1)
of each request, so a burst counts for all its tokens.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

NAMES = {"recgen": "RecGen", "hiergen": "HierGen"}
COLOURS = {"recgen": "#1d5fc4", "hiergen": "#b4610b"}


def measure(arguments, protocol, rate):
    """One run: what aiperf exports."""
    program = pathlib.Path(sys.executable).parent / "aiperf"
    with tempfile.TemporaryDirectory() as folder:
        command = [
            program, "profile", "--model", arguments.model, "--url", arguments.url, "--endpoint-type", "completions", "--streaming",
            "--tokenizer", arguments.tokenizer, "--use-server-token-count", "--request-rate", str(rate), "--arrival-pattern", "poisson",
            "--warmup-request-count", "2", "--benchmark-duration", str(arguments.seconds), "--benchmark-grace-period", "120",
            "--synthetic-input-tokens-mean", str(arguments.prompt_tokens), "--synthetic-input-tokens-stddev", "0",
            "--output-tokens-mean", str(arguments.new_tokens), "--extra-inputs", "ignore_eos:true", "--extra-inputs",
            f"protocol:{protocol}", "--extra-inputs", f"top_k:{arguments.top_k}", "--random-seed", "1",
            "--artifact-dir", folder, "--ui", "none",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        export = pathlib.Path(folder) / "profile_export_aiperf.json"
        if not export.exists():
            sys.exit(f"aiperf failed:\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}")
        found = json.loads(export.read_text())
    value = lambda name, which: found.get(name, {}).get(which, float("nan"))
    return {
        "protocol": protocol, "rate": rate, "requests_per_s": value("request_throughput", "avg"),
        "tokens_per_s": value("output_token_throughput", "avg"),
        **{f"{short}_{which}": value(name, which) for short, name in [("ttft_ms", "time_to_first_token"), ("itl_ms", "inter_token_latency")]
           for which in ("p50", "p99")},
        "refused": sum(one["count"] for one in found.get("error_summary") or []),
    }


def table(rows):
    print("| protocol | requests/s asked | came | tokens/s | TTFT p50 ms | p99 | ITL p50 ms | p99 | refused |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {NAMES[row['protocol']]} | {row['rate']:g} | {row['requests_per_s']:.2f} | {row['tokens_per_s']:.0f} | {row['ttft_ms_p50']:.0f} "
              f"| {row['ttft_ms_p99']:.0f} | {row['itl_ms_p50']:.2f} | {row['itl_ms_p99']:.2f} | {row['refused']} |")


def plot(rows, path):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "photonc", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot, ticker

    plain = ticker.FuncFormatter(lambda value, _: f"{value:g}")
    figure, axes = pyplot.subplots(1, 3, figsize=(10.5, 3.2), layout="constrained")
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        own = [row for row in rows if row["protocol"] == protocol]
        rates = [row["rate"] for row in own]
        style = {"color": COLOURS[protocol], "marker": "o", "markersize": 3.5, "linewidth": 1.4}
        for axis, name in zip(axes, ("ttft_ms", "itl_ms")):
            axis.plot(rates, [row[f"{name}_p50"] for row in own], label=f"{NAMES[protocol]} p50", **style)
            axis.plot(rates, [row[f"{name}_p99"] for row in own], label=f"{NAMES[protocol]} p99", linestyle=":", **style)
        axes[2].plot(rates, [row["tokens_per_s"] for row in own], label=NAMES[protocol], **style)
    for axis, title in zip(axes, ("Time to first token, ms", "Inter-token latency, ms", "Tokens/s")):
        axis.set(title=title, xlabel="requests/s", xscale="log")
        axis.set_xticks(sorted({row["rate"] for row in rows}), minor=False)
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        axis.xaxis.set_major_formatter(plain)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[:2]:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(plain)
        axis.yaxis.set_minor_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else ""))
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("tokenizer")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.5, 1, 2, 4, 8])
    parser.add_argument("--protocols", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--top-k", type=int, default=40)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--plot")
    arguments = parser.parse_args()
    rows = []
    for protocol in arguments.protocols:
        for rate in arguments.rates:
            rows.append(measure(arguments, protocol, rate))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    table(rows)
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
