"""Local attention: each token sees its neighbours, at a cost that grows with the text's length, not its square."""

from typing import Literal, Unpack, overload

from torch import Tensor

from course_lib.attention.arguments import Arguments, Mask, check_qkv
from course_lib.attention.blocks import attend, rising_positions, text_of, unfolded_keys, window_keys
from course_lib.attention.masks import Pattern, window
from course_lib.attention.masks import causal as triangle
from course_lib.attention.sdpa import attention
from course_lib.checks import check_at_least, check_choice, check_device
from course_lib.positions.base import Position

IMPLS = ("blocked", "unfold", "dense", "flex")
SMALLEST_BLOCK = 16  # of smaller ones there would be too many


@overload
def local_attention(
    q: Tensor, k: Tensor, v: Tensor, radius: int, *, causal: bool = ..., impl: str = ...,
    return_weights: Literal[False] = ..., **given: Unpack[Arguments],
) -> Tensor: ...  # fmt: skip
@overload
def local_attention(
    q: Tensor, k: Tensor, v: Tensor, radius: int, *, causal: bool = ..., impl: str = ...,
    return_weights: Literal[True], **given: Unpack[Arguments],
) -> tuple[Tensor, Tensor]: ...  # fmt: skip
def local_attention(
    q: Tensor, k: Tensor, v: Tensor, radius: int, *, causal: bool = False, impl: str = "blocked",
    mask: Mask | None = None, key_mask: Tensor | None = None, position: Position | None = None,
    q_pos: Tensor | None = None, k_pos: Tensor | None = None, scale: float | None = None, return_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Attention in which each query sees the keys at most `radius` places away: `attention(mask=window(radius))`.

    Arguments and shapes as in `AttentionFn`. `causal` leaves out what comes after a query; `mask`, a Pattern, must hold
    as well. All impls compute the same: "blocked" each block of queries with the keys of three blocks, in O(T radius)
    time and memory; "unfold" each query with its own copy of 2 radius + 1 keys, as textbooks do; "dense" with all
    keys and a mask, O(T²), which is also what `return_weights` takes; "flex" with torch's kernel for GPUs. Positions
    must rise from token to token and be the same for queries and keys. Where T differs from S, as with a cache, the
    queries are few, and are computed densely. Raises ValueError as `attention` does, for a negative radius, a mask that
    is no Pattern and, on the CPU, for other positions.
    Source: Beltagy, Peters, Cohan 2020, "Longformer", section 3.1; its blocks overlap in another way.
    """
    check_at_least("radius", radius, 0)
    check_choice("impl", impl, IMPLS)
    impl = "dense" if return_weights else impl
    also = with_triangle(mask, causal)
    pattern = window(radius) if also is None else window(radius) & also
    check_qkv(q, k, v)
    same_text, short = q.shape[2] == k.shape[2], is_short(q, block_of(radius))
    if impl == "dense" or not same_text or not q.shape[2] or (impl == "blocked" and short):
        if same_text and impl in ("blocked", "unfold"):  # a short text is refused for what a long one is
            check_device(q, q_pos=q_pos, k_pos=k_pos)
            rising_positions(q, k, q_pos, k_pos)
        return attention(
            q, k, v, mask=pattern, key_mask=key_mask, position=position, q_pos=q_pos, k_pos=k_pos, scale=scale,
            return_weights=return_weights,
        )  # fmt: skip
    if impl == "flex":
        from course_lib.attention.flex import flex_attention

        return flex_attention(
            q, k, v, mask=pattern, key_mask=key_mask, position=position, q_pos=q_pos, k_pos=k_pos, scale=scale
        )
    text = text_of(q, k, v, key_mask, position, q_pos, k_pos)
    if impl == "unfold":
        return attend(text, 1, [unfolded_keys(text, radius)], also, scale)
    block = block_of(radius)
    return attend(text, block, [window_keys(text, radius, block, later=not causal)], also, scale)


def block_of(radius: int) -> int:
    """How many queries a block has: as many as `radius`, so that the window ends in the next block."""
    return max(radius, SMALLEST_BLOCK)


def is_short(q: Tensor, block: int) -> bool:
    """Whether four blocks are the whole text: then all pairs are at most a third more than those in blocks.

    That costs less than keys which are copied for each of three blocks: at four, a training step of a ModernBERT on
    256 tokens took 0.86 of its time in bfloat16 and 0.99 in float32.
    """
    return q.shape[-2] <= 4 * block


def with_triangle(mask: Mask | None, causal: bool) -> Pattern | None:
    """`mask`, and causal where that is asked for; ValueError for a mask that is no Pattern."""
    if mask is not None and not isinstance(mask, Pattern):
        raise ValueError(f"mask is a {type(mask).__name__}; needed is a Pattern: a dense mask has T x S entries")
    if not causal:
        return mask
    return triangle if mask is None else mask & triangle
