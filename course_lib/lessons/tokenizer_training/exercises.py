"""The checks for the exercises of lesson 06."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from course_lib.attention import attention, masked_softmax, with_attention
from course_lib.exercises import call, checker, expect_gradients
from course_lib.exercises.injection import same_model
from course_lib.exercises.mistakes import Mistakes, expect_by
from course_lib.models.gpt2 import GPT2
from course_lib.training import next_token_loss

T, S, D = 4, 6, 8
Weights = Callable[[Tensor, Tensor, Tensor], Tensor]


def _right(q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
    return masked_softmax(q @ k.mT / math.sqrt(q.shape[-1]), allowed)


def _softmax(q: Tensor, k: Tensor, allowed: Tensor, power: float = 0.5, axis: int = -1) -> Tensor:
    """Attention weights of scores divided by d ** power."""
    return (q @ k.mT / q.shape[-1] ** power).masked_fill(~allowed, -torch.inf).softmax(axis)


WEIGHTS: Mistakes = {
    "Your rows do not sum to 1: the softmax runs over the queries. The keys are the last axis.":
        partial(_softmax, axis=-2),
    "The scale 1/√d is missing.": partial(_softmax, power=0),
    "You divide by d; the spread of a score is its root.": partial(_softmax, power=1),
    "Hide keys before the softmax; after it, rows no longer sum to 1.":
        lambda q, k, allowed: _softmax(q, k, torch.ones_like(allowed)) * allowed,
    "The mask is not used.": lambda q, k, allowed: _softmax(q, k, torch.ones_like(allowed)),
}  # fmt: skip


@checker
def weights(fn: Weights) -> str:
    """Check `fn(q (..., T, D), k (..., S, D), allowed (T, S))`: the attention weights (..., T, S)."""
    q, k = torch.randn(T, D), torch.randn(S, D)
    allowed = torch.rand(T, S) < 0.7
    allowed[:, 0] = True
    expect_by(call(fn, q, k, allowed), _right, WEIGHTS, q, k, allowed)
    expect_gradients(fn, _right, {"q": q, "k": k}, allowed)
    return "Right, in value and gradient: each row is a share of 1."


@checker
def injected(fn: Weights, model: GPT2, windows: Tensor) -> str:
    """Put `fn` into every attention of `model`; compare losses and gradients on windows (N, T + 1), train ten steps."""

    def attend(q: Tensor, k: Tensor, v: Tensor, *, mask: Any = None, **_: Any) -> Tensor:
        place = torch.arange(q.shape[-2], device=q.device)
        return call(fn, q, k, mask.dense(place, place)) @ v

    theirs, mine = (with_attention(model, attention_fn=each) for each in (attention, attend))
    compared = same_model(theirs, mine, (windows,), next_token_loss)
    return f"Your function runs in all {len(model.blocks)} layers: {compared}"
