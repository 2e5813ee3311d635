"""TransformerBlock by its formula, with every placement."""

import re

import pytest
import torch
import torch.nn.functional as F

from course_lib.attention import KVCache, MultiHeadAttention, Places, causal
from course_lib.mlp import MLP
from course_lib.norms import LayerNorm
from course_lib.transformer_block import PLACEMENTS, TransformerBlock
from tests.conftest import randomise


def block(placement, dropout=0.0):
    parts = MultiHeadAttention(8, 2, mask=causal), MLP(8, 12), (LayerNorm(8), LayerNorm(8))
    return randomise(TransformerBlock(*parts, placement=placement, dropout=dropout))


def by_formula(b, x, *places, drop=lambda x: x):
    if b.placement == "post":
        x = b.attention_norm(x + drop(b.attention(x, *places)))
        return b.mlp_norm(x + drop(b.mlp(x)))
    between = x + drop(b.attention(b.attention_norm(x), *places))
    return between + drop(b.mlp(b.mlp_norm(x if b.placement == "parallel" else between)))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_block_follows_its_formula(placement):
    b, x = block(placement), torch.randn(2, 5, 8)
    assert torch.equal(b(x), by_formula(b, x))
    assert not torch.allclose(b.attention_norm(x), b.mlp_norm(x))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_it_hands_places_padding_and_cache_to_its_attention(placement):
    b, x = block(placement).double(), torch.randn(2, 5, 8).double()
    keys = torch.tensor([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    masked = b(x, Places(key_mask=keys))
    assert torch.equal(masked, by_formula(b, x, Places(key_mask=keys)))
    assert torch.allclose(masked[1], b(x)[1])
    assert not torch.allclose(masked[0, 2:], b(x)[0, 2:])
    order = torch.tensor([4, 3, 2, 1, 0])
    assert torch.allclose(b(x.flip(1), Places(pos=order)), b(x).flip(1))
    cache = KVCache(5)
    with torch.no_grad():
        assert torch.allclose(torch.cat([b(x[:, i : i + 1], cache=cache) for i in range(5)], 1), b(x))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_dropout_acts_on_what_each_part_adds(placement):
    """Masks drawn by hand in the same order: one for the attention, one for the MLP, none on the stream."""
    b, x = block(placement, dropout=0.4), torch.randn(2, 5, 8)
    torch.manual_seed(7)
    got = b(x)
    torch.manual_seed(7)
    assert torch.equal(got, by_formula(b, x, drop=lambda x: F.dropout(x, 0.4)))
    assert not torch.equal(got, b(x))
    b.eval()
    assert torch.equal(b(x), by_formula(b, x))


def test_what_it_is_without_a_word():
    plain = TransformerBlock(MultiHeadAttention(8, 2), MLP(8, 12), (LayerNorm(8), LayerNorm(8)))
    assert (plain.dropout.p, plain.placement) == (0, "pre")


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: block("mid"), "placement='mid'; allowed are 'pre', 'post', 'parallel'"),
        (
            lambda: TransformerBlock(MultiHeadAttention(8, 2), MLP(8, 8), (LayerNorm(8),)),
            "norms has 1 entries; needed are two",
        ),
    ],
)
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()
