"""Trains one model, then evaluates what it wrote. Stops at its tokens or its deadline; goes on from its own state.

Owns: the loss, the schedule and the saved state of one run. `explore.py` starts many of these.

    python3 examples/train/train.py --data DATA --work DIR --run c16x1-a0.3-x --tokens 40e6

Run names say everything that differs: `c2x2` chunk sizes, `a0.3` weight of the reconstruction loss, `x` exposure (half of
each batch is trained on the open-loop coarse state), `s2` the seed (default 1); `vanilla` is the yardstick.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import re
import time

import torch
import torch.nn.functional as F

import checkpoint
import data
import evaluate

SIZES = {"dim": 192, "layers": 2, "heads": 6, "ffn": 352}
SMOKE_SIZES = {"dim": 48, "layers": 1, "heads": 3, "ffn": 96}
# Passes of the coarse recurrence in an exposed step: the first few meta-contexts after the cut are exactly open loop.
EXPOSURE_PASSES = 3


@dataclasses.dataclass
class Run:
    name: str
    chunks: tuple | None
    alpha: float
    exposure: bool
    seed: int


def parse_run(name):
    match = re.fullmatch(r"(?:vanilla|c(?P<chunks>\d+(?:x\d+)*)-a(?P<alpha>[\d.]+)(?P<exposure>-x)?)(?:-s(?P<seed>\d+))?", name)
    if not match:
        raise ValueError(f"run `{name}`: expected `vanilla` or like `c4x2-a0.3`, `c16x1-a0.3-x-s2`")
    part = match.groupdict()
    chunks = tuple(int(c) for c in part["chunks"].split("x")) if part["chunks"] else None
    return Run(name, chunks, float(part["alpha"] or 0), bool(part["exposure"]), int(part["seed"] or 1))


def run_config(run, sizes, vocabulary):
    """The yardstick has as many layers as make it the size of the largest PHOTON here, C = (2, 2)."""
    if run.chunks:
        return checkpoint.paper_config(vocabulary, run.chunks, positions=2048, **sizes)
    small = {name: sizes[name] for name in ("dim", "heads", "ffn")}
    photon = parameters(checkpoint.build(checkpoint.paper_config(vocabulary, (2, 2), positions=2048, **sizes)))
    bare, one = (parameters(checkpoint.build(checkpoint.vanilla_config(vocabulary, layers=n, **small))) for n in (0, 1))
    return checkpoint.vanilla_config(vocabulary, layers=max(1, round((photon - bare) / (one - bare))), **small)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def reconstruction_loss(states, recon):
    """Squared error of Xhat^l against X^l over the target's square, mean over units, levels 1 .. L-1.

    The target is a constant here: encoders learn what the tokens need, and decoders to foresee it. With the gradient
    the encoders would learn to say only what is easy to foresee.
    """
    terms = []
    for truth, found in zip(states[1:-1], recon[1:-1]):
        truth, found = truth.detach().float(), found.float()
        terms.append(((found - truth).square().sum(-1) / truth.square().sum(-1)).mean())
    return sum(terms) / len(terms)


def expose(model, states, generator):
    """Top states [B, M_L, D_L] where, from a random cut in each row on, the top encoder reads A = C^L(Xhat^{L-1}), the
    model's own reconstruction, as RecGen does."""
    top, true = model.levels[-1], states[-1]
    units = top.chunker(states[-2])
    rows, count = units.shape[:2]
    cut = torch.randint(1, count, (rows, 1), generator=generator).to(units.device)
    open_loop = (torch.arange(count, device=units.device) >= cut)[..., None]
    state = true
    for _ in range(EXPOSURE_PASSES):
        latents = top.windows(top.shifted(state).flatten(0, 1))
        own = top.chunker(latents.reshape(rows, -1, latents.shape[-1]))
        state = top.encoder(torch.where(open_loop, own.to(units.dtype), units))
    return state


