"""A mistake is declared once, as a function that makes it: the checker compares with its values, the tests hand it in.

Those of the checker `scores` are `SCORES`, beside it; by this name the tests find them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from course_lib.exercises import expect

Mistakes = Mapping[str, Callable[..., Any]]  # what is said of it -> a function like the learner's that makes it
Run = Callable[..., Tensor]


def result(function: Callable[..., Tensor], *args: Any) -> Tensor:
    """What `function` returns."""
    return function(*args)


def part(index: int) -> Run:
    """Of what a function returns, the tensor at `index`."""
    return lambda function, *args: function(*args)[index]


def expect_by(
    got: Any,
    right: Callable[..., Any],
    mistakes: Mistakes,
    *args: Any,
    run: Run = result,
    what: str = "The result",
    tolerance: float = 1e-5,
    size: float = 0.0,
) -> None:
    """Raise Wrong unless `got` is what `right` gives for `args`: with its sentence, if a mistake gives it.

    `run(function, *args)` is the tensor of `right`, and of each mistake, that is compared; the others as in `expect`.
    """
    values = {sentence: run(mistake, *args) for sentence, mistake in mistakes.items()}
    expect(got, run(right, *args), values, what=what, tolerance=tolerance, size=size)


def sentence_on(got: Tensor, mistakes: Mistakes, *args: Any, run: Run = result) -> str | None:
    """The sentence of the first mistake that gives exactly `got`; None where none does."""
    return next((sentence for sentence, fn in mistakes.items() if torch.equal(got, run(fn, *args))), None)
