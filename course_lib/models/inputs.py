"""What every model of tokens asks of its input."""

from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.attention.arguments import check_key_mask
from course_lib.attention.kv_cache import Cache, cached_length
from course_lib.attention.places import Places, padded_positions
from course_lib.checks import check_token_ids, kind_of, on_host
from course_lib.positions.base import check_positions


def check_ids(ids: object, vocab_size: int) -> None:
    """Raise ValueError unless `ids` is a tensor (B, T) of int64 or int32 and, on the CPU, from 0 to vocab_size - 1."""
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"ids is {kind_of(ids)}; needed is int64 or int32 (B, T)")
    check_token_ids("ids", ids, vocab_size)


def check_length(ids: Tensor, caches: Sequence[Cache] | None, max_positions: int) -> None:
    """Raise ValueError for a text that goes on beyond learned positions."""
    end = ids.shape[1] + (caches[0].length if caches else 0)
    if end > max_positions:
        raise ValueError(
            f"ids: a text of {end} tokens; max_positions={max_positions} is the most that has learned positions"
        )


def places_of(
    ids: Tensor, n_blocks: int, caches: Sequence[Cache] | None, key_mask: Tensor | None, pos: Tensor | None
) -> tuple[Places, Tensor]:
    """What a decoder's blocks are told of ids (B, T), and the places that its embeddings take, (T,) or (B, T).

    `pos` gives the places; None counts from 0, or on from what is in the caches, and with a `key_mask` (B, S) of all
    tokens, old and new, from the first that counts: so that padding on the left moves nothing. Where nothing is given,
    the blocks count for themselves. Raises ValueError for what does not fit.
    """
    begin = cached_length(caches, n_blocks)
    if key_mask is not None:
        check_key_mask(key_mask, ids.shape[0], begin + ids.shape[1])
        pos = padded_positions(key_mask)[:, begin:] if pos is None else pos
    if pos is None:
        return Places(), torch.arange(begin, begin + ids.shape[1], device=ids.device)
    check_positions("pos", pos, ids.shape[1], ids.shape[0])
    return Places(pos=pos, key_mask=key_mask), pos.clamp(min=0)  # padding has no place of its own


def check_places(at: Tensor, batch: int, length: int) -> None:
    """Raise ValueError unless `at` is integers (batch, M) and, where it is on the CPU, from 0 to length - 1."""
    fits = isinstance(at, Tensor) and at.ndim == 2 and len(at) == batch and at.dtype == torch.int64
    if not fits:
        raise ValueError(f"at is {kind_of(at)}; needed is int64 ({batch}, M)")
    if on_host(at) and at.numel() and not 0 <= int(at.min()) <= int(at.max()) < length:
        raise ValueError(f"at goes from {int(at.min())} to {int(at.max())}; the text has {length} tokens")
