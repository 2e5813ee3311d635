"""Rotary positions (RoPE): each pair of channels turns by an angle that grows with the position."""

import math

import torch
from torch import Tensor

from course_lib.checks import check_choice, check_even
from course_lib.positions.base import Position, check_positions

LAYOUTS = ("half_split", "interleaved")
EXTENSIONS = ("none", "interpolate", "ntk")


def rope_frequencies(
    rotary_dim: int, theta: float = 10000.0, *, extension: str = "none", factor: float = 1.0,
    device: torch.device | None = None,
) -> Tensor:  # fmt: skip
    """Radians that each of the rotary_dim / 2 pairs turns per position: theta^(-2 i / rotary_dim), the first pair 1.

    -> (rotary_dim / 2,) float32. To read texts `factor` times as long as those of the training, `extension` slows the
    pairs down: "interpolate" all of them by `factor`; "ntk" the last by `factor`, the first not at all and those
    between in geometric steps, by a larger theta. Raises ValueError for a rotary_dim that is odd or below 2, a theta
    not above 1, an unknown extension, a factor below 1, or one that "none" would ignore.
    Sources: Su et al. 2021, "RoFormer", section 3.2.2; Chen et al. 2023, "Extending Context Window of Large Language
    Models via Positional Interpolation", section 2.3; NTK-aware: Peng et al. 2023, "YaRN", section 3.1.
    """
    check_even("rotary_dim", rotary_dim)
    if not 1 < theta < math.inf:
        raise ValueError(f"theta={theta}; it must be above 1 and finite")
    check_choice("extension", extension, EXTENSIONS)
    if not 1 <= factor < math.inf or (extension == "none" and factor != 1):
        raise ValueError(f"factor={factor} with extension={extension!r}; needed is 1 or more, and 1 for 'none'")
    if extension == "ntk" and rotary_dim > 2:  # a single pair is the first one
        theta = theta * factor ** (rotary_dim / (rotary_dim - 2))
    pair = torch.arange(0, rotary_dim, 2, device=device, dtype=torch.float32)
    frequencies = 1.0 / theta ** (pair / rotary_dim)
    return frequencies / factor if extension == "interpolate" else frequencies


def rotate_pairs(x: Tensor, angles: Tensor, layout: str = "half_split") -> Tensor:
    """Turn the first pairs of channels of x (..., T, D) by `angles` (..., T, rotary_dim / 2); the others stay.

    The pair i is the channels (i, i + rotary_dim / 2) in the layout "half_split", (2 i, 2 i + 1) in "interleaved".
    The sums are made in float32 or wider, the result has the type of x. Raises ValueError for an unknown layout and
    more pairs than x has, or an x that is not floating-point.
    """
    if not x.is_floating_point():
        raise ValueError(f"x is {x.dtype}; it must be floating-point")
    check_choice("layout", layout, LAYOUTS)
    half = angles.shape[-1]
    if 2 * half > x.shape[-1]:
        raise ValueError(f"angles: {half} pairs need {2 * half} channels; x has {x.shape[-1]}")
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    a, b = turned.chunk(2, -1) if layout == "half_split" else (turned[..., 0::2], turned[..., 1::2])
    cos, sin = angles.cos(), angles.sin()
    a, b = a * cos - b * sin, b * cos + a * sin
    turned = torch.cat([a, b], -1) if layout == "half_split" else torch.stack([a, b], -1).flatten(-2)
    return torch.cat([turned.to(x.dtype), rest], -1)


def change_layout(weight: Tensor, n_heads: int, rotary_dim: int, to: str) -> Tensor:
    """Reorder the rows of a query or key projection, (H D, ...) or its bias (H D,), from the other layout to `to`.

    A model whose queries and keys are both reordered gives the same scores in the other layout. Raises ValueError for
    an unknown layout, rows that n_heads does not divide, and a rotary_dim that is odd, below 2 or wider than a head.
    """
    check_choice("to", to, LAYOUTS)
    if n_heads < 1 or weight.shape[0] % n_heads:
        raise ValueError(f"n_heads={n_heads} does not divide the {weight.shape[0]} rows of weight")
    heads = weight.unflatten(0, (n_heads, -1))  # (H, D, ...)
    if rotary_dim < 2 or rotary_dim % 2 or rotary_dim > heads.shape[1]:
        raise ValueError(f"rotary_dim={rotary_dim}; it must be even, from 2 to the head's width {heads.shape[1]}")
    sizes = (2, rotary_dim // 2) if to == "interleaved" else (rotary_dim // 2, 2)
    turned = heads[:, :rotary_dim].unflatten(1, sizes).transpose(1, 2).flatten(1, 2)
    return torch.cat([turned, heads[:, rotary_dim:]], 1).flatten(0, 1)


class RotaryPosition(Position):
    """Turns queries and keys by their positions, so that their dot product depends on the distance alone.

    `rotary_dim` channels of each head turn, the rest do not (in GPT-NeoX a quarter turns); theta, extension and factor
    as in `rope_frequencies`, layout as in `rotate_pairs`. Nothing is learned. Angles are float32 whatever the type of
    the model: in bfloat16 the positions 256 and 257 are one number; in float32 scores hold to about 1e-3 up to position
    100,000, as in other programs, and less beyond. Raises ValueError as these functions do.
    Source: Su et al. 2021, "RoFormer", section 3.2.
    """

    def __init__(
        self, rotary_dim: int, theta: float = 10000.0, *, layout: str = "half_split", extension: str = "none",
        factor: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_choice("layout", layout, LAYOUTS)
        self.rotary_dim, self.theta, self.layout = rotary_dim, theta, layout
        self.extension, self.factor = extension, factor
        self.angles(torch.zeros(1, dtype=torch.int64))  # refuses what cannot be

    def angles(self, pos: Tensor) -> Tensor:
        """pos (T,) or (B, T) -> radians (T, rotary_dim / 2) or (B, T, rotary_dim / 2), float32."""
        check_positions("pos", pos)
        frequencies = rope_frequencies(
            self.rotary_dim, self.theta, extension=self.extension, factor=self.factor, device=pos.device
        )
        return pos.unsqueeze(-1).float() * frequencies

    def rotate(self, q: Tensor, k: Tensor, q_pos: Tensor, k_pos: Tensor) -> tuple[Tensor, Tensor]:
        """q (B, H, T, D), k (B, Hkv, S, D) and their positions -> the same, turned."""
        check_positions("q_pos", q_pos, q.shape[-2], q.shape[0])
        check_positions("k_pos", k_pos, k.shape[-2], k.shape[0])
        q_angles = self.angles(q_pos).unsqueeze(-3)  # (1, T, pairs) or (B, 1, T, pairs): the same for all heads
        k_angles = q_angles if k_pos is q_pos else self.angles(k_pos).unsqueeze(-3)
        return rotate_pairs(q, q_angles, self.layout), rotate_pairs(k, k_angles, self.layout)

    def extra_repr(self) -> str:
        return (
            f"rotary_dim={self.rotary_dim}, theta={self.theta}, layout={self.layout!r}, "
            f"extension={self.extension!r}, factor={self.factor}"
        )
