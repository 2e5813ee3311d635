"""Lesson 04: solutions of its exercises pass, natural mistakes are told apart, stubs are no errors."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from course_lib import attention as library
from course_lib import pretrained
from course_lib.attention import Pattern, causal, global_tokens, local_attention, random_blocks
from course_lib.attention import window as library_window
from course_lib.attention.online import Running
from course_lib.lessons.local_and_global_attention import exercises as check
from course_lib.lessons.local_and_global_attention.exercises.blocks import as_attention_fn
from course_lib.lessons.local_and_global_attention.exercises.reach import _hops
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.models.sparse_bert import SparseBert, SparseBertConfig
from course_lib.training import windows
from tests.conftest import ROOT, load_file
from tests.exercises.cases import expect_answer_to_stub, expect_own_message

SOLUTIONS = load_file(ROOT / "solutions" / "04_local_and_global_attention.py")
SIMPLE = ["window", "count_pairs", "local", "add_tile", "hops"]


def windowed(two_sided, one_sided=None):
    """A window with one thing changed: both get q_pos - k_pos."""

    def fn(q_pos, k_pos, radius, causal):
        ahead = q_pos - k_pos
        if causal and one_sided:
            return one_sided(ahead, radius)
        near = two_sided(ahead, radius)
        return near & (ahead >= 0) if causal else near

    return fn


def near(ahead, radius):
    return ahead.abs() <= radius


def enclosed(q_pos, k_pos, radius, causal):
    return -radius <= q_pos - k_pos <= radius


def loop(count):
    """Count pairs one by one: count(query, key, near, n_global) is how often a pair counts."""

    def fn(length, radius, n_global):
        places = range(length)
        return sum(count(i, j, abs(i - j) <= radius, n_global) for i in places for j in places)

    return fn


def formula(inside=lambda n, r: n * (2 * r + 1) - r * (r + 1), both=lambda T, g: 2 * T * g - g * g, apart=True):
    """The closed form with one part changed; `apart`: the window is that of the other tokens alone."""
    return lambda T, r, g: inside(T - g if apart else T, min(r, max(T - g - 1, 0))) + both(T, g)


def three_blocks(x, wrap=False, near=(-1, 0, 1)):
    if wrap:
        return torch.cat([x.roll(-i, 2) for i in near], 3)
    padded = F.pad(x, (0, 0, 0, 0, 1, 1))
    return torch.cat([padded[:, :, 1 + i : 1 + i + x.shape[2]] for i in near], 3)


def blocked(mask=None, wrap=False, near=(-1, 0, 1), cut=True, fill=None, scale=None, w=None, pad=True):
    """Blocked local attention with one thing changed: mask(q_pos, k_pos, length, radius) says what may attend."""

    def fn(q, k, v, radius):
        length, block = q.shape[2], w or radius
        n = -(-length // block)
        if pad:
            q, k, v = (F.pad(x, (0, 0, 0, n * block - length)) for x in (q, k, v))
        q, k, v = (x.unflatten(2, (n, block)) for x in (q, k, v))
        begin, places = torch.arange(n)[:, None, None] * block, torch.arange(block)
        k_pos = begin + torch.cat([places + i * block for i in near])
        allowed = (mask or inside)(begin + places[:, None], k_pos, length, radius)
        scores = q @ three_blocks(k, wrap, near).mT * (q.shape[-1] ** -0.5 if scale is None else scale)
        weights = scores.masked_fill(~allowed, torch.finfo(q.dtype).min if fill is None else fill).softmax(-1)
        y = (weights @ three_blocks(v, wrap, near)).flatten(2, 3)
        return y[:, :, :length] if cut else y

    return fn


def far(q_pos, k_pos):
    return (q_pos - k_pos).abs()


def inside(q_pos, k_pos, length, radius):
    return (far(q_pos, k_pos) <= radius) & (k_pos >= 0) & (k_pos < length)


def only(condition):
    """The window, and a condition on the keys' places instead of both bounds."""
    return lambda q_pos, k_pos, length, radius: (far(q_pos, k_pos) <= radius) & condition(k_pos, length, radius)


