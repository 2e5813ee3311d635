"""Checks for lesson 01, LayerNorm dynamics."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from course_lib import norms
from course_lib.exercises import Wrong, call, checker, expect, expect_gradients, expect_kind, learners_code
from course_lib.exercises.injection import same_model

WIDTH = 6


def _rows(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """A small batch that is off-centre, with a gain and a bias that are not their starting values."""
    x = torch.randn(4, WIDTH, dtype=dtype) * torch.tensor([[0.2], [1.0], [3.0], [0.5]], dtype=dtype) + 1.5
    return x, torch.rand(WIDTH, dtype=dtype) + 0.5, torch.randn(WIDTH, dtype=dtype)


def _centred(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's distances from its mean (..., C), and its biased variance (..., 1)."""
    centred = x - x.mean(-1, keepdim=True)
    return centred, centred.square().mean(-1, keepdim=True)


def _expect_norm(
    fn: Callable[..., Any],
    reference: Callable[..., Tensor],
    tensors: Mapping[str, Tensor],
    eps: float,
    mistakes: Mapping[str, Tensor],
) -> None:
    """Raise Wrong unless `fn(*tensors, eps)` is `reference`: in value, for x with three axes, and in all gradients."""
    x, *parameters = tensors.values()
    expect(call(fn, x, *parameters, eps), reference(x, *parameters, eps), mistakes)
    deep = torch.randn(2, 3, WIDTH)
    wanted = reference(deep, *parameters, eps)
    expect(call(fn, deep, *parameters, eps), wanted, {}, what="For x of shape (2, 3, 6), the result")
    expect_gradients(fn, reference, tensors, eps)


@checker
def layer_norm(fn: norms.NormFn) -> str:
    """Check `fn(x, weight, bias, eps)` against `course_lib.norms.layer_norm`, then its gradients."""
    x, weight, bias = _rows()
    eps = 0.1  # large, so that where it stands can be seen
    centred, variance = _centred(x)
    root = (variance + eps).sqrt()
    x_hat = centred / root
    axis0 = (x - x.mean(0)) / (x.var(0, correction=0) + eps).sqrt()
    whole = (x - x.mean()) / (x.var(correction=0) + eps).sqrt()
    unbiased = centred / (x.var(-1, keepdim=True) + eps).sqrt()
    mistakes = {
        "eps is added to the standard deviation. It belongs under the root: sqrt(variance + eps).": (
            centred / (variance.sqrt() + eps) * weight + bias
        ),
        "Two things: eps belongs under the root, and x.std() divides by C - 1, not by C.": (
            centred / (x.std(-1, keepdim=True) + eps) * weight + bias
        ),
        "eps is missing: divide by sqrt(variance + eps).": centred / variance.sqrt() * weight + bias,
        "Your variance divides by C - 1. LayerNorm divides by C: `x.var(-1, correction=0)`.": unbiased * weight + bias,
        "You divide by the variance, not by its root.": centred / (variance + eps) * weight + bias,
        "You normalise over the batch (axis 0). Each row is normalised on its own: axis -1.": axis0 * weight + bias,
        "You normalise over the whole tensor. Each row has its own mean and variance: axis -1, keepdim=True.": (
            whole * weight + bias
        ),
        "The mean is not subtracted from x.": x / root * weight + bias,
        "The gain `weight` is missing.": x_hat + bias,
        "The `bias` is missing.": x_hat * weight,
        "Gain and bias are both missing.": x_hat,
        "Gain and bias are both missing, and your variance divides by C - 1 instead of C.": unbiased,
        "The bias is added before the gain multiplies. First the gain, then the bias.": (x_hat + bias) * weight,
    }
    _expect_norm(fn, norms.layer_norm, {"x": x, "weight": weight, "bias": bias}, eps, mistakes)
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


