"""How tokens are drawn and where sequences end, under vLLM's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters; by default one sequence of 16 tokens from the model's own distribution.

    >>> SamplingParams(stop="\\n").stop
    ['\\n']
    >>> SamplingParams(n=0)
    Traceback (most recent call last):
        ...
    ValueError: n is 0, expected at least 1
    """

    n: int = 1
    """Sequences of a prompt; under RecGen they share one coarse trajectory."""
    temperature: float = 1.0
    """Divides the logits; 0 is greedy."""
    top_p: float = 1.0
    """Keeps the most probable tokens that reach this mass."""
    top_k: int = 0
    """Keeps so many of the most probable tokens; 0 or -1 keeps all."""
    min_p: float = 0.0
    """Keeps tokens at least this probable relative to the most probable one."""
    presence_penalty: float = 0.0
    """Taken off the logits of tokens among the new ones."""
    frequency_penalty: float = 0.0
    """The same for each time they occur."""
    repetition_penalty: float = 1.0
    """Divides the logits above 0 of tokens that occurred, prompt included."""
    logit_bias: Mapping[int, float] | None = None
    """Added to the logits of these token ids."""
    logprobs: int | None = None
    """Log-probabilities of each new token and of so many of the most probable ones; 20 at most."""
    prompt_logprobs: int | None = None
    """The same of each token of the prompt."""
    stop: Sequence[str] = field(default_factory=list)
    """Texts that end a sequence and are not part of it; one may be given as itself."""
    stop_token_ids: Sequence[int] = field(default_factory=list)
    """Token ids that end a sequence and are not part of it."""
    max_tokens: int | None = 16
    """New tokens of a sequence at most; ``None`` is all that there is room for."""
    min_tokens: int = 0
    """New tokens before which no id ends a sequence."""
    ignore_eos: bool = False
    """Goes on behind the ids that end a sequence by the model's convention."""
    seed: int | None = None
    """Key of the random numbers, from 0 to 2**64 - 1: the same seed gives the same tokens. ``None`` is another every time."""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n is {self.n}, expected at least 1")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}, expected at least 1, or None")
        stops = [self.stop] if isinstance(self.stop, str) else list(self.stop)
        object.__setattr__(self, "stop", stops)
        object.__setattr__(self, "stop_token_ids", list(self.stop_token_ids))
        if self.logit_bias is not None:
            object.__setattr__(self, "logit_bias", dict(self.logit_bias))
