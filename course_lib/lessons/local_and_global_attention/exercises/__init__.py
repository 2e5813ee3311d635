"""Checks for the exercises of lesson 04, local and global attention; here those of patterns, the others imported."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from course_lib.attention import Pattern, causal, global_tokens
from course_lib.attention import window as library_window
from course_lib.exercises import Wrong, call, checker, expect_kind, learners_code
from course_lib.exercises.mistakes import Mistakes, sentence_on
from course_lib.lessons.local_and_global_attention.exercises.blocks import LOCAL, injected, local
from course_lib.lessons.local_and_global_attention.exercises.online import ADD_TILE, add_tile, injected_online
from course_lib.lessons.local_and_global_attention.exercises.reach import HOPS, design, hops

__all__ = [
    "ADD_TILE", "COUNT_PAIRS", "HOPS", "LOCAL", "WINDOW",
    "add_tile", "count_pairs", "design", "hops", "injected", "injected_online", "local", "window",
]  # fmt: skip


Side = Callable[[Tensor, int], Tensor]  # of the number of places by which a query comes after its key, and the radius


def _near(ahead: Tensor, radius: int) -> Tensor:
    return ahead.abs() <= radius


def _near_past(ahead: Tensor, radius: int) -> Tensor:
    return (ahead <= radius) & (ahead >= 0)


def _windowed(two_sided: Side, one_sided: Side = _near_past) -> Callable[[Tensor, Tensor, int, bool], Tensor]:
    """A window as the learner's; one_sided: with causal=True."""
    return lambda q_pos, k_pos, radius, is_causal: (one_sided if is_causal else two_sided)(q_pos - k_pos, radius)


WINDOW: Mistakes = {
    "The last place is missing: a key *at* the distance `radius` is seen too. Compare with <=, not with <.":
        _windowed(lambda ahead, radius: ahead.abs() < radius, lambda ahead, radius: (ahead < radius) & (ahead >= 0)),
    "You cut at half of the radius: it counts the places on *each* side.":
        _windowed(lambda ahead, radius: _near(2 * ahead, radius), lambda ahead, radius: _near_past(2 * ahead, radius)),
    "It is inverted: True means *may* attend.":
        _windowed(lambda ahead, radius: ~_near(ahead, radius), lambda ahead, radius: ~_near_past(ahead, radius)),
    "Rows and columns are swapped: rows are queries. A query must see what came *before* it: k_pos <= q_pos.":
        _windowed(_near, lambda ahead, radius: _near_past(-ahead, radius)),
    "With causal=True the future is still visible: k_pos <= q_pos must hold as well.": _windowed(_near, _near),
    "With causal=True the window is gone: both must hold, the radius and k_pos <= q_pos.":
        _windowed(_near, lambda ahead, radius: ahead >= 0),
    "A token must see itself: k_pos <= q_pos, not <.":
        _windowed(_near, lambda ahead, radius: _near_past(ahead, radius) & (ahead > 0)),
    "`&` binds more tightly than `<=`: put each comparison in brackets.":
        _windowed(_near, lambda ahead, radius: ahead.abs() <= (radius & (ahead >= 0))),
    "Without the absolute value all of the future is near: q_pos - k_pos is negative there.":
        _windowed(lambda ahead, radius: ahead <= radius),
    "Without the absolute value all of the past is near: k_pos - q_pos is negative there.":
        _windowed(lambda ahead, radius: -ahead <= radius),
    "Only one side is seen. Without `causal` a window reaches `radius` places to both sides.": _windowed(_near_past),
    "Only the side after a query is seen. Without `causal` a window reaches to both sides.":
        _windowed(lambda ahead, radius: _near_past(-ahead, radius)),
}  # fmt: skip


@checker
def window(fn: Callable[[Tensor, Tensor, int, bool], Tensor]) -> str:
    """Check `fn(q_pos, k_pos, radius, causal)`: the bool of a window for positions that broadcast, as a Pattern."""
    counted = torch.arange(12)
    cases = (
        (False, counted, counted, ""),
        (True, counted, counted, ""),
        (True, torch.arange(7) * 2 + 40, torch.arange(9) + 38, "For positions that do not count from 0, "),
        (False, counted.expand(2, 12) + torch.tensor([[0], [5]]), counted.expand(2, 12) * 2, "For two sequences, "),
    )
    for is_causal, q_pos, k_pos, case in cases:
        queries, keys = q_pos.unsqueeze(-1), k_pos.unsqueeze(-2)
        try:
            answer = call(fn, queries, keys, 5, is_causal)
        except Wrong as error:
            if "oolean value of Tensor" in str(error):
                raise Wrong(
                    "`and`, `or` and `0 <= x <= 5` ask for one True or False. For tensors: `&` and `|`, with each "
                    "comparison in brackets."
                ) from error
            raise
        _expect_pattern(answer, queries, keys, is_causal, case)
    yours = Pattern("yours", lambda q_pos, k_pos: call(fn, q_pos, k_pos, 64, False))
    with learners_code("The pattern made of your function"):
        pairs, blocks = yours.pairs(1024), int(yours.blocks(1024, 64).sum())
    if pairs != library_window(64).pairs(1024):
        raise Wrong(f"With radius 64 your pattern allows {pairs:,} pairs. Is the 5 of the first check written into it?")
    return (
        f"Right: as a Pattern of radius 64 it has {pairs:,} of the {1024**2:,} pairs of 1,024 tokens, and fills or "
        f"touches {blocks} of 256 blocks of 64."
    )


