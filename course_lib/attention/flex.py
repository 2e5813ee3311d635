"""The patterns on torch's FlexAttention: blocks without an allowed pair cost nothing, on a GPU in one fused kernel."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import flex_attention as torch_flex
from torch.nn.attention.flex_attention import BlockMask

from course_lib.attention.arguments import check_key_mask, check_qkv, counted_positions, without_hidden
from course_lib.attention.flex_blocks import flex_block_mask, global_rows
from course_lib.attention.masks import Pattern, full
from course_lib.checks import check_device
from course_lib.positions.base import Position

NARROWEST = 16  # a GPU multiplies tiles of no fewer channels


def mask_mod(pattern: Pattern, q_pos: Tensor, k_pos: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The idea: a Pattern *is* what FlexAttention calls a mask_mod, for positions instead of places in a tensor.

    pattern, q_pos (T,), k_pos (S,) -> a function for `torch.nn.attention.flex_attention.create_block_mask`. That looks
    at one pair at a time and compiles the pattern itself; `flex_block_mask` takes patterns that cannot be compiled too.
    """
    return lambda batch, head, q_index, k_index: pattern(q_pos[q_index], k_pos[k_index])


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
    _check_able(q, k, v)
    check_device(q, key_mask=key_mask, global_mask=global_mask, q_pos=q_pos, k_pos=k_pos)
    if mask is not None and not isinstance(mask, Pattern | BlockMask):
        raise ValueError(f"mask is a {type(mask).__name__}; needed is a Pattern, or a BlockMask of flex_block_mask")
    if isinstance(mask, Pattern) or position is not None:
        q_pos, k_pos = counted_positions(q, k, q_pos, k_pos)
    if key_mask is not None:
        check_key_mask(key_mask, q.shape[0], k.shape[2])
    if global_mask is not None:
        global_rows(global_mask, q.shape[0], q.shape[2], k.shape[2])
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
    k, v = without_hidden(k, key_mask), without_hidden(v, key_mask)
    return _kernel(q, k, v, blocks, scale)


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


def _check_able(q: Tensor, k: Tensor, v: Tensor) -> None:
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
