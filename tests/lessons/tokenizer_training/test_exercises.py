"""Lesson 06: the solution passes, in the model too; every natural mistake gets its own message."""

import pytest
import torch

from course_lib.lessons.tokenizer_training import exercises as check
from course_lib.models.gpt2 import GPT2, GPT2Config
from tests.conftest import ROOT, load_file
from tests.exercises.cases import expect_answer_to_stub, expect_own_message, pairs, with_declared

SOLUTION = load_file(ROOT / "solutions" / "06_tokenizer_training.py").weights
MODEL = GPT2(GPT2Config(50, max_positions=8, d_model=8, n_heads=2, n_layers=2))
WINDOWS = torch.arange(27).view(3, 9)


OTHERS = {"weights": {"no gradient reaches q": lambda q, k, allowed: SOLUTION(q.detach(), k, allowed)}}
WRONG = with_declared(check, OTHERS)


def test_the_solution_passes():
    assert check.weights(SOLUTION).ok is True
    result = check.injected(SOLUTION, MODEL, WINDOWS)
    assert result.ok is True, result
    assert "in all 2 layers" in result.message


@pytest.mark.parametrize(("name", "words"), pairs(WRONG))
def test_mistakes_are_told_apart(name, words):
    expect_own_message(check, WRONG, name, words)


def test_a_mistake_is_found_in_the_model():
    assert "other answers" in check.injected(check.WEIGHTS["The scale 1/√d is missing."], MODEL, WINDOWS).message


def test_a_stub_is_not_an_error():
    expect_answer_to_stub(check.weights)
    assert check.injected(lambda q, k, allowed: None, MODEL, WINDOWS).ok is None