def _expect_pattern(answer: Any, q_pos: Tensor, k_pos: Tensor, is_causal: bool, case: str) -> None:
    whole = library_window(5) & causal if is_causal else library_window(5)
    want = whole.allowed(q_pos, k_pos)
    what = f"{case}the result" if case else "The result"
    if isinstance(answer, Tensor) and answer.dtype != torch.bool:
        raise Wrong(
            f"{what} holds numbers, {answer.dtype}. A pattern says True or False: numbers would be added to "
            "the scores. A comparison gives a bool tensor."
        )
    if isinstance(answer, Tensor) and answer.ndim > want.ndim:
        raise Wrong(
            f"{what} has shape {tuple(answer.shape)}. q_pos is a column and k_pos a row already: compare "
            "them as they are."
        )
    expect_kind(answer, want, what)
    if torch.equal(answer, want):
        return
    if sentence := sentence_on(answer, WINDOW, q_pos, k_pos, 5, is_causal):
        raise Wrong(sentence)
    if case:
        raise Wrong(f"{what} is wrong: use the numbers in q_pos and k_pos, not where they stand.")
    query, key = (int(i) for i in (answer != want).nonzero()[0])
    raise Wrong(
        f"With radius 5 and causal={is_causal}, query {query} and key {key} give {bool(answer[query, key])}; "
        f"needed is {bool(want[query, key])}."
    )


def _pairs(length: int, radius: int, n_global: int) -> int:
    return (library_window(radius) | global_tokens(range(n_global))).pairs(length)


def _window_pairs(length: int, radius: int) -> int:
    """Also what the formula gives for a radius beyond the text, where it does not hold."""
    return length * (2 * radius + 1) - radius * (radius + 1)


def _both(length: int, n_global: int) -> int:
    """Pairs with a global token on one side or both."""
    return 2 * length * n_global - n_global**2


# For (length T, radius r, n_global g).
COUNT_PAIRS: Mistakes = {
    "the edges are forgotten: the first and last tokens have fewer neighbours than 2 radius + 1.":
        lambda T, r, g: (T - g) * (2 * r + 1) + _both(T, g),
    "a token's pair with itself is missing: a window has 2 radius + 1 keys, not 2 radius.":
        lambda T, r, g: _pairs(T - g, r, 0) - (T - g) + _both(T, g),
    "each pair is counted once. Query 3 with key 5 and query 5 with key 3 are two.":
        lambda T, r, g: (_pairs(T, r, g) - T) // 2 + T,
    "pairs of global tokens with near ones are counted twice, as window and as global.":
        lambda T, r, g: _pairs(T, r, 0) + _both(T, g),
    "some pairs are counted twice: those of the window with global tokens, and those of two global tokens.":
        lambda T, r, g: _pairs(T, r, 0) + 2 * T * g,
    "the pairs of two global tokens are counted twice: they are in a row and in a column.":
        lambda T, r, g: _pairs(T - g, r, 0) + 2 * T * g,
    "global rows or columns are forgotten: global tokens see all, and all see them.":
        lambda T, r, g: (library_window(r) | Pattern("", lambda q_pos, k_pos: (k_pos < g) & (q_pos == q_pos))).pairs(T),
    "global rows or columns are forgotten, and near pairs are counted twice.":
        lambda T, r, g: _pairs(T, r, 0) + T * g,
    "global tokens are not counted.": lambda T, r, g: _pairs(T, r, 0),
    "where the radius is longer than the text without its global tokens, the formula counts too few: a window reaches "
    "no farther than the last token. Limit the radius first.":
        lambda T, r, g: _window_pairs(T - g, r) + _both(T, g),
}  # fmt: skip


def _counted(count: Callable[[int, int, int], int], cases: Sequence[tuple[int, int, int]]) -> Tensor:
    return torch.tensor([float(count(*case)) for case in cases], dtype=torch.float64)


@checker
def count_pairs(fn: Callable[[int, int, int], int]) -> str:
    """Check `fn(length, radius, n_global)`: how many pairs a window and the first tokens as global ones allow."""
    stages: tuple[tuple[str, Sequence[tuple[int, int, int]]], ...] = (
        ("Without global tokens, ", ((16, 3, 0), (10, 1, 0), (50, 7, 0))),
        ("With global tokens, ", ((16, 3, 2), (50, 7, 1), (50, 2, 5))),
        ("", ((6, 9, 0), (6, 9, 2), (6, 5, 1), (6, 2, 6), (6, 2, 5), (20, 0, 3), (1, 4, 1))),
    )
    for stage, cases in stages:
        answers = [call(fn, *case) for case in cases]
        try:
            got = torch.tensor([float(answer) for answer in answers], dtype=torch.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise Wrong(f"Return one number; yours is a {type(answers[0]).__name__}.") from error
        want = _counted(_pairs, cases)
        if torch.equal(got, want):
            continue
        if sentence := sentence_on(got, COUNT_PAIRS, cases, run=_counted):
            raise Wrong(stage + sentence if stage else sentence[0].upper() + sentence[1:])
        at = int((got != want).nonzero()[0])
        length, radius, n_global = cases[at]
        raise Wrong(
            f"For length {length}, radius {radius} and {n_global} global tokens you count {got[at]:g} pairs; the "
            f"pattern has {want[at]:g}."
        )
    pairs = _pairs(4096, 64, 1)
    if call(fn, 4096, 64, 1) != pairs:
        raise Wrong(f"For 4,096 tokens, radius 64 and one global token the pattern has {pairs:,} pairs.")
    return f"Right. For 4,096 tokens, radius 64 and one global token: {pairs:,} pairs, {pairs / 4096**2:.1%} of all."
