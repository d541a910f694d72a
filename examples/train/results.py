"""Writes RESULTS.md and curves.svg from the metrics of one or more explorations. Owns their form; computes nothing.

    python3 examples/train/results.py OUT/metrics.json [MORE/metrics.json ..] --to examples/train
"""

import argparse
import json
import pathlib

PALETTE = ["#1b6ca8", "#c1440e", "#2e7d32", "#7b1fa2", "#b8860b", "#00838f", "#ad1457", "#5d4037"]


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def figures(found):
    return [f"{found['bits_per_byte']:.3f}"] + [f"{found[f'perplexity_{d}']:.1f}" for d in (16, 64, 256)]


def score_rows(metrics):
    yield ["Kneser-Ney trigram", "", ""] + figures(metrics["kneser_ney"]) + ["", ""]
    for run in metrics["runs"]:
        for protocol in ("vanilla", "hiergen", "recgen"):
            if protocol in run:
                text = run["samples"][protocol]
                words = [f"{text['known_words']:.1%}", f"{text['distinct_bigrams']:.1%}"]
                yield [run["run"], "" if protocol == "vanilla" else protocol, str(run["seed"])] + figures(run[protocol]) + words
    text = metrics["heldout_text"]
    yield ["held-out text", "", "", "", "", "", "", f"{text['known_words']:.1%}", f"{text['distinct_bigrams']:.1%}"]


def run_rows(metrics):
    for run in metrics["runs"]:
        recon = run.get("reconstruction")
        drift = [f"{recon['error']:.3f}", f"{recon['cosine']:.3f}"] if recon else ["", ""]
        drift += [f"{recon['open_loop_cosine'][d]:.3f}" for d in ("16", "64", "256")] if recon else ["", "", ""]
        short = "" if run["tokens"] >= run["wanted_tokens"] else " (stopped by the clock)"
        yield [run["run"], f"{run['parameters']:,}", f"{run['tokens'] / 1e6:.1f} M{short}", f"{run['seconds']:.0f}", *drift]


