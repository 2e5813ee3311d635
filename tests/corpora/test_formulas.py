"""Logic: answers by truth tables, splits by structure, and no answer that the words give away."""

import ast
import re
from collections import Counter, defaultdict
from functools import cache
from itertools import permutations, product
from random import Random
from string import ascii_lowercase

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from course_lib.corpora import formulas, logic

pytestmark = pytest.mark.slow  # whole sets are read and searched

WORDS = {ast.Mult: "and", ast.Add: "or", ast.Sub: "implies"}
LEVELS = range(1, 7)


def parse(question):
    """(facts by letter, formula): Python's grammar reads the words as signs, "not" binding most tightly."""
    *facts, formula = question.removesuffix("?").split(". ")
    facts = dict(re.fullmatch(r"([a-z]) is (true|false|unknown)", fact).groups() for fact in facts)
    for word, sign in (("and", "*"), ("or", "+"), ("implies", "-"), ("not", "~")):
        formula = re.sub(rf"\b{word}\b", sign, formula)

    def walk(node):
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.UnaryOp):
            assert isinstance(node.op, ast.Invert)
            return "not", walk(node.operand)
        return WORDS[type(node.op)], walk(node.left), walk(node.right)

    return facts, walk(ast.parse(formula, mode="eval").body)


def holds(formula, world):
    if isinstance(formula, str):
        return world[formula]
    values = [holds(part, world) for part in formula[1:]]
    return {"not": lambda a: not a, "and": min, "or": max, "implies": lambda a, b: not a or b}[formula[0]](*values)


def truth_table(facts, formula):
    """The answer by trying every world that the facts allow."""
    choices = [{"true": [True], "false": [False], "unknown": [False, True]}[v] for v in facts.values()]
    results = {holds(formula, dict(zip(facts, world, strict=True))) for world in product(*choices)}
    return "unknown" if len(results) == 2 else str(results.pop()).lower()


def letters_of(formula):
    return [formula] if isinstance(formula, str) else [x for part in formula[1:] for x in letters_of(part)]


def structure(formula, facts):
    """Facts in the letters' place, chains of "and" and "or" as multisets: another way to the canonical form."""
    if isinstance(formula, str):
        return facts[formula]
    word, *parts = formula
    if word in ("and", "or"):
        while any(p[0] == word for p in parts if not isinstance(p, str)):
            parts = [x for p in parts for x in (p[1:] if not isinstance(p, str) and p[0] == word else [p])]
        return word, frozenset(Counter(structure(p, facts) for p in parts).items())
    return word, *(structure(p, facts) for p in parts)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_answers_are_right(split, level):
    for row in logic(split, level=level, count=60, seed=3):
        assert truth_table(*parse(row["question"])) == row["answer"], row["text"]


@pytest.mark.parametrize("level", LEVELS)
def test_size_and_writing(level):
    unused_first = 0
    for question in logic(level=level, count=200)["question"]:
        facts, formula = parse(question)
        assert len(facts) == question.count(" is ") == level + 4
        used = letters_of(formula)
        assert len(used) == len(set(used)) == level + 2
        assert set(used) < set(facts)
        text = question.split(". ")[-1]
        assert len(re.findall(r"\b(?:and|or|implies)\b", text)) == level + 1
        assert text.count("(") == text.count(")") == level + (formula[0] == "not")  # the root needs none of its own
        assert "not not" not in text
        unused_first += next(iter(facts)) not in used
    assert unused_first / 200 == pytest.approx(2 / (level + 4), abs=0.12)


def test_words_are_spread():
    text = " ".join(question.split(". ")[-1] for question in logic(level=3, count=600)["question"])
    counts = Counter(re.findall(r"\w+", text))
    connectives = [counts[word] for word in ("and", "or", "implies")]
    assert min(connectives) > 0.3 * sum(connectives)
    assert counts["not"] / (600 * (4 + 5)) == pytest.approx(1 / 3, abs=0.05)  # of 4 connectives and 5 letters
    assert re.search(r"not [a-z]\b", text)
    assert "not (" in text


@pytest.mark.parametrize("count", [300, 100])
def test_answers_are_balanced(count):
    for split in ("train", "test"):
        counts = Counter(logic(split, count=count)["answer"])
        assert set(counts) == {"true", "false", "unknown"}
        assert max(counts.values()) - min(counts.values()) <= 1
    answers = logic(count=300)["answer"]
    assert len({tuple(sorted(answers[i : i + 3])) for i in range(0, 300, 3)}) > 5  # the order tells nothing either


def test_each_formula_can_have_each_answer():
    """Exactly why words cannot tell the answer: the same facts, dealt otherwise, give the other two."""
    for question in logic(level=1, count=60)["question"]:
        facts, formula = parse(question)
        deals = (dict(zip(facts, values, strict=True)) for values in permutations(facts.values()))
        assert {truth_table(deal, formula) for deal in deals} == {"true", "false", "unknown"}


def _counts(questions, vocabulary):
    counts = [Counter(re.findall(r"\w+", question)) for question in questions]
    return torch.tensor([[float(count[word]) for word in vocabulary] for count in counts])


@cache
def drawn(level):
    """Problems to learn from, and problems to be asked."""
    return logic("train", level=level, count=2000), logic("test", level=level, count=600)


