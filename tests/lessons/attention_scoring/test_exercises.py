"""Lesson 02: solutions of its exercises pass, natural mistakes are told apart, stubs are no errors."""

import pytest
import torch

from course_lib import attention as library
from course_lib.experiments.attention_scores import HELD_OUT
from course_lib.lessons.attention_scoring import exercises as check
from tests.conftest import ROOT, load_file

SOLUTIONS = load_file(ROOT / "solutions" / "02_attention_scoring.py")
SIMPLE = ["scores", "masked_softmax", "attention", "softmax_backward", "scale", "additive_scores"]
NEG = -1e30


def soft(x, mask, axis=-1):
    return x.masked_fill(~mask, NEG).softmax(axis) * mask


def free(q, k, mask):
    return torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool) if mask is None else mask


def attend(change):
    """Attention with one part changed: change(logits, mask, d) gives the weights."""

    def fn(q, k, v, mask):
        return change(q @ k.mT, free(q, k, mask), q.shape[-1]) @ v

    return fn


WRONG = {
    "scores": {
        "scale is missing": lambda q, k: q @ k.mT,
        "You divide by the width": lambda q, k: q @ k.mT / q.shape[-1],
        "multiply by the root": lambda q, k: q @ k.mT * q.shape[-1] ** 0.5,
        "number of heads": lambda q, k: q @ k.mT / q.shape[1] ** 0.5,
        "number of keys": lambda q, k: q @ k.mT / k.shape[-2] ** 0.5,
        "That is the cosine": lambda q, k: torch.nn.functional.cosine_similarity(
            q[..., None, :], k[..., None, :, :], -1
        ),
        "weights already": lambda q, k: (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1),
        "a row for each key": lambda q, k: k @ q.mT / q.shape[-1] ** 0.5,
        "RuntimeError": lambda q, k: q @ k,
        "no gradient reaches q": lambda q, k: SOLUTIONS.scores(q.detach(), k),
    },
    "masked_softmax": {
        "Your columns sum to 1": lambda x, m: soft(x, m, -2),
        "`allowed` is not used": lambda x, m: x.softmax(-1),
        "comes after the softmax": lambda x, m: x.softmax(-1) * m,
        "exp(0) is 1": lambda x, m: x.masked_fill(~m, 0).softmax(-1),
        "inverted": lambda x, m: soft(x, ~m),
        "0 · inf": lambda x, m: (x + (~m).float() * -torch.inf).softmax(-1),
        "or a sum of 0": lambda x, m: x.exp() * m / (x.exp() * m).sum(-1, keepdim=True),
        "nothing gives nan": lambda x, m: x.masked_fill(~m, -torch.inf).softmax(-1),
        "its row is even": lambda x, m: x.masked_fill(~m, -1e9).softmax(-1),
        "as if there were no mask": lambda x, m: soft(x, m | ~m.any(-1, keepdim=True)),
        "exp overflows": lambda x, m: x.exp() * m / (x.exp() * m).sum(-1, keepdim=True).clamp(min=1e-30),
        "no gradient reaches scores": lambda x, m: soft(x.detach(), m),
    },
    "attention": {
        "scale is missing": attend(lambda s, m, d: soft(s, m)),
        "Divide by its root": attend(lambda s, m, d: soft(s / d, m)),
        "width from v": lambda q, k, v, m: soft(q @ k.mT / v.shape[-1] ** 0.5, free(q, k, m)) @ v,
        "softmax runs over the queries": attend(lambda s, m, d: soft(s / d**0.5, m, -2)),
        "mask is not used": attend(lambda s, m, d: (s / d**0.5).softmax(-1)),
        "inverted": lambda q, k, v, m: SOLUTIONS.attention(q, k, v, None if m is None else ~m),
        "comes after the softmax": attend(lambda s, m, d: (s / d**0.5).softmax(-1) * m),
        "shape of the weights": lambda q, k, v, m: SOLUTIONS.scores(q, k).softmax(-1),
        "nothing gives nan": attend(lambda s, m, d: (s / d**0.5).masked_fill(~m, -torch.inf).softmax(-1)),
        "may look at nothing, the result": attend(lambda s, m, d: (s / d**0.5).masked_fill(~m, NEG).softmax(-1)),
        "no gradient reaches v": lambda q, k, v, m: SOLUTIONS.attention(q, k, v.detach(), m),
        "`allowed` may be None": lambda q, k, v, m: SOLUTIONS.masked_softmax(SOLUTIONS.scores(q, k), m + 0) @ v,
    },
    "softmax_backward": {
        "Only the direct path": lambda g, w: g * w,
        "the sum of the gradients": lambda g, w: w * (g - g.sum(-1, keepdim=True)),
        "the plain mean": lambda g, w: w * (g - g.mean(-1, keepdim=True)),
        "without an axis": lambda g, w: w * (g - (g * w).sum()),
        "diagonal of the Jacobian": lambda g, w: w * (1 - w) * g,
        "factor in front": lambda g, w: g - (g * w).sum(-1, keepdim=True),
        "sum over the queries": lambda g, w: w * (g - (g * w).sum(0)),
        "sign of the second": lambda g, w: w * (g + (g * w).sum(-1, keepdim=True)),
        "shape (2, 4, 6), the result differs": lambda g, w: w * (g - (g * w).sum(1, keepdim=True)),
    },
    "scale": {
        "if both spreads are 1": lambda a, b, d: d**-0.5,
        "the spread of the scores; asked": lambda a, b, d: a * b * d**0.5,
        "*variance*": lambda a, b, d: 1 / (a * a * b * b * d),
        "You divide by d.": lambda a, b, d: 1 / (a * b * d),
        "root of the spreads too": lambda a, b, d: (a * b * d) ** -0.5,
        "spreads are squared": lambda a, b, d: 1 / (a * a * b * b * d**0.5),
        "multiply the two spreads": lambda a, b, d: 1 / ((a + b) * d**0.5),
        "longer vectors need": lambda a, b, d: a * b * d**-0.5,
        "Return one number": lambda a, b, d: [a, b],
        "differs most": lambda a, b, d: 0.5,
    },
    "additive_scores": {
        "tanh is missing": lambda q, k, a, b, w: ((q @ a.mT)[:, None] + (k @ b.mT)[None]) @ w,
        "Two tanh": lambda q, k, a, b, w: ((q @ a.mT).tanh()[:, None] + (k @ b.mT).tanh()[None]) @ w,
        "multiply query and key": lambda q, k, a, b, w: ((q @ a.mT)[:, None] * (k @ b.mT)[None]).tanh() @ w,
        "matrices are swapped": lambda q, k, a, b, w: SOLUTIONS.additive_scores(q, k, b, a, w),
        "average over": lambda q, k, a, b, w: SOLUTIONS.additive_scores(q, k, a, b, w) / len(w),
        "weights already": lambda q, k, a, b, w: SOLUTIONS.additive_scores(q, k, a, b, w).softmax(-1),
        "a row for each key": lambda q, k, a, b, w: SOLUTIONS.additive_scores(q, k, a, b, w).mT,
        "no gradient reaches w_key": lambda q, k, a, b, w: SOLUTIONS.additive_scores(q, k, a, b.detach(), w),
    },
}


