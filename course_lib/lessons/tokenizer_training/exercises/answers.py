"""What the checks of this lesson share: answers that are no tensors, compared with the right ones and with mistakes."""

import math
from collections.abc import Callable, Iterable
from copy import copy
from typing import Any

import numpy as np
from torch import Tensor

from course_lib.exercises import Wrong, call
from course_lib.exercises.mistakes import Mistakes

Cases = Iterable[tuple[tuple[Any, ...], Any, str]]  # arguments, the learner's answer, and what is said of the case


def judge(cases: Cases, right: Callable[..., Any], mistakes: Mistakes) -> None:
    """Raise Wrong unless each answer is what `right` gives: with the sentence of the mistake that gives all of them."""
    told = [(args, plain(got), said) for args, got, said in cases]
    wrong = [(args, got, said) for args, got, said in told if not same(got, right(*args))]
    if not wrong:
        return
    for sentence, mistake in mistakes.items():
        if all(same(got, mistake(*args)) for args, got, _ in told):
            raise Wrong(sentence)
    args, got, said = wrong[0]
    raise Wrong(f"For {said} the answer is {right(*args)!r}, and yours {got!r}.")


def plain(answer: Any) -> Any:
    """`answer` in Python's own types: numbers and arrays of NumPy and torch are right as well."""
    if isinstance(answer, np.generic | np.ndarray | Tensor):
        return answer.tolist()
    return [plain(a) for a in answer] if isinstance(answer, list) else answer


def call_for_list(fn: Callable[..., Any], *args: Any, of: str = "pieces") -> list[Any]:
    """Call the learner's function with copies of `args`; Wrong for what is no list. The list returned is a copy."""
    answer = plain(call(fn, *map(copy, args)))
    if not isinstance(answer, list):
        raise Wrong(f"You return a {type(answer).__name__}; needed is a list of {of}, and nothing else.")
    return list(answer)


def same(a: Any, b: Any) -> bool:
    """Whether two answers are of one type and equal, floats but for rounding."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
