"""Decoders on disk and copied, with one table where all blocks share it; gradients under autocast."""

import copy

import pytest
import torch
from safetensors.torch import load_file

from course_lib import pretrained
from course_lib.training.checkpoint import Progress, read_checkpoint, save_checkpoint
from tests.models.cases import DECODERS, ids_of, make, small


def one_table(model):
    """Whether all blocks have T5's numbers from one module."""
    return len({id(part.attention.position) for part in model.blocks}) == 1


@pytest.mark.parametrize("name", DECODERS)
def test_copies_and_state_dicts(name):
    model, ids = small(name), ids_of()
    other = make(name, seed=5)
    other.load_state_dict(model.state_dict(), strict=True)
    twin = copy.deepcopy(model)
    for one in (other, twin):
        assert torch.equal(one(ids), model(ids))
        assert one_table(one) == (name != "shaw")
        assert len(list(one.parameters())) == len(list(model.parameters()))
    twin(ids).sum().backward()
    assert all(p.grad is not None for p in twin.parameters())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", DECODERS)
def test_a_checkpoint_brings_weights_and_optimizer_back(name, tmp_path):
    """Three steps, saved after the first: the rest is the same, T5's one table included."""
    ids, path = ids_of(), tmp_path / "checkpoint.safetensors"

    def step(model, optimizer):
        optimizer.zero_grad()
        model(ids).square().mean().backward()
        optimizer.step()

    def started(seed):
        model = make(name, seed=seed)
        return model, torch.optim.AdamW(model.parameters(), lr=0.01)

    model, optimizer = started(0)
    step(model, optimizer)
    save_checkpoint(path, model, optimizer, Progress(1, [], {"name": name}, ""))
    other, its_optimizer = started(1)
    read_checkpoint(path, other, {"name": name}).restore(other, its_optimizer)
    for _ in range(2):
        step(model, optimizer)
        step(other, its_optimizer)
    assert one_table(other) == (name != "shaw")
    for (key, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), key


@pytest.mark.parametrize("name", DECODERS)
def test_trained_weights_are_kept_in_half_precision(name, tmp_path, monkeypatch):
    model, ids = small(name), ids_of()
    origin = pretrained.Origin(type(model), type(model.config), "study", "arm", 0)
    monkeypatch.setitem(pretrained.MODELS, "small", origin)
    monkeypatch.setattr(pretrained, "verified", lambda path: tmp_path / path.removeprefix("weights/"))
    path = pretrained.save("small", model, tmp_path)
    assert {t.dtype for t in load_file(path).values()} == {torch.float16}
    back = pretrained.load("small")
    assert (back.config, back.training) == (model.config, False)
    assert torch.equal(back(ids), copy.deepcopy(model).half().float()(ids))
    assert one_table(back) == (name != "shaw")


@pytest.mark.parametrize("name", DECODERS)
def test_under_autocast(name):
    model, ids = small(name), ids_of()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(ids)
    assert logits.dtype == torch.bfloat16
    logits.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert (logits - model(ids)).norm() < 0.1 * model(ids).norm()
