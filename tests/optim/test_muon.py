"""Muon equals torch's, its matrices become nearly orthogonal, and two optimizers in one checkpoint resume exactly."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.models.pythia import Pythia, PythiaConfig
from course_lib.optim import Joined, Muon, muon, newton_schulz, split_params
from course_lib.training import train
from course_lib.training.recipes import OPTIMIZERS

SIZES = GPT2Config(vocab_size=11, max_positions=8, d_model=8, n_heads=2, n_layers=2)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 99))
def test_singular_values_end_near_one(rows, columns, seed):
    g = torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = torch.linalg.svdvals(g)
    if (values[:, -1] < 0.02 * values.norm(dim=1)).any():
        return  # what is nearly nothing needs more than five steps
    made = newton_schulz(g, steps=5)
    assert made.shape == g.shape
    assert torch.linalg.svdvals(made).min() > 0.5
    assert torch.linalg.svdvals(made).max() < 1.3
    u, _, v = torch.linalg.svd(g, full_matrices=False)
    inner = u.mT @ made @ v.mT  # the directions stay: only singular values change
    assert torch.allclose(inner, torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1)), atol=1e-9)


def test_a_stack_is_its_matrices_one_by_one():
    g = torch.randn(3, 5, 7, dtype=torch.float64)
    assert torch.allclose(newton_schulz(g), torch.stack([newton_schulz(one) for one in g]), atol=1e-12)


def test_newton_schulz_is_torchs_but_for_its_bfloat16():
    from torch.optim._muon import _zeropower_via_newtonschulz

    g = torch.randn(6, 9)
    theirs = _zeropower_via_newtonschulz(g, muon.COEFFICIENTS, 5, 1e-7).float()
    assert (newton_schulz(g) - theirs).abs().max() < 0.05
    assert (newton_schulz(g.bfloat16()).float() - theirs).abs().max() < 0.05


def matrices(count=3):
    generator = torch.Generator().manual_seed(5)
    shapes = [(4, 6), (6, 4), (4, 6)][:count]
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def test_steps_equal_those_of_torch(monkeypatch):
    """Torch's own steps, with its products of matrices in float32 too."""
    from torch.optim import _muon

    monkeypatch.setattr(_muon, "_zeropower_via_newtonschulz", lambda grad, *rest: newton_schulz(grad, rest[1]))
    ours, theirs = matrices(), matrices()
    pairs = (
        (Muon(ours, lr=0.02, weight_decay=0.3, momentum=0.9), ours),
        (
            torch.optim.Muon(theirs, lr=0.02, weight_decay=0.3, momentum=0.9, adjust_lr_fn="match_rms_adamw"),
            theirs,
        ),
    )
    for step in range(4):
        for optimizer, parameters in pairs:
            generator = torch.Generator().manual_seed(step)
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
    for mine, other, first in zip(ours, theirs, matrices(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6)
        assert (mine - first).abs().max() > 0.01


def test_experts_in_a_stack_are_matrices_of_their_own():
    stack = nn.Parameter(torch.randn(9, 4, 6))  # more experts than rows and columns
    alone = [nn.Parameter(matrix.clone()) for matrix in stack.detach()]
    stack.grad = torch.randn(9, 4, 6)
    for one, grad in zip(alone, stack.grad, strict=True):
        one.grad = grad.clone()
    Muon([stack], lr=0.1).step()
    Muon(alone, lr=0.1).step()
    assert torch.allclose(stack, torch.stack(list(alone)), atol=1e-6)


def test_a_step_is_as_long_as_said():
    parameter = nn.Parameter(torch.zeros(16, 64))
    parameter.grad = torch.randn(16, 64)
    Muon([parameter], lr=0.01).step()
    rms = parameter.square().mean().sqrt().item()  # an orthogonal (16, 64) has rms 1 / 8; 0.2 sqrt(64) times that
    assert rms == pytest.approx(0.01 * 0.2, rel=0.25)


def test_a_parameter_without_gradient_stays():
    moved, still = matrices(2)
    moved.grad = torch.ones_like(moved)
    before = still.detach().clone()
    Muon([moved, still], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(still, before)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"lr": 0.0}, "lr=0.0"), ({"momentum": 1.0}, "momentum=1.0"), ({"steps": 0}, "steps=0"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(arguments, said):
    with pytest.raises(ValueError, match=said):
        Muon(matrices(), **arguments)


def test_vectors_are_refused():
    with pytest.raises(ValueError, match=r"\(4,\)"):
        Muon([nn.Parameter(torch.zeros(4))])
    with pytest.raises(ValueError, match=r"\(4,\)"):
        Muon(matrices()).add_param_group({"params": [nn.Parameter(torch.zeros(4))]})


@pytest.mark.parametrize("make", [Muon, lambda parameters: Joined(Muon(parameters))])
def test_a_closure_is_refused(make):
    with pytest.raises(ValueError, match="allowed is None"):
        make(matrices()).step(lambda: 0.0)


def test_a_copy_of_joined_optimizers_has_its_parts():
    parameters = matrices(2)
    optimizer = Joined(Muon(parameters[:1], lr=0.1), torch.optim.AdamW(parameters[1:], lr=0.1))
    copied, held = copy.deepcopy((optimizer, parameters))
    for ours, theirs in zip(parameters, held, strict=True):
        ours.grad, theirs.grad = torch.ones_like(ours), torch.ones_like(theirs)
    for _ in range(2):
        optimizer.step()
        copied.step()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(parameters, held, strict=True))
    assert len(copied.state) == 2


