"""Checks for lesson 01, LayerNorm dynamics."""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from course_lib import norms
from course_lib.exercises import Wrong, call, checker, expect, expect_gradients, expect_kind, learners_code
from course_lib.exercises.injection import same_model
from course_lib.exercises.mistakes import Mistakes, expect_by, part

WIDTH = 6


def _rows(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """A small batch that is off-centre, with a gain and a bias that are not their starting values."""
    x = torch.randn(4, WIDTH, dtype=dtype) * torch.tensor([[0.2], [1.0], [3.0], [0.5]], dtype=dtype) + 1.5
    return x, torch.rand(WIDTH, dtype=dtype) + 0.5, torch.randn(WIDTH, dtype=dtype)


def _mean(x: Tensor) -> Tensor:
    return x.mean(-1, keepdim=True)


def _centred(x: Tensor) -> Tensor:
    """Each row's distances from its mean."""
    return x - _mean(x)


def _variance(x: Tensor, correction: int = 0) -> Tensor:
    return x.var(-1, correction=correction, keepdim=True)


def _expect_norm(
    fn: Callable[..., Tensor],
    right: Callable[..., Tensor],
    mistakes: Mistakes,
    tensors: Mapping[str, Tensor],
    eps: float,
) -> None:
    """Raise Wrong unless `fn(*tensors, eps)` is `right`: in value, for x with three axes, and in all gradients."""
    x, *parameters = tensors.values()
    expect_by(call(fn, x, *parameters, eps), right, mistakes, x, *parameters, eps)
    deep = torch.randn(2, 3, WIDTH)
    wanted = right(deep, *parameters, eps)
    expect(call(fn, deep, *parameters, eps), wanted, {}, what="For x of shape (2, 3, 6), the result")
    expect_gradients(fn, right, tensors, eps)


LAYER_NORM: Mistakes = {
    "eps is added to the standard deviation. It belongs under the root: sqrt(variance + eps).":
        lambda x, w, b, eps: _centred(x) / (_variance(x).sqrt() + eps) * w + b,
    "Two things: eps belongs under the root, and x.std() divides by C - 1, not by C.":
        lambda x, w, b, eps: _centred(x) / (x.std(-1, keepdim=True) + eps) * w + b,
    "eps is missing: divide by sqrt(variance + eps).": lambda x, w, b, eps: _centred(x) / _variance(x).sqrt() * w + b,
    "Your variance divides by C - 1. LayerNorm divides by C: `x.var(-1, correction=0)`.":
        lambda x, w, b, eps: _centred(x) / (_variance(x, 1) + eps).sqrt() * w + b,
    "You divide by the variance, not by its root.": lambda x, w, b, eps: _centred(x) / (_variance(x) + eps) * w + b,
    "You normalise over the batch (axis 0). Each row is normalised on its own: axis -1.":
        lambda x, w, b, eps: (x - x.mean(0)) / (x.var(0, correction=0) + eps).sqrt() * w + b,
    "You normalise over the whole tensor. Each row has its own mean and variance: axis -1, keepdim=True.":
        lambda x, w, b, eps: (x - x.mean()) / (x.var(correction=0) + eps).sqrt() * w + b,
    "The mean is not subtracted from x.": lambda x, w, b, eps: x / (_variance(x) + eps).sqrt() * w + b,
    "The gain `weight` is missing.": lambda x, w, b, eps: norms.layer_norm(x, None, b, eps),
    "The `bias` is missing.": lambda x, w, b, eps: norms.layer_norm(x, w, None, eps),
    "Gain and bias are both missing.": lambda x, w, b, eps: norms.layer_norm(x, None, None, eps),
    "Gain and bias are both missing, and your variance divides by C - 1 instead of C.":
        lambda x, w, b, eps: _centred(x) / (_variance(x, 1) + eps).sqrt(),
    "The bias is added before the gain multiplies. First the gain, then the bias.":
        lambda x, w, b, eps: (norms.layer_norm(x, None, None, eps) + b) * w,
}  # fmt: skip


@checker
def layer_norm(fn: norms.NormFn) -> str:
    """Check `fn(x, weight, bias, eps)` against `course_lib.norms.layer_norm`, then its gradients."""
    x, weight, bias = _rows()
    eps = 0.1  # large, so that where it stands can be seen
    _expect_norm(fn, norms.layer_norm, LAYER_NORM, {"x": x, "weight": weight, "bias": bias}, eps)
    return "Right: values and gradients equal the library's."


@checker
def injected(fn: norms.NormFn, model: nn.Module, images: Tensor, labels: Tensor) -> str:
    """Put `fn` into every LayerNorm of a trained model; compare answers and gradients, then train both ten steps."""

    def guarded(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        answer = call(fn, x, weight, bias, eps)
        expect_kind(answer, x, "In the model, the result of your function")
        return answer

    theirs, mine = copy.deepcopy(model), copy.deepcopy(model)
    replaced = [module for module in mine.modules() if isinstance(module, norms.LayerNorm)]
    if not replaced:
        raise ValueError("model has no LayerNorm to put your function into")
    for module in replaced:
        module.norm_fn = guarded
    compared = same_model(theirs, mine, (images, labels))
    return f"Your function runs in all {len(replaced)} norms of the network: {compared}"


RMS_NORM: Mistakes = {
    "You subtract the mean. RMSNorm does not: that is the step it saves.":
        lambda x, w, eps: norms.layer_norm(x, w, None, eps),
    "You divide by the standard deviation. RMSNorm divides by the root of the mean square, mean included.":
        lambda x, w, eps: x / (_variance(x) + eps).sqrt() * w,
    "You divide by the length of the row: sum of squares. RMSNorm takes their mean.":
        lambda x, w, eps: x / (x.square().sum(-1, keepdim=True) + eps).sqrt() * w,
    "eps is added to the root mean square. It belongs under the root.":
        lambda x, w, eps: x / (_mean(x.square()).sqrt() + eps) * w,
    "eps is missing.": lambda x, w, eps: x / _mean(x.square()).sqrt() * w,
    "You divide by the mean square, not by its root.": lambda x, w, eps: x / (_mean(x.square()) + eps) * w,
    "You square the mean. RMSNorm takes the mean of the squares.":
        lambda x, w, eps: x / (_mean(x).square() + eps).sqrt() * w,
    "You divide by the length of the row. RMSNorm takes the mean of the squares, and adds eps under the root.":
        lambda x, w, eps: x / (x.norm(dim=-1, keepdim=True) + eps) * w,
    "The gain `weight` is missing.": lambda x, w, eps: norms.rms_norm(x, None, None, eps),
    "You average over the batch (axis 0). Each row is normalised on its own: axis -1.":
        lambda x, w, eps: x / (x.square().mean(0) + eps).sqrt() * w,
}  # fmt: skip


@checker
def rms_norm(fn: Callable[[Tensor, Tensor, float], Tensor]) -> str:
    """Check `fn(x, weight, eps)` against `course_lib.norms.rms_norm`, then its gradients."""
    x, weight, _ = _rows()
    _expect_norm(fn, lambda x, w, eps: norms.rms_norm(x, w, None, eps), RMS_NORM, {"x": x, "weight": weight}, 0.1)
    return "Right: one statistic instead of two, and no bias."


Gradients = tuple[Tensor, Tensor, Tensor]
Part = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float, *,
    grad_x: Part = lambda grad, x, h, g, s: s * (g - _mean(g) - h * _mean(g * h)),
    grad_weight: Part = lambda grad, x, h, g, s: (grad * h).sum(0),
    grad_bias: Part = lambda grad, x, h, g, s: grad.sum(0),
) -> Gradients:  # fmt: skip
    """Of x, weight and bias, each by a formula that may be changed; h is x_hat, g grad * weight, s 1 / sqrt(...)."""
    s = (_variance(x) + eps).rsqrt()
    known = grad, x, _centred(x) * s, grad * weight, s
    return grad_x(*known), grad_weight(*known), grad_bias(*known)


LAYER_NORM_BACKWARD: Mistakes = {
    "grad_x lacks the path through the mean.":
        partial(_gradients, grad_x=lambda grad, x, h, g, s: s * (g - h * _mean(g * h))),
    "grad_x lacks the path through the variance.":
        partial(_gradients, grad_x=lambda grad, x, h, g, s: s * (g - _mean(g))),
    "grad_x lacks both indirect paths, through mean and variance.":
        partial(_gradients, grad_x=lambda grad, x, h, g, s: s * g),
    "grad_x lacks the factor 1 / sqrt(variance + eps).":
        partial(_gradients, grad_x=lambda grad, x, h, g, s: g - _mean(g) - h * _mean(g * h)),
    "grad_x lacks the gain: use g = grad * weight everywhere.":
        partial(_gradients, grad_x=lambda grad, x, h, g, s: s * (grad - _mean(grad) - h * _mean(grad * h))),
    "grad_x has the wrong sign before the term of the variance.":
        partial(_gradients, grad_x=lambda grad, x, h, g, s: s * (g - _mean(g) + h * _mean(g * h))),
    "grad_x has a term of the variance that is the same for the whole row; it must point along x_hat.":
        partial(_gradients, grad_x=lambda grad, x, h, g, s: s * (g - _mean(g) - _mean(g * h))),
    "grad_x sums where it should average over the row.":
        partial(_gradients, grad_x=lambda grad, x, h, g, s: s * (g - WIDTH * (_mean(g) + h * _mean(g * h)))),
    "grad_weight uses x; the gain multiplies x_hat.":
        partial(_gradients, grad_weight=lambda grad, x, h, g, s: (grad * x).sum(0)),
    "grad_weight averages over the rows; every row adds its part: sum.":
        partial(_gradients, grad_weight=lambda grad, x, h, g, s: (grad * h).mean(0)),
    "grad_weight has the gain in it; the gain does not act on its own gradient.":
        partial(_gradients, grad_weight=lambda grad, x, h, g, s: (g * h).sum(0)),
    "grad_bias averages over the rows; every row adds its part: sum.":
        partial(_gradients, grad_bias=lambda grad, x, h, g, s: grad.mean(0)),
    "grad_bias has the gain in it; the bias comes after the gain.":
        partial(_gradients, grad_bias=lambda grad, x, h, g, s: g.sum(0)),
}  # fmt: skip


@checker
def layer_norm_backward(fn: Callable[..., Gradients]) -> str:
    """Check `fn(grad, x, weight, eps) -> (grad_x, grad_weight, grad_bias)`, first by parts, then with gradcheck."""
    x, weight, bias = _rows(torch.float64)
    grad, eps = torch.randn_like(x), 0.1
    answer = call(fn, grad, x, weight, eps)
    if not isinstance(answer, tuple | list) or len(answer) != 3:
        raise Wrong("Return three tensors: the gradients of x, weight and bias.")
    for i, name in enumerate(("grad_x", "grad_weight", "grad_bias")):
        expect_by(answer[i], _gradients, LAYER_NORM_BACKWARD, grad, x, weight, eps, run=part(i), what=name)

    class Mine(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            ctx.save_for_backward(x, weight)
            return norms.layer_norm(x, weight, bias, eps)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
            return tuple(call(fn, grad, *ctx.saved_tensors, eps))

    inputs = tuple(t.clone().requires_grad_() for t in (x, weight, bias))
    with learners_code("The backward pass through your function"):
        agrees = torch.autograd.gradcheck(Mine.apply, inputs, raise_exception=False)
    if not agrees:
        raise Wrong(
            "The formulas hold for one batch, but torch.autograd.gradcheck disagrees: does a number depend on it?"
        )
    return "Right: torch.autograd.gradcheck finds the same gradients by finite differences."


Pair = tuple[Tensor, Tensor]


def _products(
    x: Tensor, upstream: Tensor, eps: float, *,
    pick: Callable[[Tensor, Tensor, Tensor, Tensor], Pair] = lambda x, x_hat, up, grad: (
        grad.sum(-1), (grad * x_hat).sum(-1)
    ),
) -> Pair:  # fmt: skip
    """Both products, of x, x_hat, the gradient upstream and the one with respect to x; `pick` can be changed."""
    leaf = x.clone().requires_grad_()
    x_hat = norms.layer_norm(leaf, eps=eps)
    (gradient,) = torch.autograd.grad(x_hat, leaf, upstream)
    return pick(x, x_hat.detach(), upstream, gradient)


GRADIENT_PRODUCTS: Mistakes = {
    "That is the upstream gradient times the ones vector; take the gradient with respect to x.":
        partial(_products, pick=lambda x, x_hat, up, grad: (up.sum(-1), (grad * x_hat).sum(-1))),
    "That is the upstream gradient times x_hat; take the gradient with respect to x.":
        partial(_products, pick=lambda x, x_hat, up, grad: (grad.sum(-1), (up * x_hat).sum(-1))),
    "That is the gradient times x; the second direction is x_hat, the normalised row.":
        partial(_products, pick=lambda x, x_hat, up, grad: (grad.sum(-1), (grad * x).sum(-1))),
    "That is x_hat with eps = 0; use the eps that was given.":
        partial(_products, pick=lambda x, x_hat, up, grad: (grad.sum(-1), (grad * norms.layer_norm(x, eps=0)).sum(-1))),
}  # fmt: skip


@checker
def gradient_products(fn: Callable[[Tensor, Tensor, float], Pair]) -> str:
    """Check `fn(x, upstream, eps)`: products of the gradient of x with the ones vector and with x_hat, each (B,)."""
    x, _, _ = _rows(torch.float64)
    upstream = torch.randn_like(x)
    for eps in (0.0, 0.3):
        answer = call(fn, x, upstream, eps)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise Wrong("Return two tensors: the products with the ones vector and with x_hat.")
        for i, direction in enumerate(("the ones vector", "x_hat")):
            expect_by(
                answer[i], _products, GRADIENT_PRODUCTS, x, upstream, eps,
                run=part(i), what=f"With eps={eps}, the product with {direction}", tolerance=1e-9, size=1.0,
            )  # fmt: skip
    return "Right: with eps = 0 both vanish. With eps > 0 one of them does not. Which, and by how much? Next exercise."


RADIAL_LEAK: Mistakes = {
    "That is the share that is removed; asked is the share that gets through.": lambda v, eps: v / (v + eps),
    "Nearly: eps / variance grows without end for small variance, but a share ends at 1.": lambda v, eps: eps / v,
    "You took a root: the length of x_hat enters squared.": lambda v, eps: 1 - (v / (v + eps)).sqrt(),
    "With eps > 0 the share is not 0: measure it with your function from the exercise before.": lambda v, eps: 0 * v,
    "Leave out the common factor 1 / sqrt(variance + eps); only the share is asked.":
        lambda v, eps: eps / (v + eps) ** 1.5,
}  # fmt: skip


@checker
def radial_leak(fn: Callable[[Tensor, float], Tensor]) -> str:
    """Check `fn(variance, eps)`: the share of the gradient along x_hat that eps lets through."""
    variance, eps = torch.tensor([0.01, 0.1, 1.0, 10.0], dtype=torch.float64), 0.1
    expect_by(call(fn, variance, eps), lambda variance, eps: eps / (variance + eps), RADIAL_LEAK, variance, eps)
    return (
        "Right: eps / (variance + eps). A row with little variance is not fully normalised, and its length can learn."
    )


HALF_LAYER_NORM: Mistakes = {
    "Rows with little variance are wrong: eps belongs under the root, next to the variance of x itself, "
    "not of a scaled x.": lambda x, eps: (_centred(x.float()) / (_variance(x.float()).sqrt() + eps)).half(),
    "Your variance divides by C - 1. LayerNorm divides by C.":
        lambda x, eps: (_centred(x.float()) / (_variance(x.float(), 1) + eps).sqrt()).half(),
    "bfloat16 has the range, but only 8 bits of precision. Widen to float32.":
        lambda x, eps: norms.layer_norm(x.bfloat16(), eps=eps).half(),
    "Large rows come out as zeros: their squares overflow float16, which ends at 65,504. Widen first.":
        lambda x, eps: _centred(x) / (_mean(_centred(x).square()) + eps).sqrt(),
}  # fmt: skip


@checker
def half_layer_norm(fn: Callable[[Tensor, float], Tensor]) -> str:
    """Check `fn(x, eps)`: LayerNorm of float16 rows, some of them large, correct to float16's precision."""
    x = torch.randn(5, 64).mul(torch.tensor([[0.01], [1.0], [100.0], [2000.0], [8000.0]])).half()
    got = call(fn, x, 1e-5)
    if isinstance(got, Tensor) and got.dtype in (torch.float32, torch.float64):
        raise Wrong(
            f"The result has dtype {got.dtype}. What goes in as float16 must come out as float16: `.to(x.dtype)`."
        )
    expect_by(
        got, lambda x, eps: norms.layer_norm(x.double(), eps=eps).half(), HALF_LAYER_NORM, x, 1e-5, tolerance=2e-3
    )
    return "Right: widen, normalise, narrow. That is what the library and torch do."