@checker
def rms_norm(fn: Callable[[Tensor, Tensor, float], Tensor]) -> str:
    """Check `fn(x, weight, eps)` against `course_lib.norms.rms_norm`, then its gradients."""
    x, weight, _ = _rows()
    eps = 0.1
    mean_square = x.square().mean(-1, keepdim=True)
    _, variance = _centred(x)
    mistakes = {
        "You subtract the mean. RMSNorm does not: that is the step it saves.": norms.layer_norm(x, weight, None, eps),
        "You divide by the standard deviation. RMSNorm divides by the root of the mean square, mean included.": (
            x / (variance + eps).sqrt() * weight
        ),
        "You divide by the length of the row: sum of squares. RMSNorm takes their mean.": (
            x / (x.square().sum(-1, keepdim=True) + eps).sqrt() * weight
        ),
        "eps is added to the root mean square. It belongs under the root.": x / (mean_square.sqrt() + eps) * weight,
        "eps is missing.": x / mean_square.sqrt() * weight,
        "You divide by the mean square, not by its root.": x / (mean_square + eps) * weight,
        "You square the mean. RMSNorm takes the mean of the squares.": (
            x / (x.mean(-1, keepdim=True).square() + eps).sqrt() * weight
        ),
        "You divide by the length of the row. RMSNorm takes the mean of the squares, and adds eps under the root.": (
            x / (x.norm(dim=-1, keepdim=True) + eps) * weight
        ),
        "The gain `weight` is missing.": x / (mean_square + eps).sqrt(),
        "You average over the batch (axis 0). Each row is normalised on its own: axis -1.": (
            x / (x.square().mean(0) + eps).sqrt() * weight
        ),
    }
    _expect_norm(
        fn, lambda x, weight, eps: norms.rms_norm(x, weight, None, eps), {"x": x, "weight": weight}, eps, mistakes
    )
    return "Right: one statistic instead of two, and no bias."


