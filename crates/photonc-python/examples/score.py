"""Perplexity and logits of a text, and a stretch of it drawn anew. Usage: score.py BUNDLE [BACKEND]"""

import sys

import photonc

backend = sys.argv[2] if len(sys.argv) > 2 else "auto"
with photonc.load(sys.argv[1], backend) as model:
    score = model.score("And God said, Let there be light: and there was light.", return_logits=True)
    assert score.logits is not None
    print(f"{len(score.token_ids)} tokens, perplexity {score.perplexity:.2f}, logits {score.logits.shape}")
    trajectory = model.trajectory("And God said", photonc.SamplingParams(seed=1))
    trajectory.advance(4)
    assert model.tokenizer is not None
    for seed in (1, 2):
        drawn = [token for tokens in trajectory.expand(range(1, 3), seed) for token in tokens]
        print(f"seed {seed}: {model.tokenizer.decode(drawn)!r}")
