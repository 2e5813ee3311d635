"""softmax(Q K^T / sqrt(d)) V, step by step; `fused.py` computes the same in one call."""

import math
from typing import Literal, Unpack, overload

import torch
from torch import Tensor

from course_lib.attention.arguments import Arguments, Mask, prepare
from course_lib.attention.fused import fused_attention
from course_lib.checks import check_choice
from course_lib.positions.base import Position


@overload
def attention(
    q: Tensor, k: Tensor, v: Tensor, *, impl: str = ..., return_weights: Literal[False] = ...,
    **given: Unpack[Arguments],
) -> Tensor: ...  # fmt: skip
@overload
def attention(
    q: Tensor, k: Tensor, v: Tensor, *, impl: str = ..., return_weights: Literal[True], **given: Unpack[Arguments]
) -> tuple[Tensor, Tensor]: ...
@overload
def attention(
    q: Tensor, k: Tensor, v: Tensor, *, impl: str = ..., return_weights: bool, **given: Unpack[Arguments]
) -> Tensor | tuple[Tensor, Tensor]: ...
def attention(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Mask | None = None, key_mask: Tensor | None = None,
    position: Position | None = None, q_pos: Tensor | None = None, k_pos: Tensor | None = None,
    scale: float | None = None, impl: str = "fused", return_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Each query's average of the values, weighted by the softmax of its scaled dot products with the keys.

    Arguments and shapes as in `AttentionFn`. `impl` is "explicit", the lines below, or "fused": torch's kernel, which
    never stores the (T, S) weights where it can help it. Both give the same outputs and gradients; for a derivative of
    a derivative, or forward mode, torch has only "explicit". `return_weights` computes explicitly and returns (output,
    weights (B, H, T, S)). Raises ValueError for shapes and types that do not fit; for a Pattern or a `position` without
    q_pos and k_pos where T differs from S, since a query's place is then anybody's guess; and for an unknown impl.
    Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2.1; grouped key heads: Ainslie et al. 2023.
    """
    check_choice("impl", impl, ("explicit", "fused"))
    if impl == "fused" and not return_weights:
        return fused_attention(
            q, k, v, mask=mask, key_mask=key_mask, position=position, q_pos=q_pos, k_pos=k_pos, scale=scale
        )
    q, k, v, allowed, bias, score = prepare(q, k, v, mask, key_mask, position, q_pos, k_pos)
    k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])  # (B, H, S, D), (B, H, S, Dv)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale

    logits = wide(q) @ wide(k).mT  # (B, H, T, S)
    logits = scale * (logits if score is None else logits + score)
    logits = logits if bias is None else logits + bias
    weights = masked_softmax(logits, allowed).to(v.dtype)  # (B, H, T, S)
    y = weights @ v  # (B, H, T, Dv)
    return (y, weights) if return_weights else y


def masked_softmax(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Softmax over the last axis among the allowed entries; zeros elsewhere, and all along a row without any.

    logits (..., T, S), allowed bool that broadcasts to it, or None for all; a logit of -inf is not allowed either. The
    result is float32 or wider.
    """
    logits = wide(logits)
    hidden = logits == -torch.inf if allowed is None else ~allowed | (logits == -torch.inf)
    # The lowest finite number, not -inf: a row of -inf alone would become 0 / 0, and its gradient too.
    weights = logits.masked_fill(hidden, torch.finfo(logits.dtype).min).softmax(-1)
    return weights.masked_fill(hidden, 0.0)


def wide(x: Tensor) -> Tensor:
    """x in float32 or wider: a logit of 20 in bfloat16 is off by 0.06, its weight by 6 %."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def repeat_heads(x: Tensor, n_heads: int) -> Tensor:
    """Repeat each of the key or value heads (B, Hkv, S, D) for its group of query heads: (B, n_heads, S, D)."""
    return x.repeat_interleave(n_heads // x.shape[1], 1)
