"""Loaded models: generation, scores, trajectories and text."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Union

from photonc import _photonc
from photonc._results import Burst, Logprob, Output, _all_logprobs, burst, output
from photonc._sampling import SamplingParams

if TYPE_CHECKING:
    from types import TracebackType

    from photonc._photonc import Array

Prompt = Union[str, Sequence[int]]
Prompts = Union[Prompt, Sequence[Prompt]]


def load(
    bundle: str | os.PathLike[str],
    backend: str = "auto",
    device: int = 0,
    *,
    threads: int | None = None,
    verify: bool = True,
    rows: int | None = None,
    max_tokens: int | None = None,
    run_ahead: int = 8,
    batch_invariant: bool = False,
) -> Model:
    """Loads a bundle and waits until it generates.

    ``backend`` is ``auto`` (``cuda`` where there is a GPU, else what the command line takes by default), ``cpu``, ``tract``,
    ``reference``, ``ort`` or ``cuda``; ``device`` the number of the GPU. ``threads`` compute, for ``cpu`` and ``ort``;
    otherwise one per core. ``verify`` compares the weights with their hashes, which reads all of them. ``rows`` sequences
    run side by side, by default 16 on the host and what fits on a GPU, up to 128; ``max_tokens`` of a sequence, prompt
    included, by default what the bundle has room for. A burst has ``run_ahead`` meta-contexts at most.
    ``batch_invariant`` gives a prompt the same tokens whatever stands beside it on ``cuda`` too, which takes time there; on
    ``cpu`` and ``reference`` it does so anyway, and other backends refuse it.

    >>> with load(bundle, backend="cpu") as model:
    ...     model.backend
    'cpu'
    """
    native = _photonc.Model.load(
        os.fspath(bundle),
        backend=backend,
        device=device,
        threads=threads,
        verify=verify,
        rows=rows,
        max_tokens=max_tokens,
        run_ahead=run_ahead,
        batch_invariant=batch_invariant,
    )
    return Model(native)


def _listed(prompts: Prompts) -> list[str | list[int]]:
    """One prompt or several, as a list."""
    if isinstance(prompts, str):
        return [prompts]
    given: list[Any] = list(prompts)
    if given and all(_is_id(one) for one in given):
        return [[int(one) for one in given]]
    return [one if isinstance(one, str) else [int(token) for token in one] for one in given]


def _is_id(one: object) -> bool:
    return hasattr(one, "__index__")


class Model:
    """A loaded model; ``load`` makes one. It may be used from several threads at once.

    As a context manager it is closed at the end: what runs is cancelled, and what it holds is given back.
    """

    def __init__(self, native: _photonc.Model) -> None:
        self._native = native
        self.tokenizer: Tokenizer | None = Tokenizer(native) if native.has_tokenizer else None
        """Text to tokens and back; ``None`` where the bundle has no tokenizer."""

    @property
    def backend(self) -> str:
        """Name of the backend that runs it."""
        return self._native.backend

    @property
    def vocab_size(self) -> int:
        """``V``, the number of token ids."""
        return self._native.vocab_size

    @property
    def meta_tokens(self) -> int:
        """``C``, the tokens of a meta-context."""
        return self._native.meta_tokens

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest sequence, prompt included."""
        return self._native.max_tokens

    @property
    def protocols(self) -> list[str]:
        """Protocols that the bundle has."""
        return self._native.protocols

    @property
    def eos_token_ids(self) -> list[int]:
        """Ids that end a sequence by the model's convention."""
        return self._native.eos_token_ids

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancels what runs, and gives back what the model holds; further calls raise ``Cancelled``."""
        self._native.close()

    def __repr__(self) -> str:
        return f"<photonc.Model on {self.backend}, {self.vocab_size} ids, up to {self.max_tokens} tokens>"

    def generate(
        self,
        prompts: Prompts,
        sampling_params: SamplingParams | None = None,
        n: int | None = None,
        protocol: str | None = None,
        run_ahead: int | None = None,
        *,
        return_logits: bool = False,
        return_states: bool = False,
    ) -> list[Output]:
        """Generates behind prompts, each a text or a list of token ids, and waits; the outputs in the order of the prompts.

        ``n`` is that of the parameters unless it is given. ``protocol`` is ``recgen`` where the bundle has it. ``run_ahead``
        meta-contexts make a burst while this call runs, up to what the model was loaded with; calls that run together share
        it, and it changes no token. Logits ``[tokens, V]`` and states are kept if asked for, which is slower. Ctrl-C ends
        the call and what it began.

        >>> params = SamplingParams(temperature=0, max_tokens=4)
        >>> one, two = model.generate([[1, 2, 3], [4, 5]], params)
        >>> two.prompt_token_ids, len(two.outputs[0].token_ids)
        ([4, 5], 4)
        """
        listed = _listed(prompts)
        params = _params(sampling_params, n)
        raw = self._native.generate(listed, params, protocol, run_ahead, return_logits, return_states)
        ids = [self._native.prompt_ids(one) if isinstance(one, str) else one for one in listed]
        texts = [one if isinstance(one, str) else None for one in listed]
        return [output(*one) for one in zip(texts, ids, raw)]

    def stream(
        self,
        prompts: Prompts,
        sampling_params: SamplingParams | None = None,
        n: int | None = None,
        protocol: str | None = None,
        run_ahead: int | None = None,
    ) -> Generator[Burst, None, None]:
        """The same, burst by burst as tokens are drawn. Closing the iterator, or leaving it, cancels what is left.

        >>> bursts = model.stream([1, 2, 3], SamplingParams(temperature=0, max_tokens=8))
        >>> sum(len(burst.token_ids) for burst in bursts)
        8
        """
        native = self._native.stream(_listed(prompts), _params(sampling_params, n), protocol, run_ahead)

        def bursts() -> Generator[Burst, None, None]:
            with closing(native):
                while (piece := native.next()) is not None:
                    yield burst(piece)

        return bursts()

    async def astream(
        self,
        prompts: Prompts,
        sampling_params: SamplingParams | None = None,
        n: int | None = None,
        protocol: str | None = None,
        run_ahead: int | None = None,
    ) -> AsyncGenerator[Burst, None]:
        """The same for ``async for``, on the event loop that runs: no thread waits. Closing it cancels what is left; an
        ``async for`` that is left early closes it when it is collected, so use ``contextlib.aclosing`` to have it at once.

        >>> import asyncio
        >>> async def count() -> int:
        ...     params = SamplingParams(temperature=0, max_tokens=8)
        ...     return sum([len(burst.token_ids) async for burst in model.astream([1, 2, 3], params)])
        >>> asyncio.run(count())
        8
        """
        native = self._native.stream(_listed(prompts), _params(sampling_params, n), protocol, run_ahead)
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()

        def readable() -> None:
            native.drain()
            ready.set()

        with closing(native):
            file = native.fileno()
            loop.add_reader(file, readable)
            try:
                while True:
                    # Before the look: what comes after it sets it again.
                    ready.clear()
                    came, piece = native.poll()
                    if piece is not None:
                        yield burst(piece)
                    elif came:
                        return
                    else:
                        await ready.wait()
            finally:
                loop.remove_reader(file)

    async def agenerate(
        self,
        prompts: Prompts,
        sampling_params: SamplingParams | None = None,
        n: int | None = None,
        protocol: str | None = None,
    ) -> list[str | list[int]]:
        """The texts of all sequences, by prompt then by number, or their token ids where the model has no tokenizer; for event
        loops."""
        params = _params(sampling_params, n)
        count = len(_listed(prompts)) * params.n
        texts, ids = [""] * count, [list[int]() for _ in range(count)]
        async with aclosing(self.astream(prompts, params, None, protocol)) as bursts:
            async for one in bursts:
                place = one.prompt * params.n + one.index
                texts[place] += one.text or ""
                ids[place] += one.token_ids
        return list(ids) if self.tokenizer is None else list(texts)

    def score(self, tokens: Prompt, logprobs: int = 0, *, return_logits: bool = False) -> Score:
        """The log-probability of each of ``T`` tokens, given those before it, the first included; and of the ``logprobs`` most
        probable ones at its place. A text is encoded without marks around it.

        Logits ``[T, V]`` are computed, if asked for, by a second copy of the model beside the one that generates; the memory is
        given back when the model is closed.

        >>> score = model.score([1, 2, 3, 4], return_logits=True)
        >>> len(score.logprobs), score.logits.shape == (4, model.vocab_size)
        (4, True)
        """
        if isinstance(tokens, str):
            ids = self._native.encode(tokens, False)
        else:
            ids = [int(token) for token in tokens]
        told = _all_logprobs(self._native.score(ids, logprobs))
        logits = self._native.score_logits(ids) if return_logits else None
        return Score(ids, told, logits)

    def trajectory(self, prompt: Prompt, sampling_params: SamplingParams | None = None) -> Trajectory:
        """The coarse trajectory of a prompt under RecGen, empty at first. It lives in a second copy of the model beside the one
        that generates.

        >>> trajectory = model.trajectory([1, 2, 3, 4])
        >>> trajectory.advance(3)
        3
        >>> [len(tokens) for tokens in trajectory.expand(range(1, 3), seed=7)] == [model.meta_tokens] * 2
        True
        """
        [one] = _listed(prompt)
        return Trajectory(self._native.trajectory(one, sampling_params or SamplingParams()))


def _params(params: SamplingParams | None, n: int | None) -> SamplingParams:
    params = params or SamplingParams()
    return params if n is None else replace(params, n=n)


@dataclass(frozen=True)
class Score:
    """Score of a text of ``T`` tokens."""

    token_ids: list[int]
    logprobs: list[dict[int, Logprob]]
    """By place, then by token id: the token that stands there and the most probable ones."""
    logits: Array | None
    """``[T, V]`` float32, if asked for; those at a place are from what stands before it."""

    @property
    def negative_log_likelihood(self) -> float:
        """Sum of ``-ln p(token)`` over the tokens."""
        return -sum(told[token].logprob for token, told in zip(self.token_ids, self.logprobs))

    @property
    def perplexity(self) -> float:
        """``exp`` of the mean negative log-likelihood per token."""
        return math.exp(self.negative_log_likelihood / len(self.token_ids))


class Trajectory:
    """A coarse trajectory: states that no sampled token reaches, from which any range of tokens can be drawn again."""

    def __init__(self, native: _photonc.Trajectory) -> None:
        self._native = native

    @property
    def meta_contexts(self) -> int:
        """Meta-contexts that it has."""
        return self._native.meta_contexts

    @property
    def first_position(self) -> int:
        """Position of its first meta-context's first token, prompt included."""
        return self._native.first_position

    @property
    def token_ids(self) -> list[int]:
        """The tokens behind the prompt that were drawn on the way."""
        return self._native.token_ids

    def advance(self, meta_contexts: int) -> int:
        """Goes on by so many meta-contexts; how many it has then. It is computed again from the prompt; what was there stays."""
        return self._native.advance(meta_contexts)

    def expand(
        self, meta_contexts: range | int | None = None, seed: int | None = None, *, sample: int = 0
    ) -> list[list[int]]:
        """The ``C`` tokens of each meta-context of a range, of one or of all, drawn with another seed; without one as they are."""
        if isinstance(meta_contexts, int):
            meta_contexts = range(meta_contexts, meta_contexts + 1)
        elif meta_contexts is None:
            meta_contexts = range(self.meta_contexts)
        if meta_contexts.step != 1:
            raise ValueError(f"the range has step {meta_contexts.step}, expected 1")
        return self._native.expand(meta_contexts.start, meta_contexts.stop, seed, sample)


class Tokenizer:
    """The tokenizer of a model's bundle."""

    def __init__(self, native: _photonc.Model) -> None:
        self._native = native

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The tokens of a text, with the marks that the tokenizer puts around one."""
        return self._native.encode(text, add_special_tokens)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens; special ones have none."""
        return self._native.decode([int(token) for token in token_ids])

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The text of a conversation, ready for the assistant's answer. Encode it with ``add_special_tokens=False``: the
        template writes every mark itself."""
        listed = None if tools is None else json.dumps([dict(tool) for tool in tools])
        return self._native.chat(json.dumps([dict(message) for message in messages]), listed)
