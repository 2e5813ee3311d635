"""Checks for the exercises of lesson 05, positional encodings; here those of formulas, the others imported."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from course_lib.exercises import Wrong, call, checker, expect_kind
from course_lib.exercises.mistakes import Mistakes, expect_by, sentence_on
from course_lib.lessons.positional_encodings.exercises.own_scheme import scheme
from course_lib.lessons.positional_encodings.exercises.probe import tell_apart
from course_lib.lessons.positional_encodings.exercises.rotary import (
    ROTATE,
    TO_HALF_SPLIT,
    injected,
    rotate,
    to_half_split,
)
from course_lib.positions.absolute import sinusoids as library_sinusoids

__all__ = [
    "ALIBI_BIAS", "BUCKET", "ROTATE", "SINUSOIDS", "TO_HALF_SPLIT",
    "alibi_bias", "bucket", "injected", "rotate", "scheme", "sinusoids", "tell_apart", "to_half_split",
]  # fmt: skip
ENDLESS = 2**40


def _waves(
    pos: Tensor, d_model: int, *, base: float = 10000.0,
    power: Callable[[Tensor, int], Tensor] = lambda i, d_model: 2 * i / d_model,
    join: Callable[[Tensor], Tensor] = lambda angle: torch.cat([angle.sin(), angle.cos()], -1),
) -> Tensor:  # fmt: skip
    """Sinusoids whose parts can be changed; in float64, so that they have no errors of their own."""
    i = torch.arange(d_model // 2).double()
    return join(pos.double().unsqueeze(-1) / base ** power(i, d_model)).float()


SINUSOIDS: Mistakes = {
    "Sines and cosines alternate, as in the paper. Here all sines come first, then all cosines: `torch.cat`.":
        partial(_waves, join=lambda angle: torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)),
    "The cosines come first; sines belong into the first half.":
        partial(_waves, join=lambda angle: torch.cat([angle.cos(), angle.sin()], -1)),
    "The exponent is half of what it should be: 2 i / d_model for the wave i, and i goes to d_model / 2 - 1.":
        partial(_waves, power=lambda i, d_model: i / d_model),
    "The exponent is twice what it should be: 2 i / d_model, where i counts the waves 0, 1, 2, ….":
        partial(_waves, power=lambda i, d_model: 4 * i / d_model),
    "The last wave has the exponent 1; in the paper it stays just below: 2 i / d_model.":
        partial(_waves, power=lambda i, d_model: i / max(d_model // 2 - 1, 1)),
    "The base is 1000; in the paper it is 10000.": partial(_waves, base=1000.0),
    "The waves become shorter, not longer: divide the place by 10000^(2 i / d_model).":
        partial(_waves, power=lambda i, d_model: -2 * i / d_model),
    "All waves have the same length. Is the exponent a whole number, cut off by `//`? Or is i missing?":
        partial(_waves, power=lambda i, d_model: 2 * i // d_model),
    "The second half has sines too: cosines belong there.":
        partial(_waves, join=lambda angle: torch.cat([angle.sin(), angle.sin()], -1)),
    "The first half has cosines too: sines belong there.":
        partial(_waves, join=lambda angle: torch.cat([angle.cos(), angle.cos()], -1)),
    "You count the places yourself, 0, 1, 2, …. Use the numbers in `pos`: a cached step starts later.":
        lambda pos, d_model: _waves(torch.arange(len(pos)), d_model),
    "The waves are one place late: `pos` counts from 0.": lambda pos, d_model: _waves(pos + 1, d_model),
    "The angle is multiplied by 2 π: the shortest wave is 2 π places long, so that the angle is the place.":
        lambda pos, d_model: _waves(2 * math.pi * pos.double(), d_model),
}  # fmt: skip


@checker
def sinusoids(fn: Callable[[Tensor, int], Tensor]) -> str:
    """Check `fn(pos, d_model)`: integer places (T,) -> waves (T, d_model), sines first, then cosines."""
    for pos, width, case in (
        (torch.arange(2), 6, "The result"),
        (torch.arange(9), 6, "For nine places, the result"),
        (torch.arange(9), 32, "For d_model = 32, the result"),
        (torch.tensor([3, 4, 9, 70, 71]), 6, "For the places 3, 4, 9, 70, 71, the result"),
        (torch.tensor([1500]), 128, "For the place 1500 alone, the result"),
        (torch.arange(4), 2, "For d_model = 2, the result"),
    ):
        answer = call(fn, pos, width)
        if isinstance(answer, Tensor) and len(pos) != width and answer.shape == (width, len(pos)):
            raise Wrong("Your result is (d_model, T); needed is a row for each place: (T, d_model).")
        # Angles of 1500 in float32 are right to 1e-4.
        expect_by(answer, library_sinusoids, SINUSOIDS, pos, width, what=case, tolerance=3e-4)
    near, far = (call(fn, torch.tensor(pair), 128) for pair in ([3, 10], [100, 107]))
    return (
        f"Right. The vectors of places 3 and 10 have the dot product {float(near[0] @ near[1]):.2f}, those of 100 and "
        f"107 {float(far[0] @ far[1]):.2f}: it depends on the distance alone."
    )


def _bias(
    n_heads: int, q_pos: Tensor, k_pos: Tensor, *,
    power: Callable[[Tensor, int], Tensor] = lambda head, n_heads: -8 * head / n_heads,
    distance: Callable[[Tensor], Tensor] = torch.abs,
) -> Tensor:  # fmt: skip
    """ALiBi's bias; what can be changed are the powers of 2, and the distance made of q_pos - k_pos."""
    slopes = 2.0 ** power(torch.arange(1, n_heads + 1), n_heads)
    return -slopes[:, None, None] * distance((q_pos.unsqueeze(-1) - k_pos).float())


