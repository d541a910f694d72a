"""Generation: whole, in bursts, on event loops; its ends, its errors, and what it leaves alone."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import aclosing, closing
from pathlib import Path

import pytest

import photonc
from photonc import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=24)
PROMPT = [1, 2, 3, 4, 5]


def test_one_prompt_or_several_in_any_form(model: photonc.Model) -> None:
    [alone] = model.generate(PROMPT, GREEDY)
    together = model.generate([[7], PROMPT, range(3)], GREEDY)
    assert [one.prompt_token_ids for one in together] == [[7], PROMPT, [0, 1, 2]]
    assert together[1].outputs[0].token_ids == alone.outputs[0].token_ids
    assert (alone.outputs[0].finish_reason, len(alone.outputs[0].token_ids)) == ("length", 24)
    assert alone.outputs[0].text is None and model.tokenizer is None


def test_streams_are_what_generate_gives(model: photonc.Model) -> None:
    params = SamplingParams(max_tokens=40, seed=3, n=2)
    [whole] = model.generate(PROMPT, params)
    streamed: list[list[int]] = [[], []]
    for burst in model.stream(PROMPT, params):
        streamed[burst.index] += burst.token_ids
    assert streamed == [one.token_ids for one in whole.outputs]
    assert streamed[0] != streamed[1]

    async def gathered() -> list[list[int]]:
        found: list[list[int]] = [[], []]
        async for burst in model.astream(PROMPT, params):
            found[burst.index] += burst.token_ids
        return found

    assert asyncio.run(gathered()) == streamed


def test_a_seed_decides_and_run_ahead_does_not(model: photonc.Model) -> None:
    def tokens(seed: int | None, run_ahead: int | None = None) -> list[int]:
        params = SamplingParams(max_tokens=48, seed=seed)
        return model.generate(PROMPT, params, run_ahead=run_ahead)[0].outputs[0].token_ids

    assert tokens(1) == tokens(1, run_ahead=1) == tokens(1, run_ahead=8)
    assert tokens(1) != tokens(2)
    assert tokens(None) != tokens(None)


def test_n_overrides_the_parameters(model: photonc.Model) -> None:
    [one] = model.generate(PROMPT, SamplingParams(max_tokens=4), n=3)
    assert [output.index for output in one.outputs] == [0, 1, 2]


def test_each_protocol_generates_its_own(model: photonc.Model) -> None:
    params = SamplingParams(max_tokens=64, seed=0)
    tokens = [model.generate(PROMPT, params, protocol=name)[0].outputs[0].token_ids for name in ("recgen", "hiergen")]
    assert tokens[0] != tokens[1]


def test_log_probabilities_agree_with_scores(model: photonc.Model) -> None:
    params = SamplingParams(temperature=0, max_tokens=11, logprobs=2, prompt_logprobs=0)
    [output] = model.generate(PROMPT, params, protocol="hiergen")
    [sequence] = output.outputs
    assert output.prompt_logprobs is not None and sequence.logprobs is not None
    score = model.score(PROMPT + sequence.token_ids)
    told = output.prompt_logprobs + sequence.logprobs
    found = [place[token].logprob for token, place in zip(score.token_ids, told)]
    expected = [place[token].logprob for token, place in zip(score.token_ids, score.logprobs)]
    assert found == pytest.approx(expected, abs=1e-4)
    assert all(len(place) == 2 for place in sequence.logprobs)
    assert sequence.cumulative_logprob == pytest.approx(sum(expected[5:]), abs=1e-3)


def test_text_goes_in_and_out_up_to_a_stop_string(english: Path) -> None:
    with photonc.load(english, backend="cpu") as model:
        assert model.tokenizer is not None
        params = SamplingParams(temperature=0, max_tokens=60)
        text = model.generate("The old man", params)[0].outputs[0].text
        assert text is not None and "and" in text
        stopped = model.generate("The old man", SamplingParams(temperature=0, max_tokens=60, stop="and"))[0]
        assert stopped.prompt == "The old man"
        assert stopped.prompt_token_ids == model.tokenizer.encode("The old man")
        assert stopped.outputs[0].text == text[: text.index("and")]
        assert stopped.outputs[0].finish_reason == "stop"
        streamed = [burst.text for burst in model.stream("The old man", params)]
        assert "".join(piece or "" for piece in streamed) == text
        ids = model.tokenizer.encode("In the beginning", add_special_tokens=False)
        assert model.tokenizer.decode(ids) == "In the beginning"
        with pytest.raises(photonc.RefusedError, match="chat template"):
            model.tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}])


def test_ids_that_end_sequences(model: photonc.Model) -> None:
    tokens = model.generate(PROMPT, GREEDY)[0].outputs[0].token_ids
    params = SamplingParams(temperature=0, max_tokens=24, stop_token_ids=[tokens[5]])
    stopped = model.generate(PROMPT, params)[0].outputs[0]
    assert stopped.finish_reason == "stop" and stopped.token_ids == tokens[: tokens.index(tokens[5])]
    biased = SamplingParams(temperature=0, max_tokens=8, logit_bias={9: 100.0})
    assert model.generate(PROMPT, biased)[0].outputs[0].token_ids == [9] * 8


def test_what_cannot_be_met_is_refused_by_name(model: photonc.Model, bundle: Path, tmp_path: Path) -> None:
    for params, word in [
        (SamplingParams(top_p=2.0), "top-p"),
        (SamplingParams(top_k=-2), "top_k"),
        (SamplingParams(logprobs=21), "21 log-probabilities"),
        (SamplingParams(max_tokens=5000), "5000"),
        (SamplingParams(stop=["x"]), "tokenizer"),
        (SamplingParams(stop_token_ids=[999]), "999"),
    ]:
        with pytest.raises(photonc.RefusedError, match=word):
            model.generate(PROMPT, params)
    with pytest.raises(photonc.RefusedError, match="token 0 is 256"):
        model.generate([256], GREEDY)
    with pytest.raises(photonc.RefusedError, match="no tokenizer"):
        model.generate("words", GREEDY)
    with pytest.raises(photonc.RefusedError, match="no protocol `other`"):
        model.generate(PROMPT, GREEDY, protocol="other")
    with pytest.raises(photonc.RefusedError, match="no backend `other`"):
        photonc.load(bundle, backend="other")
    with pytest.raises(photonc.CheckpointError, match="photon.json"):
        photonc.load(tmp_path)
    with pytest.raises(ValueError, match="run_ahead is 0"):
        model.generate(PROMPT, GREEDY, run_ahead=0)
    assert issubclass(photonc.RefusedError, photonc.Error)


def test_backends_agree(bundle: Path) -> None:
    found = []
    for backend in ("reference", "cpu", "auto"):
        with photonc.load(bundle, backend=backend) as model:
            found.append(model.generate(PROMPT, GREEDY)[0].outputs[0].token_ids)
    assert found[1:] == found[:1] * 2


def test_a_backend_that_is_not_here_says_what_to_do(bundle: Path) -> None:
    try:
        photonc.load(bundle, backend="cuda").close()
    except photonc.BackendError as error:
        assert "CUDA" in str(error) or "cuda" in str(error)
    else:
        pytest.skip("SKIPPED: there is a GPU here")


def test_what_is_closed_is_cancelled(bundle: Path) -> None:
    model = photonc.load(bundle, backend="cpu")
    long = SamplingParams(temperature=0, max_tokens=2000)
    # More than is generated before the timer rings.
    stream = model.stream([PROMPT] * 256, long)
    next(stream)
    threading.Timer(0.05, model.close).start()
    with pytest.raises(photonc.Cancelled):
        for _ in stream:
            pass
    with pytest.raises(photonc.Cancelled, match="closed"):
        model.generate(PROMPT, GREEDY)
    model.close()


def test_a_stream_that_is_left_frees_its_row(bundle: Path) -> None:
    long = SamplingParams(temperature=0, max_tokens=2000)
    with photonc.load(bundle, backend="cpu", rows=1) as model:
        with closing(model.stream(PROMPT, long)) as stream:
            next(stream)
        for _ in model.stream(PROMPT, long):
            break
        gc.collect()

        async def left() -> None:
            async with aclosing(model.astream(PROMPT, long)) as bursts:
                async for _ in bursts:
                    return

        asyncio.run(left())
        # With the only row taken for good, this would take as long as 2000 tokens do.
        started = time.monotonic()
        model.generate(PROMPT, SamplingParams(max_tokens=1))
        short = time.monotonic() - started
        started = time.monotonic()
        model.generate(PROMPT, long)
        assert short < (time.monotonic() - started) / 2


def test_a_task_that_is_cancelled_ends_its_requests(model: photonc.Model) -> None:
    async def cancelled() -> None:
        async def read() -> None:
            async for _ in model.astream([PROMPT] * 4, SamplingParams(max_tokens=2000)):
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert model.generate(PROMPT, GREEDY)[0].outputs[0].finish_reason == "length"


def test_many_streams_share_one_event_loop(model: photonc.Model) -> None:
    alone = model.generate(PROMPT, GREEDY)[0].outputs[0].token_ids

    async def one() -> list[int]:
        return [token async for burst in model.astream(PROMPT, GREEDY) for token in burst.token_ids]

    async def all_of_them() -> list[list[int]]:
        return await asyncio.gather(*(one() for _ in range(100)))

    assert asyncio.run(all_of_them()) == [alone] * 100


def test_other_threads_run_while_we_compute(model: photonc.Model) -> None:
    counted = 0
    done = threading.Event()

    def count() -> None:
        nonlocal counted
        while not done.is_set():
            counted += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    started = time.monotonic()
    model.generate([PROMPT] * 8, SamplingParams(max_tokens=400))
    spent = time.monotonic() - started
    done.set()
    thread.join()
    # Held for the whole call, the interpreter would have let the thread run twice or so.
    assert counted > 20 * spent


INTERRUPTED = """
import photonc, sys, time
with photonc.load(sys.argv[1], backend="reference") as model:
    print("ready", flush=True)
    try:
        model.generate([[1, 2, 3]] * 16, photonc.SamplingParams(max_tokens=2000))
    except KeyboardInterrupt:
        print("interrupted", len(model.generate([1], photonc.SamplingParams(max_tokens=2))), flush=True)
"""


def test_ctrl_c_ends_a_call_and_not_the_model(bundle: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(bundle)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("interrupted 1\n", "", 0)


def test_trajectories_are_drawn_again(model: photonc.Model) -> None:
    params = SamplingParams(seed=5)
    trajectory = model.trajectory(PROMPT, params)
    assert trajectory.meta_contexts == 0 and trajectory.expand() == []
    assert trajectory.advance(2) == 2
    first = trajectory.expand()
    assert trajectory.advance(3) == 5
    again = trajectory.expand()
    assert again[:2] == first
    # The prompt's own meta-context is drawn first, and is no part of the trajectory.
    skipped = trajectory.first_position - len(PROMPT)
    assert [token for tokens in again for token in tokens] == trajectory.token_ids[skipped:]
    generated = model.generate(PROMPT, SamplingParams(seed=5, max_tokens=len(trajectory.token_ids)))
    assert generated[0].outputs[0].token_ids == trajectory.token_ids
    other = trajectory.expand(range(1, 3), seed=9)
    assert other == trajectory.expand(range(1, 3), seed=9) and other != again[1:3]
    assert trajectory.expand(4) == again[4:]
    with pytest.raises(photonc.RefusedError, match="there are 5"):
        trajectory.expand(range(3, 6))