def in_concatenation(bounded):
    """Places counted from the beginning of what is looked at: the mask of one block, the same for all."""

    def mask(q_pos, k_pos, length, radius):
        near = (torch.arange(q_pos.shape[-2])[:, None] - torch.arange(k_pos.shape[-1])).abs() <= radius
        return near & (k_pos >= 0) & (k_pos < length) if bounded else near.expand(len(k_pos), -1, -1)

    return mask


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


def tile(change):
    """A step with parts changed; change(running, logits, values, new maximum) gives those that differ."""

    def fn(running, logits, values):
        right = SOLUTIONS.add_tile(running, logits, values)
        return right._replace(**change(running, logits, values, right.maximum))

    return fn


def with_maximum(choose):
    """A step that is right for the maximum chosen."""

    def fn(running, logits, values):
        maximum = choose(running, logits)
        shrink, powers = (running.maximum - maximum).exp(), (logits - maximum).exp()
        return Running(
            maximum, shrink * running.total + powers.sum(-1, keepdim=True), shrink * running.output + powers @ values
        )

    return fn


def top(logits):
    return logits.amax(-1, keepdim=True)


def sums(powers):
    return powers.sum(-1, keepdim=True)


def own_softmax_first(running, logits, values):
    """The tile's own maximum first, joined afterwards: right, but for a tile that is all hidden."""
    own = top(logits)
    powers = (logits - own).exp()
    maximum = torch.maximum(running.maximum, own)
    old, new = (running.maximum - maximum).exp(), (own - maximum).exp()
    return Running(maximum, old * running.total + new * sums(powers), old * running.output + new * (powers @ values))


def unsafe_powers(running, logits, values):
    """exp of the bare logits, scaled down afterwards: equal on paper."""
    maximum = torch.maximum(running.maximum, top(logits))
    old, powers = (running.maximum - maximum).exp(), logits.exp() * (-maximum).exp()
    return Running(maximum, old * running.total + sums(powers), old * running.output + powers @ values)


def layers_of(allowed, start=0, never=-1, last=math.inf, itself=True):
    """Hops by powers of the map; `itself`: a token keeps what it knows, and knows itself from the start."""
    T = len(allowed)
    steps, power = torch.full((T, T), never), torch.eye(T)
    if itself:
        steps[power > 0] = start
    reached = power > 0 if itself else torch.zeros(T, T, dtype=torch.bool)
    for layer in range(1, 2 * T):
        if layer > last:
            break
        power = (allowed.float() @ power > 0).float()
        new = (power > 0) & ~reached
        steps[new] = start + layer
        reached |= new
    return steps


def until_all_are_reached(allowed):
    known, steps, layer = torch.eye(len(allowed), dtype=torch.bool), torch.zeros(allowed.shape, dtype=torch.int64), 0
    while not known.all():
        layer += 1
        after = known | (allowed.float() @ known.float() > 0)
        steps[after & ~known] = layer
        known = after
    return steps


