"""Lesson 04: solutions of its exercises pass, natural mistakes are told apart, stubs are no errors."""

import math
import re
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from course_lib import attention as library
from course_lib import pretrained
from course_lib.attention import Pattern, causal, global_tokens, local_attention, random_blocks
from course_lib.attention import window as library_window
from course_lib.attention.online import Running
from course_lib.lessons.local_and_global_attention import exercises as check
from course_lib.lessons.local_and_global_attention.exercises.blocks import _blocked, as_attention_fn
from course_lib.lessons.local_and_global_attention.exercises.reach import _hops
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.models.sparse_bert import SparseBert, SparseBertConfig
from course_lib.training import windows
from tests.conftest import ROOT, load_file
from tests.exercises.cases import expect_answer_to_stub, expect_own_message, pairs, with_declared

pytestmark = pytest.mark.slow  # learners' functions run in whole models

SOLUTIONS = load_file(ROOT / "solutions" / "04_local_and_global_attention.py")


def in_blocks_of_16(low):
    """Longer blocks than the radius needs, and what hides a score: with -inf, queries of the padding see no key."""

    def fn(q, k, v, radius):
        length = q.shape[2]
        n = -(-length // 16)
        q, k, v = (F.pad(x, (0, 0, 0, n * 16 - length)).unflatten(2, (n, 16)) for x in (q, k, v))
        k, v = (F.pad(x, (0, 0, 0, 0, 1, 1)) for x in (k, v))
        k, v = (torch.cat([x[:, :, i : i + n] for i in range(3)], 3) for x in (k, v))
        begin = torch.arange(n)[:, None, None] * 16
        q_pos, k_pos = begin + torch.arange(16)[:, None], begin + torch.arange(-16, 32)
        allowed = ((q_pos - k_pos).abs() <= radius) & (k_pos >= 0) & (k_pos < length)
        weights = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~allowed, low).softmax(-1)
        return (weights @ v).flatten(2, 3)[:, :, :length]

    return fn


def every_block_sees_all(q, k, v, radius):
    """Right values, no large tensor, and still all pairs."""
    rows = []
    for begin in range(0, q.shape[2], radius):
        part = q[:, :, begin : begin + radius]
        apart = (torch.arange(begin, begin + part.shape[2])[:, None] - torch.arange(q.shape[2])).abs()
        scores = (part @ k.mT / q.shape[-1] ** 0.5).masked_fill(apart > radius, -torch.inf)
        rows.append(scores.softmax(-1) @ v)
    return torch.cat(rows, 2)


def dense(q, k, v, radius):
    return local_attention(q, k, v, radius, impl="dense")


def own_softmax_first(running, logits, values):
    """The tile's own maximum first, joined afterwards: right, but for a tile that is all hidden."""
    own = logits.amax(-1, True)
    powers = (logits - own).exp()
    maximum = torch.maximum(running.maximum, own)
    old, new = (running.maximum - maximum).exp(), (own - maximum).exp()
    return Running(
        maximum, old * running.total + new * powers.sum(-1, True), old * running.output + new * (powers @ values)
    )


def unsafe_powers(running, logits, values):
    """exp of the bare logits, scaled down afterwards: equal on paper."""
    maximum = torch.maximum(running.maximum, logits.amax(-1, True))
    old, powers = (running.maximum - maximum).exp(), logits.exp() * (-maximum).exp()
    return Running(maximum, old * running.total + powers.sum(-1, True), old * running.output + powers @ values)


def layers_of(allowed):
    """Hops by powers of the map."""
    steps, power = torch.full(allowed.shape, -1), torch.eye(len(allowed))
    for layer in range(len(allowed)):
        steps[(power > 0) & (steps < 0)] = layer
        power = (allowed.float() @ power > 0).float()
    return steps


def until_all_are_reached(allowed):
    known, steps, layer = torch.eye(len(allowed), dtype=torch.bool), torch.zeros(allowed.shape, dtype=torch.int64), 0
    while not known.all():
        layer += 1
        after = known | (allowed.float() @ known.float() > 0)
        steps[after & ~known] = layer
        known = after
    return steps


