"""Lesson 03: solutions of its exercises pass, natural mistakes are told apart, stubs are no errors."""

import pytest
import torch

from course_lib.lessons.multi_head_attention import exercises as check
from course_lib.models.gpt2 import GPT2, GPT2Config
from tests.conftest import ROOT, load_file
from tests.exercises.cases import expect_own_message, pairs, with_declared

SOLUTIONS = load_file(ROOT / "solutions" / "03_multi_head_attention.py")


def blind_first_token(x, q_proj, k_proj, v_proj, out_proj, n_heads):
    q, k, v = (SOLUTIONS.split_heads(layer(x), n_heads) for layer in (q_proj, k_proj, v_proj))
    hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu()
    return out_proj(SOLUTIONS.merge_heads((q @ k.mT / 2).masked_fill(hidden, -torch.inf).softmax(-1) @ v))


def without_past(x, q_proj, *others):
    return SOLUTIONS.multi_head(x, lambda t: q_proj(t).detach(), *others)


OTHERS = {
    "split_heads": {
        "That is (B, T, H, D)": lambda x, h: x.unflatten(-1, (h, -1)),
        "shape (2, 5, 12); needed": lambda x, h: x,
    },
    "merge_heads": {},
    "multi_head": {
        "triu(1)": blind_first_token,
        "gradient with respect to x differs": without_past,
        "stopped with": lambda x, q, k, v, o, h: o(q),
    },
    "grouped_weight": {},
    "cached_step": {"Return two things": lambda q, k, v, past: q},
    "top_p": {
        "about the *sum* of the largest": lambda probabilities, p: (
            (kept := probabilities * (probabilities >= p)) / kept.sum()
        )
    },
    "induction": {},
}
WRONG = with_declared(check, OTHERS)


@pytest.mark.parametrize("name", WRONG)
def test_solution_passes_and_stub_is_no_error(name):
    result = getattr(check, name)(getattr(SOLUTIONS, name))
    assert result.ok, result
    assert getattr(check, name)(lambda *arguments: None).ok is None


@pytest.mark.parametrize(("name", "words"), pairs(WRONG))
def test_mistakes_are_told_apart(name, words):
    expect_own_message(check, WRONG, name, words)


@pytest.fixture(scope="module")
def model():
    return GPT2(GPT2Config(vocab_size=60, max_positions=32, d_model=24, n_heads=3, n_layers=2)).eval()


def test_injected(model):
    windows = torch.randint(60, (4, 20))
    before = {name: p.clone() for name, p in model.named_parameters()}
    result = check.injected(SOLUTIONS.multi_head, model, windows)
    assert result.ok, result
    assert "all 2 layers" in result.message
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    wrong = check.injected(check.MULTI_HEAD["The scale 1/sqrt(D) is missing."], model, windows)
    assert wrong.ok is False
    assert "other answers: logits differ" in wrong.message
    assert check.injected(lambda *a: None, model, windows).ok is None
    detached = check.injected(lambda x, q, k, v, o, h: SOLUTIONS.multi_head(x, q, k, v, o, h).detach(), model, windows)
    assert detached.ok is False
    assert "gradient" in detached.message
    assert check.injected(lambda x, *a: [x], model, windows).ok is False
