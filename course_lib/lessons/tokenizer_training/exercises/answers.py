"""What the checks of this lesson share: answers that are no tensors, compared with the right ones and with mistakes."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from course_lib.exercises import Wrong
from course_lib.exercises.mistakes import Mistakes

Cases = Iterable[tuple[tuple[Any, ...], Any, str]]  # arguments, the learner's answer, and what is said of the case


def judge(cases: Cases, right: Callable[..., Any], mistakes: Mistakes) -> None:
    """Raise Wrong unless each answer is what `right` gives: with the sentence of the mistake that gives all of them."""
    told = list(cases)
    wrong = [(args, got, said) for args, got, said in told if not same(got, right(*args))]
    if not wrong:
        return
    for sentence, mistake in mistakes.items():
        if all(same(got, mistake(*args)) for args, got, _ in told):
            raise Wrong(sentence)
    args, got, said = wrong[0]
    raise Wrong(f"For {said} the answer is {right(*args)!r}, and yours {got!r}.")


def same(a: Any, b: Any) -> bool:
    """Whether two answers are of one type and equal, floats but for rounding."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
