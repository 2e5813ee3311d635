"""Global tokens beside a window: they see all, all see them, and information crosses a text in two steps."""

from functools import partial
from typing import Literal, Unpack, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.attention.arguments import Arguments, Mask, counted_positions
from course_lib.attention.big_bird import random_blocks, random_keys
from course_lib.attention.blocks import Keys, Text, attend, rising_positions, text_of, window_keys
from course_lib.attention.global_inputs import GlobalPlaces, Projected, at_places, check_global, places_of
from course_lib.attention.local import block_of, is_short, with_triangle
from course_lib.attention.masks import Pattern, window
from course_lib.attention.sdpa import attention
from course_lib.checks import check_at_least, check_choice, check_device
from course_lib.positions.base import Position


def allowed_pairs(q_pos: Tensor, k_pos: Tensor, radius: int, global_mask: Tensor) -> Tensor:
    """The idea, as a mask: neighbours see each other, and global_mask (Bp, T) adds rows and columns -> (Bp, T, T)."""
    near = window(radius).dense(q_pos, k_pos)  # (T, T) or (B, T, T)
    sees_all = global_mask.unsqueeze(2)  # (Bp, T, 1)
    seen_by_all = global_mask.unsqueeze(1)  # (Bp, 1, T)
    return near | sees_all | seen_by_all


