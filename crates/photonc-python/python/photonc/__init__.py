"""Compiler and runtime for PHOTON hierarchical language models.

>>> import photonc
>>> with photonc.load(bundle) as model:
...     [output] = model.generate([1, 2, 3, 4], photonc.SamplingParams(temperature=0, max_tokens=8))
>>> len(output.outputs[0].token_ids)
8

Sizes in docstrings: ``T`` tokens of a text, ``V`` token ids of the model, ``C`` tokens of a meta-context.
"""

from photonc._checkpoint import Checkpoint, from_torch
from photonc._files import diff, drift, export, inspect, verify
from photonc._model import Model, Score, Tokenizer, Trajectory, load
from photonc._photonc import (
    Array,
    BackendError,
    Cancelled,
    CheckpointError,
    Error,
    RefusedError,
    __version__,
)
from photonc._results import Burst, CompletionOutput, Logprob, Output, State
from photonc._sampling import SamplingParams

__all__ = [
    "Array",
    "BackendError",
    "Burst",
    "Cancelled",
    "Checkpoint",
    "CheckpointError",
    "CompletionOutput",
    "Error",
    "Logprob",
    "Model",
    "Output",
    "RefusedError",
    "SamplingParams",
    "Score",
    "State",
    "Tokenizer",
    "Trajectory",
    "__version__",
    "diff",
    "drift",
    "export",
    "from_torch",
    "inspect",
    "load",
    "verify",
]
