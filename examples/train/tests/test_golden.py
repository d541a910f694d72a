"""The forward and both protocols give the golden numbers of an independent reference."""

import os
import pathlib
import sys

import pytest
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import checkpoint
import generate

GOLDENS = pathlib.Path(os.environ.get("PHOTONC_GOLDENS", pathlib.Path(__file__).resolve().parents[4] / "shared/golden"))
TOLERANCE = 1e-4


def close(found, expected):
    return (found.double() - expected.double()).abs().max().item() < TOLERANCE


CASES = [("paper", 0), ("paper", 1), ("paper", 2), ("paper", 3), ("lopsided", 0), ("lopsided", 1), ("lopsided", 2)]


@pytest.mark.parametrize(("name", "prompt"), CASES)
def test_agrees_with_the_golden(name, prompt):
    folder = GOLDENS / name
    if not folder.exists():
        pytest.fail(f"{folder} is missing: set PHOTONC_GOLDENS to the folder of the goldens")
    model = checkpoint.load(folder).double()
    golden = checkpoint.read_tensors(folder / "golden.safetensors")
    key = f"p{prompt}_"
    tokens = golden[key + "prompt_aligned"].long()[None]
    with torch.no_grad():
        logits, states, recon = model(tokens)
    assert close(logits[0], golden[key + "fwd_logits"])
    for level in range(len(states)):
        assert close(states[level][0], golden[f"{key}fwd_X{level}"])
        assert close(recon[level][0], golden[f"{key}fwd_Xhat{level}"])
    for protocol in ("recgen", "hiergen"):
        want = golden[f"{key}{protocol}_tokens"].long()
        found = getattr(generate, protocol)(model, tokens, len(golden[f"{key}{protocol}_XL"]))
        assert found["tokens"][0, : len(want)].tolist() == want.tolist()
        assert close(found["logits"][0], golden[f"{key}{protocol}_logits"])
        assert close(found["XL"][0], golden[f"{key}{protocol}_XL"])
    found = generate.recgen(model, tokens, len(golden[key + "recgen_XL"]))
    assert close(found["XhatLm1"][0], golden[key + "recgen_XhatLm1"])