OTHERS = {
    "window": {
        "holds numbers, torch.float32": lambda *args: SOLUTIONS.window(*args).float(),
        "`and`, `or` and": lambda q, k, r, c: -r <= q - k <= r,
        "positions that do not count from 0, the result": lambda q, k, r, c: SOLUTIONS.window(
            torch.arange(q.shape[-2]).unsqueeze(-1), torch.arange(k.shape[-1]), r, c
        ),
        "For two sequences": lambda q, k, r, c: SOLUTIONS.window(q, k, r, c)[(0,) * (q.ndim - 2)].expand(
            torch.broadcast_shapes(q.shape, k.shape)
        ),
        "compare them as they are": lambda q, k, r, c: SOLUTIONS.window(q.unsqueeze(-1), k.unsqueeze(-2), r, c),
        "Is the 5 of the first check": lambda q, k, r, c: SOLUTIONS.window(q, k, 5, c),
        "query 0 and key 0 give False": lambda q, k, r, c: SOLUTIONS.window(q, k, r, c) & ((q != k) | c),
    },
    "count_pairs": {
        "For length 16, radius 3 and 0 global tokens you count 1 pairs; the pattern has 100": lambda T, r, g: 1,
        "Return one number": lambda T, r, g: [T],
    },
    "local": {
        "You return 16 rows for 14 tokens": lambda q, k, v, r: F.pad(
            SOLUTIONS.local(q, k, v, r), (0, 0, 0, -q.shape[2] % r)
        ),
        "You return 12 rows for 14 tokens": lambda q, k, v, r: SOLUTIONS.local(
            *(x[:, :, : max(x.shape[2] // r, 1) * r] for x in (q, k, v)), r
        ),
        "fill the last block up first, with `F.pad`": lambda q, k, v, r: SOLUTIONS.local(
            q.unflatten(2, (-1, r)).flatten(2, 3), k, v, r
        ),
        "0 · nan comes back": in_blocks_of_16(-torch.inf),
        "shape (2048, 2048) is made": dense,
        "Does each block look at the whole text": every_block_sees_all,
        "no gradient reaches v": lambda q, k, v, r: SOLUTIONS.local(q, k, v.detach(), r),
        "differs most": lambda q, k, v, r: v,
    },
    "add_tile": {
        "keep the last axis": lambda run, x, v: (x.amax(-1), run.total, run.output),
        "Return three things": lambda run, x, v: x,
        "With logits near 1,000 exp overflows": unsafe_powers,
        "With a tile that is all hidden, you get nan": own_softmax_first,
        "argument number 2 in place": lambda run, x, v: SOLUTIONS.add_tile(run, x.sub_(1.0), v),
        "no gradient reaches v": lambda run, x, v: SOLUTIONS.add_tile(run, x, v.detach()),
    },
    "hops": {
        "Your loop does not end": until_all_are_reached,
        "needed are whole numbers": lambda allowed: SOLUTIONS.hops(allowed).float(),
        "token 0 knows of token 1 after 1 layers; yours says 5": lambda allowed: torch.full_like(
            allowed, 5, dtype=torch.int64
        ).fill_diagonal_(0),
    },
}
WRONG = with_declared(check, OTHERS)


@pytest.mark.parametrize("name", WRONG)
def test_solutions_pass(name):
    result = getattr(check, name)(getattr(SOLUTIONS, name))
    assert result.ok is True, result
    assert repr(result).startswith("✓ Right")


def test_what_the_praise_says():
    assert "127,936 of the 1,048,576 pairs" in check.window(SOLUTIONS.window).message
    assert "532,286 pairs, 3.2%" in check.count_pairs(SOLUTIONS.count_pairs).message
    assert "4.0 times as many numbers" in check.local(SOLUTIONS.local).message
    assert "window(16) 16, window(16) | global_tokens([0]) 2, BigBird 2," in check.hops(SOLUTIONS.hops).message


@pytest.mark.parametrize(("name", "words"), pairs(WRONG))
def test_mistake_has_its_message(name, words):
    expect_own_message(check, WRONG, name, words)


@pytest.mark.parametrize("name", [*WRONG, "design"])
def test_a_stub_and_an_error_are_answers_not_tracebacks(name):
    expect_answer_to_stub(getattr(check, name))
    assert getattr(check, name)(lambda *args: {}["no such key"]).ok is False


def test_other_right_answers():
    assert check.local(lambda q, k, v, r: local_attention(q, k, v, r, impl="unfold")).ok
    assert check.local(in_blocks_of_16(torch.finfo(torch.float32).min)).ok
    assert check.local(partial(_blocked, wrap=True)).ok  # a ring, harmless with both bounds hidden
    assert check.count_pairs(lambda T, r, g: (library_window(r) | global_tokens(range(g))).pairs(T)).ok
    assert check.add_tile(lambda *a: tuple(SOLUTIONS.add_tile(*a))).ok

    def in_place(running, logits, values):
        maximum = torch.maximum(running.maximum, logits.amax(-1, True)).detach()
        shrink, powers = (running.maximum - maximum).exp(), (logits - maximum).exp()
        running.total.mul_(shrink).add_(powers.sum(-1, True))
        return Running(maximum, running.total, running.output.mul_(shrink) + powers @ values)

    assert check.add_tile(in_place).ok
    assert check.hops(layers_of).ok


@pytest.mark.parametrize("radius", [1, 3, 16])
def test_hops_of_a_window_are_distance_by_radius(radius):
    places = torch.arange(50)
    want = torch.ceil((places[:, None] - places).abs() / radius).long()
    torch.testing.assert_close(_hops(library_window(radius).dense(places, places)), want)


def test_of_two_missing_bounds_the_first_is_named():
    """In the first check all blocks are full: the end of the padding is that of the text."""
    result = check.local(partial(_blocked, bounds=(False, "padding")))
    assert result.ok is False
    assert result.message.endswith("exp(0) = 1: they take weight. Hide places below 0: the block before the first.")


def test_design():
    for answer in ("pattern", "pattern_without_hubs", "pattern_of_a_box"):
        result = check.design(getattr(SOLUTIONS, answer))
        assert result.ok, result
        assert check.design(getattr(SOLUTIONS, answer), most=32).ok is (answer != "pattern")
    assert "after 3 layers" in result.message
    assert "seen by 256 queries; allowed are 32" in check.design(SOLUTIONS.pattern, most=32).message
    wrong = {
        "It needs 16 layers: token 0 hears of token 241 only then": lambda: library_window(16),
        "65,536 pairs, 100.0% are too many": lambda: library.full,
        "10,454 pairs, 16.0% and 2 layers are too many": lambda: (
            library_window(16) | global_tokens([0, 100, 200, 240, 255])
        ),
        "Token 0 never hears of token 1, nor do 32,639 other pairs meet": lambda: causal & library_window(20),
        "You return a function": lambda: lambda q_pos, k_pos: q_pos == k_pos,
        "You return a Tensor": lambda: torch.ones(256, 256, dtype=torch.bool),
        "Your pattern stopped with ValueError": lambda: Pattern("mine", lambda q_pos, k_pos: q_pos - k_pos),
        "blocks end at 32": lambda: random_blocks(torch.zeros(2, 1, dtype=torch.int64), 16),
    }
    for words, fn in wrong.items():
        result = check.design(fn)
        assert result.ok is False
        assert words in result.message, result.message
    both = check.design(lambda: causal).message
    assert "never hears" in both
    assert "50.2% are too many" in both


@pytest.fixture(scope="module")
def encoder():
    config = SparseBertConfig(vocab_size=60, d_model=24, n_heads=3, n_layers=2, pattern="local", radius=4, dropout=0.1)
    return SparseBert(config).eval()


def test_injection_runs_in_the_encoder(encoder):
    windows = torch.randint(10, 60, (4, 32))
    before = {name: p.clone() for name, p in encoder.named_parameters()}
    result = check.injected(SOLUTIONS.local, encoder, windows)
    assert result.ok, result
    assert "all 2 layers, with radius 4: loss" in result.message
    assert all(torch.equal(p, before[name]) for name, p in encoder.named_parameters())
    assert check.injected(SOLUTIONS.local, encoder.with_pattern(pattern="local_global"), windows).ok
    assert check.injected(lambda *args: None, encoder, windows).ok is None
    for words, wrong in {
        "other answers: logits differ by": partial(_blocked, far="<"),
        "the result of your function has shape (4, 3, 32, 8)": WRONG["local"]["You return 16 rows for 14 tokens"],
        "no gradient reaches blocks.1.attention.v_proj.weight": WRONG["local"]["no gradient reaches v"],
        "is a list": lambda q, k, v, r: [q],
    }.items():
        result = check.injected(wrong, encoder, windows)
        assert result.ok is False
        assert words in result.message or "gradient" in words, result.message
        assert "gradient" in result.message or "gradient" not in words


def test_injection_runs_in_the_shipped_models():
    """Short windows: each of the two trains for ten steps."""
    encoder, gpt2 = pretrained.load("sparse-bert-tiny"), pretrained.load("gpt2-english")
    held_out = windows(("speeches",), "validation", 40)[:2]
    for result in (
        check.injected(SOLUTIONS.local, encoder, held_out),
        check.injected_online(SOLUTIONS.add_tile, gpt2, held_out, tile=16),
    ):
        assert result.ok, result
        assert "all 4 layers" in result.message
        loss, after = (float(x) for x in re.findall(r"(?:: loss|the loss is) ([\d.]+)", result.message)[::2])
        assert after < loss < math.log(4000)


def test_the_adapter_refuses_what_the_function_does_not_take():
    fn = as_attention_fn(SOLUTIONS.local, 3)
    q, k, v = (torch.randn(2, 2, 10, 4) for _ in range(3))
    torch.testing.assert_close(fn(q, k, v), dense(q, k, v, 3))
    with pytest.raises(ValueError, match="mask, scale: the exercise's function takes"):
        fn(q, k, v, mask=causal, scale=1.0)


def test_injection_runs_in_gpt2():
    model = GPT2(GPT2Config(vocab_size=60, max_positions=32, d_model=24, n_heads=3, n_layers=2)).eval()
    windows = torch.randint(60, (4, 20))
    result = check.injected_online(SOLUTIONS.add_tile, model, windows, tile=8)
    assert result.ok, result
    assert "tiles of 8 in all 2 layers" in result.message
    assert check.injected_online(lambda *args: None, model, windows).ok is None
    wrong = check.injected_online(lambda run, x, v: SOLUTIONS.add_tile(run, x, 2 * v), model, windows, tile=8)
    assert wrong.ok is False
    assert "other answers: logits differ by" in wrong.message
