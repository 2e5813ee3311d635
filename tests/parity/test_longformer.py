"""GlobalLocalAttention against `transformers`' LongformerSelfAttention: outputs, gradients of input and parameters."""

import copy

import pytest
import torch
from torch import nn
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

from course_lib.attention import GlobalLocalAttention, Places, causal, draw_blocks
from course_lib.interop import longformer_masks, oracle
from course_lib.positions import Position
from tests.conftest import randomise, relative_error
from tests.parity.compare import assert_same_gradients, gradients

C, H, B = 12, 3, 3
PAIRS = ("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")
NAMES = dict(PAIRS) | {f"global_proj.{i}": f"{theirs}_global" for i, (_, theirs) in enumerate(PAIRS)}
GLOBAL = {
    "none": [[], [], []],
    "the first": [[0], [0], [0]],
    "several, not as many in each": [[0, 3, 11, 40], [], [5, 21]],
    "neighbours, at both ends": [[0, 1, 2], [94, 95], [47, 48, 49, 50]],
}


class Theirs(nn.Module):
    """Their attention, and a copy of our output projection after it: in their model it belongs to the next module."""

    def __init__(self, ours):
        super().__init__()
        self.attention, self.out_proj = oracle(ours), copy.deepcopy(ours.out_proj)

    def forward(self, x, key_mask, global_mask):
        return self.out_proj(self.attention(x, **longformer_masks(global_mask, key_mask))[0])


def module(radius=4, **changed):
    own = {"separate_global": True} | changed
    return randomise(GlobalLocalAttention(C, H, radius, **own))


@pytest.fixture
def softmax_in_float64(monkeypatch):
    """Their softmax is computed in float32, whatever the type of the model: not here."""
    softmax = nn.functional.softmax
    monkeypatch.setattr(nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim=dim))


def run(f, x, there):
    """Output, zero at padding, and gradient of x; only what is no padding sends a gradient back."""
    x = x.clone().requires_grad_()
    y = f(x) * there.unsqueeze(-1)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y))
    return y.detach(), x.grad


def assert_same(dtype, tolerance, radius, length, places, padding):
    ours = module(radius).to(dtype)
    theirs = Theirs(ours)
    global_mask, there = torch.zeros(B, length, dtype=torch.bool), torch.ones(B, length, dtype=torch.bool)
    for b, (chosen, n_padding) in enumerate(zip(places, padding, strict=True)):
        global_mask[b, [place for place in chosen if place < length - n_padding]] = True
        there[b, length - n_padding :] = False
    x = torch.randn(B, length, C, dtype=dtype)
    got, got_x = run(lambda x: ours(x, Places(key_mask=there, global_mask=global_mask)), x, there)
    want, want_x = run(lambda x: theirs(x, there, global_mask), x, there)
    assert relative_error(got, want) < tolerance
    assert relative_error(got_x, want_x) < tolerance
    theirs_by_name = dict(theirs.named_parameters())
    want_gradients = {}
    for name, parameter in ours.named_parameters():
        stem, kind = name.rsplit(".", 1)
        other = theirs_by_name[f"attention.{NAMES[stem]}.{kind}" if stem in NAMES else name].grad
        want_gradients[name] = torch.zeros_like(parameter) if other is None else other  # theirs was not asked
    zero = ("k_proj.bias", "global_proj.1.bias")
    if not global_mask.any():
        zero += tuple(name for name in want_gradients if name.startswith("global_proj"))
    assert_same_gradients(gradients(ours), want_gradients, tolerance, zero)


@pytest.mark.parametrize("name", GLOBAL)
@pytest.mark.parametrize("padding", [(0, 0, 0), (0, 5, 30)])
@pytest.mark.parametrize(("radius", "length"), [(2, 52), (4, 96), (16, 96), (20, 120)])
def test_float64(softmax_in_float64, name, padding, radius, length):
    assert_same(torch.float64, 1e-10, radius, length, GLOBAL[name], padding)


@pytest.mark.parametrize("name", GLOBAL)
@pytest.mark.parametrize("padding", [(0, 0, 0), (0, 5, 30)])
def test_float32(name, padding):
    assert_same(torch.float32, 1e-5, 4, 96, GLOBAL[name], padding)


def test_the_oracle_is_theirs_with_a_copy_of_our_weights():
    ours = module().double()
    torch.manual_seed(3)
    want = torch.rand(2)
    torch.manual_seed(3)
    theirs = oracle(ours)
    assert torch.equal(torch.rand(2), want)
    assert type(theirs) is LongformerSelfAttention
    assert not theirs.training
    assert theirs.one_sided_attn_window_size == 4
    assert {p.dtype for p in theirs.parameters()} == {torch.float64}
    assert torch.equal(theirs.key_global.weight, ours.global_proj[1].weight)
    for parameter in theirs.parameters():
        parameter.data.zero_()
    assert all(p.abs().min() > 0 for p in ours.parameters())


def test_their_masks_are_numbers():
    global_mask = torch.tensor([[True, False, False, True]])
    masks = longformer_masks(global_mask, torch.tensor([[True, True, False, False]]))
    assert masks["attention_mask"].tolist() == [[10_000, 0, -10_000, -10_000]]
    assert masks["is_index_masked"].tolist() == [[False, False, True, True]]
    assert masks["is_index_global_attn"].tolist() == [[True, False, False, False]]
    assert masks["is_global_attn"]
    masks = longformer_masks(~global_mask & global_mask)
    assert masks["attention_mask"].tolist() == [[0, 0, 0, 0]]
    assert not masks["is_index_masked"].any()
    assert not masks["is_global_attn"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"separate_global": False}, "module has separate_global=False; Longformer has projections of its global"),
        ({"bias": False}, "module has bias=False"),
        ({"blocks": draw_blocks(6, 1, 0)}, "module has blocks"),
        ({"position": Position()}, "module has position"),
        ({"mask": causal}, "module has mask"),
        ({"radius": 0}, "module has radius=0"),
        ({"radius": 1, "bias": False}, "module has bias=False, radius=1"),
    ],
)
def test_what_longformer_does_not_have(changed, words):
    with pytest.raises(ValueError, match=words):
        oracle(module(**changed))
