"""Checks for the exercises of lesson 05, positional encodings; here those of formulas, the others imported."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from course_lib.exercises import Wrong, call, checker, expect, expect_kind
from course_lib.lessons.positional_encodings.exercises.own_scheme import scheme
from course_lib.lessons.positional_encodings.exercises.probe import tell_apart
from course_lib.lessons.positional_encodings.exercises.rotary import injected, rotate, to_half_split
from course_lib.positions.absolute import sinusoids as library_sinusoids

__all__ = ["alibi_bias", "bucket", "injected", "rotate", "scheme", "sinusoids", "tell_apart", "to_half_split"]


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
        expect(answer, library_sinusoids(pos, width), _waves(pos, width), what=case, tolerance=3e-4)
    near, far = (call(fn, torch.tensor(pair), 128) for pair in ([3, 10], [100, 107]))
    return (
        f"Right. The vectors of places 3 and 10 have the dot product {float(near[0] @ near[1]):.2f}, those of 100 and "
        f"107 {float(far[0] @ far[1]):.2f}: it depends on the distance alone."
    )


def _waves(pos: Tensor, width: int) -> dict[str, Tensor]:
    """What natural mistakes would give; in float64, so that they have no errors of their own."""
    half = width // 2
    index = torch.arange(half).double()
    places = pos.double().unsqueeze(-1)

    def joined(angle: Tensor) -> Tensor:
        return torch.cat([angle.sin(), angle.cos()], -1).float()

    angle = places / 10000 ** (2 * index / width)
    counted = torch.arange(len(pos)).double().unsqueeze(-1)
    return {
        "Sines and cosines alternate, as in the paper. Here all sines come first, then all cosines: `torch.cat`.": (
            torch.stack([angle.sin(), angle.cos()], -1).flatten(-2).float()
        ),
        "The cosines come first; sines belong into the first half.": torch.cat([angle.cos(), angle.sin()], -1).float(),
        "The exponent is half of what it should be: 2 i / d_model for the wave i, and i goes to d_model / 2 - 1.": (
            joined(places / 10000 ** (index / width))
        ),
        "The exponent is twice what it should be: 2 i / d_model, where i counts the waves 0, 1, 2, ….": (
            joined(places / 10000 ** (4 * index / width))
        ),
        "The last wave has the exponent 1; in the paper it stays just below: 2 i / d_model.": (
            joined(places / 10000 ** (index / max(half - 1, 1)))
        ),
        "The base is 1000; in the paper it is 10000.": joined(places / 1000 ** (2 * index / width)),
        "The waves become shorter, not longer: divide the place by 10000^(2 i / d_model).": (
            joined(places * 10000 ** (2 * index / width))
        ),
        "All waves have the same length. Is the exponent a whole number, cut off by `//`? Or is i missing?": (
            joined(places.expand(-1, half))
        ),
        "The second half has sines too: cosines belong there.": torch.cat([angle.sin()] * 2, -1).float(),
        "The first half has cosines too: sines belong there.": torch.cat([angle.cos()] * 2, -1).float(),
        "You count the places yourself, 0, 1, 2, …. Use the numbers in `pos`: a cached step starts later.": (
            joined(counted / 10000 ** (2 * index / width))
        ),
        "The waves are one place late: `pos` counts from 0.": (joined((places + 1) / 10000 ** (2 * index / width))),
        "The angle is multiplied by 2 π: the shortest wave is 2 π places long, so that the angle is the place.": (
            joined(2 * math.pi * angle)
        ),
    }


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
        right, mistakes = _biases(n_heads, q_pos, k_pos)
        expect_kind(answer, right, case)
        later = (k_pos > q_pos.unsqueeze(-1)).expand(n_heads, -1, -1)
        if later.any() and torch.equal(answer == -torch.inf, later):
            raise Wrong(
                "Keys after the query get -inf. That is the mask's affair; here the distance counts in both directions."
            )
        expect(answer, right, mistakes, what=case)
    return (
        "Right. With 8 heads a key 20 places back loses 10 in the first head, which looks nearby, and 0.08 in the last."
    )


def _expect_axes(answer: Any, heads: int, queries: int, keys: int) -> None:
    if not isinstance(answer, Tensor):
        return  # `expect` says so
    needed = f"needed is (H, T, S) = {(heads, queries, keys)}."
    if answer.shape == (queries, keys):
        raise Wrong(f"Your result is (T, S), the same for all heads. Each head has its own slope: {needed}")
    if answer.shape == (queries, keys, heads) != (heads, queries, keys):
        raise Wrong(f"The axis of the heads is the last; {needed}")
    if queries != keys and answer.shape == (heads, keys, queries):
        raise Wrong(f"Rows and columns are swapped: rows are queries, columns are keys; {needed}")


def _biases(n_heads: int, q_pos: Tensor, k_pos: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The right bias, and what natural mistakes would give."""
    head = torch.arange(1, n_heads + 1)
    ahead = (q_pos.unsqueeze(-1) - k_pos).float()  # (T, S): by how much a query comes after its key
    row, column = torch.arange(len(q_pos)), torch.arange(len(k_pos))

    def bias(exponent: Tensor, distance: Tensor) -> Tensor:
        return -(2.0**exponent)[:, None, None] * distance

    slopes, far = -8 * head / n_heads, ahead.abs()
    last = (k_pos.max() - k_pos).float().expand_as(ahead)
    return bias(slopes, far), {
        "The sign is wrong: what is far must lose. Your bias is positive.": -bias(slopes, far),
        "The order of the slopes is reversed: the first head has the steepest, 2^(-8/H), the last 2^-8.": (
            bias(slopes.flip(0), far)
        ),
        "The sign is wrong, and the order of the slopes is reversed.": -bias(slopes.flip(0), far),
        "The slopes are 1/2, 1/4, 1/8, … whatever the number of heads. Their ratio is 2^(-8/H): the last is always "
        "2^-8.": bias(-head.float(), far),
        "The slopes begin with 1: the first is 2^(-8/H), the last 2^-8. Count the heads from 1.": (
            bias(slopes + 8 / n_heads, far)
        ),
        "All heads have the slope of the first: the one of head h is 2^(-8 h/H).": bias(
            slopes[:1].expand(n_heads), far
        ),
        "The exponent lacks the 8: the slopes are 2^(-8 h/H).": bias(slopes / 8, far),
        "Keys *after* the query gain: the absolute value of the distance is missing.": bias(slopes, ahead),
        "Keys *before* the query gain: the absolute value of the distance is missing.": bias(slopes, -ahead),
        "You count distances to the last key, the same for each query: the distance is that to the query itself. "
        "(Under a causal mask the softmax is blind for this difference. Here there is no mask.)": bias(slopes, last),
        "The distance is squared: ALiBi is a straight line.": bias(slopes, far.square()),
        "You count the places yourself. Use the numbers in q_pos and k_pos: a cached step starts later.": (
            bias(slopes, (row[:, None] - column).float().abs())
        ),
        "Keys after the query get 0. That is the mask's affair; here the distance counts in both directions.": (
            bias(slopes, ahead.clamp(min=0))
        ),
    }


