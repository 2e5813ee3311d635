"""Timing side by side: the runs take turns, so that a drift of the machine hits all of them alike."""

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch

from course_lib.measure import Clock, timed

MIN_REPEATS = 6  # with fewer rounds no interval of their median has 95 %
MIN_SECONDS = 0.02  # a shorter measurement would be made of interrupts and of the clock's own cost


class Ratio(NamedTuple):
    """Median of the ratio over rounds, and the ends of its 95 % interval."""

    median: float
    low: float
    high: float


def take_turns(
    runs: Mapping[str, Callable[[], object]], repeats: int, device: torch.device, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds a call of each run, one number a round, in `repeats` rounds.

    Each run is warmed up first, and repeated within its turn until the turn lasts 20 ms. A round gives every run one
    turn, in an order drawn anew, the same in each process: what a run leaves in the caches falls on no one in
    particular.
    """

    def turn(name: str, calls: int) -> float:
        return timed(runs[name], calls, device, clock)

    calls = {name: _calls_for(partial(turn, name)) for name in runs}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    generator = random.Random(0)
    for _ in range(repeats):
        for name in generator.sample(list(runs), len(runs)):
            seconds[name].append(turn(name, calls[name]) / calls[name])
    return seconds


def _calls_for(turn: Callable[[int], float]) -> int:
    turn(1)  # the first call pays for what is made once: buffers, threads, the optimizer's state
    calls = 1
    while turn(calls) < MIN_SECONDS:
        calls *= 2
    return calls


def ratio(ours: Sequence[float], rival: Sequence[float]) -> Ratio:
    """ours / rival round by round: below 1, ours is faster.

    The interval is of the median, from the order of the ratios alone.
    The two numbers of a round were taken within a moment of each other; the ratio of two medians would mix moments.
    Raises ValueError when the lengths differ, or for fewer than 6 rounds.
    """
    if len(ours) != len(rival):
        raise ValueError(f"ours has {len(ours)} rounds, rival {len(rival)}; they must be the same rounds")
    if len(ours) < MIN_REPEATS:
        raise ValueError(f"ours has {len(ours)} rounds; an interval needs at least {MIN_REPEATS}")
    ratios = sorted(a / b for a, b in zip(ours, rival, strict=True))
    outside = _outside(len(ratios))
    return Ratio(statistics.median(ratios), ratios[outside], ratios[-1 - outside])


def difference(measured: Ratio, control: Ratio) -> str:
    """What can be called a difference: "faster" or "slower" than the rival, or "none shown".

    It is one where the interval excludes 1 and lies beyond that of the control.

    `control` is the ratio of two copies of the same thing (A/A): what the machine does alone. Which copy comes first
    means nothing, so its interval counts in both directions.
    """
    bound = max(control.high, 1 / control.low)  # 1 or more
    if measured.high < 1 / bound:
        return "faster"
    return "slower" if measured.low > bound else "none shown"


def _outside(rounds: int) -> int:
    """How many of the sorted values may lie outside on each side, for the rest to hold the median with 95 %.

    The true median is above the k-th value unless fewer than k of the rounds fell below it, as likely as heads in so
    many throws of a coin (the sign test's interval: no distribution is assumed).
    """
    tail, k = 0.5**rounds, 0
    while tail <= 0.025:
        k += 1
        tail += math.comb(rounds, k) * 0.5**rounds
    return max(k - 1, 0)
