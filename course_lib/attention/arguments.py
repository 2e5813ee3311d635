"""What attention functions do first: check their arguments, and ask mask and position for what they need."""

from typing import NamedTuple, Protocol, TypedDict

import torch
from torch import Tensor

from course_lib.attention.masks import Pattern
from course_lib.checks import check_device, kind_of
from course_lib.positions.base import Position, check_positions

Mask = Pattern | Tensor


class AttentionFn(Protocol):
    """What every attention function of the course looks like, so that a module takes any of them as `attention_fn`.

    q (B, H, T, D), k (B, Hkv, S, D), v (B, Hkv, S, Dv) -> (B, H, T, Dv); Hkv divides H, and key head i serves the
    query heads i H/Hkv to (i + 1) H/Hkv - 1. `mask` is a Pattern or a bool tensor that broadcasts to (B, H, T, S), with
    two axes or four; `key_mask` (B, S) leaves out keys, such as padding, whatever numbers stand there; in both True =
    may attend. A query that may attend to nothing gets zeros. `position` is a scheme with the hooks `rotate`, `bias`
    and `score` (its `embed` is the model's affair); q_pos and k_pos are integer positions, (T,) or (B, T); None counts
    from 0. `scale` multiplies the dot products; None is 1 / sqrt(D).

    A function of one's own must take all of these, and may refuse what it cannot do. One that also takes
    `return_weights`, and then gives (output, weights (B, H, T, S)), can be recorded. The smallest example:

        def mean_of_all(q, k, v, *, mask=None, key_mask=None, position=None, q_pos=None, k_pos=None, scale=None):
            return v.mean(-2, keepdim=True).expand(*q.shape[:-1], v.shape[-1])

        MultiHeadAttention(d_model=64, n_heads=4, attention_fn=mean_of_all)
    """

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Mask | None = None, key_mask: Tensor | None = None,
        position: Position | None = None, q_pos: Tensor | None = None, k_pos: Tensor | None = None,
        scale: float | None = None,
    ) -> Tensor: ...  # fmt: skip


class Arguments(TypedDict, total=False):
    """The keywords of an `AttentionFn`, for the signatures of functions that take more."""

    mask: Mask | None
    key_mask: Tensor | None
    position: Position | None
    q_pos: Tensor | None
    k_pos: Tensor | None
    scale: float | None


class Prepared(NamedTuple):
    """Queries and keys after `position.rotate`, and what is allowed and added, each None where there is nothing."""

    q: Tensor
    k: Tensor
    v: Tensor
    allowed: Tensor | None  # bool, broadcasts to (B, H, T, S)
    bias: Tensor | None  # broadcasts to (B, H, T, S)
    score: Tensor | None  # (B, H, T, S)


def prepare(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, key_mask: Tensor | None,
    position: Position | None, q_pos: Tensor | None, k_pos: Tensor | None,
) -> Prepared:  # fmt: skip
    """Check the arguments of an attention function and ask `mask` and `position`; ValueError for what does not fit."""
    check_qkv(q, k, v)
    check_device(q, mask=mask, key_mask=key_mask, q_pos=q_pos, k_pos=k_pos)
    allowed = _dense(q, k, mask, key_mask)
    k, v = without_hidden(k, key_mask), without_hidden(v, key_mask)
    if position is None and not isinstance(mask, Pattern):
        return Prepared(q, k, v, allowed, None, None)
    q_pos, k_pos = counted_positions(q, k, q_pos, k_pos)
    if isinstance(mask, Pattern):
        pattern = mask.dense(q_pos, k_pos)  # (T, S) or (B, T, S)
        pattern = pattern if pattern.ndim == 2 else pattern.unsqueeze(1)
        allowed = pattern if allowed is None else pattern & allowed
    if position is None:
        return Prepared(q, k, v, allowed, None, None)
    q, k = position.rotate(q, k, q_pos, k_pos)
    bias, score = position.bias(q_pos, k_pos), position.score(q, q_pos, k_pos)
    shape = (*q.shape[:3], k.shape[2])  # (B, H, T, S)
    for name, added in (("bias", bias), ("score", score)):
        if added is not None and not _broadcasts(added, shape):
            raise ValueError(f"position: its {name} has shape {tuple(added.shape)}; needed is one for {shape}")
    return Prepared(q, k, v, allowed, bias, score)


