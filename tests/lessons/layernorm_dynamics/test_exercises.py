"""Lesson 01: every solution passes; every natural mistake is told apart from the others; a stub is not an error."""

import pytest
import torch

from course_lib import norms, pretrained
from course_lib.corpora import fashion_tensors
from course_lib.lessons.layernorm_dynamics import exercises as check
from course_lib.models.residual_mlp import ResidualMLP, ResidualMLPConfig
from tests.conftest import ROOT, load_file
from tests.exercises.cases import expect_answer_to_stub, expect_own_message, pairs, with_declared

pytestmark = pytest.mark.slow  # learners' functions run in whole models

SOLUTIONS = load_file(ROOT / "solutions" / "01_layernorm_dynamics.py")


def var(x, axis=-1):
    return x.var(axis, correction=0, keepdim=True)


def centred(x, axis=-1):
    return x - x.mean(axis, keepdim=True)


def on_zeros(change):
    """The right gradients, changed where some of those upstream are 0, as in gradcheck."""

    def fn(grad, x, weight, eps):
        right = SOLUTIONS.layer_norm_backward(grad, x, weight, eps)
        return change(*right) if (grad == 0).any() else right

    return fn


def leaking(when):
    """The right products, but for one that is 1 too large with some eps."""

    def fn(x, upstream, eps):
        ones, along = SOLUTIONS.gradient_products(x, upstream, eps)
        return ones, along + when(eps)

    return fn


