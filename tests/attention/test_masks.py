"""The sparse patterns: each against its rule, pair by pair; counts against closed forms; how blocks are drawn."""

import pickle
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.attention import (
    GlobalLocalAttention,
    MultiHeadAttention,
    Pattern,
    attention,
    causal,
    dilated,
    draw_blocks,
    full,
    global_tokens,
    random_blocks,
    window,
)

DRAWN = torch.tensor([[2, -1], [-1, 3], [0, -1], [0, 1]])
RULES = {
    "full": (full, lambda i, j: True),
    "dilated(2, 3)": (dilated(2, 3), lambda i, j: abs(i - j) in (0, 3, 6)),
    "dilated(0, 4)": (dilated(0, 4), lambda i, j: i == j),
    "dilated(4, 1)": (dilated(4, 1), lambda i, j: abs(i - j) <= 4),
    "global_tokens(0, 5)": (global_tokens([5, 0, 5]), lambda i, j: i in (0, 5) or j in (0, 5)),
    "global_tokens()": (global_tokens(()), lambda i, j: False),
    "random_blocks(2 of 3)": (random_blocks(DRAWN, 3), lambda i, j: j // 3 in DRAWN[i // 3].tolist()),
    "((window(1) | global_tokens(0)) & causal)": (
        (window(1) | global_tokens([0])) & causal,
        lambda i, j: (abs(i - j) <= 1 or 0 in (i, j)) and j <= i,
    ),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_a_pattern_is_its_rule_pair_by_pair(name, dtype):
    pattern, rule = RULES[name]
    assert repr(pattern) == name
    q_pos, k_pos = torch.tensor([3, 0, 11, 5, 6], dtype=dtype), torch.tensor([9, 0, 2, 5, 4, 11], dtype=dtype)
    want = [[rule(i, j) for j in k_pos.tolist()] for i in q_pos.tolist()]
    assert pattern.dense(q_pos, k_pos).tolist() == want
    by_row = pattern.dense(torch.stack([q_pos, q_pos.flip(0)]), k_pos)
    assert by_row.tolist() == [want, want[::-1]]
    assert pattern.dense(q_pos[:0], k_pos).shape == (0, 6)


@pytest.mark.parametrize("length", [1, 2, 7, 30, 1025])
def test_pairs_are_counted_as_by_formula(length):
    n = length
    assert full.pairs(n) == n * n
    assert causal.pairs(n) == n * (n + 1) // 2
    for r in (0, 1, 3, 10):
        near = min(r, n - 1)
        assert window(r).pairs(n) == n * (2 * near + 1) - near * (near + 1)
        assert (causal & window(r)).pairs(n) == n * (near + 1) - near * (near + 1) // 2
        steps = [d for d in range(3, 3 * r + 1, 3) if d < n]
        assert dilated(r, 3).pairs(n) == n + 2 * sum(n - d for d in steps)
    for places in ([], [0], [0, 5]):
        g = sum(place < n for place in places)
        assert global_tokens(places).pairs(n) == n * n - (n - g) ** 2


def test_no_token_has_no_pair():
    assert full.pairs(0) == window(2).pairs(0) == 0


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 12), st.sampled_from([full, causal, window(3), dilated(2, 4), RULES]))
def test_blocks_that_hold_a_pair(length, block, pattern):
    pattern = global_tokens([0, 9]) if pattern is RULES else pattern
    n, pos = -(-length // block), torch.arange(length)
    dense, got = pattern.dense(pos, pos), pattern.blocks(length, block)
    assert got.shape == (n, n)
    assert got.dtype == torch.bool
    for i in range(n):
        for j in range(n):
            part = dense[i * block : (i + 1) * block, j * block : (j + 1) * block]
            assert got[i, j] == part.any()


def test_blocks_of_a_window_are_three_diagonals():
    assert window(16).blocks(80, 16).tolist() == [[abs(i - j) <= 1 for j in range(5)] for i in range(5)]
    assert window(17).blocks(80, 16).sum() == 5 + 2 * 4 + 2 * 3


# --- random blocks ---


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 30), st.integers(0, 34), st.integers(0, 10**6))
def test_drawn_blocks_are_no_neighbours_and_no_two_are_the_same(n_blocks, n_random, seed):
    torch.manual_seed(seed)
    state = torch.random.get_rng_state()
    blocks = draw_blocks(n_blocks, n_random, seed)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)  # the draw does not depend on the global generator
    assert torch.equal(draw_blocks(n_blocks, n_random, seed), blocks)
    assert blocks.shape == (n_blocks, n_random)
    assert blocks.dtype == torch.int64
    for i, row in enumerate(blocks.tolist()):
        named = [j for j in row if j >= 0]
        possible = [j for j in range(n_blocks) if abs(i - j) > 1]
        assert len(set(named)) == len(named) == min(n_random, len(possible))  # full where possible
        assert set(named) <= set(possible)
        assert row == sorted(row)  # -1 comes first
        assert row.count(-1) == n_random - len(named)


