"""Solutions to the exercises of lesson 03. Try first: each has a hint in the notebook."""

from collections.abc import Callable

import torch
from torch import Tensor

Layer = Callable[[Tensor], Tensor]


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Exercise 1."""
    B, T, C = x.shape
    return x.view(B, T, n_heads, C // n_heads).transpose(1, 2)


def merge_heads(y: Tensor) -> Tensor:
    """Exercise 1."""
    return y.transpose(1, 2).flatten(2)


def multi_head(x: Tensor, q_proj: Layer, k_proj: Layer, v_proj: Layer, out_proj: Layer, n_heads: int) -> Tensor:
    """Exercise 2."""
    q, k, v = (split_heads(project(x), n_heads) for project in (q_proj, k_proj, v_proj))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
    weights = scores.masked_fill(future, -torch.inf).softmax(-1)
    return out_proj(merge_heads(weights @ v))


def grouped_weight(weight: Tensor, n_heads: int, n_kv_heads: int) -> Tensor:
    """Exercise 3."""
    heads = weight.unflatten(0, (n_kv_heads, n_heads // n_kv_heads, -1))  # (Hkv, group, D, C)
    return heads.mean(1).flatten(0, 1)


def cached_step(
    q: Tensor, k: Tensor, v: Tensor, past: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Exercise 4."""
    if past is not None:
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return weights @ v, (k, v)


def top_p(probabilities: Tensor, p: float) -> Tensor:
    """Exercise 5."""
    ordered, order = probabilities.sort(descending=True, stable=True)
    before = ordered.cumsum(0) - ordered  # what the likelier tokens have together
    kept = torch.zeros_like(probabilities)
    kept[order] = ordered * (before < p)
    return kept / kept.sum()


def induction(weights: Tensor, length: int) -> Tensor:
    """Exercise 6. Query 1 + length + i holds the second copy of token i; key 2 + i is the one after its first copy."""
    queries = torch.arange(1 + length, 1 + 2 * length)
    return weights[queries, queries - length + 1].mean()
