"""What several seeds of a study say together."""

import math

import numpy as np
from numpy.typing import ArrayLike

from course_lib.experiments.record import Record

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # quantiles of t for 1 to 9 degrees of freedom


def interval(values: ArrayLike) -> tuple[float, float, float]:
    """Mean of values (N,), such as one for each seed, and its 95 % interval by Student's t: mean, low, high.

    Raises ValueError for another shape, fewer than 2 values or more than 10.
    """
    numbers = np.asarray(values, float)
    if numbers.ndim != 1 or not 2 <= len(numbers) <= len(T_975) + 1:
        raise ValueError(f"values has shape {numbers.shape}; needed are 2 to {len(T_975) + 1} numbers")
    mean = float(numbers.mean())
    half = T_975[len(numbers) - 2] * float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    return mean, mean - half, mean + half


def gaps(record: Record, metric: str, reference: str) -> dict[str, tuple[float, float, float]]:
    """How much each other arm's `metric` is above that of the arm `reference` with the same seed: mean, low, high.

    Seeds share their data and its order, so that the interval is of the pairs. Raises ValueError for an arm that is
    not there, and arms with other seeds than the reference.
    """
    values: dict[str, dict[int, float]] = {}
    for run in record["arms"]:
        values.setdefault(run["name"], {})[run["seed"]] = run["metrics"][metric]
    if reference not in values:
        raise ValueError(f"reference={reference!r}; arms are {', '.join(values)}")
    base = values.pop(reference)
    for name, mine in values.items():
        if set(mine) != set(base):
            raise ValueError(
                f"seeds of {name!r} are {sorted(mine)}, of {reference!r} {sorted(base)}; needed are the same"
            )
    return {name: interval([mine[seed] - base[seed] for seed in sorted(mine)]) for name, mine in values.items()}
