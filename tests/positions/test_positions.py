"""Schemes alone: logits depend on distances, places by row, types, what lies beyond the tables, what is refused."""

import math
import re
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.attention import MultiHeadAttention, attention
from course_lib.positions import (
    POSITIONS,
    AlibiPosition,
    LearnedPosition,
    Position,
    RotaryPosition,
    ShawPosition,
    SinusoidalPosition,
    T5Position,
    make,
    spread,
)
from course_lib.positions.alibi import alibi_slopes
from course_lib.positions.rope import rotate_pairs
from tests.conftest import randomise

H, D = 2, 8
SCHEMES = {
    "rope": lambda: RotaryPosition(D),
    "rope of a part": lambda: RotaryPosition(4, 100.0),
    "rope interleaved": lambda: RotaryPosition(6, layout="interleaved"),
    "rope interpolated": lambda: RotaryPosition(D, extension="interpolate", factor=3.0),
    "rope ntk": lambda: RotaryPosition(D, extension="ntk", factor=3.0),
    "alibi": lambda: AlibiPosition(H),
    "alibi uniform": lambda: AlibiPosition(H, slope=0.25),
    "t5": lambda: T5Position(H, 8, 20),
    "t5 causal": lambda: T5Position(H, 8, 20, bidirectional=False),
    "shaw": lambda: ShawPosition(D, 5),
    "shaw causal": lambda: ShawPosition(D, 5, bidirectional=False),
}
LEARNED = [name for name in SCHEMES if name.startswith(("t5", "shaw"))]


def scheme(name, dtype=torch.float64):
    return randomise(SCHEMES[name]()).to(dtype)


def logits(position, q, k, q_pos, k_pos):
    """scale (q·k + score) + bias, step by step."""
    q, k = position.rotate(q, k, q_pos, k_pos)
    dots, score, bias = q @ k.mT, position.score(q, q_pos, k_pos), position.bias(q_pos, k_pos)
    dots = dots if score is None else dots + score
    return dots / math.sqrt(q.shape[-1]) + (0 if bias is None else bias)


def heads(n_queries, n_keys, dtype=torch.float64, batch=2):
    return [torch.randn(batch, H, n, D, dtype=torch.float64).to(dtype) for n in (n_queries, n_keys)]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(list(SCHEMES)), st.integers(0, 10**6), st.integers(-(10**6), 10**6),
    st.sampled_from([torch.int32, torch.int64]), st.booleans(),
)  # fmt: skip
def test_logits_depend_on_the_distance_alone(name, seed, shift, dtype, by_row):
    """Moved by a constant, all are what they were: to the bit, but for RoPE, whose angles are float32."""
    torch.manual_seed(seed)
    position, (q, k) = scheme(name), heads(5, 7)
    q_pos, k_pos = (torch.randint(-40, 40, (2, n) if by_row else (n,), dtype=dtype) for n in (5, 7))
    want, got = logits(position, q, k, q_pos, k_pos), logits(position, q, k, q_pos + shift, k_pos + shift)
    if name.startswith("rope"):  # a float32 near n is off by up to n 2^-24, and so is its angle
        assert (got - want).abs().max() <= 1e-5 + 20 * (abs(shift) + 40) * 2**-24 * want.abs().max()
    else:
        assert torch.equal(got, want)


@pytest.mark.parametrize("name", SCHEMES)
def test_equal_tokens_give_one_logit_for_each_distance(name):
    q, k = (x[:, :, :1].expand(-1, -1, 30, -1) for x in heads(1, 1))
    pos = torch.arange(30)
    got = logits(scheme(name), q, k, pos, pos)
    for distance in range(-29, 30):
        line = got.diagonal(distance, -2, -1)
        assert torch.allclose(line, line[..., :1].expand_as(line), atol=1e-4), distance
    assert got.diagonal(3, -2, -1)[0, 0, 0] != got.diagonal(0, -2, -1)[0, 0, 0] or name.endswith("causal")
    assert got.diagonal(-3, -2, -1)[0, 0, 0] != got.diagonal(0, -2, -1)[0, 0, 0]


