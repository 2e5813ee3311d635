"""The arguments of attention with global tokens: checked, and where those tokens are."""

from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.attention.arguments import check_qkv
from course_lib.attention.big_bird import check_blocks
from course_lib.checks import kind_of, on_host

Projected = tuple[Tensor, Tensor, Tensor]


def check_global(
    q: Tensor, k: Tensor, v: Tensor, global_mask: Tensor, blocks: Tensor | None, global_qkv: Projected | None,
    block: int,
) -> Tensor:  # fmt: skip
    """`global_mask` as (Bp, T); ValueError for one, or blocks or global_qkv, that do not fit q, k, v."""
    check_qkv(q, k, v)
    batch, length = q.shape[0], q.shape[2]
    if k.shape[2] != length:
        raise ValueError(f"q has {length} tokens, k {k.shape[2]}; global tokens need the same text on both sides")
    fits = isinstance(global_mask, Tensor) and global_mask.shape in ((length,), (1, length), (batch, length))
    if not fits or global_mask.dtype != torch.bool:
        raise ValueError(f"global_mask is {kind_of(global_mask)}; needed is bool ({length},) or ({batch}, {length})")
    if blocks is not None:
        check_blocks(blocks, length, block)
    if global_qkv is not None:
        if len(global_qkv) != 3:
            raise ValueError(f"global_qkv has {len(global_qkv)} entries; needed are queries, keys and values")
        for name, own, other in zip(("q", "k", "v"), (q, k, v), global_qkv, strict=True):
            if not isinstance(other, Tensor) or (own.shape, own.dtype, own.device) != (
                other.shape, other.dtype, other.device,
            ):  # fmt: skip
                kind = f"has shape {tuple(other.shape)}" if isinstance(other, Tensor) else f"is {kind_of(other)}"
                raise ValueError(f"global_qkv: its {name} {kind}; needed is {kind_of(own)} on {own.device}")
    return global_mask if global_mask.ndim == 2 else global_mask.unsqueeze(0)


class GlobalPlaces(NamedTuple):
    """Where the global tokens are, G of them at most in a sequence."""

    places: Tensor  # int64 (Bp, G), in order
    found: Tensor  # bool (Bp, G): which of them are real


def places_of(global_mask: Tensor, n_global: int | None = None) -> GlobalPlaces:
    """Find the global tokens of a global_mask (Bp, T).

    Their largest number in a sequence is a shape that depends on data, here and only here, and not where `n_global`
    says it. Raises ValueError where, on the CPU, that is fewer than there are.
    """
    if n_global is None or on_host(global_mask):
        most = int(global_mask.sum(-1).max()) if global_mask.numel() else 0
        if n_global is not None and n_global < most:
            raise ValueError(f"n_global={n_global}; global_mask has {most} in a sequence")
    else:
        most = n_global
    places = global_mask.int().argsort(dim=-1, descending=True, stable=True)[:, :most]
    return GlobalPlaces(places, global_mask.gather(1, places))


def at_places(x: Tensor, places: Tensor) -> Tensor:
    """Entries of x (B, T, ...) at places (Bp, G) -> (B, G, ...)."""
    batch = len(x) if len(places) == 1 else len(places)
    index = places.view(*places.shape, *[1] * (x.ndim - 2)).expand(batch, -1, *x.shape[2:])
    return x.expand(batch, *x.shape[1:]).gather(1, index)
