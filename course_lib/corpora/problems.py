"""What made-up problems share: the split of a problem, and drawing rows for one split."""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from course_lib.checks import check_at_least, check_range, check_whole
from course_lib.corpora.documents import check_split
from course_lib.init import seed_of

if TYPE_CHECKING:
    from datasets import Dataset

HARDEST = 10  # the highest level: an answer without steps between is then far out of a small model's reach
_PATIENCE = 50_000  # draws in a row that bring nothing new before we say that there is no more (under a few seconds)


class Problem(NamedTuple):
    """A question, its answer, and its canonical form: what stays when only the writing changes."""

    question: str
    answer: str
    form: str


def split_of(form: str) -> str:
    """The one split to which a canonical form belongs: "train" for 8 of 10, "validation" and "test" for 1 of 10 each.

    It depends on nothing but the form: no level, count or seed can bring a problem into a second split.
    """
    return {0: "test", 1: "validation"}.get(seed_of(form) % 10, "train")


def generator_of(kind: str, split: str, level: int, count: int, seed: int) -> Random:
    """The random numbers of one call, the same on every machine; raises ValueError for bad arguments."""
    check_split(split)
    check_range("level", level, 1, HARDEST)
    check_at_least("count", count, 1)
    check_whole("seed", seed)
    return Random(seed_of(kind, split, int(level), int(seed)))


def collect(propose: Callable[[int], Problem], split: str, level: int, count: int) -> "Dataset":
    """`count` different questions of one split; `propose(i)` draws a candidate for row i, again and again if need be.

    Columns question, answer, text (the question, a space, the answer) and level. Raises ValueError when `_PATIENCE`
    draws in a row brought no new question of this split: then there are hardly more than those found so far.
    """
    import datasets  # takes about a second to import: only who asks for data pays

    rows: dict[str, str] = {}  # answers by question, in order
    in_vain = 0
    while len(rows) < count:
        problem = propose(len(rows))
        if problem.question not in rows and split_of(problem.form) == split:
            rows[problem.question] = problem.answer
            in_vain = 0
        else:
            in_vain += 1
        if in_vain == _PATIENCE:
            raise ValueError(f"count={count}; level {level} has only about {len(rows)} questions in split {split!r}")
    columns = {
        "question": list(rows),
        "answer": list(rows.values()),
        "level": [int(level)] * count,
        "text": [f"{question} {answer}" for question, answer in rows.items()],
    }
    return datasets.Dataset.from_dict(columns, split=split)