def photon_loss(model, tokens, run, generator):
    """(loss, cross entropy in nats): cross entropy + alpha x reconstruction."""
    states = model.encode(tokens)
    top = states[-1]
    if run.exposure:
        half = len(tokens) // 2
        exposed = expose(model, [s[:half] for s in states], generator)
        top = torch.cat((exposed, top[half:].to(exposed.dtype)))
    recon = model.reconstruct(top)
    logits = model.lm_head(model.bottom(recon[1], tokens))
    entropy = F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten())
    if run.alpha == 0:
        return entropy, entropy
    return entropy + run.alpha * reconstruction_loss(states, recon), entropy


def vanilla_loss(model, tokens):
    logits = model(tokens[:, :-1])
    entropy = F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
    return entropy, entropy


class Trainer:
    """One run's model, optimiser, random state and curve; everything in it survives a restart."""

    def __init__(self, run, config, args):
        torch.manual_seed(run.seed)
        self.run, self.args = run, args
        self.model = checkpoint.build(config, args.dropout).to(args.device)
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": args.weight_decay}, {"params": others, "weight_decay": 0.0}]
        fused = args.device == "cuda"
        self.optimiser = torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.95), fused=fused)
        self.generator = torch.Generator().manual_seed(run.seed)
        self.step, self.seconds, self.curve = 0, 0.0, []

    def state(self):
        return {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(), "step": self.step,
                "generator": self.generator.get_state(), "seconds": self.seconds, "curve": self.curve}

    def restore(self, state):
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"].cpu())
        self.step, self.seconds, self.curve = state["step"], state["seconds"], state["curve"]

    def mixed(self):
        """bf16 for the matrix products on a GPU; weights, norms and residual streams stay f32."""
        return torch.autocast(self.args.device, torch.bfloat16, enabled=self.args.mixed or self.args.device == "cuda")

    def set_rate(self, progress):
        """Warm-up over 2 %, then a cosine to a hundredth."""
        warm = min(1.0, progress / 0.02 + 1e-3)
        scale = warm * (0.01 + 0.99 * (1 + math.cos(math.pi * min(progress, 1.0))) / 2)
        for group in self.optimiser.param_groups:
            group["lr"] = self.args.rate * scale

    def train_step(self, stream):
        self.model.train()
        tokens = data.crops(stream, self.args.rows, self.args.length, self.generator)
        with self.mixed():
            if self.run.chunks:
                loss, entropy = photon_loss(self.model, tokens, self.run, self.generator)
            else:
                loss, entropy = vanilla_loss(self.model, tokens)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        return entropy.detach()

    @torch.no_grad()
    def held_out(self, rows, lengths):
        """Bits per byte of the teacher-forced forward on a few held-out windows."""
        self.model.eval()
        scores = []
        for part in rows.split(evaluate.ROWS):
            with self.mixed():
                out = self.model(part)
            if self.run.chunks:
                scores.append(evaluate.nats(out[0][:, evaluate.PROMPT :], part[:, evaluate.PROMPT :]))
            else:
                scores.append(evaluate.nats(out[:, evaluate.PROMPT - 1 : -1], part[:, evaluate.PROMPT :]))
        return evaluate.summary(torch.cat(scores), lengths)["bits_per_byte"]


def save_state(trainer, path):
    temporary = path.with_suffix(".new")
    torch.save(trainer.state(), temporary)
    os.replace(temporary, path)


