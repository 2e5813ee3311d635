"""Propositional logic with true, false and unknown, graded by the number of connectives."""

from collections.abc import Iterator
from itertools import count as numbers
from random import Random
from string import ascii_lowercase
from typing import TYPE_CHECKING

from course_lib.corpora.problems import Problem, collect, generator_of

if TYPE_CHECKING:
    from datasets import Dataset

Formula = int | tuple[str, "Formula"] | tuple[str, "Formula", "Formula"]  # a letter's number, ("not", f), ("and", f, g)

ANSWERS = ("false", "unknown", "true")  # a truth value is an index: 0, 1, 2
_CONNECTIVES = ("and", "or", "implies")
_UNUSED = 2  # letters with a fact that the formula does not mention
_SHUFFLES = 24  # of the facts, in search of all three answers


def logic(split: str = "train", *, level: int = 1, count: int = 1000, seed: int = 0) -> "Dataset":
    """Formulas with `level` + 1 connectives under given facts: columns question, answer, level, text.

    A question is "u is unknown. p is true. x is false. k is false. r is true. (p and not x) implies u?", its answer
    "true", "false" or "unknown": true in all, none, or only some of the cases that the facts leave open. Text is the
    question, a space and the answer.

    | level | and, or, implies | letters in the formula | facts |
    |-------|------------------|------------------------|-------|
    | 1     | 2                | 3                      | 5     |
    | 2     | 3                | 4                      | 6     |
    | n     | n + 1, to 11     | n + 2                  | n + 4 |

    "not" stands before a letter or a bracket and binds most tightly. No letter occurs twice in a formula, so the
    three-valued tables of Kleene 1952, "Introduction to Metamathematics", section 64, give the answer exactly.

    The three answers are equally frequent (counts differ by at most 1), and words alone do not tell them: each formula
    is kept only if the same facts, dealt to other letters, give each of the three answers, and which one is asked for
    is drawn apart from it. Always the same answer, or a bag of words, is right in about 1/3 of the cases. Who counts
    the facts of the letters in the formula (two true, one false) and knows each count's commonest answer is right in
    about 50 % at level 1 and 40 % at levels 2 and 3: a model must beat that. Who knows the formulas by heart without
    their facts is right in about 20 % on test at level 1, where they have other facts; from level 2 on in about 1/3.

    Splits hold 80 % (train), 10 % (validation) and 10 % (test) of all problems, and share none: the letters' names,
    the order around "and" and "or", and facts that the formula does not use do not count. The same arguments give the
    same rows everywhere, no question twice. Raises ValueError for another split, a level outside 1..10, a count below
    1, or a number that is not whole.
    """
    rng = generator_of("logic", split, level, count, seed)
    wanted = [i % 3 for i in range(count)]
    rng.shuffle(wanted)
    return collect(lambda i: _draw(rng, level, wanted[i]), split, level, count)


def _draw(rng: Random, level: int, wanted: int) -> Problem:
    """A formula that can have each of the answers, with facts that give the wanted one."""
    size = level + 2
    dealt: dict[int, list[int]] = {}
    while len(dealt) < 3:
        formula = _formula(rng, level + 1, numbers())
        dealt = _deals(rng, formula, [rng.randrange(3) for _ in range(size + _UNUSED)])
    values = dealt[wanted]
    letters = rng.sample(ascii_lowercase, len(values))
    facts = [f"{letter} is {ANSWERS[value]}." for letter, value in zip(letters, values, strict=True)]
    rng.shuffle(facts)
    return Problem(f"{' '.join(facts)} {_text(formula, letters)}?", ANSWERS[wanted], _form(formula, values))


def _deals(rng: Random, formula: Formula, values: list[int]) -> dict[int, list[int]]:
    """For each answer, the first deal of `values` to the letters that gives it; an answer may be missing."""
    found: dict[int, list[int]] = {}
    for _ in range(_SHUFFLES):
        rng.shuffle(values)
        found.setdefault(_value(formula, values), values.copy())
        if len(found) == 3:
            break
    return found


def _formula(rng: Random, connectives: int, letters: Iterator[int]) -> Formula:
    """A formula of any shape with so many connectives; one part in three is negated."""
    if connectives == 0:
        formula: Formula = next(letters)
    else:
        left = rng.randrange(connectives)
        first, second = _formula(rng, left, letters), _formula(rng, connectives - 1 - left, letters)
        formula = (rng.choice(_CONNECTIVES), first, second)
    return ("not", formula) if rng.randrange(3) == 0 else formula


def _value(formula: Formula, values: list[int]) -> int:
    """Kleene's tables on 0 (false), 1 (unknown), 2 (true)."""
    if isinstance(formula, int):
        return values[formula]
    first = _value(formula[1], values)
    if len(formula) == 2:
        return 2 - first
    second = _value(formula[2], values)
    if formula[0] == "and":
        return min(first, second)
    return max(first if formula[0] == "or" else 2 - first, second)


def _text(formula: Formula, letters: list[str], inner: bool = False) -> str:
    """The formula in words; a part with a connective stands in brackets."""
    if isinstance(formula, int):
        return letters[formula]
    if len(formula) == 2:
        return f"not {_text(formula[1], letters, True)}"
    text = f"{_text(formula[1], letters, True)} {formula[0]} {_text(formula[2], letters, True)}"
    return f"({text})" if inner else text


def _form(formula: Formula, values: list[int]) -> str:
    """The canonical form: values in the letters' place, the parts of "and" and of "or" sorted."""
    if isinstance(formula, int):
        return ANSWERS[values[formula]]
    if formula[0] in ("not", "implies"):
        return f"({' '.join([formula[0], *(_form(part, values) for part in formula[1:])])})"
    return f"({' '.join([formula[0], *sorted(_parts(formula, formula[0], values))])})"


def _parts(formula: Formula, connective: str, values: list[int]) -> list[str]:
    """What a chain of one connective joins, whatever its brackets were."""
    if isinstance(formula, int) or formula[0] != connective:
        return [_form(formula, values)]
    return [text for part in formula[1:] for text in _parts(part, connective, values)]
