"""Arithmetic: answers by evaluation, splits by the structure of what is written."""

import ast
import re
from collections import Counter
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.corpora import arithmetic, expressions

pytestmark = pytest.mark.slow  # whole sets are read and searched

SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
LEVELS = range(1, 7)


def parse(question):
    """The question as (sign, left, right) or a number, read by Python's own grammar."""
    assert question.endswith(" =")

    def walk(node):
        if isinstance(node, ast.Constant):
            assert type(node.value) is int
            return node.value
        return SIGNS[type(node.op)], walk(node.left), walk(node.right)

    return walk(ast.parse(question.removesuffix(" ="), mode="eval").body)


def evaluate(tree, seen):
    """The value as a fraction; every number on the way is noted in `seen`."""
    if isinstance(tree, int):
        value = Fraction(tree)
    else:
        a, b = evaluate(tree[1], seen), evaluate(tree[2], seen)
        value = {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b}[tree[0]]()
    seen.append(value)
    return value


def structure(tree, inverse=False, family=None):
    """A multiset that forgets order and grouping of terms and factors: another way to the canonical form."""
    if isinstance(tree, int):
        return Counter({(inverse, tree): 1})
    own = "+-" if tree[0] in "+-" else "*/"
    parts = structure(tree[1], inverse if own == family else False, own)
    other = inverse if own == family else False
    parts = parts + structure(tree[2], other != (tree[0] in "-/"), own)
    return parts if own == family else Counter({(inverse, own, frozenset(parts.items())): 1})


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_answers_are_right_and_numbers_stay_small(split, level):
    for row in arithmetic(split, level=level, count=200, seed=3):
        numbers = []
        assert str(evaluate(parse(row["question"]), numbers)) == row["answer"]
        assert all(value.denominator == 1 and 0 <= value <= 99 for value in numbers), row["text"]


@pytest.mark.parametrize("level", LEVELS)
def test_writing_is_unambiguous(level):
    for question in arithmetic(level=level, count=300)["question"]:
        assert re.fullmatch(r"[(]*\d+[)]*( [-+*/] [(]*\d+[)]*)+ =", question)
        assert not re.search(r"\b0\d|--|\d\d\d", question)
        text = question.removesuffix(" =")
        assert ast.unparse(ast.parse(text)) == text  # brackets where Python would need them, and no others
        assert len(re.findall(r"[-+*/]", question)) == level
        assert len(re.findall(r"\d+", question)) == level + 1
        assert level > 1 or "(" not in question


def test_brackets_signs_and_answers_are_spread():
    rows = arithmetic(level=3, count=3000)
    signs = Counter("".join(re.findall(r"[-+*/]", " ".join(rows["question"]))))
    assert min(signs[s] for s in "+-*/") > 0.12 * signs.total()
    assert 0.3 < sum("(" in q for q in rows["question"]) / 3000 < 0.9
    answers = Counter(rows["answer"])
    assert len(answers) == 100
    assert max(answers.values()) < 60  # evenly drawn: 30 expected
    assert not re.search(r"\b[01] [*]|[*/] [01]\b", " ".join(rows["question"]))


def test_what_grows_with_the_level():
    """The docstring's numbers: longer, and of smaller numbers and more products and quotients."""
    for level, mean, products in ((1, 34, 0.24), (3, 30, 0.36)):
        text = " ".join(arithmetic(level=level)["question"])
        numbers, signs = [int(n) for n in re.findall(r"\d+", text)], re.findall(r"[-+*/]", text)
        assert sum(numbers) / len(numbers) == pytest.approx(mean, abs=0.5)
        assert sum(s in "*/" for s in signs) / len(signs) == pytest.approx(products, abs=0.005)


def test_near_the_end_of_level_1():
    """Small answers are commoner, and most test problems have their inverse in train."""
    train, test = arithmetic("train", count=8624), arithmetic("test", count=1140)
    assert sum(int(a) < 10 for a in train["answer"]) / len(train) == pytest.approx(0.13, abs=0.005)
    known, found = set(train["text"]), 0
    for text in test["text"]:
        a, sign, b, _, c = text.split()
        back = {"+": f"{c} - {a} = {b}|{c} - {b} = {a}", "-": f"{c} + {b} = {a}|{b} + {c} = {a}"}
        back |= {"*": f"{c} / {a} = {b}|{c} / {b} = {a}", "/": f"{c} * {b} = {a}|{b} * {c} = {a}"}
        found += not known.isdisjoint(back[sign].split("|"))
    assert found / len(test) == pytest.approx(0.89, abs=0.005)


@pytest.mark.parametrize(("level", "seed"), [(1, 0), (1, 1), (2, 2)])
def test_splits_share_no_problem_in_any_order(level, seed):
    """At level 1 these are nearly all problems there are: a commuted twin in another split would be found."""
    counts = {"train": 8000 if level == 1 else 4000, "validation": 1000, "test": 1000}
    forms = {}
    for split, count in counts.items():
        questions = arithmetic(split, level=level, count=count, seed=seed)["question"]
        forms[split] = {frozenset(structure(parse(q)).items()) for q in questions}
    assert not forms["train"] & forms["test"]
    assert not forms["train"] & forms["validation"]
    assert not forms["validation"] & forms["test"]


def test_the_own_structure_forgets_order_and_keeps_the_rest():
    same = [("9 - 3 + 4 =", "4 + (9 - 3) ="), ("3 * (1 + 2) =", "(2 + 1) * 3 ="), ("8 / 2 * 3 =", "3 * 8 / 2 =")]
    other = [("9 - 3 =", "3 - 9 ="), ("8 / 2 * 3 =", "8 / (2 * 3) ="), ("1 + 2 * 3 =", "(1 + 2) * 3 =")]
    for a, b in same:
        assert structure(parse(a)) == structure(parse(b))
        assert expressions._form(parse(a)) == expressions._form(parse(b))
    for a, b in other:
        assert structure(parse(a)) != structure(parse(b))
        assert expressions._form(parse(a)) != expressions._form(parse(b))


def rewrite(tree, rng):
    """The same problem written otherwise: a + b as b + a, (a + b) + c as a + (b + c), and so for products."""
    if isinstance(tree, int):
        return tree
    sign, a, b = tree[0], rewrite(tree[1], rng), rewrite(tree[2], rng)
    if sign in "+*" and rng.random() < 0.5:
        a, b = b, a
    if sign in "+*" and not isinstance(a, int) and a[0] == sign and rng.random() < 0.5:
        a, b = a[1], (sign, a[2], b)
    if sign in "-/" and not isinstance(a, int) and a[0] == {"-": "+", "/": "*"}[sign] and rng.random() < 0.5:
        return a[0], a[1], (sign, a[2], b)  # (x + y) - b as x + (y - b)
    return sign, a, b


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_rewriting_keeps_the_form(seed, level):
    rng = Random(seed)
    tree = expressions._tree(rng, rng.randint(0, 99), level)
    other = rewrite(tree, rng)
    assert expressions._form(other) == expressions._form(tree)
    assert evaluate(other, []) == evaluate(tree, [])
    assert parse(f"{expressions._text(tree)} =") == tree


def test_too_large_a_count_says_how_many_there_are():
    with pytest.raises(ValueError, match="count=1200; level 1 has only about 1140 questions in split 'test'"):
        arithmetic("test", count=1200)
