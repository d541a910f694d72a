"""Arrays: one memory under every view of it."""

from __future__ import annotations

import gc
import math
from typing import Any

import numpy as np
import pytest

import photonc
from photonc import SamplingParams


@pytest.fixture(scope="module")
def score(model: photonc.Model) -> photonc.Score:
    return model.score([1, 2, 3, 4, 5], return_logits=True)


def test_numpy_shares_the_memory(score: photonc.Score) -> None:
    array = score.logits
    assert array is not None
    views = [np.asarray(array), np.from_dlpack(array), np.asarray(array.memoryview())]
    for view in views:
        assert (view.shape, view.dtype) == ((5, 256), np.float32)
        assert np.shares_memory(view, views[0])
    views[0][3, 7] = 42.0
    assert views[1][3, 7] == 42.0 and array.tolist()[3][7] == 42.0


def test_a_view_keeps_the_memory(model: photonc.Model) -> None:
    def lent() -> list[Any]:
        array = model.score([1, 2, 3], return_logits=True).logits
        assert array is not None
        return [np.asarray(array), np.from_dlpack(array), array.memoryview()]

    views = lent()
    expected = np.array(views[0])
    gc.collect()
    model.score([3, 2, 1], return_logits=True)
    for view in views:
        assert np.array_equal(np.asarray(view), expected)


def test_capsules_that_nobody_takes_are_freed(score: photonc.Score) -> None:
    assert score.logits is not None
    for _ in range(1000):
        score.logits.__dlpack__()
    assert score.logits.__dlpack_device__() == (1, 0)
    with pytest.raises(TypeError, match="no streams"):
        score.logits.__dlpack__(stream=1)
    with pytest.raises(BufferError, match="without a copy"):
        score.logits.__dlpack__(copy=True)


def test_torch_shares_the_memory(score: photonc.Score) -> None:
    torch = pytest.importorskip("torch", reason="SKIPPED: torch is not installed here")
    tensor = torch.from_dlpack(score.logits)
    assert tuple(tensor.shape) == (5, 256) and tensor.dtype == torch.float32
    tensor[0, 0] = 17.0
    assert np.asarray(score.logits)[0, 0] == 17.0


def test_logits_give_the_log_probabilities(model: photonc.Model) -> None:
    score = model.score([9, 8, 7, 6], return_logits=True)
    logits = np.asarray(score.logits, dtype=np.float64)
    shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    for place, token in enumerate(score.token_ids):
        assert score.logprobs[place][token].logprob == pytest.approx(shares[place, token], abs=1e-4)
    assert score.perplexity == pytest.approx(math.exp(score.negative_log_likelihood / 4))
    with pytest.raises(photonc.RefusedError, match="no token"):
        model.score([])
    longest = model.score([1] * model.max_tokens)
    assert len(longest.logprobs) == model.max_tokens


def test_states_and_logits_of_a_generation(model: photonc.Model) -> None:
    params = SamplingParams(temperature=0, max_tokens=4)
    [output] = model.generate([0] * model.meta_tokens, params, return_logits=True, return_states=True)
    logits = np.asarray(output.outputs[0].logits)
    assert logits.shape == (model.meta_tokens, model.vocab_size)
    assert list(logits[:4].argmax(axis=1)) == output.outputs[0].token_ids
    names = {state.name for state in output.states}
    assert {"top_state", "reconstruction"} <= names
    assert all(np.isfinite(np.asarray(state.values)).all() for state in output.states)