_reversed = partial(_bias, power=lambda head, n_heads: -8 * head.flip(0) / n_heads)
ALIBI_BIAS: Mistakes = {
    "The sign is wrong: what is far must lose. Your bias is positive.": lambda *args: -_bias(*args),
    "The order of the slopes is reversed: the first head has the steepest, 2^(-8/H), the last 2^-8.": _reversed,
    "The sign is wrong, and the order of the slopes is reversed.": lambda *args: -_reversed(*args),
    "The slopes are 1/2, 1/4, 1/8, … whatever the number of heads. Their ratio is 2^(-8/H): the last is always "
    "2^-8.": partial(_bias, power=lambda head, n_heads: -head),
    "The slopes begin with 1: the first is 2^(-8/H), the last 2^-8. Count the heads from 1.":
        partial(_bias, power=lambda head, n_heads: -8 * (head - 1) / n_heads),
    "All heads have the slope of the first: the one of head h is 2^(-8 h/H).":
        partial(_bias, power=lambda head, n_heads: -8 * head**0 / n_heads),
    "The exponent lacks the 8: the slopes are 2^(-8 h/H).": partial(_bias, power=lambda head, n_heads: -head / n_heads),
    "Keys *after* the query gain: the absolute value of the distance is missing.":
        partial(_bias, distance=lambda ahead: ahead),
    "Keys *before* the query gain: the absolute value of the distance is missing.":
        partial(_bias, distance=lambda ahead: -ahead),
    "You count distances to the last key, the same for each query: the distance is that to the query itself. "
    "(Under a causal mask the softmax is blind for this difference. Here there is no mask.)":
        lambda n_heads, q_pos, k_pos: _bias(n_heads, k_pos.max().expand(len(q_pos)), k_pos),
    "The distance is squared: ALiBi is a straight line.": partial(_bias, distance=torch.square),
    "You count the places yourself. Use the numbers in q_pos and k_pos: a cached step starts later.":
        lambda n_heads, q_pos, k_pos: _bias(n_heads, torch.arange(len(q_pos)), torch.arange(len(k_pos))),
    "Keys after the query get 0. That is the mask's affair; here the distance counts in both directions.":
        partial(_bias, distance=lambda ahead: ahead.clamp(min=0)),
}  # fmt: skip