def curve_rows(metrics):
    """Held-out bits per byte at up to ten points of every run, the last of them its end."""
    for run in metrics["runs"]:
        points = run["curve"][::-1][:: -(-len(run["curve"]) // 10)][::-1]
        yield [run["run"], " ".join(f"{p['heldout_bits_per_byte']:.3f}" for p in points),
               f"{run['curve'][-1]['train_nats']:.3f}"]


def svg(all_runs):
    """Held-out bits per byte over trained tokens, one line a run."""
    wide, high, left, top = 760, 420, 60, 20
    points = [(p["tokens"], p["heldout_bits_per_byte"]) for run in all_runs for p in run["curve"][1:]]
    most, low, peak = max(x for x, _ in points), min(y for _, y in points), max(y for _, y in points)

    def place(x, y):
        return f"{left + x / most * wide:.1f},{top + (peak - y) / (peak - low or 1) * high:.1f}"

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide + 300}" height="{high + 70}" font-family="sans-serif" font-size="12">']
    out.append('<rect width="100%" height="100%" fill="#fff"/>')
    out.append(f'<rect x="{left}" y="{top}" width="{wide}" height="{high}" fill="none" stroke="#888"/>')
    for i in range(6):
        y = low + (peak - low) * i / 5
        out.append(f'<text x="{left - 8}" y="{top + high - high * i / 5 + 4:.0f}" text-anchor="end">{y:.2f}</text>')
        out.append(f'<text x="{left + wide * i / 5:.0f}" y="{top + high + 18}" text-anchor="middle">{most * i / 5e6:.0f} M</text>')
    out.append(f'<text x="{left + wide / 2}" y="{top + high + 40}" text-anchor="middle">tokens trained; held-out bits per byte, teacher-forced</text>')
    for i, run in enumerate(all_runs):
        colour, dash = PALETTE[i % len(PALETTE)], ' stroke-dasharray="5 3"' if i >= len(PALETTE) else ""
        path = " ".join(place(p["tokens"], p["heldout_bits_per_byte"]) for p in run["curve"][1:])
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"{dash}/>')
        y = top + 14 + i * 18
        out.append(f'<line x1="{left + wide + 14}" y1="{y}" x2="{left + wide + 40}" y2="{y}" stroke="{colour}" stroke-width="2"{dash}/>')
        out.append(f'<text x="{left + wide + 46}" y="{y + 4}">{run["run"]}</text>')
    return "\n".join(out + ["</svg>"]) + "\n"


def quote(text):
    return "\n".join("> " + line for line in text.strip().splitlines())


def section(metrics):
    data = metrics["data"]
    first = metrics["runs"][0]
    head = ["run", "protocol", "seed", "bits per byte", "next 16", "next 64", "next 256", "known words", "distinct bigrams"]
    drift = ["run", "parameters", "tokens", "seconds", "error", "cosine", "open loop 16", "64", "256"]
    parts = [
        f"Device: {metrics['device']}, PyTorch {metrics['torch']}, {metrics['seconds']:.0f} s in the last call of `explore.py`. "
        f"Corpus: {data['train']['tokens']:,} training tokens ({data['train']['bytes']:,} bytes), "
        f"{data['heldout']['tokens']:,} held-out tokens of {data['heldout']['documents']} documents, vocabulary {data['vocab_size']:,}. "
        f"Steps of {first['rows']} x {first['length']} tokens, peak rate {first['rate']}, dropout {first['dropout']}, "
        f"weight decay {first['weight_decay']}.",
        "Bits per byte and perplexity of the true next tokens after 256-token prompts; the last two columns are of 2 000 words "
        "sampled at temperature 0.8.",
        table(head, score_rows(metrics)),
        "Reconstruction of the encoder states: normalised squared error and cosine, teacher-forced; then the mean cosine over the "
        "next 16, 64 and 256 tokens with the coarse state advanced open-loop.",
        table(drift, run_rows(metrics)),
        "Held-out bits per byte along each run, and its last training loss in nats.",
        table(["run", "held-out bits per byte", "training nats"], curve_rows(metrics)),
    ]
    if metrics["failed"]:
        parts.append("Not finished: " + ", ".join(metrics["failed"]) + ".")
    return "\n\n".join(parts)


def samples(metrics):
    """The first sample of every run and protocol, as they came."""
    parts = []
    for run in metrics["runs"]:
        for protocol, found in run["samples"].items():
            name = run["run"] if protocol == "vanilla" else f"{run['run']}, {protocol}"
            parts.append(f"**{name}**, after \"...{found['prompts'][0][-120:].strip()}\"".replace("\n", " "))
            parts.append(quote(found["texts"][0]))
    return "\n\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics", type=pathlib.Path, nargs="+")
    parser.add_argument("--to", type=pathlib.Path, required=True)
    args = parser.parse_args()
    found = [json.loads(path.read_text()) for path in args.metrics]
    notes = args.to / "NOTES.md"
    parts = ["# Results", "Written by `results.py`; the reading of it is in `NOTES.md`." if notes.exists() else "Written by `results.py`.",
             "A run's name says its chunk sizes, the weight of the reconstruction loss, `x` for exposure and the seed when it is not 1.",
             "![Held-out curves](curves.svg)"]
    for i, metrics in enumerate(found):
        parts += [f"## Exploration {i + 1}" if len(found) > 1 else "## Figures", section(metrics)]
    parts += ["## Samples", "Temperature 0.8, full vocabulary, the first prompt of each run; nothing is chosen.",
              "\n\n".join(samples(metrics) for metrics in found)]
    (args.to / "RESULTS.md").write_text("\n\n".join(parts) + "\n")
    (args.to / "curves.svg").write_text(svg([run for metrics in found for run in metrics["runs"]]))


if __name__ == "__main__":
    main()
