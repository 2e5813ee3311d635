"""Keys and values of tokens that were already seen, so that generating a token does not compute them again."""

from collections.abc import Sequence

import torch
from torch import Tensor


class KVCache:
    """Keeps all keys and values of one layer, up to `max_length` tokens.

    `update(k, v)` appends and returns everything that the new queries may need, with its positions. The tensors are
    made at the first update, in the type and on the device of k. `bytes()` is what they take, filled or not. For
    generation, under `torch.no_grad`: writing in place spoils gradients. Raises ValueError for a max_length below 1.
    Source: Pope et al. 2022, "Efficiently Scaling Transformer Inference", section 2.1; the idea is older.
    """

    def __init__(self, max_length: int) -> None:
        if max_length < 1:
            raise ValueError(f"max_length={max_length}; it must be at least 1")
        self.max_length, self.length = max_length, 0  # length: how many tokens were seen
        self._k: Tensor | None = None
        self._v: Tensor | None = None

    def bytes(self) -> int:
        """Bytes of the tensors that are held; 0 before the first update."""
        return sum(t.numel() * t.element_size() for t in (self._k, self._v) if t is not None)

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """k, v (B, Hkv, T, D) of new tokens -> k, v (B, Hkv, S, D) of all so far, and their positions (S,).

        Raises ValueError where they do not fit in or together, or are of another shape, type or device than before.
        """
        check_pair(k, v)
        begin, end = self.length, self.length + k.shape[2]
        if end > self.max_length:
            raise ValueError(f"k has {k.shape[2]} tokens after {begin}; the cache holds max_length={self.max_length}")
        if self._k is None or self._v is None:
            self._k, self._v = (t.new_empty(*t.shape[:2], self.max_length, t.shape[3]) for t in (k, v))
        for name, new, held in (("k", k, self._k), ("v", v, self._v)):
            check_like(name, new, held)
            held[:, :, begin:end] = new
        self.length = end
        return self._k[:, :, :end], self._v[:, :, :end], torch.arange(end, device=k.device)


class WindowKVCache:
    """Keeps the keys and values of the last `radius` tokens only: enough for `causal & window(radius)`.

    A query sees itself and `radius` tokens before it, so older ones can go: the bytes no longer grow with the text.
    Use as `KVCache`. Raises ValueError for a radius below 0. Source: Jiang et al. 2023, "Mistral 7B", section 2 (whose
    W is radius + 1).
    """

    def __init__(self, radius: int) -> None:
        if radius < 0:
            raise ValueError(f"radius={radius}; it must be 0 or more")
        self.radius, self.length = radius, 0
        self._k: Tensor | None = None
        self._v: Tensor | None = None

    def bytes(self) -> int:
        """Bytes of the tensors that are held between two updates; 0 before the first."""
        return sum(t.numel() * t.element_size() for t in (self._k, self._v) if t is not None)

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """k, v (B, Hkv, T, D) of new tokens -> those and up to `radius` before them, and their positions (S,).

        Raises ValueError for tensors that do not fit together, or are of another shape, type or device than before.
        """
        check_pair(k, v)
        if self._k is not None and self._v is not None:
            check_like("k", k, self._k)
            check_like("v", v, self._v)
            k, v = torch.cat([self._k, k], 2), torch.cat([self._v, v], 2)
        # The slice would keep the whole tensor alive: clone what is left.
        first = max(0, k.shape[2] - self.radius)
        self.length += k.shape[2] - (0 if self._k is None else self._k.shape[2])
        self._k, self._v = k[:, :, first:].clone(), v[:, :, first:].clone()
        return k, v, torch.arange(self.length - k.shape[2], self.length, device=k.device)


def check_pair(k: Tensor, v: Tensor) -> None:
    """Raise ValueError unless k and v are of the same sequences, heads and tokens: (B, Hkv, T, any width)."""
    if k.ndim != 4 or v.ndim != 4 or k.shape[:3] != v.shape[:3]:
        raise ValueError(f"k has shape {tuple(k.shape)}, v {tuple(v.shape)}; equal must be all axes but the width")


def check_like(name: str, new: Tensor, held: Tensor) -> None:
    """Raise ValueError unless `new` can stand beside what a cache holds: all axes but the tokens' are equal."""
    if (new.shape[:2], new.shape[3:]) != (held.shape[:2], held.shape[3:]) or new.dtype != held.dtype:
        raise ValueError(
            f"{name} is {new.dtype} {tuple(new.shape)}; the cache holds {held.dtype} {tuple(held.shape)}: "
            "all axes but that of the tokens must be equal"
        )
    if new.device != held.device:
        raise ValueError(f"{name} is on {new.device}; the cache is on {held.device}")


Cache = KVCache | WindowKVCache


def cached_length(caches: Sequence[Cache] | None, n_blocks: int) -> int:
    """How many tokens are in the caches of a model, 0 without; ValueError unless each block has one, equally full."""
    if caches is None:
        return 0
    lengths = [cache.length for cache in caches]
    if len(lengths) != n_blocks or len({id(cache) for cache in caches}) != n_blocks or len(set(lengths)) > 1:
        raise ValueError(f"caches: of lengths {lengths}; needed are {n_blocks} equally full ones, one for each block")
    return lengths[0]
