"""Which blocks of pairs a pattern allows, as FlexAttention's kernel wants to be told."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from course_lib.attention.arguments import check_key_mask, counted_positions
from course_lib.attention.masks import Pattern
from course_lib.checks import check_at_least, kind_of

BLOCK = 128  # queries, and keys, of a block: torch's own choice


def flex_block_mask(
    pattern: Pattern, q_len: int, kv_len: int, *, device: torch.device | str, key_mask: Tensor | None = None,
    global_mask: Tensor | None = None, q_pos: Tensor | None = None, k_pos: Tensor | None = None,
) -> BlockMask:  # fmt: skip
    """Which blocks of 128 x 128 pairs hold allowed ones, and which are allowed within the blocks that are mixed.

    A pair is allowed if `pattern` allows it or either token is global, and if `key_mask` (B, S) has the key.
    `global_mask` is (T,) or (B, T), q_pos and k_pos (T,) or (B, T); None counts from 0. The kernel looks pairs of mixed
    blocks up in a table, 16 KiB a block: so it is the same kernel for all patterns, and they may be made of any
    operations. How many blocks are mixed depends on data: a GPU waits for it. Never are there more than 128 x S pairs
    at a time. Raises ValueError for a length below 1, and for masks and positions that do not fit.
    """
    check_at_least("q_len", q_len, 1)
    check_at_least("kv_len", kv_len, 1)
    batch = max(
        (len(x) for x in (key_mask, global_mask, q_pos, k_pos) if isinstance(x, Tensor) and x.ndim == 2), default=1
    )
    like_q, like_k = (torch.empty(batch, length, 0, device=device) for length in (q_len, kv_len))
    q_pos, k_pos = (pos.view(-1, pos.shape[-1]) for pos in counted_positions(like_q, like_k, q_pos, k_pos))
    pattern.dense(q_pos[:, :1], k_pos[:, :1])  # raises for a function that gives no bool
    if key_mask is not None:
        check_key_mask(key_mask, batch, kv_len)
    if global_mask is not None:
        global_mask = global_rows(global_mask, batch, q_len, kv_len)  # (Bp, T)
    mixed, whole, tables = [], [], []
    for begin in range(0, q_len, BLOCK):
        rows = slice(begin, begin + BLOCK)
        pairs = pattern.dense(q_pos[:, rows], k_pos)  # (Bp, 128, S)
        if global_mask is not None:
            pairs = pairs | global_mask[:, rows, None] | global_mask[:, None]
        if key_mask is not None:
            pairs = pairs & key_mask[:, None]
        pairs = F.pad(pairs, (0, -kv_len % BLOCK, 0, BLOCK - pairs.shape[1])).expand(batch, -1, -1)
        pairs = pairs.unflatten(-1, (-1, BLOCK)).transpose(1, 2)  # (B, n, 128, 128)
        some, every = pairs.flatten(2).any(-1), pairs.flatten(2).all(-1)
        mixed.append(some & ~every)
        whole.append(every)
        tables.append(pairs[some & ~every])  # (those, 128, 128), one sequence after the other
    return _assembled(torch.stack(mixed, 1), torch.stack(whole, 1), torch.cat(tables), q_len, kv_len)


def _assembled(mixed: Tensor, whole: Tensor, tables: Tensor, q_len: int, kv_len: int) -> BlockMask:
    """From the kinds of the blocks, bool (B, m, n), and the tables of mixed ones, block row by row, to a BlockMask."""
    numbers = mixed.transpose(0, 1).flatten().cumsum(0).view_as(mixed.transpose(0, 1)).transpose(0, 1)  # 1, 2, 3, …
    # Table 0 allows nothing, table 1 all: the stand-in on a CPU asks for pairs of all blocks.
    tables = F.pad(tables, (0, 0, 0, 0, 2, 0))
    tables[1] = True
    which = torch.where(mixed, numbers + 1, whole.long()).int().contiguous()  # (B, m, n)
    by_row = len(which) > 1

    def allowed(b: Tensor, h: Tensor, q_index: Tensor, k_index: Tensor) -> Tensor:
        table = which[b if by_row else 0, q_index // BLOCK, k_index // BLOCK]
        return tables[table, q_index % BLOCK, k_index % BLOCK]

    return BlockMask.from_kv_blocks(
        *_listed(mixed), *_listed(whole), BLOCK_SIZE=BLOCK, mask_mod=allowed, seq_lengths=(q_len, kv_len)
    )


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """bool (B, m, n) as FlexAttention wants it: how many a row has, and their places first, int32, with a head axis."""
    blocks = blocks.unsqueeze(1).int()
    return blocks.sum(-1, dtype=torch.int32), blocks.argsort(dim=-1, descending=True, stable=True).int()


def global_rows(global_mask: Tensor, batch: int, q_len: int, kv_len: int) -> Tensor:
    """`global_mask` as (Bp, T); ValueError for one that does not fit, or where queries and keys are not one text."""
    if q_len != kv_len:
        raise ValueError(f"global_mask: it needs one text on both sides; here are {q_len} queries and {kv_len} keys")
    if not isinstance(global_mask, Tensor) or global_mask.dtype != torch.bool or global_mask.ndim not in (1, 2):
        raise ValueError(f"global_mask is {kind_of(global_mask)}; needed is bool ({q_len},) or (B, {q_len})")
    rows = global_mask.view(-1, global_mask.shape[-1])
    if rows.shape not in ((1, q_len), (batch, q_len)):
        raise ValueError(
            f"global_mask has shape {tuple(global_mask.shape)}; needed is ({q_len},) or ({batch}, {q_len})"
        )
    return rows
