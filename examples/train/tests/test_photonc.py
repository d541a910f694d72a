"""The compiler and this forward agree on a checkpoint that this code wrote: logits, and greedy tokens of both protocols."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import checkpoint
import generate

SHAPES = [(2, 2), (4, 2), (16, 1)]


def photonc(*arguments):
    program = os.environ.get("PHOTONC")
    if not program:
        pytest.fail("set PHOTONC to the compiler's program, such as target/debug/photonc")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(7)
    model = checkpoint.build(checkpoint.paper_config(101, request.param, 48, 1, 3, 64, 512))
    # Wide logits and start latents that matter, so that a wrong turn shows.
    model.lm_head.weight.data.mul_(40)
    checkpoint.save(folder / "checkpoint", model)
    photonc("export", folder / "checkpoint", "-o", folder / "bundle", "-q")
    return checkpoint.load(folder / "checkpoint").double(), folder


def test_scores_agree(exported):
    model, folder = exported
    ids = torch.randint(101, (64,), generator=torch.Generator().manual_seed(3))
    photonc("score", folder / "bundle", "--ids", ",".join(map(str, ids.tolist())), "--logits", folder / "logits.safetensors", "-q")
    found = checkpoint.read_tensors(folder / "logits.safetensors")["logits"]
    with torch.no_grad():
        expected = model(ids[None])[0][0]
    assert (found - expected).abs().max() < 1e-3


@pytest.mark.parametrize("backend", ["reference", "tract"])
@pytest.mark.parametrize("protocol", ["recgen", "hiergen"])
def test_greedy_tokens_agree(exported, protocol, backend):
    model, folder = exported
    ids = torch.randint(101, (32,), generator=torch.Generator().manual_seed(5))
    out = photonc("generate", folder / "bundle", "--prompt-ids", ",".join(map(str, ids.tolist())), "--greedy", "-n", 48,
                  "--protocol", protocol, "--backend", backend, "--json", "-q")
    expected = getattr(generate, protocol)(model, ids[None], 48 // model.meta)["tokens"][0]
    assert json.loads(out)["tokens"] == expected.tolist()
