"""Turns, ratios and intervals of the reports, on fake clocks."""

import math

import pytest
import torch

from benchmarks import timing
from benchmarks.timing import Ratio, difference, ratio, take_turns

CPU = torch.device("cpu")


class FakeMachine:
    """A clock that only runs move on; `order` is what was called."""

    def __init__(self, **cost):
        self.now, self.slowdown, self.order = 0.0, 1.0, []
        self.runs = {name: lambda name=name: self._run(name, cost[name]) for name in cost}

    def _run(self, name, cost):
        self.order.append(name)
        self.now += cost * self.slowdown

    def clock(self):
        return self.now


def test_runs_take_turns_and_none_always_follows_the_same_one():
    machine = FakeMachine(a=1.0, b=2.0, c=4.0)
    seconds = take_turns(machine.runs, 60, CPU, machine.clock)
    assert seconds == {"a": [1.0] * 60, "b": [2.0] * 60, "c": [4.0] * 60}
    order = "".join(machine.order)
    assert order[:6] == "aabbcc"  # the warm-up
    rounds = [order[i : i + 3] for i in range(6, len(order), 3)]
    assert {"".join(sorted(r)) for r in rounds} == {"abc"}
    assert min(rounds.count(r) for r in ("abc", "acb", "bac", "bca", "cab", "cba")) >= 5
    again = FakeMachine(a=1.0, b=2.0, c=4.0)
    take_turns(again.runs, 60, CPU, again.clock)
    assert again.order == machine.order


def test_a_short_run_is_repeated_until_its_turn_can_be_measured():
    machine = FakeMachine(short=timing.MIN_SECONDS / 3, long=timing.MIN_SECONDS)
    seconds = take_turns(machine.runs, 5, CPU, machine.clock)
    warm_up = ["short"] * (1 + 1 + 2 + 4) + ["long"] * (1 + 1)
    assert machine.order[: len(warm_up)] == warm_up
    assert machine.order[len(warm_up) :].count("short") == 5 * 4
    assert machine.order[len(warm_up) :].count("long") == 5
    assert seconds["short"] == pytest.approx([timing.MIN_SECONDS / 3] * 5)


def test_a_slow_first_call_is_not_taken_for_the_rest():
    machine = FakeMachine(a=timing.MIN_SECONDS)
    once = iter([100.0])
    runs = {"a": lambda: machine.runs["a"]() or setattr(machine, "now", machine.now + next(once, 0.0))}
    assert take_turns(runs, 3, CPU, machine.clock)["a"] == pytest.approx([timing.MIN_SECONDS] * 3)


def test_a_machine_that_slows_down_changes_no_ratio():
    machine = FakeMachine(a=1.0, b=2.0)

    def slowing():  # called twice a turn, so four times a round
        if len(machine.order) % 2 == 0:
            machine.slowdown = 1.5 ** (len(machine.order) // 2)
        return machine.now

    seconds = take_turns(machine.runs, 7, CPU, slowing)
    assert seconds["a"][-1] > 10 * seconds["a"][0]
    assert ratio(seconds["a"], seconds["b"]) == pytest.approx((0.5, 0.5, 0.5))


def test_the_device_is_waited_for_before_the_clock_is_read(monkeypatch):
    machine = FakeMachine(a=1.0)
    waits = []
    monkeypatch.setattr("course_lib.measure.synchronise", lambda device: waits.append(len(machine.order)))
    take_turns(machine.runs, 3, CPU, machine.clock)
    assert waits == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]


def test_ratio_is_made_round_by_round():
    assert ratio([1, 2, 30, 4, 5, 3], [1, 1, 10, 1, 1, 1]) == (3, 1, 5)
    with pytest.raises(ValueError, match="ours has 3 rounds, rival 4"):
        ratio([1, 2, 3], [1, 2, 3, 4])
    with pytest.raises(ValueError, match="ours has 5 rounds; an interval needs at least 6"):
        ratio([1] * 5, [1] * 5)


@pytest.mark.parametrize(("rounds", "rank"), [(6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (21, 6), (25, 8)])
def test_the_interval_is_that_of_the_sign_test(rounds, rank):
    """The ranks that tables of the median's 95 % interval give."""
    values = list(range(1, rounds + 1))
    assert ratio(values[::-1], [1] * rounds)[1:] == (rank, rounds + 1 - rank)


@pytest.mark.parametrize("rounds", [6, 11, 21])
def test_the_interval_encloses_the_median_as_often_as_it_says(rounds):
    generator = torch.Generator().manual_seed(0)
    draws = torch.empty(4000, rounds, dtype=torch.float64).exponential_(generator=generator)  # its median is log 2
    intervals = [ratio(row, [1.0] * rounds) for row in draws.tolist()]
    inside = sum(low < math.log(2) < high for _, low, high in intervals) / len(intervals)
    assert 0.945 < inside < 0.995


@pytest.mark.parametrize(
    ("low", "high", "control", "wanted"),
    [
        (1.03, 1.05, (0.99, 1.02), "slower"),
        (1.01, 1.05, (0.99, 1.02), "none shown"),  # not beyond the control
        (0.99, 1.05, (0.99, 1.01), "none shown"),  # holds 1
        (0.90, 0.95, (0.98, 1.02), "faster"),
        (0.90, 0.99, (0.98, 1.02), "none shown"),
        (1.03, 1.05, (0.94, 0.97), "none shown"),  # equals differed by as much, the other way
        (1.07, 1.09, (0.94, 0.97), "slower"),
        (0.95, 0.96, (1.02, 1.06), "none shown"),
        (0.92, 0.94, (1.02, 1.06), "faster"),
    ],
)
def test_a_difference_lies_beyond_the_control(low, high, control, wanted):
    assert difference(Ratio((low + high) / 2, low, high), Ratio(1.0, *control)) == wanted
