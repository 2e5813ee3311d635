"""The checks for the exercises of lesson LESSON_NUMBER."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.attention import attention, masked_softmax, with_attention
from course_lib.exercises import call, checker, expect, expect_gradients
from course_lib.exercises.injection import same_model
from course_lib.models.gpt2 import GPT2
from course_lib.training import next_token_loss

T, S, D = 4, 6, 8
Weights = Callable[[Tensor, Tensor, Tensor], Tensor]


def _reference(q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
    return masked_softmax(q @ k.mT / math.sqrt(q.shape[-1]), allowed)


@checker
def weights(fn: Weights) -> str:
    """Check `fn(q (..., T, D), k (..., S, D), allowed (T, S))`: the attention weights (..., T, S)."""
    q, k = torch.randn(T, D), torch.randn(S, D)
    allowed = torch.rand(T, S) < 0.7
    allowed[:, 0] = True
    scores = q @ k.mT / math.sqrt(D)
    hidden = scores.masked_fill(~allowed, -torch.inf)
    mistakes = {
        "Your rows do not sum to 1: the softmax runs over the queries. The keys are the last axis.": hidden.softmax(0),
        "The scale 1/√d is missing.": (hidden * math.sqrt(D)).softmax(-1),
        "You divide by d; the spread of a score is its root.": (hidden / math.sqrt(D)).softmax(-1),
        "Hide keys before the softmax; after it, rows no longer sum to 1.": scores.softmax(-1) * allowed,
        "The mask is not used.": scores.softmax(-1),
    }
    expect(call(fn, q, k, allowed), _reference(q, k, allowed), mistakes)
    expect_gradients(fn, _reference, {"q": q, "k": k}, allowed)
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
