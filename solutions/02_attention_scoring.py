"""Solutions to the exercises of lesson 02. Try first: each has a hint in the notebook."""

import math

import torch
from torch import Tensor


def scores(q: Tensor, k: Tensor) -> Tensor:
    """Exercise 1."""
    return q @ k.mT / math.sqrt(q.shape[-1])


def masked_softmax(scores: Tensor, allowed: Tensor) -> Tensor:
    """Exercise 2. The lowest finite number, not -inf: a row of -inf alone would be 0 / 0, in the gradient too."""
    weights = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-1)
    return weights.masked_fill(~allowed, 0.0)


def attention(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    """Exercise 3."""
    logits = scores(q, k)
    weights = logits.softmax(-1) if allowed is None else masked_softmax(logits, allowed)
    return weights @ v


def softmax_backward(grad: Tensor, weights: Tensor) -> Tensor:
    """Exercise 4."""
    return weights * (grad - (grad * weights).sum(-1, keepdim=True))


def scale(q_std: float, k_std: float, d: int) -> float:
    """Exercise 5. A product of the two has the spread q_std k_std; d of them add up to sqrt(d) times that."""
    return 1 / (q_std * k_std * math.sqrt(d))


def additive_scores(q: Tensor, k: Tensor, w_query: Tensor, w_key: Tensor, w: Tensor) -> Tensor:
    """Exercise 6."""
    hidden = (q @ w_query.mT)[:, None, :] + (k @ w_key.mT)[None, :, :]  # (T, S, hidden)
    return hidden.tanh() @ w