@pytest.mark.parametrize("level", [1, 3])
def test_a_bag_of_words_is_near_chance(level):
    """Softmax regression on word counts, fitted with many rows: 1/3 within three standard errors."""
    train, test = drawn(level)
    words = [*ascii_lowercase, *formulas.ANSWERS, "and", "or", "implies", "not"]
    x, y = _counts(train["question"], words), torch.tensor([formulas.ANSWERS.index(a) for a in train["answer"]])
    spread = x.std(0) + 1e-3
    weight = torch.zeros(len(words) + 1, 3, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=30)

    def logits(counts):
        return (counts - x.mean(0)) / spread @ weight[:-1] + weight[-1]

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(logits(x), y) + 1e-3 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    guesses = logits(_counts(test["question"], words)).argmax(1).tolist()
    right = [formulas.ANSWERS[g] == a for g, a in zip(guesses, test["answer"], strict=True)]
    assert sum(right) / len(right) < 1 / 3 + 3 * (2 / 9 / len(right)) ** 0.5


def _facts(question):
    """The facts of the letters in the formula, in alphabetical order: which letter has which is forgotten."""
    facts = dict(re.findall(r"([a-z]) is (\w+)\.", question))
    return tuple(sorted(facts[letter] for letter in re.findall(r"\b[a-z]\b", question.split(". ")[-1])))


def _by_heart(question):
    """The formula alone, its letters renamed in the order in which they come."""
    names = {}
    return re.sub(r"\b[a-z]\b", lambda m: names.setdefault(m[0], f"x{len(names)}"), question.split(". ")[-1])


@pytest.mark.parametrize(
    ("key", "level", "share"),
    [(_facts, 1, 0.50), (_facts, 2, 0.40), (_facts, 3, 0.40), (_by_heart, 1, 0.20), (_by_heart, 2, 0.33)],
)
def test_what_shortcuts_give(key, level, share):
    """The commonest answer in train to what the shortcut looks at; within three standard errors of 600."""
    train, test = drawn(level)
    answers = defaultdict(Counter)
    for question, answer in zip(train["question"], train["answer"], strict=True):
        answers[key(question)][answer] += 1
    guesses = [max(answers[key(q)] or {"false": 1}, key=answers[key(q)].get) for q in test["question"]]
    right = sum(guess == answer for guess, answer in zip(guesses, test["answer"], strict=True))
    assert right / 600 == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize(("level", "seed"), [(1, 0), (1, 1), (2, 2)])
def test_splits_share_no_problem_with_other_letters_or_order(level, seed):
    forms = {}
    for split, count in (("train", 2500), ("validation", 250), ("test", 250)):
        pairs = map(parse, logic(split, level=level, count=count, seed=seed)["question"])
        forms[split] = {structure(formula, facts) for facts, formula in pairs}
    assert not forms["train"] & forms["test"]
    assert not forms["train"] & forms["validation"]
    assert not forms["validation"] & forms["test"]


def test_the_own_structure_forgets_names_and_order_and_keeps_the_rest():
    def both(question):
        facts, formula = parse(question)
        return structure(formula, facts), _library_form(facts, formula)

    base = both("p is true. q is false. r is unknown. s is true. (p and not q) implies r?")
    assert base == both("x is unknown. y is true. z is false. (not z and y) implies x?")
    turned = both("p is true. q is false. r is unknown. r implies (p and not q)?")
    assert base[0] != turned[0]
    assert base[1] != turned[1]
    chain = both("p is true. q is false. r is unknown. (p or q) or r?")
    assert chain == both("p is true. q is false. r is unknown. q or (r or p)?")
    for other in ("(p or q) and r?", "(p and q) or r?", "not (p or q) or r?"):
        facts = "p is true. q is false. r is unknown. "
        assert both(facts + other)[0] != chain[0]
        assert both(facts + other)[1] != chain[1]


def _library_form(facts, formula):
    letters = sorted(facts)

    def numbered(part):
        return letters.index(part) if isinstance(part, str) else (part[0], *map(numbered, part[1:]))

    return formulas._form(numbered(formula), [formulas.ANSWERS.index(facts[x]) for x in letters])


def rewrite(formula, rng):
    """The same problem written otherwise: a and b as b and a, (a and b) and c as a and (b and c), and so for or."""
    if isinstance(formula, str):
        return formula
    word, *parts = formula[0], *(rewrite(p, rng) for p in formula[1:])
    if word in ("and", "or"):
        rng.shuffle(parts)
        if not isinstance(parts[0], str) and parts[0][0] == word and rng.random() < 0.5:
            parts = [parts[0][1], (word, parts[0][2], parts[1])]
    return word, *parts


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(0, 2))
def test_rewriting_keeps_form_and_answer(seed, level, wanted):
    rng = Random(seed)
    problem = formulas._draw(rng, level, wanted)
    facts, formula = parse(problem.question)
    assert _library_form(facts, formula) == problem.form
    assert problem.answer == formulas.ANSWERS[wanted]
    fresh = dict(zip(facts, rng.sample(ascii_lowercase, len(facts)), strict=True))

    def renamed(part):
        return fresh[part] if isinstance(part, str) else (part[0], *map(renamed, part[1:]))

    facts = {fresh[letter]: value for letter, value in facts.items()}
    other = rewrite(renamed(formula), rng)
    assert _library_form(facts, other) == problem.form
    assert truth_table(facts, other) == problem.answer