@checker
def bucket(fn: Callable[[Tensor, int, int], Tensor]) -> str:
    """Check `fn(distance, n_buckets, max_distance)`: T5's bucket of each distance q - k >= 0, as int64."""
    far = torch.arange(400)
    for n_buckets, most in ((32, 128), (16, 100), (8, 50), (2, 20)):
        exact = n_buckets // 2
        step = (far.clamp(min=1).double() / exact).log() / math.log(most / exact) * (n_buckets - exact)
        # At a boundary the last bit of a logarithm decides.
        sure = ((step - step.round()).abs() > 1e-3) | (far <= exact) | (far >= most)
        distance = far[sure]
        answer = call(fn, distance, n_buckets, most)
        case = f"For n_buckets={n_buckets} and max_distance={most}, "
        _expect_whole(
            answer, _buckets(distance, n_buckets, most), _misplaced(distance, n_buckets, most), case, distance
        )
    table = torch.tensor([[0, 1, 200], [5, 20, 90]])
    expect_kind(call(fn, table, 32, 128), table, "For a table of distances, the result")
    if not torch.equal(call(fn, table, 32, 128), _buckets(table, 32, 128)):
        raise Wrong("For a table (2, 3) of distances the buckets are wrong; for a row they are right.")
    first = int((_buckets(far, 32, 128) < 31).sum())
    return (
        f"Right. Of 32 buckets the first 16 are single distances; the last holds all from {first} on, {first + 10} as "
        f"well as 10,000: T5 goes on beyond its training, but sees no difference there."
    )


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


