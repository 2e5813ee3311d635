"""A copy of a model with another attention."""

import copy
from functools import partial

import pytest
import torch

from course_lib.attention import causal, local_attention, window, with_attention
from course_lib.evaluation import future_leak
from course_lib.positions import Position, T5Position
from tests.models.cases import small

IDS = torch.randint(13, (2, 60), generator=torch.Generator().manual_seed(0))


def made():
    return small("gpt2", max_positions=64, n_layers=2)


def test_a_changed_copy_has_what_was_given_and_the_model_stays():
    model = made()
    before = model(IDS)
    open_ = with_attention(model, mask=None)
    assert future_leak(open_, IDS[0]).max() > 0
    near = with_attention(model, mask=causal & window(3))
    blocked = with_attention(model, attention_fn=partial(local_attention, radius=3))
    assert torch.allclose(near(IDS), blocked(IDS), atol=1e-4)
    some = with_attention(model, mask=None, names="blocks.1.attention")
    assert [block.attention.mask for block in some.blocks] == [causal, None]
    assert torch.equal(model(IDS), before)
    assert torch.equal(with_attention(model)(IDS), before)
    again = copy.deepcopy(model.state_dict())
    near.blocks[0].mlp.up.weight.data.zero_()
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())


def test_a_changed_position_takes_the_place_of_the_one_that_embeds():
    model, scheme = made(), T5Position(4, bidirectional=False)
    changed = with_attention(model, position=scheme)
    assert changed.position is scheme
    assert [block.attention.position for block in changed.blocks] == [scheme, scheme]
    bare = with_attention(model, position=None)
    assert type(bare.position) is Position
    assert [block.attention.position for block in bare.blocks] == [None, None]
    one = with_attention(model, position=scheme, names="blocks.0.attention")
    assert one.position is not scheme
    changed(IDS).sum().backward()
    assert scheme.embedding.weight.grad is not None  # it is used itself


def test_what_cannot_be_changed_says_so():
    with pytest.raises(ValueError, match="model is a Linear without a MultiHeadAttention"):
        with_attention(torch.nn.Linear(2, 2), mask=None)
    with pytest.raises(ValueError, match=r"'blocks\.9\.attention' matches nothing"):
        with_attention(made(), mask=None, names="blocks.9.attention")
