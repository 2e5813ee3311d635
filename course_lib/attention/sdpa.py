"""softmax(Q K^T / sqrt(d)) V: written out step by step, and as one fused call."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.attention.arguments import Mask, Prepared, check_qkv, prepare
from course_lib.attention.masks import Pattern, causal
from course_lib.positions.base import Position


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Mask | None = None, key_mask: Tensor | None = None,
    position: Position | None = None, q_pos: Tensor | None = None, k_pos: Tensor | None = None,
    scale: float | None = None, impl: str = "fused", return_weights: bool = False,
) -> Any:  # fmt: skip
    """Each query's average of the values, weighted by the softmax of its scaled dot products with the keys.

    Arguments and shapes as in `AttentionFn`. `impl` is "explicit", the specification, whose logits are computed in
    float32 or wider, or "fused": torch's kernel, which never stores the (T, S) weights where it can help it. Both give
    the same outputs and gradients. `return_weights` returns (output, weights (B, H, T, S)) and needs "explicit".
    Raises ValueError for shapes and types that do not fit; for a Pattern or a `position` without q_pos and k_pos where
    T differs from S, since a query's place is then anybody's guess; and for an unknown impl.
    Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2.1; grouped key heads: Ainslie et al. 2023.
    """
    if impl not in ("explicit", "fused"):
        raise ValueError(f"impl={impl!r}; allowed are 'explicit' and 'fused'")
    if return_weights and impl == "fused":
        raise ValueError("return_weights=True needs impl='explicit': the fused kernel never has the weights")
    check_qkv(q, k, v)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    if impl == "fused":
        # The kernel knows the plain triangle, and skips the half above it.
        counted = q_pos is None and k_pos is None and q.shape[-2] == k.shape[-2]
        triangle = isinstance(mask, Pattern) and mask == causal  # not `is`: a copied model has a copy of the pattern
        if triangle and counted and key_mask is None:
            ready = prepare(q, k, v, None, None, position, None, None)
            if ready.bias is None and ready.score is None:
                return _kernel(ready.q, ready.k, v, scale, is_causal=True)
            pos = torch.arange(q.shape[-2], device=q.device)
            return _fused(v, ready._replace(allowed=causal.dense(pos, pos)), scale)
        return _fused(v, prepare(q, k, v, mask, key_mask, position, q_pos, k_pos), scale)
    ready = prepare(q, k, v, mask, key_mask, position, q_pos, k_pos)
    wide = torch.promote_types(q.dtype, torch.float32)  # a logit of 20 in bfloat16 is off by 0.06, its weight by 6 %
    dots = ready.q.to(wide) @ repeat_heads(ready.k, q.shape[1]).to(wide).mT  # (B, H, T, S)
    output, weights = weighted_values(dots, v, ready, scale)
    return (output, weights) if return_weights else output


def repeat_heads(x: Tensor, n_heads: int) -> Tensor:
    """Repeat each of the key or value heads (B, Hkv, S, D) for its group of query heads: (B, n_heads, S, D)."""
    return x.repeat_interleave(n_heads // x.shape[1], 1)


def weighted_values(dots: Tensor, v: Tensor, ready: Prepared, scale: float) -> tuple[Tensor, Tensor]:
    """From scores of query and key, `dots` (B, H, T, S), to (output (B, H, T, Dv), weights (B, H, T, S)).

    logits = scale (dots + score) + bias; weights = softmax over the keys; output = weights · v.
    """
    logits = scale * (dots if ready.score is None else dots + ready.score)  # (B, H, T, S)
    weights = masked_softmax(logits if ready.bias is None else logits + ready.bias, ready.allowed).to(v.dtype)
    return weights @ repeat_heads(v, dots.shape[1]), weights


def masked_softmax(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Softmax over the last axis among the allowed entries; zeros elsewhere, and all along a row without any.

    logits (..., T, S), allowed bool that broadcasts to it, or None for all. The result is float32 or wider.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if allowed is None:
        return logits.softmax(-1)
    # The lowest finite number, not -inf: a row of -inf alone would become 0 / 0, and its gradient too.
    weights = logits.masked_fill(~allowed, torch.finfo(logits.dtype).min).softmax(-1)
    return weights.masked_fill(~allowed, 0.0)


def _fused(v: Tensor, ready: Prepared, scale: float) -> Tensor:
    q, k, allowed, bias, score = ready
    added = None if score is None else scale * score
    if bias is not None:
        added = bias if added is None else added + bias
    if added is None:
        return _kernel(q, k, v, scale, allowed)
    # As a number, "not allowed" is -inf. The kernel wants it in the queries' type and with all four axes.
    added = added.to(q.dtype)
    added = added if allowed is None else added.masked_fill(~allowed, -torch.inf)
    return _kernel(q, k, v, scale, added.expand(*q.shape[:3], k.shape[2]))


def _kernel(
    q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    group = q.shape[1] // k.shape[1]
    if group == 1 or q.shape[2] != 1:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=is_causal, scale=scale, enable_gqa=group > 1
        )
    # A step of decoding: the heads of a group become queries of one head. The same sums, but no key is read twice.
    if mask is not None and mask.ndim == 4 and mask.shape[1] > 1:
        mask = mask.unflatten(1, (-1, group)).squeeze(3)  # (B, H, 1, S) -> (B, Hkv, group, S)
    q = q.unflatten(1, (-1, group)).squeeze(3)  # (B, Hkv, group, D)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return y.flatten(1, 2).unsqueeze(2)  # (B, H, 1, Dv)
