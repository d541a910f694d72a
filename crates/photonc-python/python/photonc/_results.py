"""What generation gives, under vLLM's names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from photonc._photonc import Array, _RawLogprobs, _RawOutput, _RawPiece

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True)
class Logprob:
    """Log-probability of a token under the model's own distribution, before temperature, bias and penalties."""

    logprob: float
    """Natural logarithm."""
    rank: int | None
    """Tokens more probable than it, plus one; ``None`` where it is among equals that nobody counted."""


def _logprobs(raw: _RawLogprobs) -> dict[int, Logprob]:
    token, logprob, rank, top = raw
    told = {other: Logprob(value, place) for place, (other, value) in enumerate(top, start=1)}
    told[token] = Logprob(logprob, rank)
    return told


def _all_logprobs(raw: list[_RawLogprobs]) -> list[dict[int, Logprob]]:
    return [_logprobs(one) for one in raw]


@dataclass(frozen=True)
class State:
    """A state that conditions a meta-context."""

    sample: int
    """Number of the sequence; 0 for what all of a prompt share."""
    meta_context: int
    """Counted from 0 after the whole ones of the prompt."""
    name: str
    """Its name in the graphs: ``top_state``, ``reconstruction``, ``carry.1``, ..."""
    values: Array
    """Its elements ``[elements]``, float32."""


@dataclass(frozen=True)
class CompletionOutput:
    """A finished sequence."""

    index: int
    """Number among the sequences of its prompt."""
    text: str | None
    """Up to a stop string; ``None`` where the model has no tokenizer."""
    token_ids: list[int]
    """Without the id that ended it."""
    finish_reason: FinishReason | None
    """``stop`` at an id or a text that ends sequences, ``length`` at ``max_tokens``."""
    logprobs: list[dict[int, Logprob]] | None = None
    """By place, then by token id: the token that stands there and the most probable ones."""
    logits: Array | None = None
    """``[tokens of its meta-contexts, V]`` float32, if asked for: those past its end included."""

    @property
    def cumulative_logprob(self) -> float | None:
        """Sum of the log-probabilities of its tokens, if they were asked for."""
        if self.logprobs is None:
            return None
        return sum(told[token].logprob for token, told in zip(self.token_ids, self.logprobs))


@dataclass(frozen=True)
class Output:
    """Everything of a prompt."""

    prompt: str | None
    """Its text, where it was one."""
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    """Its sequences, by number."""
    prompt_logprobs: list[dict[int, Logprob]] | None = None
    """As of sequences, of each token of the prompt, the first included."""
    states: list[State] = field(default_factory=list)
    """If asked for."""


@dataclass(frozen=True)
class Burst:
    """New tokens of a sequence, as soon as they are known."""

    prompt: int
    """Place of the prompt."""
    index: int
    """Number of the sequence among those of its prompt."""
    text: str | None
    """Text that is certain now, in whole characters; ``None`` where the model has no tokenizer."""
    token_ids: list[int]
    logprobs: list[dict[int, Logprob]] | None
    """As of sequences."""
    finish_reason: FinishReason | None
    """Set with the last burst of a sequence."""


def _finish(name: str | None) -> FinishReason | None:
    if name is None or name in ("stop", "length", "abort"):
        return name  # type: ignore[return-value]
    raise AssertionError(f"no end of a sequence is called {name}")


def burst(raw: _RawPiece) -> Burst:
    """A burst of its parts."""
    prompt, index, text, token_ids, logprobs, finish = raw
    told = _all_logprobs(logprobs) if logprobs else None
    return Burst(prompt, index, text, token_ids, told, _finish(finish))


def output(prompt: str | None, prompt_token_ids: list[int], raw: _RawOutput) -> Output:
    """An output of its parts."""
    prompt_logprobs, samples, states = raw
    outputs = [
        CompletionOutput(
            index, text, token_ids, _finish(finish), _all_logprobs(logprobs) if logprobs else None, logits
        )
        for index, (text, token_ids, logprobs, finish, logits) in enumerate(samples)
    ]
    return Output(
        prompt,
        prompt_token_ids,
        outputs,
        None if prompt_logprobs is None else _all_logprobs(prompt_logprobs),
        [State(*state) for state in states],
    )
