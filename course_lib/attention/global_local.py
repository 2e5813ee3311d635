"""Global tokens beside a window: they see all, all see them, and information crosses a text in two steps."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.attention.arguments import check_qkv, counted_positions
from course_lib.attention.blocks import (
    Keys,
    Text,
    attend,
    in_blocks,
    rising_positions,
    text_of,
    window_keys,
)
from course_lib.attention.local import block_of, check_impl, is_short, with_triangle
from course_lib.attention.masks import Pattern, random_blocks, window
from course_lib.attention.sdpa import attention
from course_lib.checks import check_at_least, check_device, kind_of
from course_lib.positions.base import Position

Projected = tuple[Tensor, Tensor, Tensor]


def global_local_attention(
    q: Tensor, k: Tensor, v: Tensor, radius: int, *, global_mask: Tensor, blocks: Tensor | None = None,
    global_qkv: Projected | None = None, causal: bool = False, impl: str = "blocked", mask: Pattern | None = None,
    key_mask: Tensor | None = None, position: Position | None = None, q_pos: Tensor | None = None,
    k_pos: Tensor | None = None, scale: float | None = None, return_weights: bool = False,
) -> Any:  # fmt: skip
    """Local attention with global tokens, in one softmax: no key counts twice.

    Arguments as in `local_attention`, T = S. `global_mask` bool (T,) or (B, T) is True for tokens that see all and are
    seen by all. With `blocks`, rows of key blocks as `masks.draw_blocks` gives them, a query also sees those of its
    own block, each `block_of(radius)` tokens: BigBird. With `global_qkv`, queries, keys and values of a projection of
    their own, global tokens look at all others with these; what others see of them stays k and v (Longformer).
    Time and memory of "blocked" are O(T (radius + g)) for g global tokens at most in a sequence; their places depend on
    data, so that a GPU waits for their number. Raises ValueError as `local_attention`, and for a global_mask, blocks or
    global_qkv that do not fit.
    Sources: Beltagy, Peters, Cohan 2020, "Longformer", section 3.1; Zaheer et al. 2020, "Big Bird", section 2.
    """
    check_at_least("radius", radius, 0)
    check_impl(impl, ("blocked", "dense"), return_weights)
    mask = with_triangle(mask, causal)
    global_mask = check_inputs(q, k, v, global_mask, blocks, global_qkv, block_of(radius))
    check_device(q, global_mask=global_mask, blocks=blocks, key_mask=key_mask, q_pos=q_pos, k_pos=k_pos)
    if impl == "dense" or is_short(q, block_of(radius)):
        if impl == "blocked":  # a short text is refused for what a long one is
            rising_positions(q, k, q_pos, k_pos)
        allowed = dense_mask(q, k, radius, global_mask, blocks, mask, q_pos, k_pos)
        fn = partial(
            attention, mask=allowed, key_mask=key_mask, position=position, q_pos=q_pos, k_pos=k_pos, scale=scale,
            impl="explicit" if return_weights else "fused", return_weights=return_weights,
        )  # fmt: skip
        if global_qkv is None:
            return fn(q, k, v)
        rows = global_mask[:, None, :, None]  # whose queries, keys and values are the other ones
        mixed = [torch.where(rows, *pair) for pair in zip(_pair(fn(*global_qkv)), _pair(fn(q, k, v)), strict=True)]
        return tuple(mixed) if return_weights else mixed[0]
    text = text_of(q, k, v, key_mask, position, q_pos, k_pos)
    block = block_of(radius)
    places, found = places_of(global_mask)  # (Bp, G)
    others = text._replace(there=text.there & ~global_mask)  # global tokens come in a group of their own
    groups = [window_keys(others, radius, block, later=not causal)]
    if blocks is not None:
        groups.append(random_keys(others, blocks, block))
    groups.append(global_keys(text, places, found, block))
    y = attend(text, block, groups, mask, scale)
    q, k, v = (q, k, v) if global_qkv is None else global_qkv
    pos, _ = counted_positions(q, k, q_pos, k_pos)
    rows = attention(
        at_places(q.transpose(1, 2), places).transpose(1, 2), k, v, mask=mask, key_mask=key_mask, position=position,
        q_pos=at_places(pos.view(-1, pos.shape[-1]), places), k_pos=pos, scale=scale,
    )  # fmt: skip  # (B, H, G, Dv)
    # Where a sequence has fewer global tokens than another, their rows go to one more token, which is cut off.
    to = torch.where(found, places, y.shape[2])[:, None, :, None].expand_as(rows)
    return F.pad(y, (0, 0, 0, 1)).scatter(2, to, rows)[:, :, :-1]


def places_of(global_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Where the global tokens are: places int64 (Bp, G) in order, and which of them are real, bool (Bp, G).

    global_mask (Bp, T); G is the largest number in a sequence, so that shapes depend on data, here and only here.
    """
    most = int(global_mask.sum(-1).max()) if global_mask.numel() else 0
    places = global_mask.int().argsort(dim=-1, descending=True, stable=True)[:, :most]
    return places, global_mask.gather(1, places)


