"""Checkpoints of tensors in memory."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from photonc import _photonc

if TYPE_CHECKING:
    from types import TracebackType


class Checkpoint:
    """A checkpoint in a temporary folder; ``from_torch`` makes one. The folder goes with it, or at the end of a ``with``."""

    def __init__(self, folder: tempfile.TemporaryDirectory[str], weight_map: Path | None) -> None:
        self._folder = folder
        self.path = Path(folder.name)
        """The folder: ``config.json`` and ``model.safetensors``."""
        self.weight_map = weight_map
        """The data file of its layout, if one was given."""

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Removes the folder."""
        self._folder.cleanup()


def from_torch(
    module_or_state_dict: Any,
    config: Union[Mapping[str, Any], str, os.PathLike[str]],
    weight_map: Union[Mapping[str, str], str, os.PathLike[str], None] = None,
    *,
    files: Iterable[Union[str, os.PathLike[str]]] = (),
) -> Checkpoint:
    """A checkpoint of tensors in memory, to be given to ``export``.

    The tensors are a module's (whatever has ``state_dict()``), or a mapping of names to tensors of torch, NumPy, JAX or any
    library that speaks DLPack. ``config`` is the configuration, or its file. ``weight_map`` renames tensors, a mapping of their
    names to those of the layout; or it is the data file of a layout. ``files`` are carried along: a tokenizer, a chat template.

    >>> import tempfile, pathlib, numpy
    >>> with from_torch(weights, config) as checkpoint, tempfile.TemporaryDirectory() as folder:
    ...     report = photonc.export(checkpoint, pathlib.Path(folder) / "bundle")
    >>> sorted(report["protocols"])
    ['hiergen', 'recgen']
    """
    state = module_or_state_dict
    if not isinstance(state, Mapping):
        state = state.state_dict()
    renamed: Mapping[str, str] = weight_map if isinstance(weight_map, Mapping) else {}
    unknown = [name for name in renamed if name not in state]
    if unknown:
        raise ValueError(f"weight_map names {unknown[0]!r}, and there is no such tensor")
    tensors = [(renamed.get(name, name), _on_cpu(tensor)) for name, tensor in state.items()]
    folder = tempfile.TemporaryDirectory(prefix="photonc-")
    try:
        path = Path(folder.name)
        if isinstance(config, Mapping):
            (path / "config.json").write_text(json.dumps(dict(config)), encoding="utf-8")
        else:
            shutil.copyfile(config, path / "config.json")
        for file in files:
            shutil.copy(file, path)
        _photonc.write_tensors(os.fspath(path / "model.safetensors"), tensors)
    except BaseException:
        folder.cleanup()
        raise
    layout = None if weight_map is None or isinstance(weight_map, Mapping) else Path(weight_map)
    return Checkpoint(folder, layout)


def _on_cpu(tensor: Any) -> Any:
    """The tensor without its history, in the host's memory."""
    for step in ("detach", "cpu"):
        tensor = getattr(tensor, step)() if hasattr(tensor, step) else tensor
    return tensor
