"""Generation under both protocols, by recomputation: short, and the same numbers as a cached runtime.

Owns: HierGen, RecGen and the vanilla loop, for a batch of prompts of one length. Refuses: unaligned prompts.
"""

import torch


def pick(logits, temperature, generator):
    """logits [B, V] -> ids [B]; temperature 0 takes the most probable, ties to the lowest id."""
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]


def write_chunks(model, conditions, temperature, generator):
    """Samples the chunks of level-1 conditions [N, D_1] -> (ids [N, C_1], logits [N, C_1, V])."""
    level = model.levels[0]
    fed, ids, logits = level.converter(conditions), [], []
    for position in range(level.chunk):
        out = level.decoder(fed)[:, -1]
        logits.append(model.lm_head(out))
        ids.append(pick(logits[-1], temperature, generator))
        if position + 1 < level.chunk:
            back = model.decoder_embed(ids[-1]) if level.feedback == "token" else out
            fed = torch.cat((fed, back[:, None]), 1)
    return torch.stack(ids, 1), torch.stack(logits, 1)


@torch.no_grad()
def recgen(model, prompt, metas, temperature=0.0, generator=None):
    """prompt [B, T] aligned -> dict of tokens [B, n], logits, XL [B, metas, D_L], XhatLm1."""
    states, carries = model.prefill(prompt)
    units = model.levels[-1].chunker(states[-2])
    conditions, tops, coarse = model.advance_open_loop(units, carries, metas)
    tokens, logits = write_chunks(model, conditions.flatten(0, 1), temperature, generator)
    rows = prompt.shape[0]
    return {"tokens": tokens.reshape(rows, -1), "logits": logits.reshape(rows, -1, logits.shape[-1]), "XL": tops,
            "XhatLm1": coarse}


@torch.no_grad()
def hiergen(model, prompt, metas, temperature=0.0, generator=None):
    """As `recgen`; every meta-context re-encodes what was sampled."""
    states, carries = model.prefill(prompt)
    stream, logits, tops = prompt, [], []
    for _ in range(metas):
        tops.append(states[-1][:, -1])
        conditions, _ = model.expand(tops[-1], carries)
        tokens, scores = write_chunks(model, conditions.flatten(0, 1), temperature, generator)
        logits.append(scores.reshape(prompt.shape[0], -1, scores.shape[-1]))
        stream = torch.cat((stream, tokens.reshape(prompt.shape[0], -1)), 1)
        states = model.encode(stream)
    return {"tokens": stream[:, prompt.shape[1] :], "logits": torch.cat(logits, 1), "XL": torch.stack(tops, 1)}


@torch.no_grad()
def vanilla(model, prompt, count, temperature=0.0, generator=None):
    stream = prompt
    for _ in range(count):
        chosen = pick(model(stream)[:, -1], temperature, generator)
        stream = torch.cat((stream, chosen[:, None]), 1)
    return {"tokens": stream[:, prompt.shape[1] :]}
