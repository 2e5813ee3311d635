"""Solutions to the exercises of lesson 04. Try first: each has a hint in the notebook."""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.attention import Pattern, global_tokens
from course_lib.attention import window as window_pattern
from course_lib.attention.online import Running


def window(q_pos: Tensor, k_pos: Tensor, radius: int, causal: bool) -> Tensor:
    """Exercise 1."""
    near = (q_pos - k_pos).abs() <= radius
    return near & (k_pos <= q_pos) if causal else near


def count_pairs(length: int, radius: int, n_global: int) -> int:
    """Exercise 2. Global rows and columns, less their crossing; the others are a shorter text with a window."""
    others = length - n_global
    reach = min(radius, max(others - 1, 0))
    return 2 * length * n_global - n_global**2 + others * (2 * reach + 1) - reach * (reach + 1)


def local(q: Tensor, k: Tensor, v: Tensor, radius: int) -> Tensor:
    """Exercise 3."""
    length, w = q.shape[2], radius
    n = -(-length // w)  # blocks, the last one perhaps not full

    def blocks(x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, n * w - length)).unflatten(2, (n, w))  # (B, H, n, w, D)

    def three_blocks(x: Tensor) -> Tensor:
        x = F.pad(blocks(x), (0, 0, 0, 0, 1, 1))  # a block of zeros at both ends
        return torch.cat([x[:, :, :-2], x[:, :, 1:-1], x[:, :, 2:]], 3)  # (B, H, n, 3 w, D)

    begin = torch.arange(n, device=q.device)[:, None] * w
    q_pos = (begin + torch.arange(w, device=q.device))[:, :, None]  # (n, w, 1)
    k_pos = (begin + torch.arange(-w, 2 * w, device=q.device))[:, None, :]  # (n, 1, 3 w)
    allowed = ((q_pos - k_pos).abs() <= radius) & (k_pos >= 0) & (k_pos < length)
    scores = blocks(q) @ three_blocks(k).mT / q.shape[-1] ** 0.5  # (B, H, n, w, 3 w)
    # Not -inf: in longer blocks a query of the padding may see no key at all.
    weights = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-1)
    return (weights @ three_blocks(v)).flatten(2, 3)[:, :, :length]


def add_tile(running: Running, logits: Tensor, values: Tensor) -> Running:
    """Exercise 4."""
    maximum = torch.maximum(running.maximum, logits.amax(-1, keepdim=True))
    shrink = (running.maximum - maximum).exp()
    powers = (logits - maximum).exp()
    total = shrink * running.total + powers.sum(-1, keepdim=True)
    return Running(maximum, total, shrink * running.output + powers @ values)


def hops(allowed: Tensor) -> Tensor:
    """Exercise 5. After one more layer i knows of j if it sees a token that knows of j now."""
    known = torch.eye(len(allowed), dtype=torch.bool)
    steps = torch.where(known, 0, -1)
    layer = 0
    while True:
        layer += 1
        after = known | (allowed.float() @ known.float() > 0)
        if torch.equal(after, known):
            return steps
        steps[after & ~known] = layer
        known = after


def pattern() -> Pattern:
    """Exercise 6. Every path leads through one token."""
    return window_pattern(8) | global_tokens([0])


def pattern_without_hubs() -> Pattern:
    """Exercise 6. As a table of 16 x 16: look along your row, then along a column (Child et al. 2019, section 4.2)."""
    return Pattern("row | column", lambda q_pos, k_pos: (q_pos // 16 == k_pos // 16) | (q_pos % 16 == k_pos % 16))


def pattern_of_a_box() -> Pattern:
    """Exercise 6. As a box of 4 x 8 x 8: each layer moves along one of the three axes."""

    def allowed(q_pos: Tensor, k_pos: Tensor) -> Tensor:
        coordinates = [(pos // 64, pos // 8 % 8, pos % 8) for pos in (q_pos, k_pos)]
        same = [q == k for q, k in zip(*coordinates, strict=True)]
        return (same[0] & same[1]) | (same[0] & same[2]) | (same[1] & same[2])

    return Pattern("box", allowed)