@checker
def layer_norm_backward(fn: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> str:
    """Check `fn(grad, x, weight, eps) -> (grad_x, grad_weight, grad_bias)`, first by parts, then with gradcheck."""
    x, weight, bias = _rows(torch.float64)
    grad, eps = torch.randn_like(x), 0.1
    centred, variance = _centred(x)
    scale = (variance + eps).rsqrt()
    x_hat, g = centred * scale, grad * weight
    mean_g, mean_gx = g.mean(-1, keepdim=True), (g * x_hat).mean(-1, keepdim=True)
    answer = call(fn, grad, x, weight, eps)
    if not isinstance(answer, tuple | list) or len(answer) != 3:
        raise Wrong("Return three tensors: the gradients of x, weight and bias.")
    plain, plain_gx = grad.mean(-1, keepdim=True), (grad * x_hat).mean(-1, keepdim=True)
    mistakes = {
        "grad_x lacks the path through the mean.": scale * (g - x_hat * mean_gx),
        "grad_x lacks the path through the variance.": scale * (g - mean_g),
        "grad_x lacks both indirect paths, through mean and variance.": scale * g,
        "grad_x lacks the factor 1 / sqrt(variance + eps).": g - mean_g - x_hat * mean_gx,
        "grad_x lacks the gain: use g = grad * weight everywhere.": scale * (grad - plain - x_hat * plain_gx),
        "grad_x has the wrong sign before the term of the variance.": scale * (g - mean_g + x_hat * mean_gx),
        "grad_x has a term of the variance that is the same for the whole row; it must point along x_hat.": (
            scale * (g - mean_g - mean_gx)
        ),
        "grad_x sums where it should average over the row.": scale * (g - WIDTH * mean_g - x_hat * WIDTH * mean_gx),
    }
    expect(answer[0], scale * (g - mean_g - x_hat * mean_gx), mistakes, what="grad_x")
    mistakes = {
        "grad_weight uses x; the gain multiplies x_hat.": (grad * x).sum(0),
        "grad_weight averages over the rows; every row adds its part: sum.": (grad * x_hat).mean(0),
        "grad_weight has the gain in it; the gain does not act on its own gradient.": (g * x_hat).sum(0),
    }
    expect(answer[1], (grad * x_hat).sum(0), mistakes, what="grad_weight")
    mistakes = {
        "grad_bias averages over the rows; every row adds its part: sum.": grad.mean(0),
        "grad_bias has the gain in it; the bias comes after the gain.": g.sum(0),
    }
    expect(answer[2], grad.sum(0), mistakes, what="grad_bias")

    class Mine(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            ctx.save_for_backward(x, weight)
            return norms.layer_norm(x, weight, bias, eps)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            return tuple(call(fn, grad, *ctx.saved_tensors, eps))

    inputs = tuple(t.clone().requires_grad_() for t in (x, weight, bias))
    with learners_code("The backward pass through your function"):
        agrees = torch.autograd.gradcheck(Mine.apply, inputs, raise_exception=False)
    if not agrees:
        raise Wrong(
            "The formulas hold for one batch, but torch.autograd.gradcheck disagrees: does a number depend on it?"
        )
    return "Right: torch.autograd.gradcheck finds the same gradients by finite differences."


@checker
def gradient_products(fn: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]) -> str:
    """Check `fn(x, upstream, eps)`: products of the gradient of x with the ones vector and with x_hat, each (B,)."""
    x, _, _ = _rows(torch.float64)
    upstream = torch.randn_like(x)
    for eps in (0.0, 0.3):
        leaf = x.clone().requires_grad_()
        x_hat = norms.layer_norm(leaf, eps=eps)
        (gradient,) = torch.autograd.grad(x_hat, leaf, upstream)
        x_hat = x_hat.detach()
        answer = call(fn, x, upstream, eps)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise Wrong("Return two tensors: the products with the ones vector and with x_hat.")
        ones, along = gradient.sum(-1), (gradient * x_hat).sum(-1)
        mistakes = {
            "That is the upstream gradient times the ones vector; take the gradient with respect to x.": upstream.sum(
                -1
            )
        }
        expect(
            answer[0],
            ones,
            mistakes,
            what=f"With eps={eps}, the product with the ones vector",
            tolerance=1e-9,
            size=1.0,
        )
        mistakes = {
            "That is the upstream gradient times x_hat; take the gradient with respect to x.": (upstream * x_hat).sum(
                -1
            ),
            "That is the gradient times x; the second direction is x_hat, the normalised row.": (gradient * x).sum(-1),
            "That is x_hat with eps = 0; use the eps that was given.": (gradient * norms.layer_norm(x, eps=0.0)).sum(
                -1
            ),
        }
        expect(answer[1], along, mistakes, what=f"With eps={eps}, the product with x_hat", tolerance=1e-9, size=1.0)
    return "Right: with eps = 0 both vanish. With eps > 0 one of them does not. Which, and by how much? Next exercise."


@checker
def radial_leak(fn: Callable[[Tensor, float], Tensor]) -> str:
    """Check `fn(variance, eps)`: the share of the gradient along x_hat that eps lets through."""
    variance, eps = torch.tensor([0.01, 0.1, 1.0, 10.0], dtype=torch.float64), 0.1
    mistakes = {
        "That is the share that is removed; asked is the share that gets through.": variance / (variance + eps),
        "Nearly: eps / variance grows without end for small variance, but a share ends at 1.": eps / variance,
        "You took a root: the length of x_hat enters squared.": (1 - (variance / (variance + eps)).sqrt()),
        "With eps > 0 the share is not 0: measure it with your function from the exercise before.": 0 * variance,
        "Leave out the common factor 1 / sqrt(variance + eps); only the share is asked.": (
            eps / (variance + eps) ** 1.5
        ),
    }
    expect(call(fn, variance, eps), eps / (variance + eps), mistakes)
    return (
        "Right: eps / (variance + eps). A row with little variance is not fully normalised, and its length can learn."
    )


@checker
def half_layer_norm(fn: Callable[[Tensor, float], Tensor]) -> str:
    """Check `fn(x, eps)`: LayerNorm of float16 rows, some of them large, correct to float16's precision."""
    x = torch.randn(5, 64).mul(torch.tensor([[0.01], [1.0], [100.0], [2000.0], [8000.0]])).half()
    eps = 1e-5
    want = norms.layer_norm(x.double(), eps=eps).half()
    centred, variance = _centred(x)
    naive = centred / (variance + eps).sqrt()
    got = call(fn, x, eps)
    if isinstance(got, Tensor) and got.dtype in (torch.float32, torch.float64):
        raise Wrong(
            f"The result has dtype {got.dtype}. What goes in as float16 must come out as float16: `.to(x.dtype)`."
        )
    wide, variance = _centred(x.float())
    mistakes = {
        "Rows with little variance are wrong: eps belongs under the root, next to the variance of x itself, "
        "not of a scaled x.": (wide / (variance.sqrt() + eps)).half(),
        "Your variance divides by C - 1. LayerNorm divides by C.": (
            wide / (x.float().var(-1, keepdim=True) + eps).sqrt()
        ).half(),
        "bfloat16 has the range, but only 8 bits of precision. Widen to float32.": (
            norms.layer_norm(x.bfloat16(), eps=eps).half()
        ),
        "Large rows come out as zeros: their squares overflow float16, which ends at 65,504. Widen first.": naive,
    }
    expect(got, want, mistakes, tolerance=2e-3)
    return "Right: widen, normalise, narrow. That is what the library and torch do."