def without_hidden(x: Tensor, key_mask: Tensor | None) -> Tensor:
    """Keys or values (B, Hkv, S, D) with zeros where key_mask (B, S) hides them: a weight of 0 times NaN is NaN."""
    return x if key_mask is None else x.masked_fill(~key_mask[:, None, :, None], 0.0)


def check_qkv(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise ValueError unless q (B, H, T, D), k (B, Hkv, S, D) and v (B, Hkv, S, Dv) fit together."""
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if not isinstance(tensor, Tensor) or tensor.ndim != 4 or not tensor.is_floating_point():
            raise ValueError(
                f"{name} is {kind_of(tensor)}; needed is a floating-point tensor (B, heads, tokens, width)"
            )
        if tensor.dtype != q.dtype or tensor.device != q.device:
            raise ValueError(f"{name} is {tensor.dtype} on {tensor.device}; q is {q.dtype} on {q.device}")
    fits = q.shape[0] == k.shape[0] == v.shape[0] and k.shape[1:3] == v.shape[1:3] and q.shape[-1] == k.shape[-1]
    if not fits or 0 in (q.shape[-1], k.shape[1]) or q.shape[1] % k.shape[1]:
        raise ValueError(
            f"q, k, v have shapes {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}; needed are (B, H, T, D), "
            "(B, Hkv, S, D), (B, Hkv, S, Dv) with H a multiple of Hkv"
        )


def check_key_mask(key_mask: Tensor, batch: int, n_keys: int) -> Tensor:
    """`key_mask`; ValueError unless it is bool (batch, n_keys)."""
    fits = isinstance(key_mask, Tensor) and key_mask.shape == (batch, n_keys)
    if not fits or key_mask.dtype != torch.bool:
        raise ValueError(f"key_mask is {kind_of(key_mask)}; needed is bool {(batch, n_keys)}, True = may attend")
    return key_mask


def counted_positions(q: Tensor, k: Tensor, q_pos: Tensor | None, k_pos: Tensor | None) -> tuple[Tensor, Tensor]:
    """q_pos and k_pos checked; where both are None and T equals S, the same 0, 1, 2, … for both."""
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    if q_pos is None and k_pos is None and n_queries == n_keys:
        counted = torch.arange(n_keys, device=q.device)
        return counted, counted
    if q_pos is None or k_pos is None:
        raise ValueError(
            f"q_pos and k_pos must both be given for {n_queries} queries and {n_keys} keys: which key is a query's own?"
        )
    check_positions("q_pos", q_pos, n_queries, q.shape[0])
    check_positions("k_pos", k_pos, n_keys, q.shape[0])
    return q_pos, k_pos


def _broadcasts(x: Tensor, shape: tuple[int, ...]) -> bool:
    return x.ndim <= len(shape) and all(m in (1, n) for m, n in zip(x.shape[::-1], shape[::-1], strict=False))


def _dense(q: Tensor, k: Tensor, mask: Mask | None, key_mask: Tensor | None) -> Tensor | None:
    """A mask that is a tensor, and `key_mask`, as one bool tensor; None where neither is there."""
    shape = (*q.shape[:3], k.shape[2])  # (B, H, T, S)
    allowed: Tensor | None = None
    if mask is not None and not isinstance(mask, Pattern):
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise ValueError(f"mask is {kind_of(mask)}; needed is a Pattern or a bool tensor, True = may attend")
        # Three axes would be read as (H, T, S) where (B, T, S) was meant.
        if mask.ndim not in (2, 4) or not _broadcasts(mask, shape):
            raise ValueError(f"mask has shape {tuple(mask.shape)}; needed are 2 or 4 axes that broadcast to {shape}")
        allowed = mask
    if key_mask is not None:
        keys = check_key_mask(key_mask, shape[0], shape[3])[:, None, None, :]  # (B, 1, 1, S)
        allowed = keys if allowed is None else allowed & keys
    return allowed
