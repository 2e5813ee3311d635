"""Attention patterns: which query may look at which key, said once as a function of their positions."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.checks import check_at_least
from course_lib.positions.base import check_positions

Allowed = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Pattern:
    """`allowed(q_pos, k_pos) -> bool` for positions that broadcast against each other; True = may attend.

    Everything else is made of that one function: the dense mask of a picture, a kernel's blocks, the count of pairs.
    Patterns combine: `causal & window(64)` allows what both allow, `|` what either allows. Example, "each to itself and
    to the first token": `Pattern("mine", lambda q_pos, k_pos: (q_pos == k_pos) | (k_pos == 0))`. A lambda cannot be
    pickled, and a model that is to be saved whole needs a function with a name. `reach` is how many places a query sees
    back at most: what a cache of the last keys must know.
    """

    name: str
    allowed: Allowed
    reach: float = math.inf

    def __call__(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """`allowed`; ValueError where that gives no bool tensor."""
        mask = self.allowed(q_pos, k_pos)
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = getattr(mask, "dtype", type(mask).__name__)
            raise ValueError(f"allowed of the pattern {self.name} gives {kind}; needed is a bool tensor")
        return mask

    def __and__(self, other: "Pattern") -> "Pattern":
        return Pattern(f"({self.name} & {other.name})", partial(_both, self, other), min(self.reach, other.reach))

    def __or__(self, other: "Pattern") -> "Pattern":
        return Pattern(f"({self.name} | {other.name})", partial(_either, self, other), max(self.reach, other.reach))

    def __repr__(self) -> str:
        return self.name

    def dense(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """The pattern as a matrix: q_pos (T,) or (B, T), k_pos (S,) or (B, S) -> bool (T, S) or (B, T, S).

        Rows are queries, columns are keys. Raises ValueError for positions that are no integers or have more axes, and
        for a function `allowed` that gives no bool tensor: numbers would be added to the logits.
        """
        check_positions("q_pos", q_pos)
        check_positions("k_pos", k_pos)
        mask = self(q_pos.unsqueeze(-1), k_pos.unsqueeze(-2))
        batch = torch.broadcast_shapes(q_pos.shape[:-1], k_pos.shape[:-1])
        wanted = (*batch, q_pos.shape[-1], k_pos.shape[-1])
        fits = mask.ndim <= len(wanted) and all(
            n in (1, want) for n, want in zip(mask.shape[::-1], wanted[::-1], strict=False)
        )
        if not fits or mask.device != q_pos.device:
            raise ValueError(
                f"allowed of the pattern {self.name} gives {tuple(mask.shape)} on {mask.device}; needed is {wanted} on "
                f"{q_pos.device}"
            )
        return mask.expand(wanted)

    def pairs(self, length: int) -> int:
        """How many pairs (query, key) of a text of `length` tokens may meet: what attention must compute."""
        places = torch.arange(length)
        return sum(int(self.dense(rows, places).sum()) for rows in places.split(1024))  # never the whole matrix

    def blocks(self, length: int, block: int) -> Tensor:
        """Which blocks of `block` x `block` pairs hold an allowed one: bool (n, n), n blocks of queries and of keys.

        A kernel that works in blocks computes these, whole. Raises ValueError for a block below 1.
        """
        check_at_least("block", block, 1)
        places = torch.arange(length)
        rows = []
        for queries in places.split(block):
            columns = F.pad(self.dense(queries, places).any(0), (0, -length % block))
            rows.append(columns.unflatten(0, (-1, block)).any(-1))
        return torch.stack(rows)


def _both(first: Pattern, second: Pattern, q_pos: Tensor, k_pos: Tensor) -> Tensor:
    return first(q_pos, k_pos) & second(q_pos, k_pos)


def _either(first: Pattern, second: Pattern, q_pos: Tensor, k_pos: Tensor) -> Tensor:
    return first(q_pos, k_pos) | second(q_pos, k_pos)


def _all(q_pos: Tensor, k_pos: Tensor) -> Tensor:
    return (q_pos == q_pos) & (k_pos == k_pos)


def _not_after(q_pos: Tensor, k_pos: Tensor) -> Tensor:
    return k_pos <= q_pos


# Each sees all.
full = Pattern("full", _all)

# A token sees itself and what came before it: nothing of the future.
causal = Pattern("causal", _not_after)


def window(radius: int) -> Pattern:
    """Each query sees the keys at most `radius` places away, on both sides: 2 radius + 1 of them.

    Longformer's and ModernBERT's "window size" w is 2 radius; Mistral's "sliding window" W is `causal & window(W - 1)`.
    Raises ValueError for a radius below 0.
    """
    check_at_least("radius", radius, 0)
    return Pattern(f"window({radius})", partial(_within, min(radius, _FARTHEST)), radius)


def _within(radius: int, q_pos: Tensor, k_pos: Tensor) -> Tensor:
    return _distance(q_pos, k_pos) <= radius


_FARTHEST = 2**62  # a larger radius is no int64


def _distance(q_pos: Tensor, k_pos: Tensor) -> Tensor:
    return (q_pos.long() - k_pos.long()).abs()  # int32 would overflow


def dilated(radius: int, dilation: int) -> Pattern:
    """A window with gaps: `radius` keys on each side, `dilation` places apart. It reaches radius x dilation places.

    Only a pattern: blocks of neighbours hold one key in `dilation` that counts, so that a kernel in blocks gains
    nothing, and the paper wrote one of its own for GPUs. Raises ValueError for a radius below 0, a dilation below 1.
    Source: Beltagy, Peters, Cohan 2020, "Longformer", section 3.1.
    """
    check_at_least("radius", radius, 0)
    check_at_least("dilation", dilation, 1)
    far, step = min(radius * dilation, _FARTHEST), min(dilation, _FARTHEST)
    return Pattern(f"dilated({radius}, {dilation})", partial(_within_in_steps, far, step), radius * dilation)


def _within_in_steps(far: int, step: int, q_pos: Tensor, k_pos: Tensor) -> Tensor:
    distance = _distance(q_pos, k_pos)
    return (distance <= far) & (distance % step == 0)


def global_tokens(places: Iterable[int]) -> Pattern:
    """The tokens at `places` see all and are seen by all; others see only them.

    Raises ValueError for a place below 0. Source: Beltagy, Peters, Cohan 2020, "Longformer", section 3.1.
    """
    chosen = tuple(sorted({check_at_least("places", place, 0) for place in places}))
    return Pattern(f"global_tokens({', '.join(map(str, chosen))})", partial(_either_is_among, chosen))


def _either_is_among(chosen: tuple[int, ...], q_pos: Tensor, k_pos: Tensor) -> Tensor:
    among = torch.tensor(chosen, dtype=torch.int64, device=q_pos.device)
    queries, keys = ((pos.unsqueeze(-1) == among).any(-1) for pos in (q_pos, k_pos))
    return queries | keys
