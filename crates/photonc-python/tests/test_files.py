"""Checkpoints and bundles: export, from memory too, and what is told of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import photonc


def weights_of(checkpoint: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of a checkpoint, read without a library for it."""
    data = (checkpoint / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(data[start:end], dtype=np.float32).reshape(entry["shape"]).copy()
    return tensors


def test_an_export_reports_and_does_not_replace(checkpoint: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    report = photonc.export(
        checkpoint,
        tmp_path / "bundle",
        dtype="f16",
        quant={"level1.decoder": "int8"},
        protocol="recgen",
        max_tokens=256,
        progress=lambda stage, done, total: stages.append(stage),
    )
    assert (report["precision"], report["max_tokens"], list(report["protocols"])) == ("f16", 256, ["recgen"])
    assert stages
    with pytest.raises(photonc.RefusedError, match="there already"):
        photonc.export(checkpoint, tmp_path / "bundle")
    photonc.export(checkpoint, tmp_path / "bundle", force=True)
    with pytest.raises(photonc.RefusedError, match="no dtype `f8`"):
        photonc.export(checkpoint, tmp_path / "other", dtype="f8")
    with pytest.raises(photonc.CheckpointError):
        photonc.export(tmp_path, tmp_path / "other")

    def failing(stage: str, done: int, total: int) -> None:
        raise KeyError(stage)

    with pytest.raises(KeyError):
        photonc.export(checkpoint, tmp_path / "third", progress=failing)


def test_what_is_exported_from_memory_is_what_the_file_gives(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    weights = weights_of(checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    # A transpose of a transpose has the same elements in another order in memory.
    strided = {name: np.asfortranarray(one) if one.ndim == 2 else one for name, one in weights.items()}
    first, *rest = strided
    renamed = {"renamed": strided[first], **{name: strided[name] for name in rest}}
    with photonc.from_torch(renamed, config, weight_map={"renamed": first}) as made:
        photonc.export(made, tmp_path / "bundle")
        path = made.path
    assert not path.exists()
    assert photonc.diff(bundle, tmp_path / "bundle")["equal"]
    other = {**weights, first: weights[first] + 1}
    with photonc.from_torch(other, checkpoint / "config.json") as made:
        photonc.export(made, tmp_path / "other")
    difference = photonc.diff(bundle, tmp_path / "other")
    assert not difference["equal"] and first in difference["weights"]
    with pytest.raises(ValueError, match="no such tensor"):
        photonc.from_torch(weights, config, weight_map={"nothing": "x"})
    with pytest.raises(ValueError, match="`bad`"):
        photonc.from_torch({"bad": np.array([1 + 2j])}, config)


def test_modules_of_torch_are_taken(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="SKIPPED: torch is not installed here")
    state = {name: torch.from_numpy(one) for name, one in weights_of(checkpoint).items()}
    with photonc.from_torch(state, checkpoint / "config.json") as made:
        photonc.export(made, tmp_path / "bundle")
    assert photonc.diff(bundle, tmp_path / "bundle")["equal"]


def test_inspect_tells_of_both(checkpoint: Path, bundle: Path) -> None:
    assert photonc.inspect(bundle)["manifest"]["model"]["vocab_size"] == 256
    told = photonc.inspect(checkpoint)
    assert told["dialect"] == "paper" and [graph["name"] for graph in told["graphs"]]


def test_a_wrong_weight_is_found(bundle: Path, tmp_path: Path) -> None:
    assert photonc.verify(bundle, backend="cpu")["holds"]
    found = photonc.verify(bundle, backend="reference", seed=4)
    assert found["holds"] and {graph["graph"] for graph in found["graphs"]} >= {"coarse", "expand"}
    with pytest.raises(photonc.CheckpointError):
        photonc.verify(tmp_path)


def test_drift_is_measured(bundle: Path) -> None:
    tokens = [(7 * place) % 256 for place in range(400)]
    found = photonc.drift(bundle, tokens, prompt_tokens=32, new_tokens=64, prompts=2, distances=[16])
    assert found["prompts"] == 2 and len(found["ranges"]) == 2
    assert 0 <= found["whole"]["greedy_agreement"] <= 1
    with pytest.raises(photonc.RefusedError, match="at least"):
        photonc.drift(bundle, tokens[:20], prompt_tokens=32, new_tokens=64)
