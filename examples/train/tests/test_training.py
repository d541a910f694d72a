"""What training and evaluation rest on."""

import argparse
import math
import pathlib
import sys

import pytest
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import checkpoint
import data
import evaluate
import generate
import kneser_ney
import latents
import train


def small(chunks=(2, 2), dim=48):
    torch.manual_seed(1)
    return checkpoint.build(checkpoint.paper_config(50, chunks, dim, 1, 3, 32, 512)).eval()


def settings():
    return argparse.Namespace(device="cpu", dropout=0.0, weight_decay=0.1, rate=1e-2, rows=4, length=32, mixed=False)


def test_a_trigram_is_a_distribution():
    stream = torch.randint(12, (600,), generator=torch.Generator().manual_seed(0))
    model = kneser_ney.Trigram(stream, 12)
    every = torch.arange(12)
    for a in range(12):
        # The context 11 11 and its like may never occur: back-off has to keep the sum.
        p = model.probabilities(torch.full((12,), a), torch.full((12,), (a * 5) % 12), every)
        assert p.min() > 0
        assert p.sum().item() == pytest.approx(1, abs=1e-9)


def test_a_trigram_learns_what_follows():
    model = kneser_ney.Trigram(torch.arange(5).repeat(50), 5)
    assert model.probabilities(torch.tensor([1]), torch.tensor([2]), torch.tensor([3])).item() > 0.9


# The score of RecGen's own tokens is the likelihood under the logits that they were drawn from.
@pytest.mark.parametrize("chunks", [(2, 2), (4, 2), (16, 1)])
def test_open_loop_scores_are_those_of_generation(chunks):
    model = small(chunks)
    prompt = torch.randint(50, (2, evaluate.PROMPT), generator=torch.Generator().manual_seed(2))
    found = generate.recgen(model, prompt, evaluate.NEXT // model.meta, 1.0, torch.Generator().manual_seed(3))
    scores, _ = evaluate.open_loop(model, torch.cat((prompt, found["tokens"]), 1))
    assert torch.allclose(scores, evaluate.nats(found["logits"], found["tokens"]), atol=1e-4)


def test_teacher_forced_scores_are_those_of_hiergen():
    model = small()
    prompt = torch.randint(50, (2, 32), generator=torch.Generator().manual_seed(2))
    found = generate.hiergen(model, prompt, 8, 1.0, torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits = model(torch.cat((prompt, found["tokens"]), 1))[0]
    assert torch.allclose(logits[:, 32:], found["logits"], atol=1e-4)


# Its own latents are the forward's; a model whose converter is blind to them takes any.
def test_what_latents_are_worth():
    model, lengths = small(), torch.ones(24, evaluate.NEXT)
    rows = torch.randint(50, (24, evaluate.PROMPT + evaluate.NEXT), generator=torch.Generator().manual_seed(6))
    found = latents.figures(model, rows, lengths)
    with torch.no_grad():
        scores = evaluate.nats(model(rows)[0], rows)[:, evaluate.PROMPT :]
    assert found["own"] == pytest.approx(evaluate.summary(scores, lengths)["bits_per_byte"], rel=1e-6)
    assert len({round(found[name], 6) for name in ("own", "near", "far", "mean")}) == 4
    assert 0 < found["spread"] < 1.1
    model.levels[0].converter.weight.data.zero_()
    blind = latents.figures(model, rows, lengths)
    assert blind["own"] == blind["near"] == blind["far"] == blind["mean"]


# With every unit after the cut replaced, the first one is what RecGen conditions on.
def test_exposure_is_the_open_loop_recurrence():
    model = small()
    tokens = torch.randint(50, (1, 32), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        states = model.encode(tokens)
        cut = torch.randint(1, 8, (1, 1), generator=torch.Generator().manual_seed(5)).item()
        exposed = train.expose(model, states, torch.Generator().manual_seed(5))
        prompt = tokens[:, : cut * model.meta]
        expected = generate.recgen(model, prompt, 1 + min(train.EXPOSURE_PASSES, 8 - cut))["XL"]
    assert torch.allclose(exposed[:, :cut], states[-1][:, :cut])
    assert torch.allclose(exposed[:, cut - 1 : cut - 1 + expected.shape[1]], expected, atol=1e-4)


def test_a_restart_changes_nothing():
    stream = torch.randint(50, (4000,), generator=torch.Generator().manual_seed(6))
    run = train.parse_run("c2x2-a0.3-x")
    config = checkpoint.paper_config(50, (2, 2), 24, 1, 3, 32, 512)
    whole = train.Trainer(run, config, settings())
    first = train.Trainer(run, config, settings())
    for _ in range(4):
        whole.train_step(stream)
    for _ in range(2):
        first.train_step(stream)
    second = train.Trainer(run, config, settings())
    second.restore(first.state())
    for _ in range(2):
        second.train_step(stream)
    for a, b in zip(whole.model.parameters(), second.model.parameters()):
        assert torch.equal(a, b)


def test_training_lowers_the_loss():
    stream = torch.arange(50).repeat(80)
    for name in ("c4x2-a0.3-x", "vanilla"):
        run = train.parse_run(name)
        config = train.run_config(run, {"dim": 24, "layers": 1, "heads": 3, "ffn": 32}, 50)
        trainer = train.Trainer(run, config, settings())
        losses = [trainer.train_step(stream).item() for _ in range(40)]
        assert abs(losses[0] - math.log(50)) < 0.2
        assert losses[-1] < losses[0] - 1


def test_the_yardstick_has_the_size_of_the_model():
    photon, vanilla = (train.run_config(train.parse_run(n), train.SIZES, 4000) for n in ("c2x2-a0", "vanilla"))
    sizes = [train.parameters(checkpoint.build(c)) for c in (photon, vanilla)]
    assert abs(sizes[0] / sizes[1] - 1) < 0.05
    assert 2 * sizes[0] < 10_000_000


def test_tensors_survive_a_file(tmp_path):
    tensors = {"b": torch.randn(3, 5).bfloat16(), "a": torch.arange(7), "c": torch.randn(())}
    checkpoint.write_tensors(tmp_path / "t.safetensors", tensors)
    found = checkpoint.read_tensors(tmp_path / "t.safetensors")
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_an_unknown_run_is_refused():
    with pytest.raises(ValueError, match="c2-b3"):
        train.parse_run("c2-b3")


def test_every_byte_has_a_letter():
    assert sorted(data.byte_of_letter().values()) == list(range(256))