def train(trainer, corpus, path):
    """Trains to the token budget, or to the deadline with the rate annealed by the clock."""
    args = trainer.args
    stream = corpus.train.to(args.device)
    rows = evaluate.windows(corpus.heldout, args.curve_windows).to(args.device)
    lengths = corpus.lengths.to(args.device)[rows[:, evaluate.PROMPT :]]
    per_step = args.rows * args.length
    steps = math.ceil(args.tokens / per_step)
    started, before = time.time(), trainer.seconds
    # Seconds that this run may train in all, those before a restart included.
    allowed = before + max(1.0, args.deadline - started) if args.deadline else math.inf
    saved, mark, losses = started, max(1, steps // 20), []
    while trainer.step < steps:
        trainer.seconds = before + time.time() - started
        progress = max(trainer.step / steps, trainer.seconds / allowed)
        if progress >= 1:
            break
        trainer.set_rate(progress)
        losses.append(trainer.train_step(stream))
        if trainer.step % mark == 0 or trainer.step == steps:
            point = {"tokens": trainer.step * per_step, "seconds": round(trainer.seconds, 1),
                     "train_nats": torch.stack(losses).mean().item(), "heldout_bits_per_byte": trainer.held_out(rows, lengths)}
            trainer.curve.append(point)
            losses = []
            print(json.dumps(point), flush=True)
        if time.time() - saved > args.save_seconds:
            save_state(trainer, path)
            saved = time.time()
    save_state(trainer, path)


def assess(folder, run, corpus, args):
    """Figures of the checkpoint as written: bf16 weights, computed in f32."""
    model = checkpoint.load(folder).to(args.device)
    rows = evaluate.windows(corpus.heldout, args.eval_windows).to(args.device)
    lengths = corpus.lengths.to(args.device)[rows[:, evaluate.PROMPT :]]
    figures = (evaluate.photon if run.chunks else evaluate.vanilla)(model, rows, lengths)
    figures["samples"] = evaluate.sample(model, corpus, args.device, run.seed, args.sample_rows)
    figures["parameters"] = parameters(model)
    return figures


def main():
    args = arguments()
    run = parse_run(args.run)
    torch.set_num_threads(args.threads)
    folder = args.work / run.name
    folder.mkdir(parents=True, exist_ok=True)
    corpus = data.Data(args.data)
    trainer = Trainer(run, run_config(run, SMOKE_SIZES if args.smoke else SIZES, corpus.vocab_size), args)
    state = folder / "state.pt"
    if state.exists():
        trainer.restore(torch.load(state, map_location=args.device, weights_only=True))
        print(f"going on from step {trainer.step}", flush=True)
    train(trainer, corpus, state)
    checkpoint.save(folder, trainer.model)
    result = {"run": run.name, "seed": run.seed, "alpha": run.alpha, "exposure": run.exposure,
              "chunks": run.chunks, "tokens": trainer.step * args.rows * args.length, "wanted_tokens": args.tokens,
              "steps": trainer.step, "seconds": round(trainer.seconds, 1), "rate": args.rate, "dropout": args.dropout,
              "weight_decay": args.weight_decay, "rows": args.rows, "length": args.length, "curve": trainer.curve}
    del trainer
    result |= assess(folder, run, corpus, args)
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True)
    add_settings(parser)
    parser.add_argument("--deadline", type=float, default=0, help="clock time (seconds since 1970) to stop training at")
    parser.add_argument("--threads", type=int, default=1)
    return finish(parser.parse_args())


def add_settings(parser):
    """What `explore.py` hands on to every run."""
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("target/train"), help="resumable state")
    parser.add_argument("--tokens", type=float, default=48e6, help="token budget of every run")
    parser.add_argument("--rows", type=int, default=64, help="sequences per step")
    parser.add_argument("--length", type=int, default=512, help="tokens per sequence")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--curve-windows", type=int, default=64)
    parser.add_argument("--eval-windows", type=int, default=10**6)
    parser.add_argument("--sample-rows", type=int, default=24)
    parser.add_argument("--save-seconds", type=float, default=45)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--mixed", action="store_true", help="bf16 matrix products on a CPU too")
    parser.add_argument("--smoke", action="store_true", help="tiny models, a minute on a CPU")


def finish(args):
    if args.smoke:
        args.rows, args.tokens, args.curve_windows, args.eval_windows, args.sample_rows = 8, 40_000, 4, 8, 2
    return args


if __name__ == "__main__":
    main()
