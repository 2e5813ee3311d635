"""Lesson 01: every solution passes; every natural mistake is told apart from the others; a stub is not an error."""

import pytest
import torch

from course_lib import norms, pretrained
from course_lib.corpora import fashion_tensors
from course_lib.lessons.layernorm_dynamics import exercises as check
from course_lib.models.residual_mlp import ResidualMLP, ResidualMLPConfig
from tests.conftest import ROOT, load_file

SOLUTIONS = load_file(ROOT / "solutions" / "01_layernorm_dynamics.py")
SIMPLE = ["layer_norm", "rms_norm", "layer_norm_backward", "gradient_products", "radial_leak", "half_layer_norm"]


def std(x, **kw):
    return x.std(-1, correction=0, keepdim=True)


def var(x):
    return x.var(-1, correction=0, keepdim=True)


def mean(x):
    return x.mean(-1, keepdim=True)


def backward(change):
    """The right gradients, with one part changed."""

    def fn(grad, x, weight, eps):
        scale = (var(x) + eps).rsqrt()
        x_hat, g = (x - mean(x)) * scale, grad * weight
        parts = {
            "grad_x": scale * (g - mean(g) - x_hat * mean(g * x_hat)),
            "grad_weight": (grad * x_hat).sum(0),
            "grad_bias": grad.sum(0),
        }
        parts |= change(grad, x, x_hat, g, scale)
        return tuple(parts.values())

    return fn


def products(pick):
    def fn(x, upstream, eps):
        x = x.clone().requires_grad_()
        x_hat = norms.layer_norm(x, eps=eps)
        (gradient,) = torch.autograd.grad(x_hat, x, upstream)
        return pick(gradient, x.detach(), x_hat.detach(), upstream)

    return fn


