"""What a model's latents are worth: its score on held-out text when its chunks are conditioned on others.

Owns: the table of latents in NOTES.md.

    python3 examples/train/latents.py --data DATA MODEL [MODEL ..]

A chunk of level 1 knows the text before it by its condition, one latent. It is replaced by that of a place further on, mostly in
the same book, by that of a place half the held-out text away, and by the mean of all: what gets worse is what the latents say.
"""

import argparse
import pathlib

import torch

import checkpoint
import data
import evaluate

# Windows of 256 tokens to the place further on.
NEAR = 20


@torch.no_grad()
def conditions(model, all_rows):
    """The latent behind every chunk, of the teacher-forced forward: [n, M_1, D_1]."""
    parts = [model.reconstruct(model.encode(rows)[-1])[1] for rows in all_rows.split(evaluate.ROWS)]
    return torch.cat(parts)


@torch.no_grad()
def score(model, all_rows, latents, lengths):
    """Bits per byte under given latents."""
    found = []
    for rows, part in zip(all_rows.split(evaluate.ROWS), latents.split(evaluate.ROWS)):
        logits = model.lm_head(model.bottom(part, rows))
        found.append(evaluate.nats(logits[:, evaluate.PROMPT :], rows[:, evaluate.PROMPT :]))
    return evaluate.summary(torch.cat(found), lengths)["bits_per_byte"]


def figures(model, all_rows, lengths):
    """`own`, `near`, `far` and `mean`: bits per byte; `spread`: |x - mean|^2 / |x|^2, mean over chunks."""
    own = conditions(model, all_rows)
    mean = own.flatten(0, 1).mean(0)
    others = {"own": own, "near": own.roll(-NEAR, 0), "far": own.roll(len(own) // 2, 0), "mean": mean.expand_as(own)}
    scores = {name: score(model, all_rows, latents, lengths) for name, latents in others.items()}
    return scores | {"spread": evaluate.normalised_error(mean, own).item()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("models", type=pathlib.Path, nargs="+", metavar="MODEL")
    args = parser.parse_args()
    corpus = data.Data(args.data)
    rows = evaluate.windows(corpus.heldout)
    lengths = corpus.lengths[rows[:, evaluate.PROMPT :]]
    print(f"{'':20} bits/byte: own     near      far     mean   spread")
    for folder in args.models:
        found = figures(checkpoint.load(folder), rows, lengths)
        scores = " ".join(f"{found[name]:8.4f}" for name in ("near", "far", "mean"))
        print(f"{folder.name:20} {found['own']:14.4f} {scores} {found['spread']:8.5f}", flush=True)


if __name__ == "__main__":
    main()
