"""Lesson 08: the solutions pass, in the model too; every natural mistake gets its own message."""

import pytest
import torch

from course_lib.lessons.modernbert_mlm import exercises as check
from course_lib.models.modernbert import ModernBertConfig, ModernBertForMaskedLM
from tests.conftest import ROOT, load_file
from tests.exercises.cases import expect_answer_to_stub, expect_own_message, pairs, with_declared

SOLUTION = load_file(ROOT / "solutions" / "08_modernbert_mlm.py")
SMALL = ModernBertForMaskedLM(ModernBertConfig(60, d_model=16, n_heads=2, n_layers=4, local_attention=4, seed=1)).eval()
WINDOWS = torch.randint(5, 60, (3, 24), generator=torch.Generator().manual_seed(0))


def _nan(logits, targets):
    asked = targets != -100
    return torch.nn.functional.cross_entropy(logits[asked], targets[asked])


OTHERS = {
    "hide_tokens": {"Return two tensors": lambda *given: SOLUTION.hide_tokens(*given)[0]},
    "loss": {
        "your loss is NaN": _nan,
        "no gradient reaches logits": lambda logits, targets: SOLUTION.loss(logits.detach(), targets),
    },
    "geglu": {"no gradient reaches x": lambda x, wi, wo: SOLUTION.geglu(x.detach(), wi, wo)},
    "may_see": {"The mask of a layer": lambda layer, length: SOLUTION.may_see(layer, length)[:3]},
}
WRONG = with_declared(check, OTHERS)


def test_the_solutions_pass():
    for name in ("hide_tokens", "loss", "may_see", "geglu"):
        result = getattr(check, name)(getattr(SOLUTION, name))
        assert result.ok is True, result
    result = check.injected(SOLUTION.attend, SMALL, WINDOWS)
    assert result.ok is True, result
    assert "in all 4 layers" in result.message


@pytest.mark.parametrize(("name", "words"), pairs(WRONG))
def test_mistakes_are_told_apart(name, words):
    expect_own_message(check, WRONG, name, words)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda q, k, v, allowed: SOLUTION.attend(q, k, v, allowed | True),
        lambda q, k, v, allowed: SOLUTION.attend(q * 2, k, v, allowed),
        lambda q, k, v, allowed: SOLUTION.attend(q, k, v, allowed.tril()),
        lambda q, k, v, allowed: (q @ k.mT).where(allowed, 0).softmax(-1) @ v,
    ],
)
def test_a_mistake_is_found_in_the_model(wrong):
    result = check.injected(wrong, SMALL, WINDOWS)
    assert result.ok is False
    assert "other answers" in result.message


def test_a_stub_is_not_an_error():
    for name in ("hide_tokens", "loss", "may_see", "geglu"):
        expect_answer_to_stub(getattr(check, name))
    assert check.injected(lambda q, k, v, allowed: None, SMALL, WINDOWS).ok is None
