"""Lesson 05: solutions of its exercises pass, natural mistakes are told apart, stubs are no errors."""

import math

import pytest
import torch
from torch import nn

from course_lib.evaluation import future_leak
from course_lib.lessons.positional_encodings import exercises as check
from course_lib.lessons.positional_encodings.exercises import own_scheme
from course_lib.models.pythia import Pythia, PythiaConfig
from course_lib.positions import AlibiPosition, Position, RotaryPosition, T5Position
from course_lib.positions.absolute import sinusoids
from course_lib.positions.relative import t5_buckets
from course_lib.positions.rope import change_layout, rotate_pairs
from course_lib.training import windows
from tests.conftest import ROOT, load_file
from tests.exercises.cases import expect_answer_to_stub, expect_own_message

SOLUTIONS = load_file(ROOT / "solutions" / "05_positional_encodings.py")
ANSWERS = {
    name: getattr(SOLUTIONS, name) for name in ("sinusoids", "alibi_bias", "rotate", "to_half_split", "bucket")
} | {"tell_apart": SOLUTIONS.verdict}


def waves(power=lambda i, d: 2 * i / d, base=10000.0, join=lambda a: torch.cat([a.sin(), a.cos()], -1), places=None):
    """Sinusoids with one thing changed."""

    def fn(pos, d_model):
        i = torch.arange(d_model // 2)
        pos = pos if places is None else places(pos)
        return join(pos[:, None] / base ** power(i, d_model))

    return fn


def slopes_of(n_heads):
    return 2.0 ** (-8 * torch.arange(1, n_heads + 1) / n_heads)


def biased(slopes=slopes_of, distance=lambda q, k: (q[:, None] - k).abs(), join=lambda s, far: -s[:, None, None] * far):
    """ALiBi with one thing changed."""
    return lambda n_heads, q_pos, k_pos: join(slopes(n_heads), distance(q_pos, k_pos))


def turned(
    angle=None, mix=None, double=lambda f: torch.cat([f, f], -1), other=None, places=lambda pos: pos, swap=False
):
    """RoPE with one thing changed, as x cos + other sin."""

    def fn(x, pos, theta):
        i = torch.arange(x.shape[-1] // 2)
        angles = double((angle or right_angle)(places(pos)[:, None], i, x.shape[-1], theta))
        cos, sin = (angles.sin(), angles.cos()) if swap else (angles.cos(), angles.sin())
        return (x * cos + (other or halves())(x) * sin).to(x.dtype)

    return fn


def right_angle(pos, i, d, theta):
    return pos / theta ** (2 * i / d)


def halves(first=-1, second=1):
    def other(x):
        a, b = x.chunk(2, -1)
        return torch.cat([first * b, second * a], -1)

    return other


def neighbours(x):
    return torch.stack([-x[..., 1::2], x[..., 0::2]], -1).flatten(-2)


def twice(f):
    return f.repeat_interleave(2, -1)


def rounded(x, pos, theta):
    """All in the type of x."""
    angle = pos.to(x.dtype)[:, None] / theta ** (2 * torch.arange(x.shape[-1] // 2) / x.shape[-1]).to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def with_complex_numbers(x, pos, theta):
    a, b = x.float().chunk(2, -1) if x.dtype == torch.bfloat16 else x.chunk(2, -1)
    turn = torch.polar(torch.ones(()), pos[:, None] / theta ** (2 * torch.arange(a.shape[-1]) / x.shape[-1]))
    z = torch.complex(a.contiguous(), b.contiguous()) * turn
    return torch.cat([z.real, z.imag], -1).to(x.dtype)


def ranged(formula=None, exact_of=lambda n: n // 2, cut=lambda b, n, exact: b.clamp(max=n - 1), whole=torch.floor):
    """Buckets with one thing changed."""

    def fn(distance, n, most):
        exact = exact_of(n)
        share = (formula or ratio)(distance.clamp(min=1), n, exact, most)
        return torch.where(distance < exact, distance, cut(whole(share).long() + exact, n, exact))

    return fn


def ratio(far, n, exact, most):
    return (far / exact).log() / math.log(most / exact) * (n - exact)


def leaks(model, ids, places=None, compare=None, tolerance=1e-4):
    """Whether outputs before a changed token differ; places: those that are changed."""
    compare = compare or (lambda got, whole, t: (got[:t] - whole[:t]).abs().max() > tolerance)
    places = places or range(1, len(ids))
    rows = ids.repeat(len(places), 1)
    changed = rows.clone()
    for row, t in enumerate(places):
        changed[row, t] = (ids[t] + 1) % 50
    return any(compare(got, whole, t) for got, whole, t in zip(model(changed), model(rows), places, strict=True))


def cache_differs(model, ids, size=1, tolerance=1e-3, first=0, last=None):
    caches = model.new_caches()
    steps = torch.cat([model(piece, caches=caches) for piece in ids[None].split(size, 1)], 1)
    return (steps - model(ids[None]))[:, first:last].abs().max() > tolerance


def verdict(leak=leaks, cache=cache_differs, leak_first=True):
    def fn(model, ids):
        with torch.no_grad():
            found = {"leak": leak(model, ids), "cache": cache(model, ids)}
        order = ("leak", "cache") if leak_first else ("cache", "leak")
        return next((word for word in order if found[word]), "fine")

    return fn


def likeliest(got, whole, t):
    return not torch.equal(got[:t].argmax(-1), whole[:t].argmax(-1))


WRONG = {
    "sinusoids": {
        "Sines and cosines alternate": waves(join=lambda a: torch.stack([a.sin(), a.cos()], -1).flatten(-2)),
        "The cosines come first": waves(join=lambda a: torch.cat([a.cos(), a.sin()], -1)),
        "The exponent is half": waves(power=lambda i, d: i / d),
        "The exponent is twice": waves(power=lambda i, d: 4 * i / d),
        "The last wave has the exponent 1": waves(power=lambda i, d: i / max(d // 2 - 1, 1)),
        "The base is 1000;": waves(base=1000.0),
        "shorter, not longer": waves(power=lambda i, d: -2 * i / d),
        "All waves have the same length": waves(power=lambda i, d: 2 * i // d),
        "second half has sines too": waves(join=lambda a: torch.cat([a.sin(), a.sin()], -1)),
        "first half has cosines too": waves(join=lambda a: torch.cat([a.cos(), a.cos()], -1)),
        "count the places yourself": waves(places=lambda pos: torch.arange(len(pos))),
        "one place late": waves(places=lambda pos: pos + 1),
        "multiplied by 2 π": waves(places=lambda pos: 2 * math.pi * pos),
        "(d_model, T)": lambda pos, d: SOLUTIONS.sinusoids(pos, d).T,
        "in place": lambda pos, d: SOLUTIONS.sinusoids(pos.add_(1), d),
        "dtype torch.float64": lambda pos, d: SOLUTIONS.sinusoids(pos.double(), d),
        "(2, 3); needed is (2, 6)": waves(join=lambda a: a.sin()),
        "infinite or not a number": lambda pos, d: SOLUTIONS.sinusoids(pos, d) / 0,
        "differs most": lambda pos, d: torch.ones(len(pos), d),
    },
    "alibi_bias": {
        "The sign is wrong: what is far": biased(join=lambda s, far: s[:, None, None] * far),
        "The order of the slopes is reversed: the first": biased(slopes=lambda n: slopes_of(n).flip(0)),
        "The sign is wrong, and": biased(slopes=lambda n: -slopes_of(n).flip(0)),
        "whatever the number of heads": biased(slopes=lambda n: 0.5 ** torch.arange(1, n + 1)),
        "The slopes begin with 1": biased(slopes=lambda n: 2.0 ** (-8 * torch.arange(n) / n)),
        "All heads have the slope": biased(slopes=lambda n: slopes_of(n)[:1].expand(n)),
        "lacks the 8": biased(slopes=lambda n: 2.0 ** (-torch.arange(1, n + 1) / n)),
        "Keys *after* the query gain": biased(distance=lambda q, k: q[:, None] - k),
        "Keys *before* the query gain": biased(distance=lambda q, k: k - q[:, None]),
        "to the last key": biased(distance=lambda q, k: (k[-1] - k).expand(len(q), -1)),
        "distance is squared": biased(distance=lambda q, k: (q[:, None] - k) ** 2),
        "count the places yourself": biased(
            distance=lambda q, k: (torch.arange(len(q))[:, None] - torch.arange(len(k))).abs()
        ),
        "get 0": biased(distance=lambda q, k: (q[:, None] - k).clamp(min=0)),
        "get -inf": lambda n, q, k: biased()(n, q, k).masked_fill(k > q[:, None], -torch.inf),
        "the same for all heads": biased(join=lambda s, far: -s[0] * far),
        "axis of the heads is the last": biased(join=lambda s, far: -s * far[..., None]),
        "Rows and columns are swapped": biased(distance=lambda q, k: (k[:, None] - q).abs()),
        "differs most": biased(join=lambda s, far: -s[:, None, None] * far.float().sqrt()),
    },
    "rotate": {
        "Your pairs are neighbours": turned(other=neighbours, double=twice),
        "each angle stands over two *neighbouring* channels": turned(double=twice),
        "two layouts are mixed": turned(other=neighbours),
        "You turn backwards": turned(other=halves(1, -1)),
        "Neither half has a minus": turned(other=halves(1, 1)),
        "Both halves have a minus": turned(other=halves(-1, -1)),
        "Sine and cosine are swapped": turned(swap=True),
        "The exponent is half": turned(angle=lambda pos, i, d, theta: pos / theta ** (i / d)),
        "The exponent is twice": turned(angle=lambda pos, i, d, theta: pos / theta ** (4 * i / d)),
        "The last pairs turn fastest": turned(angle=lambda pos, i, d, theta: pos * theta ** (2 * i / d)),
        "All pairs turn by the same": turned(angle=lambda pos, i, d, theta: pos.expand(-1, len(i)).float()),
        "theta=10000 is written": lambda x, pos, theta: SOLUTIONS.rotate(x, pos, 10000.0),
        "count the places yourself": turned(places=lambda pos: torch.arange(len(pos))),
        "one too large": turned(places=lambda pos: pos + 1),
        "places are reversed": turned(places=lambda pos: pos.flip(0)),
        "Nothing is turned": lambda x, pos, theta: x.clone(),
        "Only the first half": lambda x, pos, theta: torch.cat(
            [SOLUTIONS.rotate(x, pos, theta).chunk(2, -1)[0], x.chunk(2, -1)[1]], -1
        ),
        "lengths of the vectors change": lambda x, pos, theta: 2 * SOLUTIONS.rotate(x, pos, theta),
        "your places are rounded to it": lambda x, pos, theta: SOLUTIONS.rotate(x, pos.to(x.dtype).long(), theta),
        "your angles are rounded": rounded,
        "comes back as torch.float32": lambda x, pos, theta: SOLUTIONS.rotate(x.float(), pos, theta),
        "argument number 1 in place": lambda x, pos, theta: x.copy_(SOLUTIONS.rotate(x, pos, theta)),
        "no gradient reaches x": lambda x, pos, theta: SOLUTIONS.rotate(x.detach(), pos, theta),
        "is a tuple": lambda x, pos, theta: (x, x),
        "infinite or not a number": lambda x, pos, theta: SOLUTIONS.rotate(x, pos, theta) / 0,
        "result differs most": lambda x, pos, theta: x.flip(-1),
    },
    "to_half_split": {
        "That is the way back, from": lambda w, n: w.unflatten(0, (n, 2, -1)).transpose(1, 2).flatten(0, 2),
        "as if they were one head": lambda w, n: torch.cat([w[0::2], w[1::2]]),
        "forgotten, and it is the way back": lambda w, n: w.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1),
        "not as (D, H)": lambda w, n: torch.cat([(x := w.unflatten(0, (-1, n)))[0::2], x[1::2]]).flatten(0, 1),
        "Rows 1, 3, 5, … come first": lambda w, n: (
            torch.cat([(x := w.unflatten(0, (n, -1)))[:, 1::2], x[:, 0::2]], 1).flatten(0, 1)
        ),
        "Nothing has moved": lambda w, n: w.clone(),
        "reorder the columns": lambda w, n: SOLUTIONS.to_half_split(w.T, n).T if w.shape[1] % n == 0 else w,
        "(H, D, C)": lambda w, n: SOLUTIONS.to_half_split(w, n).unflatten(0, (n, -1)),
        "is a list": lambda w, n: [w],
        "differs most": lambda w, n: w.flip(0),
    },
    "bucket": {
        "buckets that do not exist": ranged(cut=lambda b, n, exact: b),
        "but buckets count from 0": ranged(cut=lambda b, n, exact: b.clamp(max=n)),
        "own bucket: the logarithmic": lambda far, n, most: far.clamp(max=n - 1),
        "and nothing ends them": lambda far, n, most: far.clone(),
        "shares one bucket": lambda far, n, most: far.clamp(max=n // 2),
        "is in the last bucket": lambda far, n, most: torch.where(far < n // 2, far, n - 1),
        "round to the nearest": ranged(whole=torch.round),
        "you round up": ranged(whole=torch.ceil),
        "runs from 1 to max_distance": ranged(lambda far, n, e, most: far.log() / math.log(most) * (n - e)),
        "divide by log(max_distance)": ranged(lambda far, n, e, most: (far / e).log() / math.log(most) * (n - e)),
        "grow in a line": ranged(lambda far, n, e, most: (far - e) / (most - e) * (n - e)),
        "spread over all n_buckets": ranged(lambda far, n, e, most: (far / e).log() / math.log(most / e) * n),
        "begins with bucket 0: the first": lambda far, n, most: torch.where(
            far < n // 2, far, ratio(far.clamp(min=1), n, n // 2, most).long()
        ),
        "and it ends too early": ranged(cut=lambda b, n, exact: (b - exact).clamp(max=n - exact - 1)),
        "single distances are too few": ranged(exact_of=lambda n: max(n // 4, 1)),
        "for near distances too": lambda far, n, most: (
            (n // 2 + ratio(far.clamp(min=1), n, n // 2, most).long()).clamp(0, n - 1)
        ),
        "a bucket is a row of a table": lambda far, n, most: SOLUTIONS.bucket(far, n, most).float(),
        "the distance 0 is in bucket 7": lambda far, n, most: torch.full_like(far, 7),
        "For a table (2, 3)": lambda far, n, most: (
            SOLUTIONS.bucket(far, n, most) if far.ndim == 1 else torch.zeros_like(far)
        ),
    },
    "tell_apart": {
        "which is right, \"leak\". It is \"fine\". Outputs at": verdict(
            leak=lambda m, ids: leaks(m, ids, compare=lambda got, whole, t: (got[: t + 1] != whole[: t + 1]).any())
        ),
        "allow 1e-4": verdict(cache=lambda m, ids: cache_differs(m, ids, tolerance=0)),
        "does any output *before* it change": verdict(leak=lambda m, ids: False, cache=lambda m, ids: False),
        "swapped, \"cache\"": verdict(leak_first=False),
        "those next to it too": verdict(
            leak=lambda m, ids: leaks(
                m, ids, compare=lambda got, whole, t: (got[0] - whole[0]).abs().max() > 1e-4, places=[len(ids) - 1]
            ),
            cache=lambda m, ids: False,
        ),
        "Only some tokens leak": verdict(
            leak=lambda m, ids: leaks(m, ids, places=[len(ids) - 1]), cache=lambda m, ids: False
        ),
        "and you changed others": verdict(leak=lambda m, ids: leaks(m, ids, places=[len(ids) - 1])),
        "compare numbers, not the likeliest token": verdict(
            leak=lambda m, ids: leaks(m, ids, tolerance=0.5), cache=lambda m, ids: False
        ),
        "at each cached step, \"fine\"": verdict(cache=lambda m, ids: cache_differs(m, ids, size=len(ids))),
        "up to the last": verdict(cache=lambda m, ids: cache_differs(m, ids, last=6)),
        "A single token leaks": verdict(leak=lambda m, ids: leaks(m, ids, places=[1, 5, 10, len(ids) - 2])),
        "not of the last": verdict(cache=lambda m, ids: cache_differs(m, ids, first=-1)),
        "The difference is small": verdict(cache=lambda m, ids: cache_differs(m, ids, tolerance=0.5)),
        "returns True; return one of": lambda m, ids: True,
        "returns a Tensor; return one of": lambda m, ids: ids,
        "returns 'good'; return one of": lambda m, ids: "good",
        "argument number 2 in place": lambda m, ids: "fine" if ids.fill_(0) is None else "leak",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_solutions_pass(name):
    result = getattr(check, name)(ANSWERS[name])
    assert result.ok is True, result
    assert repr(result).startswith("✓ Right")


@pytest.mark.parametrize(("name", "words"), [(name, words) for name in WRONG for words in WRONG[name]])
def test_mistake_has_its_message(name, words):
    expect_own_message(check, WRONG, name, words)


@pytest.mark.parametrize("name", [*ANSWERS, "scheme"])
def test_a_stub_and_an_error_are_answers_not_tracebacks(name):
    expect_answer_to_stub(getattr(check, name))
    broken = getattr(check, name)(lambda *args: {}["no such key"])
    assert broken.ok is False
    assert "KeyError" in broken.message


NONSENSE = {
    "a number": lambda *args: 3.5,
    "text": lambda *args: "sinusoidal",
    "a list": lambda *args: [1, 2],
    "a scalar": lambda *args: torch.zeros(()),
    "an empty tensor": lambda *args: torch.zeros(0),
    "bools": lambda *args: torch.ones(9, 6, dtype=torch.bool),
    "complex numbers": lambda *args: torch.ones(9, 6, dtype=torch.complex64),
    "a class": lambda *args: Position,
    "a function": lambda *args: print,
}


@pytest.mark.parametrize("name", [*ANSWERS, "scheme"])
@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_refused(name, kind):
    assert getattr(check, name)(NONSENSE[kind]).ok is False


@pytest.mark.parametrize("name", ["sinusoids", "alibi_bias", "rotate", "to_half_split", "bucket"])
def test_noise_and_nan_of_the_right_shape_are_refused(name):
    for change in (torch.rand_like, lambda y: y * torch.nan):
        noisy = lambda *args, change=change: change(ANSWERS[name](*args).float())  # noqa: E731
        assert getattr(check, name)(noisy).ok is False


def test_other_right_answers():
    assert check.sinusoids(sinusoids).ok
    assert check.sinusoids(lambda pos, d: sinusoids(pos.int(), d)).ok
    assert check.rotate(with_complex_numbers).ok
    library = lambda x, pos, theta: RotaryPosition(x.shape[-1], theta).rotate(x, x, pos, pos)[0]  # noqa: E731
    assert check.rotate(library).ok

    def as_in_many_programs(x, pos, theta):  # only angles must be float32
        angle = right_angle(pos[:, None], torch.arange(x.shape[-1] // 2), x.shape[-1], theta)
        wide = torch.cat([angle, angle], -1)
        return x * wide.cos().to(x.dtype) + halves()(x) * wide.sin().to(x.dtype)

    assert check.rotate(as_in_many_programs).ok
    assert check.to_half_split(lambda w, n: change_layout(w, n, len(w) // n, to="half_split")).ok
    assert check.bucket(lambda far, n, most: t5_buckets(-far, n, most, bidirectional=False)).ok
    assert check.tell_apart(
        verdict(leak=lambda m, ids: bool(future_leak(m, ids).max() > 0), cache=lambda m, ids: cache_differs(m, ids))
    ).ok


def test_what_the_praise_says():
    assert "46.82, those of 100 and 107 46.82" in check.sinusoids(SOLUTIONS.sinusoids).message
    assert 20 * slopes_of(8)[0] == 10
    assert 20 * slopes_of(8)[-1] == pytest.approx(0.08, abs=0.002)
    rows = t5_buckets(-torch.arange(200), 32, 128, bidirectional=False)
    assert int((rows == 31).nonzero()[0]) == 113
    assert "from 113 on" in check.bucket(SOLUTIONS.bucket).message


@pytest.fixture(scope="module")
def rope():
    config = {"vocab_size": 60, "max_positions": 32, "d_model": 24, "n_heads": 3, "n_layers": 2}
    return Pythia(PythiaConfig(**config, rotary_pct=1.0)).eval(), Pythia(PythiaConfig(**config, rotary_pct=0.5)).eval()


def test_injection_runs_in_pythia(rope):
    windows = torch.randint(60, (4, 20))
    for model in rope:
        before = {name: p.clone() for name, p in model.named_parameters()}
        result = check.injected(SOLUTIONS.rotate, model, windows)
        assert result.ok, result
        assert "runs in all 2 layers, and cached steps agree with it: loss" in result.message
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    model = rope[0]
    assert check.injected(lambda *args: None, model, windows).ok is None
    for words, wrong in {
        "other answers: logits differ by": lambda x, pos, theta: SOLUTIONS.rotate(
            x, pos + (len(pos) == 19) * (pos > 12), theta
        ),
        "with a cache, the logits differ": turned(places=lambda pos: torch.arange(len(pos))),
        "the result of your function has dtype": lambda x, pos, theta: SOLUTIONS.rotate(x.double(), pos, theta),
        "the gradient with respect to embedding.weight differs": lambda x, pos, theta: SOLUTIONS.rotate(
            x.detach(), pos, theta
        ),
        "in place": lambda x, pos, theta: x.copy_(SOLUTIONS.rotate(x, pos, theta)),
    }.items():
        result = check.injected(wrong, model, windows)
        assert result.ok is False
        assert words in result.message, result.message
    with pytest.raises(ValueError, match="its position is 'none'"):
        check.injected(SOLUTIONS.rotate, Pythia(PythiaConfig(vocab_size=60, position="none")), windows)


def test_injection_runs_on_real_text():
    model = Pythia(PythiaConfig(d_model=32, n_heads=2, n_layers=1, rotary_pct=1.0))
    held_out = windows(("speeches",), "validation", 40)[:2]
    result = check.injected(SOLUTIONS.rotate, model, held_out)
    assert result.ok, result


class Mine(Position):
    """A scheme with hooks given one by one."""

    def __init__(self, **hooks):
        super().__init__()
        for name, hook in hooks.items():
            setattr(self, name, hook)


def apart(q_pos, k_pos):
    return -(q_pos.unsqueeze(-1) - k_pos.unsqueeze(-2)).abs().unsqueeze(-3).float()


class Restless(Position):
    def bias(self, q_pos, k_pos):
        return apart(q_pos, k_pos) * torch.rand(())


class Uninitialised(Position):
    def __init__(self):
        self.slope = 0.5

    def bias(self, q_pos, k_pos):
        return self.slope * apart(q_pos, k_pos)


class LearnedSlope(Position):
    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.ones(()))

    def bias(self, q_pos, k_pos):
        return self.slope * apart(q_pos, k_pos)


class LearnedTable(Position):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(200, 64)

    def embed(self, x, pos):
        return x + self.table(pos)


SCHEMES = {
    "You return the class": lambda d, h: Mine,
    "You return a Tensor": lambda d, h: torch.zeros(4, 4),
    "must call `super().__init__()` first": lambda d, h: Uninitialised(),
    "changes no hook: it is `none`": lambda d, h: Position(),
    "RotaryPosition is the library's": lambda d, h: RotaryPosition(16),
    "Renamed is the library's": lambda d, h: type("Renamed", (AlibiPosition,), {})(h),
    "T5Position is the library's": lambda d, h: T5Position(h, bidirectional=False),
    "not `q_pos[:, None]`": lambda d, h: Mine(bias=lambda q, k: -(q[:, None] - k[None]).abs().float()[None]),
    "For places (T,), bias has shape (3, 5)": lambda d, h: Mine(bias=lambda q, k: apart(q, k).squeeze(-3)),
    "(1, 5, 3); needed is (4, 3, 5)": lambda d, h: Mine(bias=lambda q, k: apart(k, q)),
    "bias is torch.int64": lambda d, h: Mine(bias=lambda q, k: apart(q, k).long()),
    "The result of bias is a float": lambda d, h: Mine(bias=lambda q, k: 1.0),
    "logarithm of 0": lambda d, h: Mine(bias=lambda q, k: -(-apart(q, k)).log()),
    "result of embed has shape": lambda d, h: Mine(embed=lambda x, pos: x[:, :1]),
    "result of embed is a NoneType": lambda d, h: Mine(embed=lambda x, pos: None),
    "embed: Your function changed its argument number 1": lambda d, h: Mine(embed=lambda x, pos: x.add_(1)),
    "rotate must return two": lambda d, h: Mine(rotate=lambda q, k, q_pos, k_pos: q),
    "Of rotate, the keys": lambda d, h: Mine(rotate=lambda q, k, q_pos, k_pos: (q, q)),
    "result of score has shape": lambda d, h: Mine(score=lambda q, q_pos, k_pos: q),
    "sequence 0 gets other numbers": lambda d, h: Mine(
        embed=lambda x, pos: x + (pos if pos.ndim == 1 else pos[1])[:, None] / 100
    ),
    "gives different numbers": lambda d, h: Restless(),
    "hear of later ones": lambda d, h: Mine(embed=lambda x, pos: x - x.mean(1, keepdim=True)),
    "token by token, the logits differ": lambda d, h: Mine(
        embed=lambda x, pos: x + ((pos - pos[..., :1]).unsqueeze(-1) * torch.arange(64) / 100).sin()
    ),
    "It must go on beyond the 128": lambda d, h: LearnedTable(),
    "the logits of a decoder are not finite": lambda d, h: Mine(embed=lambda x, pos: x * 1e30),
    "ZeroDivisionError": lambda d, h: Mine(bias=lambda q, k: 1 / 0),
}


@pytest.mark.parametrize("words", SCHEMES)
def test_schemes_that_do_not_plug_in(words):
    result = check.scheme(SCHEMES[words])
    assert result.ok is False
    assert words in result.message, result.message


def test_a_scheme_is_trained_and_beats_none():
    result = check.scheme(SOLUTIONS.scheme, steps=20)
    assert result.ok, result
    assert "After 20 steps on texts of 128 tokens the perplexity at places 65 to 128 is" in result.message


def test_what_a_scheme_learns_is_trained():
    learned = LearnedSlope()
    own_scheme.perplexities(learned, 2)
    assert learned.slope != 1


def test_what_is_said_of_a_scheme_that_does_not_beat_none(monkeypatch):
    numbers = {Position: (170.0, 175.0), SOLUTIONS.LogarithmicPosition: None}
    monkeypatch.setattr(own_scheme, "perplexities", lambda scheme, steps: numbers[type(scheme)])
    for mine, ok, words in (
        ((160.0, 165.0), True, "is 160.0, without a scheme 170.0; at places 129 to 512 it is 165.0, without 175.0."),
        ((160.0, 185.0), False, "helps on the lengths of its training, and hurts beyond"),
        ((180.0, 185.0), False, "the model is no better for it"),
        ((170.0, 175.0), False, "the model is no better for it"),
    ):
        numbers[SOLUTIONS.LogarithmicPosition] = mine
        result = check.scheme(SOLUTIONS.scheme)
        assert result.ok is ok
        assert words in result.message


class Exploding(Position):
    def embed(self, x, pos):
        return x * math.nan if self.training else x + 0


def test_training_that_diverges_is_said():
    result = check.scheme(lambda d, h: Exploding(), steps=2)
    assert result.ok is False
    assert "diverges" in result.message or "not a number" in result.message, result.message


def test_the_rotation_of_the_checker_is_that_of_the_library():
    x, pos = torch.randn(2, 3, 5, 8), torch.arange(5)
    angles = RotaryPosition(8).angles(pos)
    torch.testing.assert_close(SOLUTIONS.rotate(x, pos, 10000.0), rotate_pairs(x, angles))


def test_a_leak_in_long_texts_alone_is_found():
    class Far(Position):
        def embed(self, x, pos):
            return x + 0.5 * torch.roll(x, -1, 1) if x.shape[1] > 20 else x

    result = check.scheme(lambda d, h: Far(), steps=2)
    assert result.ok is False
    assert "In a text of 512 tokens the last one changes earlier outputs" in result.message
