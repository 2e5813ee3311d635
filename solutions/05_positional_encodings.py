"""Solutions to the exercises of lesson 05. Try first: each has a hint in the notebook."""

import math

import torch
from torch import Tensor

from course_lib.positions import Position


def sinusoids(pos: Tensor, d_model: int) -> Tensor:
    """Exercise 1."""
    wave = torch.arange(d_model // 2, device=pos.device)
    angle = pos[:, None] / 10000 ** (2 * wave / d_model)
    return torch.cat([angle.sin(), angle.cos()], -1)


def alibi_bias(n_heads: int, q_pos: Tensor, k_pos: Tensor) -> Tensor:
    """Exercise 2."""
    head = torch.arange(1, n_heads + 1, device=q_pos.device)
    slopes = 2.0 ** (-8 * head / n_heads)
    distance = (q_pos[:, None] - k_pos[None, :]).abs()  # (T, S)
    return -slopes[:, None, None] * distance


def rotate(x: Tensor, pos: Tensor, theta: float) -> Tensor:
    """Exercise 3. Angles in float32, whatever the type of x."""
    half = x.shape[-1] // 2
    pair = torch.arange(half, device=x.device)
    angle = pos[:, None] / theta ** (pair / half)  # (T, D / 2)
    cos, sin = angle.cos(), angle.sin()
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


def to_half_split(weight: Tensor, n_heads: int) -> Tensor:
    """Exercise 4. Rows 2 i + j of a head, j 0 or 1, become j D/2 + i: swap two axes."""
    return weight.unflatten(0, (n_heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def bucket(distance: Tensor, n_buckets: int, max_distance: int) -> Tensor:
    """Exercise 5."""
    exact = n_buckets // 2
    share = (distance.clamp(min=1) / exact).log() / math.log(max_distance / exact)
    ranged = exact + (share * (n_buckets - exact)).long()
    return torch.where(distance < exact, distance, ranged.clamp(max=n_buckets - 1))


@torch.no_grad()
def verdict(model, ids: Tensor) -> str:
    """Exercise 6. A leak comes first: cached steps cannot see the future, and would differ too."""
    whole = model(ids[None])[0]  # (T, V)
    for t in range(1, len(ids)):
        changed = ids.clone()
        changed[t] = (ids[t] + 1) % model.config.vocab_size
        if (model(changed[None])[0, :t] - whole[:t]).abs().max() > 1e-4:
            return "leak"
    caches = model.new_caches()
    steps = torch.cat([model(ids[None, t : t + 1], caches=caches)[0] for t in range(len(ids))])
    return "fine" if torch.allclose(steps, whole, atol=1e-3) else "cache"


class LogarithmicPosition(Position):
    """Exercise 7. Logits sink with the logarithm of the distance (Chi et al. 2022, "KERPLE", section 4).

    Far keys keep some weight: exp(-slope · log(1 + distance)) is a power of the distance, where ALiBi's falls
    exponentially.
    """

    def __init__(self, n_heads: int) -> None:
        super().__init__()
        self.register_buffer("slopes", 4 * 0.5 ** torch.arange(n_heads))

    def bias(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        distance = (q_pos.unsqueeze(-1) - k_pos.unsqueeze(-2)).abs().unsqueeze(-3)  # (1, T, S) or (B, 1, T, S)
        return -self.slopes[:, None, None] * distance.float().log1p()


def scheme(d_model: int, n_heads: int) -> Position:
    """Exercise 7."""
    return LogarithmicPosition(n_heads)
