"""A wrong answer gets the sentence of the first mistake that gives it; what is compared of a function can be chosen."""

import pytest
import torch

from course_lib.exercises import Wrong
from course_lib.exercises.mistakes import expect_by, part, sentence_on

MISTAKES = {
    "no sum": lambda x, y: (x, y),
    "no y": lambda x, y: (x, x),
    "no y either": lambda x, y: (x + y, x),
}


def right(x, y):
    return x + y, x * y


def test_the_first_mistake_that_gives_the_answer_is_named():
    x, y = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])
    expect_by(x + y, right, MISTAKES, x, y, run=part(0))
    for got, index, words in ((x, 0, "^no sum$"), (x, 1, "^no y$"), (2 * y, 0, "^The sum differs most")):
        with pytest.raises(Wrong, match=words):
            expect_by(got, right, MISTAKES, x, y, run=part(index), what="The sum")


def test_a_sentence_needs_exactly_the_values_of_the_mistake():
    x = torch.tensor([1, 2])
    mistakes = {"negative": torch.neg, "doubled": lambda x: 2 * x}
    assert sentence_on(2 * x, mistakes, x) == "doubled"
    assert sentence_on(3 * x, mistakes, x) is None