WRONG = {
    "layer_norm": {
        "It belongs under the root": lambda x, w, b, eps: (x - mean(x)) / (std(x) + eps) * w + b,
        "LayerNorm divides by C": lambda x, w, b, eps: (x - mean(x)) / (x.var(-1, keepdim=True) + eps).sqrt() * w + b,
        "and x.std() divides by C - 1": lambda x, w, b, eps: (x - mean(x)) / (x.std(-1, keepdim=True) + eps) * w + b,
        "missing, and your variance": lambda x, w, b, eps: (x - mean(x)) / (x.var(-1, keepdim=True) + eps).sqrt(),
        "axis 0": lambda x, w, b, eps: (x - x.mean(0)) / (x.var(0, correction=0) + eps).sqrt() * w + b,
        "whole tensor": lambda x, w, b, eps: (x - x.mean()) / (x.var(correction=0) + eps).sqrt() * w + b,
        "eps is missing": lambda x, w, b, eps: (x - mean(x)) / std(x) * w + b,
        "not by its root": lambda x, w, b, eps: (x - mean(x)) / (var(x) + eps) * w + b,
        "mean is not subtracted": lambda x, w, b, eps: x / (var(x) + eps).sqrt() * w + b,
        "gain `weight` is missing": lambda x, w, b, eps: norms.layer_norm(x, None, b, eps),
        "`bias` is missing": lambda x, w, b, eps: norms.layer_norm(x, w, None, eps),
        "both missing.": lambda x, w, b, eps: norms.layer_norm(x, None, None, eps),
        "before the gain": lambda x, w, b, eps: (norms.layer_norm(x, None, None, eps) + b) * w,
        "no gradient reaches x": lambda x, w, b, eps: norms.layer_norm(x.detach(), w, b, eps),
        "no gradient reaches weight": lambda x, w, b, eps: norms.layer_norm(x, w.detach(), b, eps),
        "no gradient reaches bias": lambda x, w, b, eps: norms.layer_norm(x, w, b.detach(), eps),
        "gradient with respect to x differs": lambda x, w, b, eps: (
            (x - mean(x)) / (var(x).detach() + eps).sqrt() * w + b
        ),
        "pass through your function stopped with RuntimeError: one of": lambda x, w, b, eps: (
            (c := x - mean(x)).div_((mean(c.square()) + eps).sqrt()) * w + b
        ),
        "that require gradients, the result is a list": lambda x, w, b, eps: (
            [x] if x.requires_grad else norms.layer_norm(x, w, b, eps)
        ),
        "shape (2, 3, 6), the result differs": lambda x, w, b, eps: (
            (x - x.mean(1, True)) / (x.var(1, correction=0, keepdim=True) + eps).sqrt() * w + b
        ),
        "a float; a tensor is needed": lambda x, w, b, eps: 1.0,
        "shape (6,)": lambda x, w, b, eps: w,
        'stopped with ZeroDivisionError at `"divides by zero": 1 / 0`': None,
        "in place": lambda x, w, b, eps: norms.layer_norm(x.sub_(mean(x)), w, b, eps),
        "not a number": lambda x, w, b, eps: x / 0,
    },
    "rms_norm": {
        "subtract the mean": lambda x, w, eps: norms.layer_norm(x, w, None, eps),
        "mean included": lambda x, w, eps: x / (var(x) + eps).sqrt() * w,
        "not by its root": lambda x, w, eps: x / (mean(x.square()) + eps) * w,
        "square the mean": lambda x, w, eps: x / (mean(x).square() + eps).sqrt() * w,
        "adds eps under": lambda x, w, eps: x / (x.norm(dim=-1, keepdim=True) + eps) * w,
        "takes their mean": lambda x, w, eps: x / (x.square().sum(-1, keepdim=True) + eps).sqrt() * w,
        "It belongs under": lambda x, w, eps: x / (mean(x.square()).sqrt() + eps) * w,
        "eps is missing": lambda x, w, eps: x / mean(x.square()).sqrt() * w,
        "gain `weight` is missing": lambda x, w, eps: x / (mean(x.square()) + eps).sqrt(),
        "axis 0": lambda x, w, eps: x / (x.square().mean(0) + eps).sqrt() * w,
        "shape (2, 3, 6), the result differs": lambda x, w, eps: x / (x.square().mean(1, True) + eps).sqrt() * w,
        "no gradient reaches x": lambda x, w, eps: norms.rms_norm(x.detach(), w, None, eps),
        "no gradient reaches weight": lambda x, w, eps: norms.rms_norm(x, w.detach(), None, eps),
        "gradient with respect to x differs": lambda x, w, eps: x / (mean(x.square()).detach() + eps).sqrt() * w,
    },
    "layer_norm_backward": {
        "path through the mean": backward(lambda o, x, h, g, s: {"grad_x": s * (g - h * mean(g * h))}),
        "path through the variance": backward(lambda o, x, h, g, s: {"grad_x": s * (g - mean(g))}),
        "both indirect paths": backward(lambda o, x, h, g, s: {"grad_x": s * g}),
        "wrong sign": backward(lambda o, x, h, g, s: {"grad_x": s * (g - mean(g) + h * mean(g * h))}),
        "must point along x_hat": backward(lambda o, x, h, g, s: {"grad_x": s * (g - mean(g) - mean(g * h))}),
        "factor 1 / sqrt": backward(lambda o, x, h, g, s: {"grad_x": g - mean(g) - h * mean(g * h)}),
        "lacks the gain": backward(lambda o, x, h, g, s: {"grad_x": s * (o - mean(o) - h * mean(o * h))}),
        "uses x": backward(lambda o, x, h, g, s: {"grad_weight": (o * x).sum(0)}),
        "grad_weight averages": backward(lambda o, x, h, g, s: {"grad_weight": (o * h).mean(0)}),
        "grad_bias averages": backward(lambda o, x, h, g, s: {"grad_bias": o.mean(0)}),
        "Return three tensors": lambda grad, x, weight, eps: grad,
        "gradcheck disagrees": backward(lambda o, x, h, g, s: {"grad_x": 0 * x} if (o == 0).any() else {}),
        "pass through your function stopped with RuntimeError: Function": backward(
            lambda o, x, h, g, s: {"grad_bias": torch.ones(5)} if (o == 0).any() else {}
        ),
    },
    "gradient_products": {
        "upstream gradient times the ones": products(lambda g, x, h, u: (u.sum(-1), (g * h).sum(-1))),
        "upstream gradient times x_hat": products(lambda g, x, h, u: (g.sum(-1), (u * h).sum(-1))),
        "gradient times x;": products(lambda g, x, h, u: (g.sum(-1), (g * x).sum(-1))),
        "shape ()": products(lambda g, x, h, u: (g.sum(), (g * h).sum())),
        "Return two tensors": products(lambda g, x, h, u: g),
        "With eps=0.0, the product with x_hat differs": lambda x, upstream, eps: products(
            lambda g, x, h, u: (g.sum(-1), (g * h).sum(-1) + (eps == 0))
        )(x, upstream, eps),
        "With eps=0.3, the product with x_hat differs": lambda x, upstream, eps: products(
            lambda g, x, h, u: (g.sum(-1), (g * h).sum(-1) + (eps > 0))
        )(x, upstream, eps),
    },
    "radial_leak": {
        "that is removed": lambda v, eps: v / (v + eps),
        "ends at 1": lambda v, eps: eps / v,
        "enters squared": lambda v, eps: 1 - (v / (v + eps)).sqrt(),
        "share is not 0": lambda v, eps: 0 * v,
        "only the share is asked": lambda v, eps: eps / (v + eps) ** 1.5,
    },
    "half_layer_norm": {
        "Rows with little variance": lambda x, eps: ((x.float() - mean(x.float())) / (std(x.float()) + eps)).half(),
        "divides by C - 1": lambda x, eps: (
            (x.float() - mean(x.float())) / (x.float().var(-1, keepdim=True) + eps).sqrt()
        ).half(),
        "bits of precision": lambda x, eps: norms.layer_norm(x.bfloat16(), eps=eps).half(),
        "overflow float16": lambda x, eps: (x - mean(x)) / (mean((x - mean(x)).square()) + eps).sqrt(),
        "must come out as float16": lambda x, eps: norms.layer_norm(x.float(), eps=eps),
        "not of a scaled x": lambda x, eps: norms.layer_norm(
            x.float() / x.float().abs().amax(-1, True), eps=eps
        ).half(),
        "differs most at index": lambda x, eps: x,
    },
}
del WRONG["layer_norm"]['stopped with ZeroDivisionError at `"divides by zero": 1 / 0`']


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
def test_a_stub_and_an_error_are_answers_not_tracebacks(name):
    def unfinished(*args):
        raise NotImplementedError

    def broken(*args):
        return {}["no such key"]

    for stub in (lambda *args: None, lambda *args: ..., unfinished):
        result = getattr(check, name)(stub)
        assert result.ok is None
        assert "is a `return` missing?" in repr(result)
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
    wrong = check.injected(WRONG["layer_norm"]["axis 0"], model, *batch)
    assert wrong.ok is False
    assert "other answers: logits differ by" in wrong.message
    assert check.injected(lambda *args: None, model, *batch).ok is None


