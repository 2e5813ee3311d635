"""Tokens without their padding, packed one behind the other; attention among them is still row by row."""

from typing import Any

from torch import Tensor

from course_lib.attention.arguments import AttentionFn, Mask
from course_lib.checks import kind_of, on_host
from course_lib.positions.base import Position


def packed(x: Tensor, key_mask: Tensor) -> Tensor:
    """The N entries of x (B, T, ...) that key_mask (B, T) counts, row after row: (1, N, ...). A GPU waits for N."""
    return x[key_mask].unsqueeze(0)


def spread(x: Tensor, key_mask: Tensor) -> Tensor:
    """`packed` backwards, (1, N, ...) -> (B, T, ...), with zeros where key_mask (B, T) counts nothing.

    Raises ValueError for x of more than one row, or (on a CPU) of another length than key_mask counts.
    """
    if len(x) != 1 or (on_host(key_mask) and x.shape[1] != int(key_mask.sum())):  # one entry would stand everywhere
        raise ValueError(f"x is {kind_of(x)}; needed are the tokens that key_mask counts, in one row: (1, N, ...)")
    rows = x.new_zeros(*key_mask.shape, *x.shape[2:])
    rows[key_mask] = x[0]
    return rows


def unpadded_attention(
    q: Tensor, k: Tensor, v: Tensor, *, attention_fn: AttentionFn, mask: Mask | None = None,
    key_mask: Tensor | None = None, position: Position | None = None, q_pos: Tensor | None = None,
    k_pos: Tensor | None = None, scale: float | None = None, return_weights: bool = False,
) -> Any:  # fmt: skip
    """`attention_fn` for packed tokens: q (1, H, N, D), k and v alike -> (1, H, N, Dv), key_mask (B, T) with N Trues.

    They are spread to rows with padding for the attention alone, in which a token sees its own row; what comes before
    and after, projections, MLPs and norms, then costs nothing for padding. The other arguments are those of the rows,
    as in `AttentionFn`; weights are (B, H, T, T). Without a key_mask nothing is packed.
    Source: Warner et al. 2024, "Smarter, Better, Faster, Longer" (ModernBERT), section 2.1.3.
    """
    given: dict[str, Any] = {
        "mask": mask, "key_mask": key_mask, "position": position, "q_pos": q_pos, "k_pos": k_pos, "scale": scale,
    }  # fmt: skip
    if return_weights:
        given["return_weights"] = True
    if key_mask is None:
        return attention_fn(q, k, v, **given)
    rows = (spread(x.transpose(1, 2), key_mask).transpose(1, 2) for x in (q, k, v))  # (B, H, T, D)
    result: Any = attention_fn(*rows, **given)
    y, *weights = result if return_weights else (result,)
    y = packed(y.transpose(1, 2), key_mask).transpose(1, 2)
    return (y, *weights) if return_weights else y