DECODERS = {  # places, and tokens, are as many as channels: shapes alone do not tell a matrix from an embedding
    "tied": GPT2(SIZES),
    "untied": Pythia(PythiaConfig(vocab_size=8, d_model=8, n_heads=2, n_layers=2, rotary_pct=1.0)),
}


@pytest.mark.parametrize("model", DECODERS.values(), ids=DECODERS)
def test_hidden_matrices_are_those_of_the_blocks(model):
    hidden, rest = split_params(model)
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert {names[p].split(".")[-2] for p in hidden} == {"q_proj", "k_proj", "v_proj", "out_proj", "up", "down"}
    assert len(hidden) == 12
    assert all(p.ndim == 2 for p in hidden)
    assert {id(p) for p in (*hidden, *rest)} == {id(p) for p in model.parameters()}
    assert len(hidden) + len(rest) == len(names)


def test_joined_refuses():
    first, second = matrices(2)
    stepped = Muon([second])
    second.grad = torch.ones_like(second)
    stepped.step()
    for parts, said in (
        ((), "empty"), ((Muon([first]), Muon([first, second])), "1 parameters belong"), ((3,), "needed are optimizers"),
        ((Joined(Muon([first])),), "one is joined already"), ((stepped,), "one has made steps already"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            Joined(*parts)


def test_nothing_is_added_to_joined_optimizers():
    first, second = matrices(2)
    with pytest.raises(ValueError, match="param_group"):
        Joined(Muon([first])).add_param_group({"params": [second]})


def test_the_output_is_named():
    model = nn.Sequential()
    model.add_module("hidden", nn.Linear(3, 4, bias=False))
    model.add_module("head", nn.Linear(4, 2, bias=False))
    assert [len(part) for part in split_params(model)] == [2, 0]
    assert [len(part) for part in split_params(model, output="head")] == [1, 1]


def test_joined_is_its_parts_and_follows_a_schedule():
    model, twin = GPT2(SIZES), GPT2(SIZES)
    joined = OPTIMIZERS["muon"](model, 0.01, 0.1)
    hidden, rest = split_params(twin)
    parts = (
        Muon(hidden, lr=0.005, weight_decay=0.1),
        torch.optim.AdamW(rest, lr=0.005, betas=(0.9, 0.95), weight_decay=0),
    )
    for group in joined.param_groups:
        group["lr"] = 0.005  # as `train` does
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        p.grad = torch.ones_like(p)
        q.grad = torch.ones_like(q)
    joined.step()
    for part in parts:
        part.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))
    assert len(joined.state) == len(list(model.parameters()))


def loss_fn(model, batch):
    return nn.functional.cross_entropy(model(batch[0][:, :-1]).flatten(0, 1), batch[0][:, 1:].flatten())


def batches(step):
    return (torch.randint(11, (4, 9), generator=torch.Generator().manual_seed(step)),)


def test_a_training_with_both_resumes_to_the_same_bits(tmp_path):
    def run(folder, stop_at=None):
        model = GPT2(SIZES)
        train(
            model, batches, loss_fn, OPTIMIZERS["muon"](model, 0.01, 0.1), steps=6, checkpoint_dir=folder,
            checkpoint_every=2, stop_at=stop_at, progress=False,
        )  # fmt: skip
        return model.state_dict()

    whole = run(tmp_path / "whole")
    run(tmp_path / "cut", stop_at=4)
    again = run(tmp_path / "cut")
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    assert math.isfinite(sum(value.sum().item() for value in whole.values()))
