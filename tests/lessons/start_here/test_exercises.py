"""The exercise of notebook 00: the solution passes, every natural mistake gets its own message."""

import pytest
import torch
from torch.nn import functional as F

from course_lib.lessons.start_here import exercises as check
from course_lib.models.bigram import BigramConfig, BigramNetwork
from tests.conftest import ROOT, load_file
from tests.exercises.cases import expect_own_message, pairs, with_declared

SOLUTION = load_file(ROOT / "solutions" / "00_start_here.py").next_token_loss
NETWORK = BigramNetwork(BigramConfig(50, d_model=8, d_ff=8))
WINDOWS = torch.arange(60).view(6, 10) % 50


def ours(logits, ids):
    return F.cross_entropy(logits[:-1], ids[1:])


def from_powers(logits, ids):
    """Right on paper: the softmax written out."""
    p = logits[:-1].exp() / logits[:-1].exp().sum(-1, keepdim=True)
    return -p.log()[range(len(ids) - 1), ids[1:]].mean()


OTHERS = {
    "; it should be 2": lambda logits, ids: ours(logits, ids) + 1,
    "exp overflows": from_powers,
    "is a float": lambda logits, ids: ours(logits, ids).item(),
    "no gradient reaches logits": lambda logits, ids: ours(logits.detach(), ids),
    "has shape (5,)": lambda logits, ids: F.cross_entropy(logits[:-1], ids[1:], reduction="none"),
    "stopped with IndexError": lambda logits, ids: logits[99],
}
WRONG = with_declared(check, {"next_token_loss": OTHERS})


def test_the_solution_passes_and_scores_the_network():
    result = check.next_token_loss(SOLUTION, NETWORK, WINDOWS)
    assert result.ok is True, result
    assert "On 60 validation tokens" in result.message
    assert check.next_token_loss(ours, NETWORK, WINDOWS).message == result.message


@pytest.mark.parametrize(("name", "words"), pairs(WRONG))
def test_mistakes_are_told_apart(name, words):
    expect_own_message(check, WRONG, name, words, NETWORK, WINDOWS)


def test_a_stub_is_not_an_error():
    assert check.next_token_loss(lambda logits, ids: ..., NETWORK, WINDOWS).ok is None
