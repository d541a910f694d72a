"""A tiny model of random weights and the trained example, exported once, and a loaded model of either."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import photonc

ROOT = Path(os.environ.get("PHOTONC_ROOT", Path(__file__).parents[3]))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights."""
    path = tmp_path_factory.mktemp("tiny") / "checkpoint"
    command = [sys.executable, "-m", "photonc", "synth", "--preset", "tiny", "-o", str(path), "-q"]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="session")
def bundle(checkpoint: Path) -> Path:
    """Its bundle."""
    path = checkpoint.parent / "bundle"
    photonc.export(checkpoint, path)
    return path


@pytest.fixture(scope="session")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the trained example, which has a tokenizer."""
    path = tmp_path_factory.mktemp("english") / "bundle"
    photonc.export(ROOT / "examples" / "english", path)
    return path


@pytest.fixture(scope="session")
def model(bundle: Path) -> Iterator[photonc.Model]:
    """The tiny model, loaded."""
    with photonc.load(bundle, backend="cpu") as model:
        yield model
