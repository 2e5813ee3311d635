"""Solutions to the exercises of lesson 06. Try first: there are hints in the notebook."""

import math

import torch
from torch import Tensor


def weights(q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
    """Exercise 1: attention weights."""
    scores = q @ k.mT / math.sqrt(q.shape[-1])  # (..., T, S)
    return scores.masked_fill(~allowed, -torch.inf).softmax(-1)
