"""What several seeds say together: Student's t, and gaps of pairs."""

import math

import numpy as np
import pytest

from course_lib.experiments.seeds import T_975, gaps, interval


def test_intervals():
    mean, low, high = interval([1.0, 2.0, 4.0])
    half = 4.303 * np.std([1, 2, 4], ddof=1) / 3**0.5
    assert (mean, low, high) == pytest.approx((7 / 3, 7 / 3 - half, 7 / 3 + half))
    for freedom, t in enumerate(T_975, 1):  # the density of Student's t between -t and t
        x = np.linspace(-t, t, 200_001)
        density = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(freedom * math.pi)
        density = density * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
        assert np.trapezoid(density, x) == pytest.approx(0.95, abs=2e-4)
    with pytest.raises(ValueError, match=r"values has shape \(1,\)"):
        interval([1.0])


def test_gaps_are_between_runs_of_the_same_seed():
    losses = {"a": (1.0, 2.0, 4.0), "b": (1.5, 2.5, 4.6)}
    runs = [{"name": n, "seed": s, "metrics": {"loss": x}} for n in losses for s, x in enumerate(losses[n])]
    found = gaps({"arms": runs[::-1]}, "loss", "a")  # any order
    assert list(found) == ["b"]
    assert found["b"] == pytest.approx(interval([0.5, 0.5, 0.6]))
    with pytest.raises(ValueError, match=r"seeds of 'b' are \[0, 1\], of 'a' \[0, 1, 2\]"):
        gaps({"arms": runs[:-1]}, "loss", "a")
    with pytest.raises(ValueError, match="reference='c'; arms are"):
        gaps({"arms": runs}, "loss", "c")
