"""Solutions to the exercises of lesson 01. Try first: each has a hint in the notebook."""

import torch
from torch import Tensor


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Exercise 1."""
    mean = x.mean(-1, keepdim=True)
    variance = x.var(-1, correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps) * weight + bias


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Exercise 2."""
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def layer_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Exercise 3."""
    mean = x.mean(-1, keepdim=True)
    scale = torch.rsqrt(x.var(-1, correction=0, keepdim=True) + eps)
    x_hat = (x - mean) * scale
    g = grad * weight
    grad_x = scale * (g - g.mean(-1, keepdim=True) - x_hat * (g * x_hat).mean(-1, keepdim=True))
    return grad_x, (grad * x_hat).sum(0), grad.sum(0)


def gradient_products(x: Tensor, upstream: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Exercise 4."""
    from course_lib.norms import layer_norm as library_layer_norm

    x = x.clone().requires_grad_()
    x_hat = library_layer_norm(x, eps=eps)
    (gradient,) = torch.autograd.grad(x_hat, x, upstream)
    return gradient.sum(-1), (gradient * x_hat.detach()).sum(-1)


def radial_leak(variance: Tensor, eps: float) -> Tensor:
    """Exercise 5. |x_hat|^2 = d * var / (var + eps), so 1 - |x_hat|^2 / d is what the projection leaves."""
    return eps / (variance + eps)


def half_layer_norm(x: Tensor, eps: float) -> Tensor:
    """Exercise 6."""
    wide = x.float()
    centred = wide - wide.mean(-1, keepdim=True)
    return (centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)).to(x.dtype)
