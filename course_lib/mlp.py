"""The feed-forward part of a transformer block, plain and gated."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


def activation_fn(name: str) -> Callable[[Tensor], Tensor]:
    """The elementwise function called `name` ("relu", "gelu", "gelu_tanh", "silu"); else ValueError."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation={name!r}; allowed are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _check_widths(d_model: int, d_ff: int) -> None:
    for name, value in (("d_model", d_model), ("d_ff", d_ff)):
        if value < 1:
            raise ValueError(f"{name}={value}; it must be at least 1")


class MLP(nn.Module):
    """Widen, bend, narrow: W2 act(W1 x).

    x (..., C) -> (..., C) with C = d_model; d_ff is the inner width. Raises ValueError for a width below 1 or an
    unknown activation. Source: Vaswani et al. 2017, section 3.3; GELU: Hendrycks, Gimpel 2016.
    """

    def __init__(self, d_model: int, d_ff: int, activation: str = "gelu", bias: bool = True) -> None:
        super().__init__()
        _check_widths(d_model, d_ff)
        self.act = activation_fn(activation)
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C) -> (..., C)."""
        return self.down(self.act(self.up(x)))


class GatedMLP(nn.Module):
    """An MLP whose inner layer is a product of two: W2 (act(Wg x) * W1 x).

    x (..., C) -> (..., C) with C = d_model. activation "silu" gives SwiGLU, "gelu" GeGLU. It has three matrices
    where MLP has two: at equal parameters take 2/3 of the d_ff. Raises ValueError as MLP does.
    Source: Shazeer 2020, "GLU Variants Improve Transformer", section 2.
    """

    def __init__(self, d_model: int, d_ff: int, activation: str = "silu", bias: bool = False) -> None:
        super().__init__()
        _check_widths(d_model, d_ff)
        self.act = activation_fn(activation)
        self.gate = nn.Linear(d_model, d_ff, bias=bias)
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C) -> (..., C)."""
        return self.down(self.act(self.gate(x)) * self.up(x))
