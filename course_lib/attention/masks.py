"""Attention patterns: which query may look at which key, said once as a function of their positions."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.positions.base import check_positions

Allowed = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Pattern:
    """`allowed(q_pos, k_pos) -> bool` for positions that broadcast against each other; True = may attend.

    Everything else is made of that one function: the dense mask of a picture, a kernel's blocks, the count of pairs.
    Patterns combine: `causal & window(64)` allows what both allow, `|` what either allows. Example, "each to itself and
    to the first token": `Pattern("mine", lambda q_pos, k_pos: (q_pos == k_pos) | (k_pos == 0))`.
    """

    name: str
    allowed: Allowed

    def __and__(self, other: "Pattern") -> "Pattern":
        return Pattern(f"({self.name} & {other.name})", lambda q, k: self.allowed(q, k) & other.allowed(q, k))

    def __or__(self, other: "Pattern") -> "Pattern":
        return Pattern(f"({self.name} | {other.name})", lambda q, k: self.allowed(q, k) | other.allowed(q, k))

    def __repr__(self) -> str:
        return self.name

    def dense(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """The pattern as a matrix: q_pos (T,) or (B, T), k_pos (S,) or (B, S) -> bool (T, S) or (B, T, S).

        Rows are queries, columns are keys. Raises ValueError for positions that are no integers or have more axes, and
        for a function `allowed` that gives no bool tensor: numbers would be added to the logits.
        """
        check_positions("q_pos", q_pos)
        check_positions("k_pos", k_pos)
        mask = self.allowed(q_pos.unsqueeze(-1), k_pos.unsqueeze(-2))
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = getattr(mask, "dtype", type(mask).__name__)
            raise ValueError(f"allowed of the pattern {self.name} gives {kind}; needed is a bool tensor")
        return mask.expand(torch.broadcast_shapes(mask.shape, (*q_pos.shape, k_pos.shape[-1])))


# A token sees itself and what came before it: nothing of the future.
causal = Pattern("causal", lambda q_pos, k_pos: k_pos <= q_pos)


def window(radius: int) -> Pattern:
    """Each query sees the keys at most `radius` places away, on both sides: 2 radius + 1 of them.

    Longformer's and ModernBERT's "window size" w is 2 radius; Mistral's "sliding window" W is `causal & window(W - 1)`.
    Raises ValueError for a radius below 0.
    """
    if radius < 0:
        raise ValueError(f"radius={radius}; it must be 0 or more")
    return Pattern(f"window({radius})", lambda q_pos, k_pos: (q_pos - k_pos).abs() <= radius)
