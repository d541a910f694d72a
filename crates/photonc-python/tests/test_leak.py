"""Nothing is lost over many generations."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

import photonc
from photonc import SamplingParams

GENERATIONS = 10_000
MOST_BYTES = 8 << 20


def resident_bytes() -> int:
    """Memory of this process that is in use."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_generations_leak_nothing(model: photonc.Model) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("SKIPPED: needs /proc")
    params = SamplingParams(max_tokens=1, seed=0)
    logged = SamplingParams(max_tokens=1, seed=0, logprobs=1)

    def round_of_ten() -> None:
        model.generate([[1, 2]] * 8, params)
        model.generate([[1, 2]], logged, return_logits=True, return_states=True)
        for _ in model.stream([1, 2], params):
            pass

    for _ in range(GENERATIONS // 50):
        round_of_ten()
    before = resident_bytes()
    for _ in range(GENERATIONS // 10):
        round_of_ten()
    grown = resident_bytes() - before
    assert grown < MOST_BYTES, f"{grown} bytes more over {GENERATIONS} generations"


def test_models_that_are_closed_leave_nothing(bundle: Path) -> None:
    def used() -> None:
        with photonc.load(bundle, backend="cpu") as model:
            model.generate([1, 2, 3], SamplingParams(max_tokens=4))
            model.trajectory([1]).advance(1)

    for _ in range(5):
        used()
    before = resident_bytes()
    threads = len(os.listdir("/proc/self/task"))
    for _ in range(20):
        used()
    assert len(os.listdir("/proc/self/task")) <= threads
    # A model that stays would be 3 MB of weights and more of graphs, each time.
    assert resident_bytes() - before < 30 << 20
