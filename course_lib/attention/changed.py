"""A model with another mask, positional scheme or attention function in it."""

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

from torch import nn

from course_lib.attention.arguments import AttentionFn, Mask
from course_lib.attention.multi_head import MultiHeadAttention
from course_lib.names import select
from course_lib.positions.base import Position

Model = TypeVar("Model", bound=nn.Module)
AS_IT_IS: Any = object()  # None is a value of its own: no mask, no scheme


def with_attention(
    model: Model, *, mask: Mask | None = AS_IT_IS, position: Position | None = AS_IT_IS,
    attention_fn: AttentionFn = AS_IT_IS, names: str | Iterable[str] | None = None,
) -> Model:  # fmt: skip
    """A copy of `model` in which attention has another mask, position or function; the model itself stays as it is.

    `names` are names or patterns of its `MultiHeadAttention`s, see `select`; None is all, and then `position` takes the
    place of the scheme that embeds, too. What is given is used itself, not copied: a position with weights trains them.
    Raises ValueError for a model without a `MultiHeadAttention`, and a name that matches none.
    """
    changed = copy.deepcopy(model)
    modules = {name: m for name, m in changed.named_modules() if isinstance(m, MultiHeadAttention)}
    if not modules:
        raise ValueError(f"model is a {type(model).__name__} without a MultiHeadAttention")
    for name in modules if names is None else select(names, modules):
        if mask is not AS_IT_IS:
            modules[name].mask = mask
        if position is not AS_IT_IS:
            modules[name].position = position
        if attention_fn is not AS_IT_IS:
            modules[name].set_attention_fn(attention_fn)
    if position is not AS_IT_IS and names is None and isinstance(getattr(changed, "position", None), Position):
        changed.position = position or Position()
    return changed
