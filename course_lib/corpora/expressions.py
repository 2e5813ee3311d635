"""Arithmetic, graded by the number of operators."""

from random import Random
from typing import TYPE_CHECKING

from course_lib.corpora.problems import Problem, collect, generator_of

if TYPE_CHECKING:
    from datasets import Dataset

Tree = int | tuple[str, "Tree", "Tree"]  # a number, or (operator, left, right)

_LARGEST = 99  # no number of a question, between or in the answer is larger: what grows is only the expression
_FACTORS = [[f for f in range(2, value) if value % f == 0] for value in range(_LARGEST + 1)]
_RANK = {"+": 1, "-": 1, "*": 2, "/": 2}


def arithmetic(split: str = "train", *, level: int = 1, count: int = 1000, seed: int = 0) -> "Dataset":
    """Whole-number arithmetic with `level` operators: columns question "(3 + 4) * 2 =", answer "14", level, text.

    | level | operators | numbers | brackets                | example                  |
    |-------|-----------|---------|-------------------------|--------------------------|
    | 1     | 1         | 2       | none                    | 48 - 7 = 41              |
    | 2     | 2         | 3       | where + - * / need them | 2 * (9 * 5) = 90         |
    | 3     | 3         | 4       | the same                | 36 / (61 - 49) * 22 = 66 |
    | n     | n, to 10  | n + 1   | the same                |                          |

    Every number lies in 0..99: those of the question, the answer, and each result on the way. So a higher level brings
    longer expressions, and with them other numbers and operators: of 1,000 questions the numbers are 34 on average at
    level 1 and 30 at level 3, "*" and "/" are 24 % and 36 % of the operators. Division is exact, factors and divisors
    are at least 2. Answers are drawn evenly from 0..99; only near the whole of level 1, where large ones run out, small
    ones are commoner (13 % of all in train are below 10). Text is the question, a space and the answer.

    Splits hold 80 % (train), 10 % (validation) and 10 % (test) of all problems, and share none: the order of terms and
    factors does not count, so 3 + 4 and 4 + 3, or 9 - 3 + 4 and 4 + (9 - 3), stand in the same split. The
    inverse does: of the test problems of level 1, 89 % have one in train, such as 7 - 3 = 4 for 3 + 4 = 7. The same
    arguments give the same rows everywhere, no question twice. Level 1 has 8,624 questions in train, 1,084 in
    validation and 1,140 in test; level 2 has over 200 times as many. Raises ValueError for another
    split, a level outside 1..10, a count below 1 or beyond what the level has, or a number that is not whole.
    """
    rng = generator_of("arithmetic", split, level, count, seed)
    return collect(lambda _: _draw(rng, level), split, level, count)


def _draw(rng: Random, level: int) -> Problem:
    """The answer first, then downwards: each value is written as an operation on two others that yields it."""
    answer = rng.randint(0, _LARGEST)
    tree = _tree(rng, answer, level)
    return Problem(f"{_text(tree)} =", str(answer), _form(tree))


def _tree(rng: Random, value: int, operators: int) -> Tree:
    """An expression with so many operators whose value is `value`."""
    if operators == 0:
        return value
    operator, a, b = _operation(rng, value)
    left = rng.randrange(operators)
    return operator, _tree(rng, a, left), _tree(rng, b, operators - 1 - left)


def _operation(rng: Random, value: int) -> tuple[str, int, int]:
    """(operator, a, b) with `a operator b == value`, all in 0.._LARGEST."""
    ways = "+-" + "*" * bool(_FACTORS[value]) + "/" * (2 * value <= _LARGEST)
    operator = rng.choice(ways)
    if operator == "+":
        a = rng.randint(0, value)
        return operator, a, value - a
    if operator == "-":
        a = rng.randint(value, _LARGEST)
        return operator, a, a - value
    if operator == "*":
        a = rng.choice(_FACTORS[value])
        return operator, a, value // a
    b = rng.randint(2, _LARGEST // max(value, 1))
    return operator, value * b, b


def _text(tree: Tree, rank: int = 0) -> str:
    """The expression with brackets only where, without them, other operands would be joined."""
    if isinstance(tree, int):
        return str(tree)
    operator, left, right = tree
    own = _RANK[operator]
    text = f"{_text(left, own)} {operator} {_text(right, own + 1)}"  # the left of two equals goes first
    return f"({text})" if own < rank else text


def _form(tree: Tree) -> str:
    """The canonical form: terms and factors sorted, whatever their order and brackets were."""
    if isinstance(tree, int):
        return str(tree)
    family = "+-" if tree[0] in "+-" else "*/"
    direct, inverse = _terms(tree, family)
    return "(" + "".join([*(family[0] + t for t in sorted(direct)), *(family[1] + t for t in sorted(inverse))]) + ")"


def _terms(tree: Tree, family: str) -> tuple[list[str], list[str]]:
    """Terms that are added and subtracted (family "+-"), or multiplied and divided by ("*/")."""
    if isinstance(tree, int) or tree[0] not in family:
        return [_form(tree)], []
    (a, b), (c, d) = _terms(tree[1], family), _terms(tree[2], family)
    return (a + c, b + d) if tree[0] == family[0] else (a + d, b + c)