@checker
def alibi_bias(fn: Callable[[int, Tensor, Tensor], Tensor]) -> str:
    """Check `fn(n_heads, q_pos, k_pos)`: ALiBi's bias (H, T, S) for a power of two of heads."""
    places = torch.arange(7)
    for n_heads, q_pos, k_pos, case in (
        (8, places, places, "The result"),
        (8, places[4:], places, "For three queries and seven keys, the result"),
        (4, places[4:], places, "For 4 heads, the result"),
        (4, torch.tensor([30, 31, 40]), torch.tensor([2, 29, 30, 33, 50]), "For places with gaps, the result"),
        (2, places, places, "For 2 heads, the result"),
        (1, places, places, "For 1 head, the result"),
        (16, places, places, "For 16 heads, the result"),
    ):
        answer = call(fn, n_heads, q_pos, k_pos)
        _expect_axes(answer, n_heads, len(q_pos), len(k_pos))
        expect_kind(answer, _bias(n_heads, q_pos, k_pos), case)
        later = (k_pos > q_pos.unsqueeze(-1)).expand(n_heads, -1, -1)
        if later.any() and torch.equal(answer == -torch.inf, later):
            raise Wrong(
                "Keys after the query get -inf. That is the mask's affair; here the distance counts in both directions."
            )
        expect_by(answer, _bias, ALIBI_BIAS, n_heads, q_pos, k_pos, what=case)
    return (
        "Right. With 8 heads a key 20 places back loses 10 in the first head, which looks nearby, and 0.08 in the last."
    )


def _expect_axes(answer: object, heads: int, queries: int, keys: int) -> None:
    if not isinstance(answer, Tensor):
        return  # `expect` says so
    needed = f"needed is (H, T, S) = {(heads, queries, keys)}."
    if answer.shape == (queries, keys):
        raise Wrong(f"Your result is (T, S), the same for all heads. Each head has its own slope: {needed}")
    if answer.shape == (queries, keys, heads) != (heads, queries, keys):
        raise Wrong(f"The axis of the heads is the last; {needed}")
    if queries != keys and answer.shape == (heads, keys, queries):
        raise Wrong(f"Rows and columns are swapped: rows are queries, columns are keys; {needed}")


def _buckets(
    far: Tensor, n: int, most: int, *, exact: int | None = None, ranges: int | None = None,
    whole: Callable[[Tensor], Tensor] = torch.floor, last: int | None = None, log: str = "ratio",
    near: bool = True,
) -> Tensor:  # fmt: skip
    """The bucket of each distance, with a switch for each thing that can go wrong; the defaults are right."""
    exact = n // 2 if exact is None else exact
    ranges = n - exact if ranges is None else ranges
    x = far.clamp(min=1).double()
    share = {
        "ratio": (x / exact).log() / math.log(most / exact),
        "bare": x.log() / math.log(most),
        "half": (x / exact).log() / math.log(most),
        "line": (x - exact) / (most - exact),
    }[log]
    ranged = (exact + whole(share * ranges).long()).clamp(max=n - 1 if last is None else last)
    return torch.where(far < exact, far, ranged) if near else ranged


def _steps(far: Tensor, n: int, most: int) -> Tensor:
    """Buckets beyond the single distances, counted from 0 and without an end."""
    return _buckets(far, n, most, last=ENDLESS) - n // 2


