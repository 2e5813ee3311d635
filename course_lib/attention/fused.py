"""Attention by torch's kernel: which of its fast paths a call can take."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.attention.arguments import Mask, Prepared, check_qkv, prepare
from course_lib.attention.masks import Pattern, causal
from course_lib.positions.base import Position


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Mask | None = None, key_mask: Tensor | None = None,
    position: Position | None = None, q_pos: Tensor | None = None, k_pos: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:  # fmt: skip
    """`attention(impl="fused")`: an `AttentionFn` that hands queries, keys and a mask to torch's kernel."""
    check_qkv(q, k, v)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    # The kernel knows the plain triangle, and skips the half above it.
    counted = q_pos is None and k_pos is None and q.shape[-2] == k.shape[-2]
    triangle = isinstance(mask, Pattern) and mask == causal  # not `is`: a copied model has a copy of the pattern
    if not (triangle and counted and key_mask is None):
        return _with_mask(prepare(q, k, v, mask, key_mask, position, q_pos, k_pos), scale)
    ready = prepare(q, k, v, None, None, position, None, None)
    if ready.bias is None and ready.score is None:
        return _kernel(ready.q, ready.k, v, scale, is_causal=True)
    pos = torch.arange(q.shape[-2], device=q.device)
    return _with_mask(ready._replace(allowed=causal.dense(pos, pos)), scale)


def _with_mask(ready: Prepared, scale: float) -> Tensor:
    q, k, v, allowed, bias, score = ready
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
