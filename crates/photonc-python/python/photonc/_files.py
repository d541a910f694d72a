"""Checkpoints and bundles on disk: making, showing, checking and comparing them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union

from photonc import _photonc
from photonc._checkpoint import Checkpoint

if TYPE_CHECKING:
    from photonc._model import Prompt

Path = Union[str, "os.PathLike[str]"]

def export(
    model: Path | Checkpoint,
    out: Path,
    *,
    dtype: str = "f32",
    quant: Mapping[str, str] | None = None,
    target: str | Sequence[str] | None = None,
    protocol: str | Sequence[str] | None = None,
    max_tokens: int | None = None,
    dialect: str | None = None,
    weight_map: Path | None = None,
    ignore_unexpected: bool = False,
    allow_nonfinite: bool = False,
    force: bool = False,
    progress: Callable[[str, int, int], object] | None = None,
) -> dict[str, Any]:
    """Compiles a checkpoint, a directory or what ``from_torch`` made, into a bundle at ``out``; what was exported, as
    ``photonc export --json`` says it.

    ``dtype`` is ``f32``, ``f16`` or ``bf16``; ``target`` whom ONNX models are written for: ``portable``, ``tensorrt-rtx``,
    ``tensorrt``, or ``cpu`` and ``cuda``, which is none; by default ``portable``, unless that takes a second copy of the weights.
    ``quant`` quantizes the weights of stacks to ``int8``, ``int4`` or ``fp8``: ``{"level1.decoder": "int8"}``.
    ``protocol`` is every one that the model defines; ``weight_map`` the data file of a checkpoint's own layout. ``progress`` is called with a stage, the bytes done and
    the bytes in all, 0 where bytes do not measure it, perhaps on another thread; what it raises is raised at the end.
    """
    if isinstance(model, Checkpoint):
        weight_map = weight_map or model.weight_map
        model = model.path
    keywords = {
        "dtype": dtype,
        "quant": list((quant or {}).items()),
        "targets": [] if target is None else [target] if isinstance(target, str) else list(target),
        "protocols": [] if protocol is None else [protocol] if isinstance(protocol, str) else list(protocol),
        "max_tokens": max_tokens,
        "dialect": dialect,
        "weight_map": None if weight_map is None else os.fspath(weight_map),
        "ignore_unexpected": ignore_unexpected,
        "allow_nonfinite": allow_nonfinite,
        "force": force,
    }
    return _document(_photonc.export(os.fspath(model), os.fspath(out), keywords, progress))


def inspect(path: Path) -> dict[str, Any]:
    """What a checkpoint or a bundle holds, as ``photonc inspect --json`` says it.

    >>> inspect(bundle)["manifest"]["model"]["meta_tokens"] == model.meta_tokens
    True
    """
    return _document(_photonc.inspect(os.fspath(path)))


def verify(
    bundle: Path, backend: str = "auto", device: int = 0, *, threads: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Compares every graph of a bundle on a backend with the reference, on random inputs. ``holds`` says whether every value is
    as near as its arithmetic allows, ``graphs`` what was found.

    >>> verify(bundle, backend="cpu")["holds"]
    True
    """
    return _document(_photonc.verify(os.fspath(bundle), backend, device, threads, seed))


def drift(
    bundle: Path,
    text: Prompt,
    backend: str = "auto",
    device: int = 0,
    *,
    threads: int | None = None,
    prompt_tokens: int = 256,
    new_tokens: int = 256,
    prompts: int = 16,
    batch: int = 4,
    free_running: bool = True,
    distances: Sequence[int] = (16, 64, 256),
) -> dict[str, Any]:
    """How far RecGen drifts from HierGen on a text, a string or its tokens: agreement, divergence, perplexities and cosines of
    states over all (``whole``), between ``distances`` from the prompt (``ranges``) and by meta-context."""
    given = text if isinstance(text, str) else [int(token) for token in text]
    keywords = {
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
        "prompts": prompts,
        "batch": batch,
        "free_running": free_running,
        "distances": list(distances),
    }
    return _document(_photonc.drift(os.fspath(bundle), given, backend, device, threads, keywords))


def diff(left: Path, right: Path, *, weights: bool = True) -> dict[str, Any]:
    """What differs between two checkpoints or bundles: graphs, weights, proofs, signatures and cost. ``equal`` says whether
    nothing does; ``weights`` compares their bytes, which reads all of them.

    >>> diff(bundle, bundle)["equal"]
    True
    """
    return _document(_photonc.diff(os.fspath(left), os.fspath(right), weights))


def _document(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text)
    return document