def test_each_block_is_drawn_about_as_often():
    counts = torch.zeros(20, 20)
    for seed in range(200):
        blocks = draw_blocks(20, 3, seed)
        counts.scatter_add_(1, blocks, torch.ones(20, 3))
    places = torch.arange(20)
    far = (places[:, None] - places).abs() > 1
    assert counts[~far].sum() == 0
    expected = 200 * 3 / far.sum(1, keepdim=True)  # 33 to 35
    assert ((counts - expected)[far].abs() < 30).all()  # five standard deviations
    assert counts.sum() == 200 * 20 * 3
    assert not torch.equal(draw_blocks(20, 3, 0), draw_blocks(20, 3, 1))


def test_the_draw_is_a_recorded_number():
    """Trained weights depend on it."""
    assert draw_blocks(8, 2, 0).tolist() == DRAW


DRAW = [[5, 7], [3, 7], [5, 7], [1, 7], [6, 7], [2, 7], [2, 3], [4, 5]]


def test_a_row_of_no_block_sees_nothing():
    q = torch.randn(1, 1, 6, 4)
    blocks = torch.tensor([[-1], [0]])
    _, weights = attention(q, q, q, mask=random_blocks(blocks, 3), impl="explicit", return_weights=True)
    assert (weights[0, 0] > 0).tolist() == [[False] * 6] * 3 + [[True] * 3 + [False] * 3] * 3


POS = torch.arange(5)
NUMBERS = Pattern("mine", lambda q_pos, k_pos: (k_pos <= q_pos).float())
BOOL = Pattern("yes", lambda q_pos, k_pos: True)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: dilated(-1, 2), "radius=-1; it must be 0 or more"),
        (lambda: dilated(2, 0), "dilation=0; it must be 1 or more"),
        (lambda: global_tokens([3, -1]), "places=-1; it must be 0 or more"),
        (lambda: draw_blocks(-1, 2, 0), "n_blocks=-1; it must be 0 or more"),
        (lambda: draw_blocks(3, -1, 0), "n_random=-1; it must be 0 or more"),
        (lambda: random_blocks(DRAWN, 0), "block=0; it must be 1 or more"),
        (lambda: random_blocks(DRAWN.int(), 2), "blocks is torch.int32 (4, 2); needed is int64 (n_blocks, n_random)"),
        (lambda: random_blocks(DRAWN[0], 2), "blocks is torch.int64 (2,); needed is int64"),
        (lambda: full.blocks(5, 0), "block=0; it must be 1 or more"),
        (lambda: NUMBERS.pairs(5), "allowed of the pattern mine gives torch.float32; needed is a bool tensor"),
        (lambda: (causal & NUMBERS).dense(POS, POS), "allowed of the pattern mine gives torch.float32; needed"),
        (lambda: (NUMBERS | causal).dense(POS, POS), "allowed of the pattern mine gives torch.float32; needed"),
        (lambda: (causal & BOOL).dense(POS, POS), "allowed of the pattern yes gives bool; needed is a bool tensor"),
    ],
)
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()


def test_a_pattern_that_gives_another_shape_names_itself():
    by_head = Pattern("heads", lambda q, k: (q - k).abs()[None] <= torch.arange(4)[:, None, None])
    for pattern in (by_head, Pattern("fixed", lambda q, k: torch.ones(3, 7, dtype=torch.bool))):
        with pytest.raises(ValueError, match=f"allowed of the pattern {pattern.name} gives"):
            pattern.dense(torch.arange(5), torch.arange(5))


def test_a_huge_radius_is_full_for_all_kinds_of_positions():
    for dtype in (torch.int32, torch.int64):
        places = torch.tensor([0, 1, 2**31 - 1], dtype=dtype)
        assert window(10**19).dense(places, places).all()
        assert window(5).dense(places, places).sum() == 5


def test_no_block_allows_nothing():
    nothing = random_blocks(torch.full((2, 1), -1), 16)
    assert not nothing.dense(torch.arange(32), torch.arange(32)).any()
    with pytest.raises(ValueError, match="k_pos goes from -16 to -1; blocks end at 32"):
        nothing.dense(torch.arange(16), torch.arange(-16, 0))


@pytest.mark.parametrize("radius", [20.0, True, "3", None, float("nan")])
def test_a_radius_is_a_whole_number(radius):
    with pytest.raises(ValueError, match="a whole number"):
        window(radius)


@pytest.mark.parametrize(
    "pattern",
    [
        causal, full, window(3), dilated(2, 3), global_tokens([0, 4]), causal & window(2) | global_tokens([1]),
        random_blocks(draw_blocks(8, 1, 0), 4),
    ],
    ids=str,
)  # fmt: skip
def test_a_pattern_is_pickled(pattern):
    places, back = torch.arange(30), pickle.loads(pickle.dumps(pattern))
    assert torch.equal(back.dense(places, places), pattern.dense(places, places))
    assert (back.name, back.reach) == (pattern.name, pattern.reach)
    module = MultiHeadAttention(8, 2, mask=pattern)
    assert torch.equal(pickle.loads(pickle.dumps(module))(torch.ones(1, 30, 8)), module(torch.ones(1, 30, 8)))


def test_the_triangle_of_a_pickled_model_is_still_the_kernels():
    assert pickle.loads(pickle.dumps(causal)) == causal
    assert pickle.loads(pickle.dumps(GlobalLocalAttention(8, 2, 3, mask=window(2)))).mask.name == "window(2)"
