"""The patterns on torch's FlexAttention: blocks without an allowed pair cost nothing, on a GPU in one fused kernel."""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import flex_attention as torch_flex
from torch.nn.attention.flex_attention import BlockMask

from course_lib.attention.arguments import check_key_mask, check_qkv, counted_positions
from course_lib.attention.masks import Pattern, full
from course_lib.checks import check_at_least
from course_lib.positions.base import Position

BLOCK = 128  # queries, and keys, of a block: torch's own choice
NARROWEST = 16  # a GPU multiplies tiles of no fewer channels


def flex_attention(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Pattern | BlockMask | None = None, key_mask: Tensor | None = None,
    position: Position | None = None, q_pos: Tensor | None = None, k_pos: Tensor | None = None,
    scale: float | None = None, global_mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Attention by torch's FlexAttention, which skips blocks of queries and keys in which no pair is allowed.

    Arguments and shapes as in `AttentionFn`; of a `position` only `rotate` is used. `global_mask` bool (T,) or (B, T)
    is True for tokens that see all and are seen by all. The blocks are worked out at every call, from all T x S pairs;
    to do it once for many calls, give as `mask` the result of `flex_block_mask`, and no key_mask or global_mask. On
    CUDA torch compiles the kernel at the first call of its kind, which takes many seconds. On a CPU there is only
    torch's slow stand-in, which has all T x S weights and no gradients.
    Raises ValueError as `attention` does; for a dense mask; for a `position` with bias or score, which have T x S
    numbers; for a block mask of other sizes; on a CPU for tensors that need gradients, on CUDA for heads below 16 wide.
    Source: Dong et al. 2024, "Flex Attention: A Programming Model for Generating Optimized Attention Kernels".
    """
    check_qkv(q, k, v)
    _check_device(q, k, v)
    for name, tensor in (("key_mask", key_mask), ("global_mask", global_mask), ("q_pos", q_pos), ("k_pos", k_pos)):
        if isinstance(tensor, Tensor) and tensor.device != q.device:
            raise ValueError(f"{name} is on {tensor.device}; q is on {q.device}")
    if mask is not None and not isinstance(mask, Pattern | BlockMask):
        raise ValueError(f"mask is a {type(mask).__name__}; needed is a Pattern, or a BlockMask of flex_block_mask")
    if isinstance(mask, Pattern) or position is not None:
        q_pos, k_pos = counted_positions(q, k, q_pos, k_pos)
    if key_mask is not None:
        check_key_mask(key_mask, q.shape[0], k.shape[2])
    if global_mask is not None:
        _global_rows(global_mask, q.shape[0], q.shape[2], k.shape[2])
    if isinstance(mask, BlockMask):
        _check_block_mask(mask, q, k, key_mask, global_mask)
        blocks = mask
    else:
        # Without a pattern nobody asks where the tokens are.
        counted = (torch.arange(length, device=q.device) for length in (q.shape[2], k.shape[2]))
        places = dict(zip(("q_pos", "k_pos"), counted if mask is None else (q_pos, k_pos), strict=True))
        masks = {"key_mask": key_mask, "global_mask": global_mask}
        blocks = flex_block_mask(mask or full, q.shape[2], k.shape[2], device=q.device, **masks, **places)
    if position is not None and q_pos is not None and k_pos is not None:
        first = q_pos[..., :1], k_pos[..., :1]
        for hook, found in (("bias", position.bias(*first)), ("score", position.score(q[:, :, :1], *first))):
            if found is not None:
                raise ValueError(f"position has a {hook}, T x S numbers; flex_attention takes schemes that only rotate")
        q, k = position.rotate(q, k, q_pos, k_pos)
    return _kernel(q, k, v, blocks, scale)


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
        global_mask = _global_rows(global_mask, batch, q_len, kv_len)  # (Bp, T)
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


def _global_rows(global_mask: Tensor, batch: int, q_len: int, kv_len: int) -> Tensor:
    """`global_mask` as (Bp, T); ValueError for one that does not fit, or where queries and keys are not one text."""
    if q_len != kv_len:
        raise ValueError(f"global_mask: it needs one text on both sides; here are {q_len} queries and {kv_len} keys")
    if not isinstance(global_mask, Tensor) or global_mask.dtype != torch.bool or global_mask.ndim not in (1, 2):
        kind = global_mask.dtype if isinstance(global_mask, Tensor) else type(global_mask).__name__
        raise ValueError(f"global_mask is {kind}; needed is bool ({q_len},) or (B, {q_len})")
    rows = global_mask.view(-1, global_mask.shape[-1])
    if rows.shape not in ((1, q_len), (batch, q_len)):
        raise ValueError(
            f"global_mask has shape {tuple(global_mask.shape)}; needed is ({q_len},) or ({batch}, {q_len})"
        )
    return rows


def _kernel(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, scale: float | None) -> Tensor:
    grouped = q.shape[1] != k.shape[1]
    if q.device.type == "cuda":
        # torch keeps what it compiled, by function and kind of arguments; there is no state of our own.
        compiled = torch.compile(torch_flex.flex_attention, fullgraph=True)
        return compiled(q, k, v, block_mask=mask, scale=scale, enable_gqa=grouped)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")  # it is said above
        q, k, v = (x.detach() for x in (q, k, v))  # it refuses what could have a gradient, asked for or not
        return torch_flex.flex_attention(q, k, v, block_mask=mask, scale=scale, enable_gqa=grouped)


def _check_block_mask(
    mask: BlockMask, q: Tensor, k: Tensor, key_mask: Tensor | None, global_mask: Tensor | None
) -> None:
    if key_mask is not None or global_mask is not None:
        raise ValueError("key_mask, global_mask: a BlockMask holds them already; give them to flex_block_mask")
    rows, *_, n_queries, n_keys = mask.shape
    if rows not in (1, q.shape[0]) or (n_queries, n_keys) != (q.shape[2], k.shape[2]):
        needed = f"needed are 1 or {q.shape[0]} of {q.shape[2]} and {k.shape[2]}"
        raise ValueError(f"mask has blocks for {rows} sequences of {n_queries} queries and {n_keys} keys; {needed}")


def _check_device(q: Tensor, k: Tensor, v: Tensor) -> None:
    if q.device.type == "cuda":
        if min(q.shape[-1], v.shape[-1]) < NARROWEST:
            raise ValueError(
                f"q and v are {q.shape[-1]} and {v.shape[-1]} wide; on CUDA it must be {NARROWEST} or more"
            )
    elif torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        raise ValueError(
            f"q, k, v are on {q.device} and need gradients; FlexAttention has them only on CUDA: use torch.no_grad(), "
            "or another function, such as `attention`"
        )
