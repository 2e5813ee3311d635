"""Lesson LESSON_NUMBER: the solution passes, in the model too; every natural mistake gets its own message."""

import math

import pytest
import torch
from course_lib.lessons.lesson_name import exercises as check

from course_lib.models.gpt2 import GPT2, GPT2Config
from tests.conftest import ROOT, load_file
from tests.exercises.cases import expect_answer_to_stub, expect_own_message

SOLUTION = load_file(ROOT / "solutions" / "LESSON_NUMBER_lesson_name.py").weights
MODEL = GPT2(GPT2Config(50, max_positions=8, d_model=8, n_heads=2, n_layers=2))
WINDOWS = torch.arange(27).view(3, 9)


def softmax(q, k, allowed, power=0.5, axis=-1):
    return (q @ k.mT / q.shape[-1] ** power).masked_fill(~allowed, -torch.inf).softmax(axis)


WRONG = {
    "weights": {
        "runs over the queries": lambda q, k, allowed: softmax(q, k, allowed, axis=-2),
        "1/√d is missing": lambda q, k, allowed: softmax(q, k, allowed, power=0),
        "You divide by d": lambda q, k, allowed: softmax(q, k, allowed, power=1),
        "before the softmax": lambda q, k, allowed: (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) * allowed,
        "mask is not used": lambda q, k, allowed: softmax(q, k, torch.ones_like(allowed)),
        "no gradient reaches q": lambda q, k, allowed: softmax(q.detach(), k, allowed),
    }
}


def test_the_solution_passes():
    assert check.weights(SOLUTION).ok is True
    result = check.injected(SOLUTION, MODEL, WINDOWS)
    assert result.ok is True, result
    assert "in all 2 layers" in result.message


@pytest.mark.parametrize("words", WRONG["weights"])
def test_mistakes_are_told_apart(words):
    expect_own_message(check, WRONG, "weights", words)


def test_a_mistake_is_found_in_the_model():
    assert "other answers" in check.injected(WRONG["weights"]["You divide by d"], MODEL, WINDOWS).message


def test_a_stub_is_not_an_error():
    expect_answer_to_stub(check.weights)
    assert check.injected(lambda q, k, allowed: None, MODEL, WINDOWS).ok is None
