"""The feed-forward part of a transformer block, plain and gated."""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.checks import check_at_least, check_choice

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),  # no lambda: a module is pickled with its function
    "silu": F.silu,
}


def activation_fn(name: str) -> Callable[[Tensor], Tensor]:
    """The elementwise function called `name` ("relu", "gelu", "gelu_tanh", "silu"); else ValueError."""
    check_choice("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


class MLP(nn.Module):
    """Widen, bend, narrow: W2 act(W1 x).

    x (..., C) -> (..., C) with C = d_model; d_ff is the inner width. Raises ValueError for a width that is no whole
    number of 1 or more, or an unknown activation.
    Source: Vaswani et al. 2017, section 3.3; GELU: Hendrycks, Gimpel 2016.
    """

    def __init__(self, d_model: int, d_ff: int, activation: str = "gelu", bias: bool = True) -> None:
        super().__init__()
        check_at_least("d_model", d_model, 1)
        check_at_least("d_ff", d_ff, 1)
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
        check_at_least("d_model", d_model, 1)
        check_at_least("d_ff", d_ff, 1)
        self.act = activation_fn(activation)
        self.gate = nn.Linear(d_model, d_ff, bias=bias)
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C) -> (..., C)."""
        return self.down(self.act(self.gate(x)) * self.up(x))
