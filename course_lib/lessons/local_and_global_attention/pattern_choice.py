"""A pattern of attention as its sliders choose it: who may see whom, how many pairs, and its kernels."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import or_

import numpy as np
import torch
from torch import Tensor

from course_lib.attention.big_bird import draw_blocks, random_blocks
from course_lib.attention.global_local import global_local_attention
from course_lib.attention.local import block_of, is_short, local_attention
from course_lib.attention.masks import Pattern, dilated, full, global_tokens, window
from course_lib.attention.sdpa import attention
from course_lib.checks import check_at_least, check_choice

KINDS = ("full", "window", "window + global", "BigBird", "dilated")
CATEGORIES = ("nothing", "all", "window", "random block", "global", "computed in vain")  # by their number in a map
HEADS, HEAD_DIM = 8, 64  # of what is counted and measured


@dataclass(frozen=True)
class Choice:
    """A pattern for texts of any length; what its kind does not know is ignored. ValueError for what cannot be.

    "window + global" is Longformer's, "BigBird" adds `n_random` blocks of keys for each block of `block_of(radius)`
    queries, drawn for the length at hand; `places` are those of global tokens, `dilation` is of "dilated" alone.
    """

    kind: str
    radius: int = 8
    n_random: int = 1
    dilation: int = 2
    places: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        check_at_least("radius", self.radius, 0)
        check_at_least("n_random", self.n_random, 0)
        check_at_least("dilation", self.dilation, 1)
        check_at_least("places", min(self.places, default=0), 0)

    def globals(self, length: int) -> list[int]:
        """Places of the global tokens in a text of `length` tokens."""
        known = self.kind in ("window + global", "BigBird")
        return sorted({place for place in self.places if place < length}) if known else []

    def blocks(self, length: int) -> Tensor | None:
        """The random blocks (n_blocks, n_random), None for another pattern."""
        n_blocks = -(-length // block_of(self.radius))
        return draw_blocks(n_blocks, self.n_random, seed=0) if self.kind == "BigBird" else None

    @property
    def has_kernel(self) -> bool:
        """Whether there is a kernel in blocks."""
        return self.kind not in ("full", "dilated")

    def is_blocked(self, length: int) -> bool:
        """Whether its kernel cuts a text of `length` tokens into blocks: it computes short ones whole."""
        return self.has_kernel and not is_short(torch.empty(length, 0), block_of(self.radius))

    def parts(self, length: int) -> dict[str, Pattern]:
        """The patterns that it is made of, by category; where they meet, the last one counts."""
        if self.kind == "full":
            return {"all": full}
        near = dilated(self.radius, self.dilation) if self.kind == "dilated" else window(self.radius)
        found = {"window": near}
        if (blocks := self.blocks(length)) is not None:
            found["random block"] = random_blocks(blocks, block_of(self.radius))
        return found | ({"global": global_tokens(places)} if (places := self.globals(length)) else {})

    def pattern(self, length: int) -> Pattern:
        """All parts together."""
        return reduce(or_, self.parts(length).values())

    def map(self, length: int) -> np.ndarray:
        """For each pair (T, T) the number of its category in CATEGORIES; 0 is neither allowed nor computed."""
        places = torch.arange(length)
        codes = torch.zeros(length, length, dtype=torch.int8)
        block = places // block_of(self.radius)
        computed = (block[:, None] - block).abs() <= 1 if self.is_blocked(length) else torch.ones_like(codes).bool()
        codes[computed] = CATEGORIES.index("computed in vain")
        for name, pattern in self.parts(length).items():
            codes[pattern.dense(places, places)] = CATEGORIES.index(name)
        return codes.numpy()

    def pairs(self, length: int) -> int:
        """As `pattern(length).pairs(length)`, without the map: diagonals, then blocks, then what global tokens add."""
        if self.kind == "full":
            return length**2
        others = np.ones(length, bool)
        others[self.globals(length)] = False
        n_global = length - int(others.sum())
        pairs = 2 * n_global * length - n_global**2
        step = self.dilation if self.kind == "dilated" else 1
        for gap in range(0, min(self.radius * step + 1, length), step):
            pairs += (1 if gap == 0 else 2) * int((others[gap:] & others[: length - gap]).sum())
        if (blocks := self.blocks(length)) is not None:  # none of them is a neighbour: no pair counts twice
            size = block_of(self.radius)
            counts = np.pad(others, (0, -length % size)).reshape(-1, size).sum(1)
            keys = np.where(blocks.numpy() >= 0, counts[blocks.numpy()], 0).sum(1)
            pairs += int((counts * keys).sum())
        return pairs

    def runs(self, length: int) -> dict[str, Callable[[], Tensor]]:
        """The attention of random vectors, "dense" with the mask made before, and "blocked" where there is a kernel."""
        generator = torch.Generator().manual_seed(0)
        q, k, v = torch.randn(3, 1, HEADS, length, HEAD_DIM, generator=generator, dtype=torch.float32)
        places = torch.arange(length)
        mask = None if self.kind == "full" else self.pattern(length).dense(places, places)
        found: dict[str, Callable[[], Tensor]] = {"dense": lambda: attention(q, k, v, mask=mask)}
        chosen, blocks = self.globals(length), self.blocks(length)
        if self.kind == "window":
            found["blocked"] = lambda: local_attention(q, k, v, self.radius)
        elif self.kind in ("window + global", "BigBird"):
            global_mask = torch.isin(places, torch.tensor(chosen, dtype=torch.int64))
            found["blocked"] = lambda: global_local_attention(
                q, k, v, self.radius, global_mask=global_mask, blocks=blocks
            )
        return found
