"""ALiBi: the logit of a pair sinks in a line with its distance. Nothing is learned, nothing ends."""

import math

import torch
from torch import Tensor

from course_lib.checks import check_sizes
from course_lib.positions.base import Position, distances

UNIFORM_SLOPE = 1 / 16


def alibi_slopes(n_heads: int, device: torch.device | None = None) -> Tensor:
    """How fast the logits of each head sink per token: (n_heads,) float32.

    2^(-8/n), 2^(-16/n), ..., 2^-8 where n = n_heads is a power of two. Else those of the largest power below, and then
    every second one of twice that power: slopes between the first ones. Raises ValueError for n_heads below 1.
    Source: Press, Smith, Lewis 2022, "Train Short, Test Long", section 3 and, for other numbers, its published code.
    """
    check_sizes(n_heads=n_heads)
    power = 2 ** int(math.log2(n_heads))
    exponents = torch.arange(1, power + 1, device=device) / power
    between = (2 * torch.arange(n_heads - power, device=device) + 1) / (2 * power)
    return 2.0 ** (-8 * torch.cat([exponents, between]))


class AlibiPosition(Position):
    """Adds -slope |i - j| to the logit of query i and key j.

    `slope` None gives each of the n_heads its own of `alibi_slopes`; a number is the slope of all, such as
    `UNIFORM_SLOPE`. The same in both directions: an encoder uses both, under a causal mask one is left. Raises
    ValueError for n_heads below 1 and a slope that is not above 0.
    Source: Press, Smith, Lewis 2022, "Train Short, Test Long: Attention with Linear Biases", section 3.
    """

    def __init__(self, n_heads: int, slope: float | None = None) -> None:
        super().__init__()
        alibi_slopes(n_heads)  # refuses a number that cannot be
        if slope is not None and not 0 < slope < math.inf:
            raise ValueError(f"slope={slope}; it must be above 0 and finite, or None for one each head")
        self.n_heads, self.slope = n_heads, slope

    def slopes(self, device: torch.device | None = None) -> Tensor:
        """(H,) float32, or (1,) where all heads share one."""
        if self.slope is None:
            return alibi_slopes(self.n_heads, device)
        return torch.full((1,), self.slope, device=device)

    def bias(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """q_pos (T,) or (B, T), k_pos (S,) or (B, S) -> (H, T, S) or (B, H, T, S) float32; H is 1 for one slope."""
        distance = distances(q_pos, k_pos).abs().unsqueeze(-3)  # (1, T, S) or (B, 1, T, S)
        return -self.slopes(q_pos.device)[:, None, None] * distance

    def extra_repr(self) -> str:
        return f"n_heads={self.n_heads}, slope={self.slope}"
