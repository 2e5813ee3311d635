"""Multi-head attention: several attentions side by side, each in a small space of its own."""

import torch
from torch import Tensor, nn

from course_lib.attention.arguments import AttentionFn, Mask, check_key_mask
from course_lib.attention.kv_cache import Cache, check_reach
from course_lib.attention.places import WHOLE_TEXT, Places
from course_lib.attention.sdpa import attention
from course_lib.checks import check_sizes, kind_of
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
        self, x: Tensor, places: Places = WHOLE_TEXT, *, context: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """x (B, T, C) -> (B, T, C).

        `places` tells where the tokens stand and which count. `context` (B, S, C) gives the keys and values instead of
        x: cross-attention. With a `cache`, x holds new tokens only, see `cached`.
        """
        self._check(x, places, context, cache)
        if cache is not None:
            return self.cached(x, places, cache)
        source = x if context is None else context
        q = self._heads(self.q_proj(x), self.n_heads)  # (B, H, T, D)
        k = self._heads(self.k_proj(source), self.n_kv_heads)  # (B, Hkv, S, D)
        v = self._heads(self.v_proj(source), self.n_kv_heads)  # (B, Hkv, S, D)
        k_pos = places.pos if context is None else places.context_pos
        y = self.attention_fn(
            q, k, v, mask=self.mask, key_mask=places.key_mask, position=self.position, q_pos=places.pos, k_pos=k_pos
        )  # (B, H, T, D)
        return self.out_proj(y.transpose(1, 2).flatten(2))  # (B, T, C)

    def cached(self, x: Tensor, places: Places, cache: Cache) -> Tensor:
        """`forward` of new tokens x (B, T, C), which come after those in the cache, attend to them too, and join them.

        A `key_mask` is about all S tokens, old and new. Keys go into the cache as `position` has rotated them.
        """
        pos, position = places.pos, self.position
        if pos is None:
            pos = torch.arange(cache.length, cache.length + x.shape[1], device=x.device)
        q, k = self._heads(self.q_proj(x), self.n_heads), self._heads(self.k_proj(x), self.n_kv_heads)
        v = self._heads(self.v_proj(x), self.n_kv_heads)  # (B, Hkv, T, D)
        if position is not None:
            q, k = position.rotate(q, k, pos, pos)
            position = Unrotated(position)
        k, v, k_pos = cache.update(k, v, pos)  # (B, Hkv, S, D), (S,) or (B, S)
        key_mask = None if places.key_mask is None else places.key_mask[:, cache.length - k.shape[2] :]
        y = self.attention_fn(q, k, v, mask=self.mask, key_mask=key_mask, position=position, q_pos=pos, k_pos=k_pos)
        return self.out_proj(y.transpose(1, 2).flatten(2))  # (B, T, C)

    def _heads(self, x: Tensor, n_heads: int) -> Tensor:
        return x.unflatten(-1, (n_heads, self.head_dim)).transpose(1, 2)  # (B, T, H D) -> (B, H, T, D)

    def _check(self, x: Tensor, places: Places, context: Tensor | None, cache: Cache | None) -> None:
        check_stream("x", x, self.d_model)
        if context is not None:
            check_stream("context", context, self.d_model)
        if context is None and places.context_pos is not None:
            raise ValueError("context_pos: it gives the places of a context, and there is none; those of x are pos")
        if places.global_mask is not None:
            raise ValueError("global_mask: this attention knows no global tokens; GlobalLocalAttention does")
        if cache is not None:
            if context is not None:
                raise ValueError("cache: it goes on with the text of x; give no context with it")
            check_reach(self.mask, cache)
            if places.key_mask is not None:
                check_key_mask(places.key_mask, x.shape[0], cache.length + x.shape[1])

    def set_attention_fn(self, attention_fn: AttentionFn) -> None:
        """Use another function from now on; torch alone would not put a function where a module was, or the reverse."""
        self._modules.pop("attention_fn", None)
        self.__dict__.pop("attention_fn", None)
        self.attention_fn = attention_fn

    def extra_repr(self) -> str:
        return f"n_heads={self.n_heads}, n_kv_heads={self.n_kv_heads}, head_dim={self.head_dim}, mask={self.mask}"


def check_stream(name: str, x: Tensor, d_model: int) -> None:
    """Raise ValueError unless x is a tensor (B, tokens, d_model)."""
    if not isinstance(x, Tensor) or x.ndim != 3 or x.shape[-1] != d_model:
        kind = f"has shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"is {kind_of(x)}"
        raise ValueError(f"{name} {kind}; needed is (B, tokens, {d_model})")


def check_heads(d_model: int, n_heads: int, n_kv_heads: int, head_dim: int | None) -> None:
    """Raise ValueError for a number of heads or a width that cannot be."""
    check_sizes(d_model=d_model, n_heads=n_heads, n_kv_heads=n_kv_heads)
    if head_dim is not None:
        check_sizes(head_dim=head_dim)
    elif d_model % n_heads:
        raise ValueError(f"n_heads={n_heads} does not divide d_model={d_model}; choose another, or give head_dim")
    if n_heads % n_kv_heads:
        raise ValueError(f"n_kv_heads={n_kv_heads} does not divide n_heads={n_heads}")
