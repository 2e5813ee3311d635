"""Attention maps from a model: its weights on a text, recorded in every layer and head."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_lib.attention.arguments import Mask
from course_lib.attention.masks import Pattern
from course_lib.checks import check_at_least
from course_lib.features import record_attention
from course_lib.tokenization import Tokenizer
from course_lib.viz.attention_maps import AttentionMaps, as_array


def maps_of(
    model: nn.Module, tokenizer: Tokenizer, text: str, *, mask: Pattern | Sequence[Pattern] | None = None,
    start: bool = False, end: bool = False, max_tokens: int | None = None,
) -> AttentionMaps:  # fmt: skip
    """Attention of every layer and head of `model` on `text`, recorded in evaluation mode.

    Masked pairs are those that the attention modules' own masks forbid; `mask`, a pattern or one for each layer, says
    it where they have none: it is displayed and checked, not applied. `start` and `end` put <s> and </s> around the
    text. Only the first `max_tokens` are taken, and the note says so; None is 256, or fewer if the model has no more
    positions. Raises ValueError for an empty text, max_tokens below 1, a pattern that forbids a pair with weight, and
    layers of different shapes.
    """
    room = min(256, getattr(getattr(model, "config", None), "max_positions", 256))
    max_tokens = room if max_tokens is None else max_tokens
    check_at_least("max_tokens", max_tokens, 1)
    ids = tokenizer.encode(text, start=start, end=end)
    if len(ids) == start + end:
        raise ValueError("The text is empty: type at least one character.")
    note = f"Only the first {max_tokens:,} of {len(ids):,} tokens are read." if len(ids) > max_tokens else ""
    ids = ids[:max_tokens]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), record_attention(model) as seen:
            model(torch.tensor([ids], device=next(model.parameters()).device))
    finally:
        model.train(was_training)
    if len(shapes := {tuple(layer.shape) for layer in seen.values()}) != 1:
        raise ValueError(f"model recorded attention of the shapes {shapes}; needed is one shape for all layers")
    if mask is None:
        masks = [getattr(model.get_submodule(name), "mask", None) for name in seen]
    else:
        masks = [mask] * len(seen) if isinstance(mask, Pattern) else list(mask)
    allowed = torch.stack([_dense(mask, len(ids)) for mask in masks])  # (layers, T, T)
    return AttentionMaps(
        weights=as_array(torch.cat(list(seen.values()))), queries=[tokenizer.piece(i) for i in ids], note=note,
        allowed=None if allowed.all() else as_array(allowed),
    )  # fmt: skip


def _dense(mask: Mask | None, tokens: int) -> Tensor:
    """The mask of a module as bool (T, T); one that also depends on batch or head is left out."""
    if isinstance(mask, Pattern):
        position = torch.arange(tokens)
        return mask.dense(position, position)
    everything = torch.ones(tokens, tokens, dtype=torch.bool)
    return everything if mask is None or mask.ndim != 2 else everything & mask.cpu()
