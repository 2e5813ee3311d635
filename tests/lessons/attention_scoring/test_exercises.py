"""Lesson 02: solutions of its exercises pass, natural mistakes are told apart, stubs are no errors."""

import pytest
import torch

from course_lib import attention as library
from course_lib.experiments.attention_scores import HELD_OUT
from course_lib.lessons.attention_scoring import exercises as check
from tests.conftest import ROOT, load_file
from tests.exercises.cases import expect_answer_to_stub, expect_own_message, pairs, with_declared

SOLUTIONS = load_file(ROOT / "solutions" / "02_attention_scoring.py")


def masked(q, k, mask, low):
    scores = SOLUTIONS.scores(q, k)
    return scores if mask is None else scores.masked_fill(~mask, low)


OTHERS = {
    "scores": {
        "a row for each key": lambda q, k: k @ q.mT / q.shape[-1] ** 0.5,
        "RuntimeError": lambda q, k: q @ k,
        "no gradient reaches q": lambda q, k: SOLUTIONS.scores(q.detach(), k),
        "dtype torch.float64": lambda q, k: SOLUTIONS.scores(q.double(), k.double()),
    },
    "masked_softmax": {
        "0 · inf": lambda x, m: (x + (~m).float() * -torch.inf).softmax(-1),
        "nothing gives nan": lambda x, m: x.masked_fill(~m, -torch.inf).softmax(-1),
        "exp overflows": lambda x, m: x.exp() * m / (x.exp() * m).sum(-1, keepdim=True).clamp(min=1e-30),
        "no gradient reaches scores": lambda x, m: SOLUTIONS.masked_softmax(x.detach(), m),
        "is a list": lambda x, m: [x],
    },
    "attention": {
        "shape of the weights": lambda q, k, v, m: SOLUTIONS.scores(q, k).softmax(-1),
        "nothing gives nan": lambda q, k, v, m: masked(q, k, m, -torch.inf).softmax(-1) @ v,
        "may look at nothing, the result": lambda q, k, v, m: masked(q, k, m, -1e30).softmax(-1) @ v,
        "no gradient reaches v": lambda q, k, v, m: SOLUTIONS.attention(q, k, v.detach(), m),
        "`allowed` may be None": lambda q, k, v, m: SOLUTIONS.masked_softmax(SOLUTIONS.scores(q, k), m + 0) @ v,
    },
    "softmax_backward": {
        "shape (2, 4, 6), the result differs": lambda g, w: w * (g - (g * w).sum(-1 if g.ndim == 2 else 1, True)),
        "For weights 1, 0, 0, 0": lambda g, w: w * g - w**2 * (g * w).sum(-1, keepdim=True) / w,
    },
    "scale": {
        "Return one number": lambda a, b, d: [a, b],
        "differs most": lambda a, b, d: 0.5,
    },
    "additive_scores": {
        "a row for each key": lambda q, k, a, b, w: SOLUTIONS.additive_scores(q, k, a, b, w).mT,
        "no gradient reaches w_key": lambda q, k, a, b, w: SOLUTIONS.additive_scores(q, k, a, b.detach(), w),
    },
}
WRONG = with_declared(check, OTHERS)


@pytest.mark.parametrize("name", WRONG)
def test_solutions_pass(name):
    result = getattr(check, name)(getattr(SOLUTIONS, name))
    assert result.ok is True, result
    assert repr(result).startswith("✓ Right")


@pytest.mark.parametrize(("name", "words"), pairs(WRONG))
def test_mistakes_are_told_apart(name, words):
    expect_own_message(check, WRONG, name, words)


@pytest.mark.parametrize("name", WRONG)
def test_a_stub_is_not_an_error(name):
    expect_answer_to_stub(getattr(check, name))
    assert getattr(check, name)(lambda *args: {}["no such key"]).ok is False


def test_other_answers():
    assert check.masked_softmax(lambda x, m: x.masked_fill(~m, -torch.inf).softmax(-1).nan_to_num()).ok
    nan = check.masked_softmax(lambda x, m: x.exp() * m / (x.exp() * m).sum(-1, keepdim=True))
    assert "may look at nothing gives nan, 0 / 0" in nan.message
    unknown = check.attention(lambda q, k, v, allowed: undefinedNone)  # noqa: F821
    assert "may be None" not in unknown.message


@pytest.mark.slow
def test_injection_runs_in_the_trained_head(trained):
    batch = HELD_OUT(batch_size=20, n_pairs=16)(1)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    result = check.injected(SOLUTIONS.attention, trained, batch)
    assert result.ok, result
    assert "answers 320 questions" in result.message
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    assert check.injected(lambda *args: None, trained, batch).ok is None
    for words, wrong in {
        "other answers": lambda q, k, v, m: SOLUTIONS.attention(q / 2, k, v, m),
        "the result of your function has shape": WRONG["attention"]["shape of the weights"],
        "the gradient with respect to lookup.word.weight differs": WRONG["attention"]["no gradient reaches v"],
    }.items():
        result = check.injected(wrong, trained, batch)
        assert result.ok is False
        assert words in result.message


def test_the_adapter_passes_masks_on_and_refuses_what_it_cannot():
    fn = check.as_attention_fn(SOLUTIONS.attention)
    q, k, v = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 5, 4), torch.randn(2, 1, 5, 4)
    padded = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    mask = torch.rand(3, 5) < 0.6
    want = library.attention(q, k, v, mask=mask, key_mask=padded)
    torch.testing.assert_close(fn(q, k, v, mask=mask, key_mask=padded), want)
    with pytest.raises(ValueError, match="scale=1"):
        fn(q, k, v, scale=1.0)