@pytest.mark.parametrize("name", SCHEMES)
def test_places_may_be_one_row_or_one_for_each_sequence(name):
    position, (q, k) = scheme(name), heads(5, 7, batch=3)
    q_pos, k_pos = torch.randint(90, (3, 5)), torch.randint(90, (3, 7))
    want = torch.cat([logits(position, q[i : i + 1], k[i : i + 1], q_pos[i], k_pos[i]) for i in range(3)])
    assert torch.allclose(logits(position, q, k, q_pos, k_pos), want, rtol=0, atol=1e-12)
    assert torch.allclose(logits(position, q, k, q_pos.int(), k_pos.int()), want, rtol=0, atol=1e-12)
    one, rows = q_pos[:1], q_pos[:1].expand(3, -1)
    for q_rows in (one, rows):
        for k_rows in (k_pos[0], k_pos[:1], k_pos[:1].expand(3, -1)):
            want = logits(position, q, k, q_pos[0], k_pos[0])
            assert torch.allclose(logits(position, q, k, q_rows, k_rows), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types(name, dtype):
    position, (q, k), pos = scheme(name, dtype), heads(5, 5, dtype), torch.arange(5)
    assert {x.dtype for x in position.rotate(q, k, pos, pos)} == {dtype}
    score, bias = position.score(q, pos, pos), position.bias(pos, pos)
    assert score is None or (score.dtype, score.shape) == (dtype, (2, H, 5, 5))
    heads_of_bias = 1 if name == "alibi uniform" else H
    assert bias is None or bias.shape == (heads_of_bias, 5, 5)
    assert attention(q, k, k, position=position).dtype == dtype


def test_position_itself_and_no_position_are_one():
    (q, k), pos = heads(5, 5), torch.arange(5)
    assert torch.equal(attention(q, k, k, position=Position()), attention(q, k, k))
    assert Position().bias(pos, pos) is Position().score(q, pos, pos) is None


@pytest.mark.parametrize("name", LEARNED)
def test_beyond_the_last_distance_all_are_one(name):
    position, pos = scheme(name), torch.arange(0, 4900, 490)
    q, k = (x[:, :, :1].expand(-1, -1, n, -1) for x, n in zip(heads(1, 1), (1, len(pos)), strict=True))
    got = logits(position, q, k, torch.tensor([5000]), pos)
    assert torch.allclose(got, got[..., :1].expand_as(got))
    ahead = logits(position, q, k, torch.tensor([-100]), pos)
    assert torch.allclose(ahead, ahead[..., :1].expand_as(ahead))
    assert not torch.allclose(ahead, got)
    now = logits(position, q, k, pos[:1], pos)  # distance 0, and then keys after the query
    assert torch.allclose(now, now[..., :1].expand_as(now)) == name.endswith("causal")


def test_rows_of_shaws_table():
    both, causal = ShawPosition(D, 3), ShawPosition(D, 3, bidirectional=False)
    distance = torch.arange(-5, 6)
    assert both.row(distance).tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6, 6, 6]
    assert causal.row(distance).tolist() == [0, 0, 0, 1, 2, 3, 3, 3, 3, 3, 3]
    assert (len(both.embedding.weight), len(causal.embedding.weight)) == (7, 4)


def test_slopes_fall_from_head_to_head_and_all_end_at_one():
    assert alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(1).tolist() == [2.0**-8]
    assert alibi_slopes(3).tolist() == [2.0**-4, 2.0**-8, 2.0**-2]
    pos = torch.tensor([0, 4, 9])
    assert AlibiPosition(5, slope=1 / 16).bias(pos, pos).tolist() == [
        [[-0.0, -4 / 16, -9 / 16], [-4 / 16, -0.0, -5 / 16], [-9 / 16, -5 / 16, -0.0]]
    ]
    assert not list(AlibiPosition(5).parameters()) + list(AlibiPosition(5).buffers())


class FiveAxes(Position):
    """A bias with an axis too many."""

    def bias(self, q_pos, k_pos):
        return torch.zeros(1, 2, H, len(q_pos), len(k_pos))