@overload
def global_local_attention(
    q: Tensor, k: Tensor, v: Tensor, radius: int, *, global_mask: Tensor, n_global: int | None = ...,
    blocks: Tensor | None = ..., global_qkv: Projected | None = ..., causal: bool = ..., impl: str = ...,
    return_weights: Literal[False] = ..., **given: Unpack[Arguments],
) -> Tensor: ...  # fmt: skip
@overload
def global_local_attention(
    q: Tensor, k: Tensor, v: Tensor, radius: int, *, global_mask: Tensor, n_global: int | None = ...,
    blocks: Tensor | None = ..., global_qkv: Projected | None = ..., causal: bool = ..., impl: str = ...,
    return_weights: Literal[True], **given: Unpack[Arguments],
) -> tuple[Tensor, Tensor]: ...  # fmt: skip
def global_local_attention(
    q: Tensor, k: Tensor, v: Tensor, radius: int, *, global_mask: Tensor, n_global: int | None = None,
    blocks: Tensor | None = None, global_qkv: Projected | None = None, causal: bool = False, impl: str = "blocked",
    mask: Mask | None = None, key_mask: Tensor | None = None, position: Position | None = None,
    q_pos: Tensor | None = None, k_pos: Tensor | None = None, scale: float | None = None, return_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Local attention with global tokens, in one softmax: no key counts twice.

    Arguments as in `local_attention`, T = S. `global_mask` bool (T,) or (B, T) is True for tokens that see all and are
    seen by all. With `blocks`, rows of key blocks as `masks.draw_blocks` gives them, a query also sees those of its
    own block, each `block_of(radius)` tokens: BigBird. With `global_qkv`, queries, keys and values of a projection of
    their own, global tokens look at all others with these; what others see of them stays k and v (Longformer).
    Time and memory of "blocked" are O(T (radius + g)) for g global tokens at most in a sequence; a GPU waits for that
    number, which depends on data, unless `n_global` says it. Raises ValueError as `local_attention`, and for a
    global_mask, n_global, blocks or global_qkv that do not fit.
    Sources: Beltagy, Peters, Cohan 2020, "Longformer", section 3.1; Zaheer et al. 2020, "Big Bird", section 2.
    """
    check_at_least("radius", radius, 0)
    check_choice("impl", impl, ("blocked", "dense"))
    also = with_triangle(mask, causal)
    global_mask = check_global(q, k, v, global_mask, blocks, global_qkv, block_of(radius))
    check_device(q, global_mask=global_mask, blocks=blocks, key_mask=key_mask, q_pos=q_pos, k_pos=k_pos)
    if impl == "blocked" and not is_short(q, block_of(radius)) and not return_weights:
        text = text_of(q, k, v, key_mask, position, q_pos, k_pos)
        at = places_of(global_mask, n_global)
        y = _near_and_global(text, radius, global_mask, at, blocks, also, scale, later=not causal)
        pos, _ = counted_positions(q, k, q_pos, k_pos)
        q, k, v = (q, k, v) if global_qkv is None else global_qkv
        rows = attention(
            at_places(q.transpose(1, 2), at.places).transpose(1, 2), k, v, mask=also, key_mask=key_mask,
            position=position, q_pos=at_places(pos.view(-1, pos.shape[-1]), at.places), k_pos=pos, scale=scale,
        )  # fmt: skip  # (B, H, G, Dv)
        return _with_rows(y, rows, at)
    if impl == "blocked" and not return_weights:  # a short text is refused for what a long one is
        rising_positions(q, k, q_pos, k_pos)
    allowed = dense_mask(q, k, radius, global_mask, blocks, also, q_pos, k_pos)
    fn = partial(
        attention, mask=allowed, key_mask=key_mask, position=position, q_pos=q_pos, k_pos=k_pos, scale=scale,
        return_weights=return_weights,
    )  # fmt: skip
    if global_qkv is None:
        return fn(q, k, v)
    rows = global_mask[:, None, :, None]  # whose queries, keys and values are the other ones
    if not return_weights:
        return torch.where(rows, fn(*global_qkv), fn(q, k, v))
    (y, weights), (others, their_weights) = fn(q, k, v), fn(*global_qkv)
    return torch.where(rows, others, y), torch.where(rows, their_weights, weights)


def _near_and_global(
    text: Text, radius: int, global_mask: Tensor, at: GlobalPlaces, blocks: Tensor | None, also: Pattern | None,
    scale: float | None, later: bool,
) -> Tensor:  # fmt: skip
    """What every token sees: its neighbours, the global tokens and, with `blocks`, random ones -> (B, H, T, Dv)."""
    block = block_of(radius)
    others = text._replace(there=text.there & ~global_mask)  # global tokens come in a group of their own
    groups = [window_keys(others, radius, block, later=later)]
    if blocks is not None:
        groups.append(random_keys(others, blocks, block))
    groups.append(global_keys(text, at, block))
    return attend(text, block, groups, also, scale)


def global_keys(text: Text, at: GlobalPlaces, block: int) -> Keys:
    """The global tokens, as keys for every block."""
    n = -(-text.q.shape[1] // block)
    k, v, pos, there = (
        at_places(x, at.places).unsqueeze(1).expand(-1, n, *[-1] * (x.ndim - 1))
        for x in (text.k, text.v, text.pos, text.there)
    )
    return Keys(k, v, pos, (there & at.found.unsqueeze(1)).unsqueeze(2))


def _with_rows(y: Tensor, rows: Tensor, at: GlobalPlaces) -> Tensor:
    """y (B, H, T, Dv) with the rows (B, H, G, Dv) of the global tokens in their places.

    Where a sequence has fewer of them than another, the rows left over go to one more token, which is cut off.
    """
    to = torch.where(at.found, at.places, y.shape[2])[:, None, :, None].expand_as(rows)
    return F.pad(y, (0, 0, 0, 1)).scatter(2, to, rows)[:, :, :-1]


def dense_mask(
    q: Tensor, k: Tensor, radius: int, global_mask: Tensor, blocks: Tensor | None, also: Pattern | None,
    q_pos: Tensor | None, k_pos: Tensor | None,
) -> Tensor:  # fmt: skip
    """The whole pattern as a bool tensor (Bp, 1, T, T): the specification of the blocked computation."""
    q_pos, k_pos = counted_positions(q, k, q_pos, k_pos)
    allowed = allowed_pairs(q_pos, k_pos, radius, global_mask)
    if blocks is not None:
        places = torch.arange(q.shape[2], device=q.device)  # blocks are counted from the first token, wherever it is
        allowed = allowed | random_blocks(blocks, block_of(radius)).dense(places, places)
    if also is not None:
        allowed = allowed & also.dense(q_pos, k_pos)
    return allowed.unsqueeze(1)
