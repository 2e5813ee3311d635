"""Online softmax: attention tile by tile, without the T x S matrix of weights. The idea of FlashAttention."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.attention.arguments import Mask, Prepared, check_key_mask, counted_positions, prepare
from course_lib.attention.masks import Pattern
from course_lib.attention.sdpa import repeat_heads, wide
from course_lib.checks import check_at_least
from course_lib.positions.base import Position, Unrotated


class Running(NamedTuple):
    """Of each query the softmax over the keys that it has met so far, not yet divided by its sum."""

    maximum: Tensor  # (..., T, 1): the largest logit, or the lowest finite number where none was allowed yet
    total: Tensor  # (..., T, 1): the sum of exp(logit - maximum)
    output: Tensor  # (..., T, Dv): the sum of exp(logit - maximum) · value


AddTile = Callable[[Running, Tensor, Tensor], Running]


def add_tile(running: Running, logits: Tensor, values: Tensor) -> Running:
    """Let the queries meet the next n keys: logits (..., T, n), -inf = may not attend, values (..., n, Dv) -> Running.

    A new maximum shrinks what was summed with the old one: exp(logit - old) exp(old - new) = exp(logit - new).
    Source: Milakov & Gimelshein 2018, "Online normalizer calculation for softmax", algorithm 3.
    """
    # The result does not depend on the maximum, so no gradient need flow through it.
    maximum = torch.maximum(running.maximum, logits.detach().amax(-1, keepdim=True))  # (..., T, 1)
    powers = (logits - maximum).exp()  # (..., T, n), at most 1: nothing overflows
    shrink = (running.maximum - maximum).exp()  # (..., T, 1)
    return Running(
        maximum, shrink * running.total + powers.sum(-1, keepdim=True), shrink * running.output + powers @ values
    )


def online_attention(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Mask | None = None, key_mask: Tensor | None = None,
    position: Position | None = None, q_pos: Tensor | None = None, k_pos: Tensor | None = None,
    scale: float | None = None, tile: int = 64, step: AddTile = add_tile,
) -> Tensor:  # fmt: skip
    """`attention` computed for `tile` queries and `tile` keys at a time: never is there a T x S matrix.

    Arguments and shapes as in `AttentionFn`; numbers are float32 or wider until the end. `step` is `add_tile` or one's
    own. Without gradients memory is O(T + S); with them autograd keeps the numbers of all tiles, where FlashAttention
    computes them again in the backward pass. Written to be read: a loop in Python is slow.
    Raises ValueError as `attention` does, and for a tile below 1.
    Sources: Dao et al. 2022, "FlashAttention", section 3.1; Dao 2023, "FlashAttention-2", section 3.1; Rabe & Staats
    2021, "Self-attention Does Not Need O(n²) Memory".
    """
    check_at_least("tile", tile, 1)
    prepare(q, k, v, None if isinstance(mask, Pattern) else mask, None, None, q_pos, k_pos)  # only to check the whole
    if key_mask is not None:
        check_key_mask(key_mask, q.shape[0], k.shape[2])
    if position is not None or isinstance(mask, Pattern):
        q_pos, k_pos = counted_positions(q, k, q_pos, k_pos)
        if position is not None:
            q, k = position.rotate(q, k, q_pos, k_pos)
            position = Unrotated(position)
    else:
        q_pos = k_pos = None  # nobody asks for them
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    outputs = []
    for top in range(0, max(q.shape[2], 1), tile):  # one tile of no query where there is none
        rows = slice(top, top + tile)
        queries = q[:, :, rows]
        running = no_keys_yet(queries, v.shape[-1])
        for left in range(0, k.shape[2], tile):
            columns = slice(left, left + tile)
            pairs = mask if isinstance(mask, Pattern) else cut(mask, rows, columns)
            ready = prepare(
                queries, k[:, :, columns], v[:, :, columns], pairs, cut(key_mask, columns),
                position, cut(q_pos, rows), cut(k_pos, columns),
            )  # fmt: skip
            values = wide(repeat_heads(ready.v, q.shape[1]))  # (B, H, n, Dv)
            running = step(running, logits_of(ready, scale), values)
        outputs.append(divided(running).to(q.dtype))
    return torch.cat(outputs, 2)


def no_keys_yet(q: Tensor, width: int) -> Running:
    """Where queries (B, H, t, D) start; the values are `width` wide."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    zeros = q.new_zeros(*q.shape[:-1], 1, dtype=dtype)
    # Not -inf: a row without any key would compute -inf - -inf.
    return Running(zeros + torch.finfo(dtype).min, zeros, q.new_zeros(*q.shape[:-1], width, dtype=dtype))


def cut(x: Tensor | None, *slices: slice) -> Tensor | None:
    """The part of a tensor's last axes; an axis of 1, which is for all, stays, and so does None."""
    if x is None:
        return x
    for axis, part in zip(range(-len(slices), 0), slices, strict=True):
        if x.shape[axis] > 1:
            x = x.narrow(axis, part.start, min(part.stop, x.shape[axis]) - part.start)
    return x


def logits_of(ready: Prepared, scale: float) -> Tensor:
    """scale (q·k + score) + bias of a tile of queries and keys, -inf where a pair is not allowed: (B, H, t, s)."""
    q, k, _, allowed, bias, score = ready
    dots = wide(q) @ wide(repeat_heads(k, q.shape[1])).mT
    logits = scale * (dots if score is None else dots + score)
    logits = logits if bias is None else logits + bias
    return logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)


def divided(running: Running) -> Tensor:
    """The weighted average of the values, (..., T, Dv); zeros for a query that met no key."""
    return running.output / running.total.masked_fill(running.total == 0, 1.0)
