"""A positional scheme that uses every hook of `Position`, and attention by hand, one pair of tokens at a time."""

import math

import torch
from torch import nn

from course_lib.positions import Position

REACH = 2  # distances beyond it share a row of the table


class Toy(Position):
    """Turns pairs of channels by their position, adds a slope times the distance, and a learned score of the distance.

    `hooks` names those in use. Not symmetric in query and key: an exchange shows.
    """

    def __init__(self, n_heads, head_dim, hooks=("rotate", "bias", "score")):
        super().__init__()
        self.hooks = hooks
        self.slopes = nn.Parameter(torch.randn(n_heads))
        self.table = nn.Parameter(torch.randn(2 * REACH + 1, head_dim))

    def rotate(self, q, k, q_pos, k_pos):
        if "rotate" not in self.hooks:
            return q, k
        return turned(q, q_pos), turned(k, k_pos)

    def bias(self, q_pos, k_pos):
        if "bias" not in self.hooks:
            return None
        far = (k_pos.unsqueeze(-2) - q_pos.unsqueeze(-1)).unsqueeze(-3)  # (1, T, S) or (B, 1, T, S)
        return self.slopes[:, None, None] * far

    def score(self, q, q_pos, k_pos):
        if "score" not in self.hooks:
            return None
        far = (k_pos.unsqueeze(-2) - q_pos.unsqueeze(-1)).clamp(-REACH, REACH) + REACH
        return (q.unsqueeze(-2) * self.table[far].unsqueeze(-4)).sum(-1)


def turned(x, pos):
    """x (B, heads, T, D) turned by pos (T,) or (B, T) radians, two neighbouring channels at a time."""
    angle = pos.to(x.dtype)[..., None, :, None]
    even, odd = x[..., ::2], x[..., 1::2]
    pairs = (even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos())
    return torch.stack(pairs, -1).flatten(-2)


def by_hand(q, k, v, allowed, *, q_pos=None, k_pos=None, scale=None, toy=None, logit=None):
    """(output, weights) of softmax(scale (q·k + score) + bias) v, with `allowed(b, h, t, s)`; zeros where none is.

    `logit(query, key)` replaces scale q·k. Positions are (B, T) and (B, S).
    """
    hooks = () if toy is None else toy.hooks
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    group = q.shape[1] // k.shape[1]
    outputs, all_weights = [], []
    for b, h, t in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).tolist():
        logits = []
        for s in range(k.shape[2]):
            if not allowed(b, h, t, s):
                logits.append(None)
                continue
            query, key = q[b, h, t], k[b, h // group, s]
            if "rotate" in hooks:
                query, key = one_turned(query, int(q_pos[b, t])), one_turned(key, int(k_pos[b, s]))
            value = scale * (query * key).sum() if logit is None else logit(query, key)
            if "score" in hooks:
                far = max(-REACH, min(REACH, int(k_pos[b, s] - q_pos[b, t])))
                value = value + scale * (query * toy.table[far + REACH]).sum()
            if "bias" in hooks:
                value = value + toy.slopes[h] * (int(k_pos[b, s]) - int(q_pos[b, t]))
            logits.append(value)
        powers = [q.new_zeros(()) if value is None else value.exp() for value in logits]
        total = sum(powers)
        weights = [power / total if total > 0 else power for power in powers]
        row = [weight * v[b, h // group, s] for s, weight in enumerate(weights)]
        outputs.append(sum(row, v.new_zeros(v.shape[-1])))
        all_weights.append(torch.stack(weights))
    return torch.stack(outputs).view(*q.shape[:3], -1), torch.stack(all_weights).view(*q.shape[:3], -1)


def one_turned(x, pos):
    pairs = []
    for a, b in zip(x[::2], x[1::2], strict=True):
        pairs += [a * math.cos(pos) - b * math.sin(pos), a * math.sin(pos) + b * math.cos(pos)]
    return torch.stack(pairs)
