"""LayerNorm and RMSNorm, written out so that every step can be read."""

import functools
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.checks import check_at_least, check_choice, check_not_negative, kind_of


class NormFn(Protocol):
    """What `LayerNorm(norm_fn=...)` and `RMSNorm(norm_fn=...)` call: normalise the last axis, then gain and bias."""

    def __call__(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor: ...


def _check(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ValueError(f"x is {kind_of(x)}; a floating-point tensor is needed")
    if x.ndim < 1:
        raise ValueError("x has no axis; its last axis is the one that is normalised")
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.shape != x.shape[-1:]:
            raise ValueError(f"{name} has shape {tuple(parameter.shape)}; x needs {tuple(x.shape[-1:])}, its last axis")
    check_not_negative("eps", eps)


def _statistics_dtype(x: Tensor) -> torch.dtype:
    # float16 ends at 65,504: the square of 256 overflows. Half types are normalised in float32.
    return torch.promote_types(x.dtype, torch.float32)


def layer_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Shift and scale each row to mean 0 and variance 1, then apply gain `weight` and `bias`.

    x (..., C), weight and bias (C,) or None -> (..., C) in the dtype of x. The variance is the biased one, and
    eps (in the unit of the variance) is added under the root. Half types are normalised in float32.
    Raises ValueError for integers, a weight or bias that is not (C,), and eps < 0.
    Source: Ba, Kiros, Hinton 2016, "Layer Normalization", section 3, equation 4.
    """
    _check(x, weight, bias, eps)
    wide = x.to(_statistics_dtype(x))
    centred = wide - wide.mean(-1, keepdim=True)  # (..., C)
    variance = centred.square().mean(-1, keepdim=True)  # (..., 1)
    y = centred * torch.rsqrt(variance + eps)
    if weight is not None:
        y = y * weight
    if bias is not None:
        y = y + bias
    return y.to(x.dtype)


def rms_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Divide each row by its root mean square, then apply gain `weight` and `bias`; the mean stays.

    x (..., C), weight and bias (C,) or None -> (..., C) in the dtype of x. eps is in the unit of the mean square.
    Half types are normalised in float32. Raises ValueError as `layer_norm` does.
    Source: Zhang, Sennrich 2019, "Root Mean Square Layer Normalization", section 4, equation 4.
    """
    _check(x, weight, bias, eps)
    wide = x.to(_statistics_dtype(x))
    y = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    if weight is not None:
        y = y * weight
    if bias is not None:
        y = y + bias
    return y.to(x.dtype)


def fused_layer_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """`layer_norm` in one kernel of torch: same arguments, result and types. The readable one is the specification.

    On a CPU `layer_norm` takes 4.2 to 16 times as long as torch's own module forward, 8.1 to 16 times forward and
    backward; this one 0.95 to 1.1 times, which shows no difference (medians and their intervals in
    results/bench/norms.json). Its price in half types, under autocast too: on a CPU, torch 2.13 adds up the gradients
    of gain and bias over the rows in that type, one sum a thread. A sum of ones stops at 256 in bfloat16 and at 2048 in
    float16. In the benchmark's bfloat16 cases, on one thread, these two gradients are off by 8 to 68 % of their largest
    entry. The output and the gradient of x are right; in `layer_norm`, which works in float32, all are.
    """
    _check(x, weight, bias, eps)
    rows, shape = x, x.shape[-1:]
    given = [parameter for parameter in (weight, bias) if parameter is not None]
    wide = _statistics_dtype(x)
    # The kernels take gain and bias in the type of the rows, and on a CPU in float32 for half types: nothing else.
    as_rows, as_wide = (all(parameter.dtype == dtype for parameter in given) for dtype in (x.dtype, wide))
    if not as_rows and not (as_wide and x.device.type == "cpu"):
        wide = functools.reduce(torch.promote_types, (parameter.dtype for parameter in given), wide)
        rows = x.to(wide)
        weight, bias = (None if parameter is None else parameter.to(wide) for parameter in (weight, bias))
    return F.layer_norm(rows, shape, weight, bias, eps).to(x.dtype)  # autocast on CUDA would return float32


class _Norm(nn.Module):
    """What LayerNorm and RMSNorm share: a gain, perhaps a bias, and the function that uses them."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, d_model: int, eps: float, bias: bool, norm_fn: NormFn) -> None:
        super().__init__()
        check_at_least("d_model", d_model, 1)
        check_not_negative("eps", eps)
        self.d_model, self.eps, self.norm_fn = d_model, eps, norm_fn
        self.weight = nn.Parameter(torch.ones(d_model))
        self.register_parameter("bias", nn.Parameter(torch.zeros(d_model)) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C) -> (..., C)."""
        return self.norm_fn(x, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.d_model}, eps={self.eps}, bias={self.bias is not None}, norm_fn={self.norm_fn.__name__}"  # type: ignore[attr-defined]


class LayerNorm(_Norm):
    """LayerNorm over the last axis with a learned gain (starts at 1) and bias (starts at 0).

    x (..., C) -> (..., C) with C = d_model. `norm_fn` is the function that does it: `layer_norm`,
    `fused_layer_norm`, or your own. Raises ValueError for d_model < 1, eps < 0 and, in forward, a wrong width.
    Source: Ba, Kiros, Hinton 2016, section 3.
    """

    def __init__(self, d_model: int, eps: float = 1e-5, bias: bool = True, norm_fn: NormFn = layer_norm) -> None:
        super().__init__(d_model, eps, bias, norm_fn)


class RMSNorm(_Norm):
    """RMSNorm over the last axis with a learned gain (starts at 1) and no bias.

    x (..., C) -> (..., C) with C = d_model. `norm_fn` is `rms_norm` or your own.
    Raises ValueError as LayerNorm does. Source: Zhang, Sennrich 2019, section 4.
    """

    def __init__(self, d_model: int, eps: float = 1e-5, norm_fn: NormFn = rms_norm) -> None:
        super().__init__(d_model, eps, bias=False, norm_fn=norm_fn)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "layernorm": LayerNorm,
    "rmsnorm": RMSNorm,
    "none": lambda d_model: nn.Identity(),
}


def make_norm(kind: str, d_model: int) -> nn.Module:
    """The norm called `kind` ("layernorm", "rmsnorm", "none") for width d_model; else ValueError."""
    check_choice("norm", kind, NORMS)
    return NORMS[kind](d_model)