OTHERS = {
    "layer_norm": {
        "no gradient reaches x": lambda x, w, b, eps: norms.layer_norm(x.detach(), w, b, eps),
        "no gradient reaches weight": lambda x, w, b, eps: norms.layer_norm(x, w.detach(), b, eps),
        "no gradient reaches bias": lambda x, w, b, eps: norms.layer_norm(x, w, b.detach(), eps),
        "gradient with respect to x differs": lambda x, w, b, eps: centred(x) / (var(x).detach() + eps).sqrt() * w + b,
        "pass through your function stopped with RuntimeError: one of": lambda x, w, b, eps: (
            (c := centred(x)).div_((c.square().mean(-1, True) + eps).sqrt()) * w + b
        ),
        "that require gradients, the result is a list": lambda x, w, b, eps: (
            [x] if x.requires_grad else norms.layer_norm(x, w, b, eps)
        ),
        "shape (2, 3, 6), the result differs": lambda x, w, b, eps: centred(x, 1) / (var(x, 1) + eps).sqrt() * w + b,
        "a float; a tensor is needed": lambda x, w, b, eps: 1.0,
        "shape (6,)": lambda x, w, b, eps: w,
        "argument number 1 in place": lambda x, w, b, eps: norms.layer_norm(x.sub_(x.mean(-1, True)), w, b, eps),
        "argument number 2 in place": lambda x, w, b, eps: norms.layer_norm(x, w.mul_(2), b, eps),
        "not a number": lambda x, w, b, eps: x / 0,
        "dtype torch.float64": lambda x, w, b, eps: norms.layer_norm(x.double(), w, b, eps),
    },
    "rms_norm": {
        "shape (2, 3, 6), the result differs": lambda x, w, eps: x / (x.square().mean(1, True) + eps).sqrt() * w,
        "no gradient reaches x": lambda x, w, eps: norms.rms_norm(x.detach(), w, None, eps),
        "no gradient reaches weight": lambda x, w, eps: norms.rms_norm(x, w.detach(), None, eps),
        "gradient with respect to x differs": lambda x, w, eps: (
            x / (x.square().mean(-1, True).detach() + eps).sqrt() * w
        ),
    },
    "layer_norm_backward": {
        "Return three tensors": lambda grad, x, weight, eps: grad,
        "gradcheck disagrees": on_zeros(lambda x, w, b: (0 * x, w, b)),
        "pass through your function stopped with RuntimeError: Function": on_zeros(lambda x, w, b: (x, w, b[:5])),
    },
    "gradient_products": {
        "shape ()": lambda *args: [product.sum() for product in SOLUTIONS.gradient_products(*args)],
        "Return two tensors": lambda x, upstream, eps: x,
        "With eps=0.0, the product with x_hat differs": leaking(lambda eps: eps == 0),
        "With eps=0.3, the product with x_hat differs": leaking(lambda eps: eps > 0),
    },
    "radial_leak": {},
    "half_layer_norm": {
        "must come out as float16": lambda x, eps: norms.layer_norm(x.float(), eps=eps),
        "differs most at index": lambda x, eps: x,
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
def test_a_stub_and_an_error_are_answers_not_tracebacks(name):
    def unfinished(*args):
        raise NotImplementedError

    def broken(*args):
        return {}["no such key"]

    expect_answer_to_stub(getattr(check, name))
    assert getattr(check, name)(unfinished).ok is None
    result = getattr(check, name)(broken)
    assert result.ok is False
    assert "KeyError" in result.message
    assert 'return {}["no such key"]' in result.message


def test_injection_runs_in_the_trained_network():
    model = pretrained.load("residual-mlp")
    images, labels = fashion_tensors("test")
    batch = images[:500], labels[:500]
    result = check.injected(SOLUTIONS.layer_norm, model, *batch)
    assert result.ok, result
    assert "all 13 norms" in result.message
    assert all(
        m.norm_fn is norms.layer_norm for m in model.modules() if isinstance(m, norms.LayerNorm)
    )  # a copy was used
    assert check.injected(lambda *args: None, model, *batch).ok is None


LAYER_NORM = WRONG["layer_norm"]
INJECTED = {
    "other answers: logits differ by": lambda x, w, b, eps: centred(x, 0) / (var(x, 0) + eps).sqrt() * w + b,
    "no gradient reaches embed.weight": LAYER_NORM["no gradient reaches x"],
    "no gradient reaches blocks.0.norm.weight": LAYER_NORM["no gradient reaches weight"],
    "no gradient reaches blocks.0.norm.bias": LAYER_NORM["no gradient reaches bias"],
    "gradient with respect to embed.weight differs": LAYER_NORM["gradient with respect to x differs"],
    "the result of your function is a list": lambda x, w, b, eps: [x],
    "the result of your function is a ndarray": lambda x, w, b, eps: x.detach().numpy(),
    "the result of your function has shape (20,)": lambda x, w, b, eps: x[:, 0],
    "the result of your function has device meta": lambda x, w, b, eps: x.to("meta"),
    "pass through your function stopped with RuntimeError": (
        LAYER_NORM["pass through your function stopped with RuntimeError: one of"]
    ),
    "argument number 1 in place": LAYER_NORM["argument number 1 in place"],
    "RuntimeError at `return matrix @ torch.ones(5)`: size mismatch": lambda x, w, b, eps: times_five_ones(x),
}


def times_five_ones(matrix):
    """The message quotes the learner's line, not torch's."""
    return matrix @ torch.ones(5)


@pytest.mark.parametrize("words", INJECTED)
def test_no_answer_stops_the_injection(words):
    images, labels = fashion_tensors("test")
    result = check.injected(INJECTED[words], pretrained.load("residual-mlp"), images[:20], labels[:20])
    assert result.ok is False
    assert words in result.message


def test_the_training_of_the_injected_model_is_compared():
    """A function that is right at first and then a tenth of a percent off: only the training can tell."""
    calls = []

    def fading(x, weight, bias, eps):
        calls.append(1)
        return norms.layer_norm(x, weight, bias, eps) * (1 if len(calls) <= 10 else 1.001)

    images, labels = fashion_tensors("test")
    model = ResidualMLP(ResidualMLPConfig(d_model=8, d_ff=8, n_layers=1))  # two norms
    result = check.injected(fading, model, images[:50], labels[:50])
    assert result.ok is False
    assert "Trained for ten steps" in result.message
    with pytest.raises(ValueError, match="model has no LayerNorm"):
        check.injected(fading, torch.nn.Linear(2, 2), images, labels)


def test_details_of_the_messages():
    flat = check.layer_norm(lambda x, w, b, eps: norms.layer_norm(x.flatten(1), w, b, eps) if x.ndim == 2 else x)
    assert "shape (2, 3, 6)" in flat.message
    close = check.layer_norm(lambda x, w, b, eps: norms.layer_norm(x, w, b, eps) * 1.001)
    assert close.ok is False
    of_scaled = check.half_layer_norm(
        lambda x, eps: norms.layer_norm(x.float() / x.float().abs().amax(-1, True)).half()
    )
    assert "next to the variance of x itself, not of a scaled x" in of_scaled.message
    torch.manual_seed(7)
    want = torch.rand(2)
    torch.manual_seed(7)
    check.layer_norm(SOLUTIONS.layer_norm)
    assert torch.equal(torch.rand(2), want)  # a check leaves the learner's random numbers alone
