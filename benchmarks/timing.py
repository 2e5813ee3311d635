"""Timing side by side: the runs take turns, so that a drift of the machine hits all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch

Clock = Callable[[], float]
MIN_REPEATS = 3
MIN_SECONDS = 0.02  # a shorter measurement would be made of interrupts and of the clock's own cost


class Ratio(NamedTuple):
    """Median of the ratio over rounds, and its quartiles."""

    median: float
    low: float
    high: float


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was told to; a CPU has done it already."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def take_turns(
    runs: Mapping[str, Callable[[], object]], repeats: int, device: torch.device, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds a call of each run, one number a round, in `repeats` rounds.

    Each run is warmed up first, and repeated within its turn until the turn lasts 20 ms. A round gives every run one
    turn; the next round begins one run later, so that none always follows the same one or always comes first.
    Raises ValueError for fewer than 3 repeats, of which no interval could be given.
    """
    if repeats < MIN_REPEATS:
        raise ValueError(f"repeats={repeats}; it must be at least {MIN_REPEATS}")

    def turn(name: str, calls: int) -> float:
        synchronise(device)
        start = clock()
        for _ in range(calls):
            runs[name]()
        synchronise(device)
        return clock() - start

    calls = {name: _calls_for(partial(turn, name)) for name in runs}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for r in range(repeats):
        first = r % len(names)
        for name in names[first:] + names[:first]:
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

    The two numbers of a round were taken within a moment of each other; the ratio of two medians would mix moments.
    Raises ValueError when the lengths differ.
    """
    if len(ours) != len(rival):
        raise ValueError(f"ours has {len(ours)} rounds, rival {len(rival)}; they must be the same rounds")
    low, median, high = statistics.quantiles((a / b for a, b in zip(ours, rival, strict=True)), method="inclusive")
    return Ratio(median, low, high)