def at_places(x: Tensor, places: Tensor) -> Tensor:
    """Entries of x (B, T, ...) at places (Bp, G) -> (B, G, ...)."""
    batch = len(x) if len(places) == 1 else len(places)
    index = places.view(*places.shape, *[1] * (x.ndim - 2)).expand(batch, -1, *x.shape[2:])
    return x.expand(batch, *x.shape[1:]).gather(1, index)


def global_keys(text: Text, places: Tensor, found: Tensor, block: int) -> Keys:
    """The global tokens, as keys for every block."""
    n = -(-text.q.shape[1] // block)
    k, v, pos, there = (
        at_places(x, places).unsqueeze(1).expand(-1, n, *[-1] * (x.ndim - 1))
        for x in (text.k, text.v, text.pos, text.there)
    )
    return Keys(k, v, pos, (there & found.unsqueeze(1)).unsqueeze(2))


def random_keys(text: Text, blocks: Tensor, block: int) -> Keys:
    """The blocks of keys that `blocks` names for each block of queries."""
    n = -(-text.q.shape[1] // block)
    chosen = blocks[:n].to(text.q.device)  # (n, n_random)
    real = (chosen >= 0) & (chosen < n)  # blocks were drawn for a longer text
    chosen = chosen.clamp(0, n - 1).flatten()

    def pick(x: Tensor) -> Tensor:
        return in_blocks(x, block).index_select(1, chosen).unflatten(1, (n, -1)).flatten(2, 3)  # (Bp, n, K, ...)

    allowed = pick(text.there) & real.repeat_interleave(block, -1)
    return Keys(pick(text.k), pick(text.v), pick(text.pos), allowed.unsqueeze(2))


def dense_mask(
    q: Tensor, k: Tensor, radius: int, global_mask: Tensor, blocks: Tensor | None, mask: Pattern | None,
    q_pos: Tensor | None, k_pos: Tensor | None,
) -> Tensor:  # fmt: skip
    """The whole pattern as a bool tensor (Bp, 1, T, T): the specification of the blocked computation."""
    q_pos, k_pos = counted_positions(q, k, q_pos, k_pos)
    allowed = window(radius).dense(q_pos, k_pos)
    if blocks is not None:
        places = torch.arange(q.shape[2], device=q.device)  # blocks are counted from the first token, wherever it is
        allowed = allowed | random_blocks(blocks, block_of(radius)).dense(places, places)
    allowed = allowed | global_mask.unsqueeze(1) | global_mask.unsqueeze(2)  # (Bp, T, T)
    if mask is not None:
        allowed = allowed & mask.dense(q_pos, k_pos)
    return allowed.unsqueeze(1)


def check_inputs(
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


def check_blocks(blocks: Tensor, length: int, block: int) -> None:
    """ValueError for blocks of another shape or type or, where they are on the CPU, that would count a key twice."""
    fits = isinstance(blocks, Tensor) and blocks.ndim == 2 and blocks.dtype == torch.int64
    if not fits or len(blocks) * block < length:
        raise ValueError(
            f"blocks is {kind_of(blocks)}; needed is int64 (n_blocks, n_random), with "
            f"{-(-length // block)} blocks of {block} tokens or more"
        )
    if blocks.device.type == "cpu":
        row = blocks.sort(-1).values
        near = (row - torch.arange(len(row)).unsqueeze(-1)).abs() <= 1
        if bool((near & (row >= 0)).any()) or bool(((row.diff() == 0) & (row[:, 1:] >= 0)).any()):
            raise ValueError("blocks: no row may name a block twice, itself or a neighbour; those are seen already")


def _pair(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)