Q, POS = torch.zeros(2, H, 5, D), torch.arange(5)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: alibi_slopes(0), "n_heads=0; it must be 1 or more"),
        (lambda: AlibiPosition(-1), "n_heads=-1"),
        (lambda: AlibiPosition(2, slope=0.0), "slope=0.0; it must be above 0 and finite"),
        (lambda: AlibiPosition(2, slope=math.inf), "slope=inf"),
        (lambda: AlibiPosition(2, slope=math.nan), "slope=nan"),
        (lambda: AlibiPosition(2).bias(POS.float(), POS), "q_pos is torch.float32"),
        (lambda: AlibiPosition(2).bias(POS, POS[None, None]), "k_pos has shape (1, 1, 5); needed is (T,) or (B, T)"),
        (lambda: attention(Q, Q, Q, position=AlibiPosition(3)), "position: its bias has shape (3, 5, 5)"),
        (lambda: attention(Q, Q, Q, position=FiveAxes()), "position: its bias has shape (1, 2, 2, 5, 5)"),
        (lambda: T5Position(0), "n_heads=0"),
        (lambda: T5Position(2, 2), "n_buckets=2; needed are 4 or more, even if bidirectional"),
        (lambda: T5Position(2, 9), "n_buckets=9"),
        (lambda: T5Position(2, 1, bidirectional=False), "n_buckets=1; needed are 2 or more"),
        (lambda: T5Position(2, 32, 8), "max_distance=8; it must be above 8, where the single distances end"),
        (lambda: T5Position(2, 32, 16, bidirectional=False), "max_distance=16; it must be above 16"),
        (lambda: T5Position(2).bias(POS, POS.double()), "k_pos is torch.float64"),
        (lambda: T5Position(2).bias([0, 1], POS), "q_pos is list"),
        (lambda: attention(Q, Q, Q, position=T5Position(3)), "position: its bias has shape (3, 5, 5)"),
        (lambda: ShawPosition(0, 3), "head_dim=0; it must be 1 or more"),
        (lambda: ShawPosition(8, 0), "max_distance=0; it must be 1 or more"),
        (lambda: ShawPosition(4, 3).score(Q, POS, POS), "q is 8 wide; the vectors have head_dim=4"),
        (lambda: ShawPosition(8, 3).score(Q, POS[:4], POS), "q_pos has shape (4,); needed is (5,) or (2, 5)"),
        (lambda: ShawPosition(8, 3).score(Q, POS, POS.half()), "k_pos is torch.float16"),
        (lambda: MultiHeadAttention(16, 2, position=ShawPosition(4, 3))(torch.zeros(1, 5, 16)), "q is 8 wide"),
    ],
)  # fmt: skip
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: RotaryPosition(4, math.inf), "theta=inf"),
        (lambda: RotaryPosition(4, extension="ntk", factor=math.inf), "factor=inf"),
        (lambda: rotate_pairs(torch.ones(1, 4).long(), torch.ones(1, 2)), "x is torch.int64"),
        (lambda: SinusoidalPosition(8).embed(torch.ones(2, 3, 1), torch.arange(3)), "x has shape (2, 3, 1)"),
        (lambda: LearnedPosition(9, 8).embed(torch.ones(2, 3, 16), torch.arange(3)), "x has shape (2, 3, 16)"),
        (lambda: AlibiPosition(2).bias(torch.ones(2, 3).long(), torch.ones(3, 5).long()), "as many rows are needed"),
    ],
)
def test_what_cannot_be_is_named(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()


# --- by name ---

SIZES = {"d_model": 16, "n_heads": 2, "max_positions": 12}
MADE = {
    "rope": RotaryPosition, "alibi": AlibiPosition, "t5": T5Position, "shaw": ShawPosition,
    "sinusoidal": SinusoidalPosition, "learned": LearnedPosition, "none": Position,
}  # fmt: skip


def test_each_scheme_is_made_by_its_name():
    assert set(MADE) == set(POSITIONS)
    for name, kind in MADE.items():
        assert type(make(name, **SIZES, causal=True)) is kind
    rope = make("rope", **SIZES, causal=True, rotary_dim=4, rope_theta=50.0, rope_extension="ntk", rope_factor=2.0)
    assert (rope.rotary_dim, rope.theta, rope.extension, rope.factor) == (4, 50.0, "ntk", 2.0)
    assert make("rope", **SIZES, causal=True).rotary_dim == 8
    assert make("alibi", **SIZES, causal=True).slope is None
    assert make("alibi", **SIZES, causal=True, alibi_slopes="uniform").slope == 1 / 16
    for causal_ in (True, False):
        t5 = make("t5", **SIZES, causal=causal_, n_buckets=8, max_distance=20)
        shaw = make("shaw", **SIZES, causal=causal_, max_distance=5)
        assert (t5.n_buckets, t5.max_distance, t5.bidirectional) == (8, 20, not causal_)
        assert (shaw.max_distance, shaw.bidirectional, shaw.embedding.embedding_dim) == (5, not causal_, 8)
    assert make("learned", **SIZES, causal=True).embedding.weight.shape == (12, 16)
    with pytest.raises(ValueError, match="position='yarn'; allowed are 'rope', 'alibi', 't5'"):
        make("yarn", **SIZES, causal=True)
    with pytest.raises(ValueError, match="alibi_slopes='steep'; allowed are 'per_head', 'uniform'"):
        make("alibi", **SIZES, causal=True, alibi_slopes="steep")


def test_where_each_scheme_acts_in_a_model():
    for name, kind in MADE.items():
        before, in_blocks = spread(name, partial(make, name, **SIZES, causal=True), 3)
        embeds = name in ("sinusoidal", "learned")
        assert type(before) is (kind if embeds else Position)
        assert [type(scheme) for scheme in in_blocks] == [type(None) if embeds else kind] * 3
        assert len({id(scheme) for scheme in in_blocks}) == (3 if name == "shaw" else 1)
