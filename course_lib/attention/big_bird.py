"""BigBird's random blocks: a few far keys for each query, so that any two tokens are a few steps apart."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.attention.blocks import Keys, Text, in_blocks
from course_lib.attention.masks import Pattern
from course_lib.checks import check_at_least, kind_of, on_host


def draw_blocks(n_blocks: int, n_random: int, seed: int) -> Tensor:
    """For each of `n_blocks` blocks of queries, `n_random` blocks of keys, none of them a neighbour or itself.

    Returns int64 (n_blocks, n_random) in rising order; where a block has fewer that are no neighbours, -1 fills the
    row. The draw follows from `seed` alone. Raises ValueError for negative numbers.
    Source: Zaheer et al. 2020, "Big Bird: Transformers for Longer Sequences", appendix D.
    """
    check_at_least("n_blocks", n_blocks, 0)
    check_at_least("n_random", n_random, 0)
    generator = torch.Generator().manual_seed(seed)
    places = torch.arange(n_blocks)
    near = (places[:, None] - places).abs() <= 1
    drawn = torch.rand(n_blocks, n_blocks, generator=generator).masked_fill(near, -1.0)  # a lot for each that may be
    lots, chosen = drawn.topk(min(n_random, n_blocks), dim=-1)  # the highest lots win
    chosen = chosen.masked_fill(lots < 0, -1).sort(-1).values
    return F.pad(chosen, (n_random - chosen.shape[-1], 0), value=-1)


def random_blocks(blocks: Tensor, block: int) -> Pattern:
    """Each query sees the keys of some blocks: row i of `blocks` names those of the queries in block i.

    `blocks` (n_blocks, n_random) int64 as `draw_blocks` gives it, -1 for none; `block` is how many tokens a block has.
    Positions must be below n_blocks x block. Raises ValueError for another shape or type, a block below 1.
    """
    check_at_least("block", block, 1)
    if not isinstance(blocks, Tensor) or blocks.ndim != 2 or blocks.dtype != torch.int64:
        raise ValueError(f"blocks is {kind_of(blocks)}; needed is int64 (n_blocks, n_random)")
    return Pattern(f"random_blocks({blocks.shape[1]} of {block})", partial(_in_block_of, blocks, block))


def _in_block_of(blocks: Tensor, block: int, q_pos: Tensor, k_pos: Tensor) -> Tensor:
    end = len(blocks) * block
    for name, pos in (("q_pos", q_pos), ("k_pos", k_pos)):
        if on_host(pos) and pos.numel() and not 0 <= int(pos.min()) <= int(pos.max()) < end:
            raise ValueError(f"{name} goes from {int(pos.min())} to {int(pos.max())}; blocks end at {end}")
    rows = blocks.to(q_pos.device)[q_pos // block]  # (..., n_random)
    return ((rows >= 0) & (rows == (k_pos // block).unsqueeze(-1))).any(-1)


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


def check_blocks(blocks: Tensor, length: int, block: int) -> None:
    """ValueError for blocks of another shape or type or, where they are on the CPU, that would count a key twice."""
    fits = isinstance(blocks, Tensor) and blocks.ndim == 2 and blocks.dtype == torch.int64
    if not fits or len(blocks) * block < length:
        raise ValueError(
            f"blocks is {kind_of(blocks)}; needed is int64 (n_blocks, n_random), with "
            f"{-(-length // block)} blocks of {block} tokens or more"
        )
    if on_host(blocks):
        row = blocks.sort(-1).values
        near = (row - torch.arange(len(row)).unsqueeze(-1)).abs() <= 1
        if bool((near & (row >= 0)).any()) or bool(((row.diff() == 0) & (row[:, 1:] >= 0)).any()):
            raise ValueError("blocks: no row may name a block twice, itself or a neighbour; those are seen already")
