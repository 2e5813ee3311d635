"""Learning rates over time: each schedule is a function of the step that gives a factor of the optimizer's rate."""

import math
from collections.abc import Callable

from course_lib.checks import check_at_least

Schedule = Callable[[int], float]


def constant(warmup: int = 0) -> Schedule:
    """Factor of the learning rate: rises in a line over `warmup` steps to 1 and stays there."""
    check_at_least("warmup", warmup, 0)
    return lambda step: min(1.0, (step + 1) / (warmup + 1))


def cosine(steps: int, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Factor of the learning rate: a line up over `warmup` steps, then half a cosine down to `floor` at `steps`.

    Source: Loshchilov, Hutter 2017, "SGDR", section 3. Raises ValueError unless 0 <= warmup < steps, 0 <= floor <= 1.
    """
    return _decay(steps, warmup, floor, lambda t: 0.5 * (1 + math.cos(math.pi * t)))


def linear(steps: int, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Factor of the learning rate: a line up over `warmup` steps, then a line down to `floor` at `steps`.

    Raises ValueError as `cosine`.
    """
    return _decay(steps, warmup, floor, lambda t: 1 - t)


def _decay(steps: int, warmup: int, floor: float, shape: Callable[[float], float]) -> Schedule:
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup={warmup}, steps={steps}; needed is 0 <= warmup < steps")
    if not 0 <= floor <= 1:
        raise ValueError(f"floor={floor}; allowed is 0 to 1, a factor of the learning rate")
    check_at_least("steps", steps, 1)
    up = constant(warmup)

    def factor(step: int) -> float:
        if step < warmup:
            return up(step)
        return floor + (1 - floor) * shape(min(1.0, (step - warmup) / (steps - warmup)))

    return factor


def factors(schedule: Schedule, steps: int) -> list[float]:
    """What `schedule` gives for each of `steps` steps; ValueError unless all are finite numbers, 0 or more."""
    found = []
    for step in range(steps):
        value = schedule(step)
        try:
            factor = float(value)
        except (TypeError, ValueError):
            factor = math.nan
        if not 0 <= factor < math.inf:
            raise ValueError(f"schedule({step}) is {value!r}; needed is a finite number, 0 or more")
        found.append(factor)
    return found