@pytest.mark.parametrize("name", SIMPLE)
def test_solutions_pass(name):
    result = getattr(check, name)(getattr(SOLUTIONS, name))
    assert result.ok is True, result
    assert repr(result).startswith("✓ Right")


@pytest.mark.parametrize(("name", "words"), [(name, words) for name in WRONG for words in WRONG[name]])
def test_mistakes_are_told_apart(name, words):
    result = getattr(check, name)(WRONG[name][words])
    assert result.ok is False
    assert words in result.message
    others = [fn for w, fn in WRONG[name].items() if w not in result.message]
    assert all(getattr(check, name)(fn).message != result.message for fn in others), "one message for two mistakes"


@pytest.mark.parametrize("name", SIMPLE)
def test_a_stub_is_not_an_error(name):
    for stub in (lambda *args: None, lambda *args: ...):
        assert getattr(check, name)(stub).ok is None
    assert getattr(check, name)(lambda *args: {}["no such key"]).ok is False


def test_a_float64_answer_or_a_list_is_named():
    assert "dtype torch.float64" in check.scores(lambda q, k: SOLUTIONS.scores(q.double(), k.double())).message
    assert "is a list" in check.masked_softmax(lambda x, m: [x]).message
    assert check.masked_softmax(lambda x, m: x.masked_fill(~m, -torch.inf).softmax(-1).nan_to_num()).ok  # another way
    late = check.masked_softmax(lambda x, m: x.softmax(-1) * m / (x.softmax(-1) * m).sum(-1, True).clamp(min=1e-30))
    assert late.ok is False
    assert "vanishes beside a forbidden score of 1,000" in late.message


def test_injection_runs_in_the_trained_head(trained):
    batch = HELD_OUT(batch_size=20, n_pairs=16)(1)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    result = check.injected(SOLUTIONS.attention, trained, batch)
    assert result.ok, result
    assert "answers 320 questions" in result.message
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    assert check.injected(lambda *args: None, trained, batch).ok is None
    for words, wrong in {
        "other answers": WRONG["attention"]["Divide by its root"],
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


def test_three_answers_that_look_right():
    shallow = check.masked_softmax(lambda s, allowed: s.masked_fill(~allowed, -100.0).softmax(-1) * allowed)
    assert shallow.ok is False
    assert "lower than *any* allowed one" in shallow.message
    nan = check.softmax_backward(lambda g, w: w * g - w**2 * (g * w).sum(-1, keepdim=True) / w)
    assert nan.ok is False
    assert "For weights 1, 0, 0, 0" in nan.message
    unknown = check.attention(lambda q, k, v, allowed: undefinedNone)  # noqa: F821
    assert "may be None" not in unknown.message
