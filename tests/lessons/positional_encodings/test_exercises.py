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
from tests.exercises.cases import expect_answer_to_stub, expect_own_message, pairs, with_declared

pytestmark = pytest.mark.slow  # learners' functions run in whole models

SOLUTIONS = load_file(ROOT / "solutions" / "05_positional_encodings.py")
ANSWERS = {
    name: getattr(SOLUTIONS, name) for name in ("sinusoids", "alibi_bias", "rotate", "to_half_split", "bucket")
} | {"tell_apart": SOLUTIONS.verdict}


def with_complex_numbers(x, pos, theta):
    a, b = x.float().chunk(2, -1) if x.dtype == torch.bfloat16 else x.chunk(2, -1)
    turn = torch.polar(torch.ones(()), pos[:, None] / theta ** (2 * torch.arange(a.shape[-1]) / x.shape[-1]))
    z = torch.complex(a.contiguous(), b.contiguous()) * turn
    return torch.cat([z.real, z.imag], -1).to(x.dtype)


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


OTHERS = {
    "sinusoids": {
        "(d_model, T)": lambda pos, d: SOLUTIONS.sinusoids(pos, d).T,
        "in place": lambda pos, d: SOLUTIONS.sinusoids(pos.add_(1), d),
        "dtype torch.float64": lambda pos, d: SOLUTIONS.sinusoids(pos.double(), d),
        "(2, 3); needed is (2, 6)": lambda pos, d: SOLUTIONS.sinusoids(pos, d)[:, : d // 2],
        "infinite or not a number": lambda pos, d: SOLUTIONS.sinusoids(pos, d) / 0,
        "differs most": lambda pos, d: torch.ones(len(pos), d),
    },
    "alibi_bias": {
        "get -inf": lambda n, q, k: SOLUTIONS.alibi_bias(n, q, k).masked_fill(k > q[:, None], -torch.inf),
        "the same for all heads": lambda n, q, k: SOLUTIONS.alibi_bias(n, q, k)[0],
        "axis of the heads is the last": lambda n, q, k: SOLUTIONS.alibi_bias(n, q, k).permute(1, 2, 0),
        "Rows and columns are swapped": lambda n, q, k: SOLUTIONS.alibi_bias(n, q, k).mT,
        "differs most": lambda n, q, k: -SOLUTIONS.alibi_bias(n, q, k).abs().sqrt(),
    },
    "rotate": {
        "lengths of the vectors change": lambda x, pos, theta: 2 * SOLUTIONS.rotate(x, pos, theta),
        "comes back as torch.float32": lambda x, pos, theta: SOLUTIONS.rotate(x.float(), pos, theta),
        "argument number 1 in place": lambda x, pos, theta: x.copy_(SOLUTIONS.rotate(x, pos, theta)),
        "no gradient reaches x": lambda x, pos, theta: SOLUTIONS.rotate(x.detach(), pos, theta),
        "is a tuple": lambda x, pos, theta: (x, x),
        "infinite or not a number": lambda x, pos, theta: SOLUTIONS.rotate(x, pos, theta) / 0,
        "result differs most": lambda x, pos, theta: x.flip(-1),
    },
    "to_half_split": {
        "(H, D, C)": lambda w, n: SOLUTIONS.to_half_split(w, n).unflatten(0, (n, -1)),
        "is a list": lambda w, n: [w],
        "differs most": lambda w, n: w.flip(0),
    },
    "bucket": {
        "a bucket is a row of a table": lambda far, n, most: SOLUTIONS.bucket(far, n, most).float(),
        "the distance 0 is in bucket 7": lambda far, n, most: torch.full_like(far, 7),
        "For a table (2, 3)": lambda far, n, most: (
            SOLUTIONS.bucket(far, n, most) if far.ndim == 1 else torch.zeros_like(far)
        ),
    },
}
WRONG = with_declared(check, OTHERS)
WRONG["bucket"] = {words.format(n=32, last=31): fn for words, fn in WRONG["bucket"].items()}
WRONG |= {
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


@pytest.mark.parametrize(("name", "words"), pairs(WRONG))
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
        angle = pos[:, None] / theta ** (2 * torch.arange(x.shape[-1] // 2) / x.shape[-1])
        wide = torch.cat([angle, angle], -1)
        a, b = x.chunk(2, -1)
        return x * wide.cos().to(x.dtype) + torch.cat([-b, a], -1) * wide.sin().to(x.dtype)

    assert check.rotate(as_in_many_programs).ok
    assert check.to_half_split(lambda w, n: change_layout(w, n, len(w) // n, to="half_split")).ok
    assert check.bucket(lambda far, n, most: t5_buckets(-far, n, most, bidirectional=False)).ok
    assert check.tell_apart(
        verdict(leak=lambda m, ids: bool(future_leak(m, ids).max() > 0), cache=lambda m, ids: cache_differs(m, ids))
    ).ok


def test_what_the_praise_says():
    assert "46.82, those of 100 and 107 46.82" in check.sinusoids(SOLUTIONS.sinusoids).message
    losses = -SOLUTIONS.alibi_bias(8, torch.tensor([20]), torch.tensor([0]))
    assert losses[0] == 10
    assert losses[-1] == pytest.approx(0.08, abs=0.002)
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
        "with a cache, the logits differ": lambda x, pos, theta: SOLUTIONS.rotate(x, torch.arange(len(pos)), theta),
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
