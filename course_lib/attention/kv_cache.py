"""Keys and values of tokens that were already seen, so that generating a token does not compute them again."""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from course_lib.attention.masks import Pattern
from course_lib.checks import check_at_least


class Cache(Protocol):
    """What attention asks of a cache, whatever it holds."""

    length: int  # how many tokens were seen
    reach: float  # how far back from a new token it is sure to hold all

    def update(self, k: Tensor, v: Tensor, pos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take k, v (B, Hkv, T, D) of new tokens at pos (T,) or (B, T); give what they may need, S tokens of each."""
        ...

    def bytes(self) -> int:
        """Bytes of the tensors that are held."""
        ...


class KVCache:
    """Keeps all keys and values of one layer, up to `max_length` tokens.

    `update(k, v, pos)` appends and returns everything so far. The tensors are made at the first update, in the type and
    on the device of k. `bytes()` is what they take, filled or not; positions are not counted. For generation, under
    `torch.no_grad`: writing in place spoils gradients. Raises ValueError for a max_length below 1.
    Source: Pope et al. 2022, "Efficiently Scaling Transformer Inference", section 2.1; the idea is older.
    """

    reach = math.inf

    def __init__(self, max_length: int) -> None:
        self.max_length, self.length = check_at_least("max_length", max_length, 1), 0
        self._k: Tensor | None = None
        self._v: Tensor | None = None
        self._pos: Tensor | None = None

    def bytes(self) -> int:
        """Bytes of the keys and values that are held; 0 before the first update."""
        return sum(t.numel() * t.element_size() for t in (self._k, self._v) if t is not None)

    def update(self, k: Tensor, v: Tensor, pos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """k, v (B, Hkv, T, D) of new tokens, pos (T,) or (B, T) -> k, v (B, Hkv, S, D) and pos (S,) or (B, S) of all.

        Raises ValueError, and keeps what it had, where they do not fit in or together, or are of another shape, type or
        device than before.
        """
        check_pair(k, v, pos)
        begin, end = self.length, self.length + k.shape[2]
        if end > self.max_length:
            raise ValueError(f"k has {k.shape[2]} tokens after {begin}; the cache holds max_length={self.max_length}")
        if self._k is None or self._v is None:
            self._k, self._v = (t.new_empty(*t.shape[:2], self.max_length, t.shape[3]) for t in (k, v))
        for name, new, held in (("k", k, self._k), ("v", v, self._v)):
            check_like(name, new, held)
        self._k[:, :, begin:end], self._v[:, :, begin:end] = k, v
        # Up to `length`: who sets it back, as after a guess that was refused, takes tokens away.
        self._pos, self.length = _appended(None if self._pos is None else self._pos[..., :begin], pos), end
        return self._k[:, :, :end], self._v[:, :, :end], self._pos


class WindowKVCache:
    """Keeps the keys and values of the last `radius` tokens only: enough for `causal & window(radius)`.

    A query sees itself and `radius` tokens before it, so older ones can go: the bytes no longer grow with the text.
    Use as `KVCache`. Raises ValueError for a radius below 0. Source: Jiang et al. 2023, "Mistral 7B", section 2 (whose
    W is radius + 1).
    """

    def __init__(self, radius: int) -> None:
        self.radius, self.length = check_at_least("radius", radius, 0), 0
        self.reach = float(radius)
        self._k: Tensor | None = None
        self._v: Tensor | None = None
        self._pos: Tensor | None = None

    def bytes(self) -> int:
        """Bytes of the keys and values that are held between two updates; 0 before the first."""
        return sum(t.numel() * t.element_size() for t in (self._k, self._v) if t is not None)

    def update(self, k: Tensor, v: Tensor, pos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """k, v (B, Hkv, T, D) of new tokens, pos (T,) or (B, T) -> those and up to `radius` before them, and all pos.

        Raises ValueError for tensors that do not fit together, or are of another shape, type or device than before.
        """
        check_pair(k, v, pos)
        length = self.length + k.shape[2]
        if self._k is not None and self._v is not None:
            check_like("k", k, self._k)
            check_like("v", v, self._v)
            k, v = torch.cat([self._k, k], 2), torch.cat([self._v, v], 2)
        pos = _appended(self._pos, pos)
        # The slice would keep the whole tensor alive: clone what is left.
        first = max(0, k.shape[2] - self.radius)
        self._k, self._v, self._pos = k[:, :, first:].clone(), v[:, :, first:].clone(), pos[..., first:].clone()
        self.length = length
        return k, v, pos


def _appended(held: Tensor | None, new: Tensor) -> Tensor:
    """Places of tokens with those of new ones after them; rows where either has rows."""
    if held is None:
        return new
    rows = max(len(pos) if pos.ndim == 2 else 0 for pos in (held, new))
    parts = [pos.expand(rows, -1) if rows else pos for pos in (held, new)]
    return torch.cat(parts, -1)


def check_pair(k: Tensor, v: Tensor, pos: Tensor) -> None:
    """Raise ValueError unless k, v (B, Hkv, T, any width) and pos (T,) or (B, T) are of the same tokens."""
    if k.ndim != 4 or v.ndim != 4 or k.shape[:3] != v.shape[:3]:
        raise ValueError(f"k has shape {tuple(k.shape)}, v {tuple(v.shape)}; equal must be all axes but the width")
    if pos.shape not in ((k.shape[2],), (1, k.shape[2]), (k.shape[0], k.shape[2])):
        raise ValueError(f"pos has shape {tuple(pos.shape)}; needed is (T,) or (B, T) for k of {tuple(k.shape)}")


def check_like(name: str, new: Tensor, held: Tensor) -> None:
    """Raise ValueError unless `new` can stand beside what a cache holds: all axes but the tokens' are equal."""
    if (new.shape[:2], new.shape[3:]) != (held.shape[:2], held.shape[3:]) or new.dtype != held.dtype:
        raise ValueError(
            f"{name} is {new.dtype} {tuple(new.shape)}; the cache holds {held.dtype} {tuple(held.shape)}: "
            "all axes but that of the tokens must be equal"
        )
    if new.device != held.device:
        raise ValueError(f"{name} is on {new.device}; the cache is on {held.device}")


def check_reach(mask: object, cache: Cache) -> None:
    """Raise ValueError where a query may see farther back than the cache is sure to hold."""
    seen = mask.reach if isinstance(mask, Pattern) else math.inf
    if seen > cache.reach:
        raise ValueError(
            f"cache: it holds {cache.reach:g} tokens before a new one, and mask={mask} sees farther back; needed is "
            f"a pattern such as causal & window({cache.reach:g}), or a KVCache"
        )


def cached_length(caches: Sequence[Cache] | None, n_blocks: int) -> int:
    """How many tokens are in the caches of a model, 0 without; ValueError unless each block has one, equally full."""
    if caches is None:
        return 0
    lengths = [cache.length for cache in caches]
    if len(lengths) != n_blocks or len({id(cache) for cache in caches}) != n_blocks or len(set(lengths)) > 1:
        raise ValueError(f"caches: of lengths {lengths}; needed are {n_blocks} equally full ones, one for each block")
    return lengths[0]
