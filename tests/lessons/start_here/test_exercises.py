"""The exercise of notebook 00: the solution passes, every natural mistake gets its own message."""

import pytest
import torch
from torch.nn import functional as F

from course_lib.lessons.start_here import exercises as check
from course_lib.models.bigram import BigramConfig, BigramNetwork
from tests.conftest import ROOT, load_file

SOLUTION = load_file(ROOT / "solutions" / "00_start_here.py").next_token_loss
NETWORK = BigramNetwork(BigramConfig(50, d_model=8, d_ff=8))
WINDOWS = torch.arange(60).view(6, 10) % 50


def picked(logits, rows, columns):
    return logits.log_softmax(-1)[rows, columns]


def ours(logits, ids):
    return F.cross_entropy(logits[:-1], ids[1:])


WRONG = {
    "shift by one": lambda logits, ids: F.cross_entropy(logits, ids),
    "shift the wrong way": lambda logits, ids: F.cross_entropy(logits[1:], ids[:-1]),
    "Leave them out": lambda logits, ids: F.cross_entropy(logits, ids.roll(-1)),
    "minus sign is missing": lambda logits, ids: -ours(logits, ids),
    "Take their mean": lambda logits, ids: F.cross_entropy(logits[:-1], ids[1:], reduction="sum"),
    "You divide by T": lambda logits, ids: F.cross_entropy(logits[:-1], ids[1:], reduction="sum") / len(ids),
    "has base 2": lambda logits, ids: ours(logits, ids) / torch.tensor(2.0).log(),
    "of every row": lambda logits, ids: -logits.log_softmax(-1)[:-1][:, ids[1:]].mean(),
    "has base 10": lambda logits, ids: ours(logits, ids) / torch.tensor(10.0).log(),
    "; it should be 2": lambda logits, ids: ours(logits, ids) + 1,
    "runs over the positions": lambda logits, ids: -logits.log_softmax(0)[range(len(ids) - 1), ids[1:]].mean(),
    "without the logarithm": lambda logits, ids: -logits.softmax(-1)[range(len(ids) - 1), ids[1:]].mean(),
    "take the logits for log p": lambda logits, ids: -logits[range(len(ids) - 1), ids[1:]].mean(),
    "That is the perplexity": lambda logits, ids: ours(logits, ids).exp(),
    "exp overflows": lambda logits, ids: -(
        logits[:-1].exp() / logits[:-1].exp().sum(-1, keepdim=True)
    ).log()[range(len(ids) - 1), ids[1:]].mean(),
    "is a float": lambda logits, ids: ours(logits, ids).item(),
    "no gradient reaches logits": lambda logits, ids: ours(logits.detach(), ids),
    "has shape (5,)": lambda logits, ids: F.cross_entropy(logits[:-1], ids[1:], reduction="none"),
    "stopped with IndexError": lambda logits, ids: logits[99],
}  # fmt: skip


def test_the_solution_passes_and_scores_the_network():
    result = check.next_token_loss(SOLUTION, NETWORK, WINDOWS)
    assert result.ok is True, result
    assert "On 60 validation tokens" in result.message
    assert check.next_token_loss(ours, NETWORK, WINDOWS).message == result.message


@pytest.mark.parametrize("words", WRONG)
def test_mistakes_are_told_apart(words):
    result = check.next_token_loss(WRONG[words], NETWORK, WINDOWS)
    assert result.ok is False
    assert words in result.message
    others = [fn for w, fn in WRONG.items() if w != words]
    assert all(check.next_token_loss(fn, NETWORK, WINDOWS).message != result.message for fn in others)


def test_a_stub_is_not_an_error():
    assert check.next_token_loss(lambda logits, ids: ..., NETWORK, WINDOWS).ok is None