BUCKET: Mistakes = {  # {last} is the number of the last bucket
    "distances beyond max_distance get buckets that do not exist: the last is {last}. Limit them.":
        partial(_buckets, last=ENDLESS),
    "the last bucket is {n}, but buckets count from 0: the last is {last}.":
        lambda far, n, most: _buckets(far, n, most, last=n),
    "every distance has its own bucket: the logarithmic part is missing.": lambda far, n, most: far.clamp(max=n - 1),
    "every distance has its own bucket, and nothing ends them.": lambda far, n, most: far,
    "all that is not near shares one bucket: the logarithmic part is missing.":
        lambda far, n, most: far.clamp(max=n // 2),
    "all that is not near is in the last bucket: the logarithmic part is missing.":
        lambda far, n, most: torch.where(far < n // 2, far, n - 1),
    "you round to the nearest bucket: `.long()` cuts off, which is what is asked.":
        partial(_buckets, whole=torch.round),
    "you round up: `.long()` cuts off, which is what is asked.": partial(_buckets, whole=torch.ceil),
    "the logarithm runs from 1 to max_distance; it starts where the single distances end: log(distance / exact) / "
    "log(max_distance / exact).": partial(_buckets, log="bare"),
    "you divide by log(max_distance): it is log(max_distance / exact), so that max_distance gives 1.":
        partial(_buckets, log="half"),
    "the ranges grow in a line: they should grow with the logarithm of the distance.": partial(_buckets, log="line"),
    "the logarithm is spread over all n_buckets: only n_buckets - exact are left for it.":
        lambda far, n, most: _buckets(far, n, most, ranges=n),
    "the logarithmic part begins with bucket 0: the first n_buckets // 2 are taken, add them.":
        lambda far, n, most: torch.where(far < n // 2, far, _steps(far, n, most).clamp(max=n - 1)),
    "the logarithmic part begins with bucket 0, and it ends too early: add n_buckets // 2.":
        lambda far, n, most: torch.where(far < n // 2, far, _steps(far, n, most).clamp(max=n - n // 2 - 1)),
    "the single distances are too few: the first n_buckets // 2 buckets are one distance each.":
        lambda far, n, most: _buckets(far, n, most, exact=max(n // 4, 1)),
    "you use the logarithm for near distances too: below n_buckets // 2 the bucket is the distance itself.":
        lambda far, n, most: _buckets(far, n, most, whole=torch.trunc, near=False).clamp(min=0),
}  # fmt: skip


@checker
def bucket(fn: Callable[[Tensor, int, int], Tensor]) -> str:
    """Check `fn(distance, n_buckets, max_distance)`: T5's bucket of each distance q - k >= 0, as int64."""
    far = torch.arange(400)
    for n_buckets, most in ((32, 128), (16, 100), (8, 50), (2, 20)):
        exact = n_buckets // 2
        step = (far.clamp(min=1).double() / exact).log() / math.log(most / exact) * (n_buckets - exact)
        # At a boundary the last bit of a logarithm decides.
        sure = ((step - step.round()).abs() > 1e-3) | (far <= exact) | (far >= most)
        _expect_buckets(call(fn, far[sure], n_buckets, most), far[sure], n_buckets, most)
    table = torch.tensor([[0, 1, 200], [5, 20, 90]])
    expect_kind(call(fn, table, 32, 128), table, "For a table of distances, the result")
    if not torch.equal(call(fn, table, 32, 128), _buckets(table, 32, 128)):
        raise Wrong("For a table (2, 3) of distances the buckets are wrong; for a row they are right.")
    first = int((_buckets(far, 32, 128) < 31).sum())
    return (
        f"Right. Of 32 buckets the first 16 are single distances; the last holds all from {first} on, {first + 10} as "
        f"well as 10,000: T5 goes on beyond its training, but sees no difference there."
    )


def _expect_buckets(answer: Any, far: Tensor, n_buckets: int, most: int) -> None:
    case, want = f"For n_buckets={n_buckets} and max_distance={most}, ", _buckets(far, n_buckets, most)
    if isinstance(answer, Tensor) and answer.dtype != want.dtype:
        raise Wrong(f"{case}the result is {answer.dtype}; a bucket is a row of a table: int64, as `.long()` gives.")
    expect_kind(answer, want, f"{case}the result")
    if torch.equal(answer, want):
        return
    if sentence := sentence_on(answer, BUCKET, far, n_buckets, most):
        raise Wrong(case + sentence.format(n=n_buckets, last=n_buckets - 1))
    at = int((answer != want).nonzero()[0])
    raise Wrong(f"{case}the distance {int(far[at])} is in bucket {int(answer[at])}; it belongs into {int(want[at])}.")
