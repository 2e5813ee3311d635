"""Multi-head attention: several attentions side by side, each in a small space of its own."""

import torch
from torch import Tensor, nn

from course_lib.attention.arguments import AttentionFn, Mask
from course_lib.attention.kv_cache import Cache
from course_lib.attention.sdpa import attention
from course_lib.positions.base import Position, Unrotated


class MultiHeadAttention(nn.Module):
    """Project to queries, keys and values, attend in each of `n_heads` heads, project the heads back together.

    x (B, T, C) -> (B, T, C) with C = d_model. Each head has the width `head_dim`, by default C / n_heads. `n_kv_heads`
    fewer key/value heads, each shared by a group of query heads, give grouped-query attention (GQA), one gives
    multi-query attention (MQA); by default there are as many as n_heads. `mask` is the pattern of every forward, such
    as `causal`; `position` a scheme whose rotate, bias and score hooks are used; `attention_fn` any `AttentionFn`.
    Raises ValueError for sizes that do not divide or are below 1.
    Source: Vaswani et al. 2017, section 3.2.2; Shazeer 2019 (MQA); Ainslie et al. 2023, "GQA", section 2.2.
    """

    def __init__(
        self, d_model: int, n_heads: int, *, n_kv_heads: int | None = None, head_dim: int | None = None,
        bias: bool = True, mask: Mask | None = None, position: Position | None = None,
        attention_fn: AttentionFn = attention,
    ) -> None:  # fmt: skip
        super().__init__()
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        check_heads(d_model, n_heads, n_kv_heads, head_dim)
        head_dim = d_model // n_heads if head_dim is None else head_dim
        self.d_model, self.n_heads, self.n_kv_heads, self.head_dim = d_model, n_heads, n_kv_heads, head_dim
        self.q_proj = nn.Linear(d_model, n_heads * head_dim, bias=bias)
        self.k_proj = nn.Linear(d_model, n_kv_heads * head_dim, bias=bias)
        self.v_proj = nn.Linear(d_model, n_kv_heads * head_dim, bias=bias)
        self.out_proj = nn.Linear(n_heads * head_dim, d_model, bias=bias)
        self.mask, self.position, self.attention_fn = mask, position, attention_fn

    def forward(
        self, x: Tensor, *, context: Tensor | None = None, key_mask: Tensor | None = None,
        q_pos: Tensor | None = None, k_pos: Tensor | None = None, cache: Cache | None = None,
    ) -> Tensor:  # fmt: skip
        """x (B, T, C) -> (B, T, C).

        `context` (B, S, C) gives the keys and values instead of x: cross-attention. `key_mask` (B, S) is True for keys
        that count. q_pos (T,) or (B, T) are the places of x, k_pos those of a context. With a `cache` x holds new
        tokens only: they come after those in the cache, and attend to them too; key_mask then is about all S of them.
        """
        for name, tensor in (("x", x), ("context", context)):
            if tensor is not None and (tensor.ndim != 3 or tensor.shape[-1] != self.d_model):
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}; needed is (B, tokens, {self.d_model})")
        q = self._heads(self.q_proj(x), self.n_heads)  # (B, H, T, D)
        source = x if context is None else context
        k = self._heads(self.k_proj(source), self.n_kv_heads)  # (B, Hkv, S, D)
        v = self._heads(self.v_proj(source), self.n_kv_heads)  # (B, Hkv, S, D)
        position = self.position
        if cache is not None:
            if context is not None or q_pos is not None or k_pos is not None:
                raise ValueError("cache: it counts the positions of x itself; give no context, q_pos or k_pos with it")
            q_pos = torch.arange(cache.length, cache.length + x.shape[1], device=x.device)
            if position is not None:
                q, k = position.rotate(q, k, q_pos, q_pos)  # keys are cached rotated
                position = Unrotated(position)
            k, v, k_pos = cache.update(k, v)
        elif context is None:
            if k_pos is not None:
                raise ValueError("k_pos: it gives the places of a context, and there is none; those of x are q_pos")
            k_pos = q_pos
        y = self.attention_fn(
            q, k, v, mask=self.mask, key_mask=key_mask, position=position, q_pos=q_pos, k_pos=k_pos
        )  # (B, H, T, D)
        return self.out_proj(y.transpose(1, 2).flatten(2))  # (B, T, C)

    def _heads(self, x: Tensor, n_heads: int) -> Tensor:
        return x.unflatten(-1, (n_heads, self.head_dim)).transpose(1, 2)  # (B, T, H D) -> (B, H, T, D)

    def extra_repr(self) -> str:
        return f"n_heads={self.n_heads}, n_kv_heads={self.n_kv_heads}, head_dim={self.head_dim}, mask={self.mask}"


def check_heads(d_model: int, n_heads: int, n_kv_heads: int, head_dim: int | None) -> None:
    """Raise ValueError for a number of heads or a width that cannot be."""
    sizes = {"d_model": d_model, "n_heads": n_heads, "n_kv_heads": n_kv_heads, "head_dim": head_dim}
    for name, value in sizes.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}; it must be at least 1")
    if head_dim is None and d_model % n_heads:
        raise ValueError(f"n_heads={n_heads} does not divide d_model={d_model}; choose another, or give head_dim")
    if n_heads % n_kv_heads:
        raise ValueError(f"n_kv_heads={n_kv_heads} does not divide n_heads={n_heads}")
