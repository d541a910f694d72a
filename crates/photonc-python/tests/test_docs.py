"""What is written runs: docstrings, examples, the notebook, the types, the command."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from test_files import weights_of

import photonc

CRATE = Path(__file__).parents[1]
EXAMPLES = sorted((CRATE / "examples").glob("*.py"))
MODULES = ["photonc", *(f"photonc.{module.name}" for module in pkgutil.iter_modules(photonc.__path__))]


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a command prints; it succeeds."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("name", [name for name in MODULES if name != "photonc._photonc"])
def test_docstrings_say_what_happens(name: str, bundle: Path, checkpoint: Path, model: photonc.Model) -> None:
    module = importlib.import_module(name)
    words: dict[str, Any] = {"bundle": bundle, "model": model, "photonc": photonc}
    words["config"] = json.loads((checkpoint / "config.json").read_text())
    words["weights"] = weights_of(checkpoint)
    assert doctest.testmod(module, extraglobs=words).failed == 0


def test_there_are_docstrings_to_run() -> None:
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(name) for name in MODULES]
    examples = sum(len(test.examples) for module in modules for test in finder.find(module))
    assert examples > 20


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_run(example: Path, english: Path) -> None:
    assert run(sys.executable, example, english, "cpu")


def test_the_notebook_runs(english: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    notebook = json.loads((CRATE / "examples" / "tour.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 4
    monkeypatch.setenv("PHOTONC_BUNDLE", str(english))
    monkeypatch.setenv("PHOTONC_BACKEND", "cpu")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"cell {number}", "exec"), names)


def test_the_readme_shows_what_runs(
    english: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "english").symlink_to(english)
    monkeypatch.chdir(tmp_path)
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(shown) == 1
    exec(shown[0], {})
    assert capsys.readouterr().out.strip()


def test_types_hold(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="SKIPPED: mypy is not installed here")
    cache = ["--cache-dir", tmp_path]
    run(sys.executable, "-m", "mypy", "--strict", *cache, *EXAMPLES)
    run(sys.executable, "-m", "mypy", "--strict", *cache, "-p", "photonc")
    run(sys.executable, "-m", "mypy.stubtest", "photonc._photonc", cwd=tmp_path)


def test_the_command_is_in_the_wheel(bundle: Path, tmp_path: Path) -> None:
    command = Path(sys.executable).parent / "photonc"
    assert photonc.__version__ in run(command, "--version")
    assert "recgen" in run(sys.executable, "-m", "photonc", "inspect", bundle)
    failed = subprocess.run([command, "inspect", tmp_path / "nothing"], capture_output=True, text=True)
    assert failed.returncode == 1 and "nothing" in failed.stderr
    assert subprocess.run([command, "nonsense"], capture_output=True).returncode == 2