INJECTED = {
    "no gradient reaches embed.weight": WRONG["layer_norm"]["no gradient reaches x"],
    "no gradient reaches blocks.0.norm.weight": WRONG["layer_norm"]["no gradient reaches weight"],
    "no gradient reaches blocks.0.norm.bias": WRONG["layer_norm"]["no gradient reaches bias"],
    "gradient with respect to embed.weight differs": WRONG["layer_norm"]["gradient with respect to x differs"],
    "the result of your function is a list": lambda x, w, b, eps: [x],
    "the result of your function is a ndarray": lambda x, w, b, eps: norms.layer_norm(
        x.detach(), w.detach(), b.detach(), eps
    ).numpy(),
    "the result of your function has shape (20,)": lambda x, w, b, eps: x[:, 0],
    "the result of your function has device meta": lambda x, w, b, eps: x.to("meta"),
    "pass through your function stopped with RuntimeError": WRONG["layer_norm"][
        "pass through your function stopped with RuntimeError: one of"
    ],
    "argument number 1 in place": WRONG["layer_norm"]["in place"],
}
INJECTED |= {
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
    in_place = check.layer_norm(lambda x, w, b, eps: norms.layer_norm(x, w.mul_(2), b, eps))
    assert "argument number 2" in in_place.message
    double = check.layer_norm(lambda x, w, b, eps: norms.layer_norm(x.double(), w, b, eps))
    assert "dtype torch.float64" in double.message
    flat = check.layer_norm(lambda x, w, b, eps: norms.layer_norm(x.flatten(1), w, b, eps) if x.ndim == 2 else x)
    assert "shape (2, 3, 6)" in flat.message
    close = check.layer_norm(lambda x, w, b, eps: norms.layer_norm(x, w, b, eps) * 1.001)
    assert close.ok is False
    torch.manual_seed(7)
    want = torch.rand(2)
    torch.manual_seed(7)
    check.layer_norm(SOLUTIONS.layer_norm)
    assert torch.equal(torch.rand(2), want)  # a check leaves the learner's random numbers alone
