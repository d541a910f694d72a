"""What a trained model is worth on text it never saw.

Owns: every figure of RESULTS.md. Each window is a 256-token prompt and the true next 256 tokens of the held-out stream;
HierGen, RecGen, the vanilla Transformer and the trigram are scored on the same tokens.
"""

import math

import torch
import torch.nn.functional as F

import data as text
import generate

PROMPT, NEXT, ROWS = 256, 256, 64
DISTANCES = (16, 64, 256)


def windows(stream, limit=None):
    """[n, 512]: every 256 tokens of the stream with the 256 before them."""
    all_of_them = stream.unfold(0, PROMPT + NEXT, NEXT)
    return all_of_them if limit is None else all_of_them[:: max(1, len(all_of_them) // limit)][:limit]


def nats(logits, targets):
    """[B, n, V], [B, n] -> [B, n]"""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none").view(targets.shape)


def summary(nll, lengths):
    """Figures of per-token nats [n, 256]; lengths [n, 256] are the tokens' bytes."""
    figures = {"bits_per_byte": (nll.double().sum() / math.log(2) / lengths.sum()).item()}
    for distance in DISTANCES:
        figures[f"perplexity_{distance}"] = nll[:, :distance].double().mean().exp().item()
    return figures


@torch.no_grad()
def open_loop(model, rows):
    """RecGen on the true tokens: nats [B, 256], and cosines of Xhat^{L-1} to X^{L-1} [B, metas]."""
    prompt, rest = rows[:, :PROMPT], rows[:, PROMPT:]
    states, carries = model.prefill(prompt)
    units = model.levels[-1].chunker(states[-2])
    conditions, _, coarse = model.advance_open_loop(units, carries, NEXT // model.meta)
    chunk = model.levels[0].chunk
    logits = model.lm_head(model.read_out(conditions.flatten(0, 1), rest.reshape(-1, chunk)))
    truth = model.encode(rows)[-2][:, states[-2].shape[1] :].reshape(coarse.shape)
    cosine = F.cosine_similarity(coarse.flatten(2), truth.flatten(2), dim=-1)
    return nats(logits.reshape(*rest.shape, -1), rest), cosine


@torch.no_grad()
def photon(model, all_rows, lengths):
    """Figures of both protocols."""
    hier, rec, cosines, errors = [], [], [], []
    for rows in all_rows.split(ROWS):
        logits, states, recon = model(rows)
        hier.append(nats(logits[:, PROMPT:], rows[:, PROMPT:]))
        at = states[-2].shape[1] * PROMPT // rows.shape[1]
        truth, found = states[-2][:, at:], recon[-2][:, at:]
        errors.append(torch.stack((normalised_error(found, truth), F.cosine_similarity(found, truth, dim=-1).mean())))
        score, cosine = open_loop(model, rows)
        rec.append(score)
        cosines.append(cosine)
    error, cosine = torch.stack(errors).mean(0).tolist()
    by_meta = torch.cat(cosines).mean(0)
    drift = {str(d): by_meta[: max(1, d // model.meta)].mean().item() for d in DISTANCES}
    return {
        "hiergen": summary(torch.cat(hier), lengths),
        "recgen": summary(torch.cat(rec), lengths),
        "reconstruction": {"error": error, "cosine": cosine, "open_loop_cosine": drift},
    }


def normalised_error(found, truth):
    """|found - truth|^2 / |truth|^2, mean over units."""
    return ((found - truth).square().sum(-1) / truth.square().sum(-1)).mean()


@torch.no_grad()
def vanilla(model, all_rows, lengths):
    scores = [nats(model(rows)[:, PROMPT - 1 : -1], rows[:, PROMPT:]) for rows in all_rows.split(ROWS)]
    return {"vanilla": summary(torch.cat(scores), lengths)}


def sample(model, corpus, device, seed, rows=24, new=192, temperature=0.8):
    """Texts after held-out prompts, by protocol: {name: {"texts": [..], "prompts": [..], statistics}}."""
    chosen = windows(corpus.heldout, rows)[:, :PROMPT].to(device)
    prompts = [corpus.decode(row.tolist()) for row in chosen]
    protocols = {"vanilla": (generate.vanilla, new)}
    if hasattr(model, "levels"):
        protocols = {name: (getattr(generate, name), new // model.meta) for name in ("hiergen", "recgen")}
    found = {}
    for name, (protocol, count) in protocols.items():
        generator = torch.Generator(device).manual_seed(seed)
        ids = protocol(model, chosen, count, temperature, generator)["tokens"]
        texts = [corpus.decode(row.tolist()) for row in ids]
        found[name] = {"texts": texts, "prompts": [p[-300:] for p in prompts]} | statistics(texts, corpus.words)
    return found


def statistics(texts, known, count=2000):
    """Over the first 2 000 words: the share that occurs in the training text, and the share of distinct bigrams.

    The first and the last word of each text may be parts of words and are left out.
    """
    per_text = [text.words(t)[1:-1] for t in texts]
    words = [word for found in per_text for word in found][:count]
    bigrams = list(zip(words, words[1:]))
    return {
        "words": len(words),
        "known_words": sum(word in known for word in words) / max(1, len(words)),
        "distinct_bigrams": len(set(bigrams)) / max(1, len(bigrams)),
    }


def heldout_statistics(corpus, rows=24, new=192):
    """The same statistics of the true continuations of the same prompts."""
    truth = windows(corpus.heldout, rows)[:, PROMPT : PROMPT + new]
    return statistics([corpus.decode(row.tolist()) for row in truth], corpus.words)
