"""Attention in blocks: queries in blocks of w, each block with keys of its own choice, folded into the batch."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.attention.arguments import check_key_mask, check_qkv, counted_positions, without_hidden
from course_lib.attention.masks import Pattern, window
from course_lib.attention.sdpa import attention
from course_lib.checks import check_device, on_host
from course_lib.positions.base import Position, Unrotated


class Text(NamedTuple):
    """Queries and keys of a whole text, rotated; tokens are the second axis, so that blocks of them are views."""

    q: Tensor  # (B, T, H, D)
    k: Tensor  # (B, T, Hkv, D)
    v: Tensor  # (B, T, Hkv, Dv)
    there: Tensor  # bool (Bp, T): keys that count. Bp is B, or 1 where all sequences have the same
    pos: Tensor  # (Bp, T), counted from the last token: the zeros of padding are a place in the text, not far away
    last: Tensor  # (Bp, 1), the position of the last token
    position: Position | None  # its rotation is done


class Keys(NamedTuple):
    """What each of n blocks of w queries looks at: K keys, and for each pair whether it is allowed."""

    k: Tensor  # (B, n, K, Hkv, D)
    v: Tensor  # (B, n, K, Hkv, Dv)
    pos: Tensor  # (Bp, n, K), counted as in Text
    allowed: Tensor  # bool (Bp, n, w or 1, K)


def text_of(
    q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, position: Position | None,
    q_pos: Tensor | None, k_pos: Tensor | None,
) -> Text:  # fmt: skip
    """Check the arguments of a self-attention, and rotate queries and keys, once and by their true positions.

    Raises ValueError as `attention` does; where T differs from S; and, where they are on the CPU, for positions that do
    not rise from token to token, or differ between queries and keys: neighbours would not be neighbours.
    """
    check_qkv(q, k, v)
    if q.shape[-2] != k.shape[-2]:
        raise ValueError(f"q has {q.shape[-2]} tokens, k {k.shape[-2]}; blocks need the same text on both sides")
    check_device(q, key_mask=key_mask, q_pos=q_pos, k_pos=k_pos)
    q_pos, k_pos = rising_positions(q, k, q_pos, k_pos)
    if key_mask is None:
        there = torch.ones(1, q.shape[-2], dtype=torch.bool, device=q.device)
    else:
        there = check_key_mask(key_mask, q.shape[0], q.shape[-2])
        k, v = without_hidden(k, key_mask), without_hidden(v, key_mask)
    if position is not None:
        q, k = position.rotate(q, k, q_pos, k_pos)
        position = Unrotated(position)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    pos = q_pos.view(-1, q_pos.shape[-1])
    return Text(q, k, v, there, pos - pos[:, -1:], pos[:, -1:], position)


def rising_positions(q: Tensor, k: Tensor, q_pos: Tensor | None, k_pos: Tensor | None) -> tuple[Tensor, Tensor]:
    """`counted_positions`; ValueError where they are on the CPU and do not rise, or differ for queries and keys."""
    q_pos, k_pos = counted_positions(q, k, q_pos, k_pos)
    if on_host(q_pos) and not (torch.equal(q_pos, k_pos) and bool((q_pos.diff() > 0).all())):
        raise ValueError("q_pos, k_pos: they must be equal and rise from token to token")
    return q_pos, k_pos


def in_blocks(x: Tensor, block: int) -> Tensor:
    """Cut (B, T, ...) into (B, n, block, ...); zeros fill the last block."""
    missing = -x.shape[1] % block
    if missing:  # padding by nothing would copy
        x = F.pad(x, (0, 0) * (x.ndim - 2) + (0, missing))
    return x.unflatten(1, (-1, block))


def window_keys(text: Text, radius: int, block: int, later: bool) -> Keys:
    """The block before, the block itself and, if `later`, the block after; with block >= radius nothing is missed."""
    width = (2 + later) * block

    def near(x: Tensor) -> Tensor:
        # Blocks of nothing at the ends; then steps of one block over a view, in which keys overlap: no copies yet.
        padded = F.pad(x, (0, 0) * (x.ndim - 2) + (block, -x.shape[1] % block + later * block))
        return padded.unfold(1, width, block).movedim(-1, 2)  # (B, n, 3 w, ...)

    pos = near(text.pos)
    allowed = window(radius)(in_blocks(text.pos, block).unsqueeze(-1), pos.unsqueeze(-2))
    return Keys(near(text.k), near(text.v), pos, allowed & near(text.there).unsqueeze(-2))


def unfold_kv(x: Tensor, radius: int) -> Tensor:
    """Beside each token its 2 radius + 1 neighbours, itself in the middle: (B, T, ...) -> (B, T, 2 radius + 1, ...).

    A view of the padded tensor: nothing is copied until it is used, and then every token 2 radius + 1 times.
    """
    padded = F.pad(x, (0, 0) * (x.ndim - 2) + (radius, radius))
    return padded.unfold(1, 2 * radius + 1, 1).movedim(-1, 2)


def unfolded_keys(text: Text, radius: int) -> Keys:
    """For blocks of one query: the keys within reach, copied for each query."""
    pos, there = unfold_kv(text.pos, radius), unfold_kv(text.there, radius)
    allowed = window(radius)(text.pos.unsqueeze(-1), pos) & there
    return Keys(unfold_kv(text.k, radius), unfold_kv(text.v, radius), pos, allowed.unsqueeze(-2))


def joined(parts: list[Tensor], axis: int) -> Tensor:
    """Put the keys of all groups side by side; what is the same for all sequences is repeated where it must be."""
    if len(parts) == 1:
        return parts[0]
    rows = next((n for n in map(len, parts) if n != 1), 1)
    return torch.cat([part.expand(rows, *part.shape[1:]) for part in parts], axis)


def attend(text: Text, block: int, groups: list[Keys], mask: Pattern | None, scale: float | None) -> Tensor:
    """One softmax over the keys of all groups, for each block of queries -> (B, H, T, Dv).

    `mask` must hold for a pair as well. A scheme's bias and score are asked for block by block.
    """
    batch, length = text.q.shape[:2]
    last = text.last.unsqueeze(-1)  # (Bp, 1, 1)
    q, q_pos = in_blocks(text.q, block), in_blocks(text.pos, block) + last
    n, w = q.shape[1:3]
    k, v, pos = (joined([keys[i] for keys in groups], 2) for i in range(3))  # (B, n, K, ...)
    pos = pos + last
    allowed = joined([keys.allowed.expand(-1, n, w, -1) for keys in groups], 3)  # (Bp, n, w, K)
    if mask is not None:
        allowed = allowed & mask(q_pos.unsqueeze(-1), pos.unsqueeze(-2))

    def folded(x: Tensor) -> Tensor:
        return x.expand(batch, *x.shape[1:]).flatten(0, 1)  # (Bp, n, ...) -> (B n, ...)

    y = attention(
        *(folded(x).transpose(1, 2) for x in (q, k, v)),  # (B n, heads, w or K, D)
        mask=folded(allowed).unsqueeze(1), position=text.position, q_pos=folded(q_pos), k_pos=folded(pos),
        scale=scale,
    )  # fmt: skip
    y = y.transpose(1, 2).unflatten(0, (batch, n)).flatten(1, 2)  # (B, n w, H, Dv)
    return y[:, :length].transpose(1, 2)