def _misplaced(far: Tensor, n: int, most: int) -> Mapping[str, Tensor]:
    """What natural mistakes would give."""
    exact, endless = n // 2, 2**40
    steps = _buckets(far, n, most, last=endless) - exact
    return {
        f"distances beyond max_distance get buckets that do not exist: the last is {n - 1}. Limit them.": (
            _buckets(far, n, most, last=endless)
        ),
        f"the last bucket is {n}, but buckets count from 0: the last is {n - 1}.": _buckets(far, n, most, last=n),
        "every distance has its own bucket: the logarithmic part is missing.": far.clamp(max=n - 1),
        "every distance has its own bucket, and nothing ends them.": far,
        "all that is not near shares one bucket: the logarithmic part is missing.": far.clamp(max=exact),
        "all that is not near is in the last bucket: the logarithmic part is missing.": (
            torch.where(far < exact, far, n - 1)
        ),
        "you round to the nearest bucket: `.long()` cuts off, which is what is asked.": (
            _buckets(far, n, most, whole=torch.round)
        ),
        "you round up: `.long()` cuts off, which is what is asked.": _buckets(far, n, most, whole=torch.ceil),
        "the logarithm runs from 1 to max_distance; it starts where the single distances end: log(distance / exact) / "
        "log(max_distance / exact).": _buckets(far, n, most, log="bare"),
        "you divide by log(max_distance): it is log(max_distance / exact), so that max_distance gives 1.": (
            _buckets(far, n, most, log="half")
        ),
        "the ranges grow in a line: they should grow with the logarithm of the distance.": (
            _buckets(far, n, most, log="line")
        ),
        "the logarithm is spread over all n_buckets: only n_buckets - exact are left for it.": (
            _buckets(far, n, most, ranges=n)
        ),
        "the logarithmic part begins with bucket 0: the first n_buckets // 2 are taken, add them.": (
            torch.where(far < exact, far, steps.clamp(max=n - 1))
        ),
        "the logarithmic part begins with bucket 0, and it ends too early: add n_buckets // 2.": (
            torch.where(far < exact, far, steps.clamp(max=n - exact - 1))
        ),
        "the single distances are too few: the first n_buckets // 2 buckets are one distance each.": (
            _buckets(far, n, most, exact=max(n // 4, 1))
        ),
        "you use the logarithm for near distances too: below n_buckets // 2 the bucket is the distance itself.": (
            _buckets(far, n, most, whole=torch.trunc, near=False).clamp(min=0)
        ),
    }


def _expect_whole(answer: Any, want: Tensor, mistakes: Mapping[str, Tensor], case: str, far: Tensor) -> None:
    if isinstance(answer, Tensor) and answer.dtype != want.dtype:
        raise Wrong(f"{case}the result is {answer.dtype}; a bucket is a row of a table: int64, as `.long()` gives.")
    expect_kind(answer, want, f"{case}the result")
    if torch.equal(answer, want):
        return
    for sentence, value in mistakes.items():
        if torch.equal(answer, value):
            raise Wrong(case + sentence)
    at = int((answer != want).nonzero()[0])
    raise Wrong(f"{case}the distance {int(far[at])} is in bucket {int(answer[at])}; it belongs into {int(want[at])}.")
