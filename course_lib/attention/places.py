"""Where the tokens of a call stand and which of them count: said once, and passed whole from a model to its blocks."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Places:
    """What attention is told of its tokens, beside their vectors; the default is a whole text, counted from 0.

    `pos` has the places of the queries, integers (T,) or (B, T); None counts from 0, or on from what is in a cache.
    `context_pos`, (S,) or (B, S), has those of a context in cross-attention. `key_mask` (B, S) is True for keys that
    count, False for padding; with a cache it is about all S of them, old and new. `global_mask` (T,) or (B, T) is True
    for tokens that see all and are seen by all; `n_global`, where it is known, is how many a sequence has at most: then
    no GPU waits to count them, and the shapes of a graph do not depend on data.
    """

    pos: Tensor | None = None
    context_pos: Tensor | None = None
    key_mask: Tensor | None = None
    global_mask: Tensor | None = None
    n_global: int | None = None


WHOLE_TEXT = Places()


def padded_positions(key_mask: Tensor) -> Tensor:
    """Places in texts that are padded on the left: key_mask bool (B, S) -> (B, S), the first True of a row at 0.

    The padding before it counts down from -1, so that places rise from token to token.
    """
    missing = (~key_mask).cumprod(-1).sum(-1, keepdim=True)  # (B, 1): how many come before the first that counts
    return torch.arange(key_mask.shape[1], device=key_mask.device) - missing