WRONG = {
    "window": {
        "with <=, not with <": windowed(lambda a, r: a.abs() < r),
        "half of the radius": windowed(lambda a, r: 2 * a.abs() <= r),
        "inverted": windowed(lambda a, r: a.abs() > r),
        "all of the future is near": windowed(lambda a, r: a <= r),
        "all of the past is near": windowed(lambda a, r: -a <= r),
        "Only one side is seen": windowed(lambda a, r: (a >= 0) & (a <= r)),
        "Only the side after a query": windowed(lambda a, r: (a <= 0) & (a >= -r)),
        "Rows and columns are swapped": windowed(near, lambda a, r: near(a, r) & (a <= 0)),
        "the future is still visible": windowed(near, near),
        "the window is gone": windowed(near, lambda a, r: a >= 0),
        "A token must see itself": windowed(near, lambda a, r: near(a, r) & (a > 0)),
        "The result holds numbers, torch.float32": windowed(lambda a, r: near(a, r).float(), lambda a, r: near(a, r)),
        "The result holds numbers, torch.int64": windowed(lambda a, r: near(a, r) * 1),
        "`&` and `|`, with each comparison in brackets": enclosed,
        "For positions that do not count from 0": lambda q, k, r, c: windowed(near)(
            torch.arange(q.shape[-2])[:, None], torch.arange(k.shape[-1])[None], r, c
        ),
        "For two sequences": lambda q, k, r, c: windowed(near)(q, k, r, c)[(0,) * (q.ndim - 2)].expand(
            torch.broadcast_shapes(q.shape, k.shape)
        ),
        "compare them as they are": lambda q, k, r, c: windowed(near)(q.unsqueeze(-1), k.unsqueeze(-2), r, c),
        "Is the 5 of the first check": lambda q, k, r, c: windowed(near)(q, k, 5, c),
        "binds more tightly than": lambda q, k, r, c: (q - k).abs() <= (r & (k <= q)) if c else (q - k).abs() <= r,
        "query 0 and key 0 give False": windowed(lambda a, r: near(a, r) & (a != 0), near),
    },
    "count_pairs": {
        "the edges are forgotten: the first": formula(inside=lambda n, r: n * (2 * r + 1)),
        "pair with itself is missing": formula(inside=lambda n, r: n * 2 * r - r * (r + 1)),
        "each pair is counted once": loop(lambda i, j, near, g: (near or min(i, j) < g) and i <= j),
        "counted twice, as window and as global": loop(lambda i, j, near, g: near + (min(i, j) < g)),
        "some pairs are counted twice": loop(lambda i, j, near, g: near + (i < g) + (j < g)),
        "they are in a row and in a column": formula(both=lambda T, g: 2 * T * g),
        "global rows or columns are forgotten: global": loop(lambda i, j, near, g: near or j < g),
        "columns are forgotten, and near pairs": loop(lambda i, j, near, g: near + (j < g)),
        "global tokens are not counted": loop(lambda i, j, near, g: near),
        "Where the radius is longer": lambda T, r, g: (T - g) * (2 * r + 1) - r * (r + 1) + 2 * T * g - g * g,
        "For length 16, radius 3 and 0 global tokens you count 1 pairs; the pattern has 100": lambda T, r, g: 1,
        "Return one number": lambda T, r, g: [T],
    },
    "local": {
        "The first block sees the end of the text, and": blocked(only(lambda k, n, r: k == k), wrap=True),
        "The first block sees the end of the text.": blocked(only(lambda k, n, r: k < n), wrap=True),
        "The last block sees the beginning": blocked(only(lambda k, n, r: k >= 0), wrap=True),
        "Hide places below 0 and from T on": blocked(only(lambda k, n, r: k == k)),
        "Hide places below 0: the block before": blocked(only(lambda k, n, r: k < n)),
        "Hide places from T on: the block after": blocked(only(lambda k, n, r: k >= 0)),
        "Hide the rest of the last block": blocked(only(lambda k, n, r: (k >= 0) & (k < -(-n // r) * r))),
        "with <=, not with <": blocked(lambda q, k, n, r: inside(q, k, n, r) & (far(q, k) < r)),
        "No window is cut": blocked(lambda q, k, n, r: ((k >= 0) & (k < n)).expand(-1, r, -1)),
        "There is no mask at all": blocked(lambda q, k, n, r: far(q, k) >= 0),
        "keys from the beginning of the block before": blocked(in_concatenation(True)),
        "at i + radius among its keys": blocked(in_concatenation(False)),
        "The block after is missing": blocked(near=(-1, 0)),
        "The block before is missing": blocked(near=(0, 1)),
        "Each block sees only itself": blocked(near=(0,)),
        "scale 1/sqrt(D) is missing": blocked(scale=1.0),
        "You divide by D": blocked(scale=1 / 8),
        "that is full attention": lambda q, k, v, r: library.attention(q, k, v),
        "You return 16 rows for 14 tokens": blocked(cut=False),
        "You return 12 rows for 14 tokens": lambda q, k, v, r: SOLUTIONS.local(
            *(x[:, :, : max(x.shape[2] // r, 1) * r] for x in (q, k, v)), r
        ),
        "fill the last block up first, with `F.pad`": blocked(pad=False),
        "0 · nan comes back": blocked(fill=-torch.inf, w=16),
        "shape (2048, 2048) is made": dense,
        "Does each block look at the whole text": every_block_sees_all,
        "no gradient reaches v": lambda q, k, v, r: SOLUTIONS.local(q, k, v.detach(), r),
        "differs most": lambda q, k, v, r: v,
    },
    "add_tile": {
        "old total is not rescaled. It was": tile(
            lambda run, x, v, m: {"total": run.total + sums((x - m).exp())},
        ),
        "The old output is not rescaled": tile(lambda run, x, v, m: {"output": run.output + (x - m).exp() @ v}),
        "The maximum is that of the tile alone": with_maximum(lambda run, x: top(x)),
        "The maximum stays where it was": with_maximum(lambda run, x: run.maximum),
        "the smaller one": with_maximum(lambda run, x: torch.minimum(run.maximum, top(x))),
        "taken over all queries": with_maximum(
            lambda run, x: torch.maximum(run.maximum, x.amax().expand_as(run.maximum))
        ),
        "The maximum is not subtracted: exp(89)": tile(
            lambda run, x, v, m: {"total": (run.maximum - m).exp() * run.total + sums(x.exp())}
        ),
        "not subtracted, and the old total": tile(lambda run, x, v, m: {"total": run.total + sums(x.exp())}),
        "The factor is upside down": tile(
            lambda run, x, v, m: {"total": (m - run.maximum).exp() * run.total + sums((x - m).exp())}
        ),
        "yours use the tile's own": tile(
            lambda run, x, v, m: {"total": (run.maximum - m).exp() * run.total + sums((x - top(x)).exp())}
        ),
        "The old total is forgotten": tile(lambda run, x, v, m: {"total": sums((x - m).exp())}),
        "rescale the new powers too": tile(
            lambda run, x, v, m: {"total": (run.maximum - m).exp() * (run.total + sums((x - m).exp()))}
        ),
        "divided by the total already": lambda *a: (r := SOLUTIONS.add_tile(*a))._replace(output=r.output / r.total),
        "factor of the output is upside down": tile(
            lambda run, x, v, m: {"output": (m - run.maximum).exp() * run.output + (x - m).exp() @ v}
        ),
        "not subtracted in the output": tile(
            lambda run, x, v, m: {"output": (run.maximum - m).exp() * run.output + x.exp() @ v}
        ),
        "the new maximum in the output too": tile(
            lambda run, x, v, m: {"output": (run.maximum - m).exp() * run.output + (x - top(x)).exp() @ v}
        ),
        "The old output is forgotten": tile(lambda run, x, v, m: {"output": (x - m).exp() @ v}),
        "softmax of its own": tile(
            lambda run, x, v, m: {"output": (run.maximum - m).exp() * run.output + x.softmax(-1) @ v}
        ),
        "only the old output needs it": tile(
            lambda run, x, v, m: {"output": (run.maximum - m).exp() * (run.output + (x - m).exp() @ v)}
        ),
        "keep the last axis": lambda run, x, v: (x.amax(-1), run.total, run.output),
        "Return three things": lambda run, x, v: x,
        "With logits near 1,000 exp overflows": unsafe_powers,
        "With a tile that is all hidden, you get nan": own_softmax_first,
        "argument number 2 in place": lambda run, x, v: SOLUTIONS.add_tile(run, x.sub_(1.0), v),
        "no gradient reaches v": lambda run, x, v: SOLUTIONS.add_tile(run, x, v.detach()),
    },
    "hops": {
        "rows and columns are swapped": lambda allowed: layers_of(allowed).mT,
        "a token needs no layer to know of itself": lambda allowed: layers_of(allowed, itself=False),
        "one layer too many": lambda allowed: torch.where(layers_of(allowed) < 0, -1, layers_of(allowed) + 1),
        "one layer too few": lambda allowed: (layers_of(allowed) - 1).where(layers_of(allowed) > 0, layers_of(allowed)),
        "that is one layer": lambda allowed: layers_of(allowed, last=1),
        "you stop after two layers": lambda allowed: layers_of(allowed, last=2),
        "yours is 0": lambda allowed: layers_of(allowed).clamp(min=0),
        "yours is T": lambda allowed: layers_of(allowed, never=len(allowed)),
        "Your loop does not end": until_all_are_reached,
        "needed are whole numbers": lambda allowed: layers_of(allowed).float(),
        "token 0 knows of token 1 after 1 layers; yours says 5": lambda allowed: torch.full_like(
            allowed, 5, dtype=torch.int64
        ).fill_diagonal_(0),
    },
}


@pytest.mark.parametrize("name", SIMPLE)
def test_solutions_pass(name):
    result = getattr(check, name)(getattr(SOLUTIONS, name))
    assert result.ok is True, result
    assert repr(result).startswith("✓ Right")


def test_what_the_praise_says():
    assert "127,936 of the 1,048,576 pairs" in check.window(SOLUTIONS.window).message
    assert "532,286 pairs, 3.2%" in check.count_pairs(SOLUTIONS.count_pairs).message
    assert "4.0 times as many numbers" in check.local(SOLUTIONS.local).message
    assert "window(16) 16, window(16) | global_tokens([0]) 2, BigBird 2," in check.hops(SOLUTIONS.hops).message


@pytest.mark.parametrize(("name", "words"), [(name, words) for name in WRONG for words in WRONG[name]])
def test_mistake_has_its_message(name, words):
    expect_own_message(check, WRONG, name, words)


@pytest.mark.parametrize("name", [*SIMPLE, "design"])
def test_a_stub_and_an_error_are_answers_not_tracebacks(name):
    expect_answer_to_stub(getattr(check, name))
    assert getattr(check, name)(lambda *args: {}["no such key"]).ok is False


def test_other_right_answers():
    assert check.local(lambda q, k, v, r: local_attention(q, k, v, r, impl="unfold")).ok
    assert check.local(blocked(w=16)).ok
    ring = blocked(wrap=True)  # harmless with both bounds hidden
    assert check.local(ring).ok
    assert check.count_pairs(lambda T, r, g: (library_window(r) | global_tokens(range(g))).pairs(T)).ok
    assert check.add_tile(lambda *a: tuple(SOLUTIONS.add_tile(*a))).ok

    def in_place(running, logits, values):
        maximum = torch.maximum(running.maximum, top(logits)).detach()
        shrink, powers = (running.maximum - maximum).exp(), (logits - maximum).exp()
        running.total.mul_(shrink).add_(sums(powers))
        return Running(maximum, running.total, running.output.mul_(shrink) + powers @ values)

    assert check.add_tile(in_place).ok
    assert check.hops(layers_of).ok


@pytest.mark.parametrize("radius", [1, 3, 16])
def test_hops_of_a_window_are_distance_by_radius(radius):
    places = torch.arange(50)
    want = torch.ceil((places[:, None] - places).abs() / radius).long()
    torch.testing.assert_close(_hops(library_window(radius).dense(places, places)), want)


def test_the_unfilled_and_the_padded_block_of_stolen_weight():
    """Ends hidden one by one: both bounds are wrong in a way of their own."""
    mask = only(lambda k, n, r: k < -(-n // r) * r)
    result = check.local(blocked(mask))
    assert result.ok is False
    assert "exp(0) = 1" in result.message


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
        "other answers: logits differ by": WRONG["local"]["with <=, not with <"],
        "the result of your function has shape (4, 3, 32, 8)": blocked(cut=False),
        "no gradient reaches blocks.1.attention.v_proj.weight": WRONG["local"]["no gradient reaches v"],
        "is a list": lambda q, k, v, r: [q],
    }.items():
        result = check.injected(wrong, encoder, windows)
        assert result.ok is False
        assert words in result.message or "gradient" in words, result.message
        assert "gradient" in result.message or "gradient" not in words


def test_injection_runs_in_the_shipped_models():
    """Short windows: each of the two trains for ten steps."""
    encoder, gpt2 = pretrained.load("sparse-bert-tiny"), pretrained.load("gpt2-tiny")
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
    wrong = check.injected_online(WRONG["add_tile"]["The old output is not rescaled"], model, windows, tile=8)
    assert wrong.ok is False
    assert "other answers: logits differ by" in wrong.message
