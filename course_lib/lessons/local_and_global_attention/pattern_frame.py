"""What a pattern of attention costs beside its map: pairs, operations, bytes, and measured milliseconds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from course_lib.attention.local import block_of
from course_lib.checks import check_range
from course_lib.lessons.local_and_global_attention.pattern_choice import HEAD_DIM, HEADS, Choice
from course_lib.measure import seconds, timed

FLOAT = 4  # bytes of a number
LONGEST = 256  # a map of more would be finer than the screen
FAR = 4096  # the second length of every count
TIMED = (64, 256, 512, 1024)

Measure = Callable[[Callable[[], object]], float]


@dataclass(frozen=True)
class Cost:
    """What a pattern costs for a text of `length` tokens."""

    length: int
    pairs: int  # that may meet
    computed: int  # that the kernel computes: whole blocks, padding, and the rows of global tokens
    weight_bytes: int  # of all T x T weights of all heads, if they were stored
    copied_bytes: int  # of the copies of keys and values that the kernel in blocks reads; 0: no blocks

    @property
    def share(self) -> float:
        """Pairs that may meet, of all T x T."""
        return self.pairs / self.length**2

    @property
    def flops(self) -> int:
        """Of the two matrix products that the kernel computes: 4 head widths a pair and head."""
        return 4 * HEAD_DIM * HEADS * self.computed


def cost(choice: Choice, length: int) -> Cost:
    """Count, without computing attention."""
    weights = FLOAT * HEADS * length**2
    if not choice.is_blocked(length):
        return Cost(length, choice.pairs(length), length**2, weights, 0)
    block, n_global = block_of(choice.radius), len(choice.globals(length))
    blocks = choice.blocks(length)
    n_keys = block * (3 + (0 if blocks is None else blocks.shape[1])) + n_global  # of each block of queries
    n_blocks = -(-length // block)
    # A window alone reads overlapping views of one copy, with a block of nothing at each end; keys of more groups are
    # put side by side, for each block anew.
    n_copied = (n_blocks + 2) * block if choice.kind == "window" else n_blocks * n_keys
    copied = FLOAT * HEADS * HEAD_DIM * 2 * n_copied
    return Cost(length, choice.pairs(length), n_blocks * block * n_keys + n_global * length, weights, copied)


def quick(run: Callable[[], object]) -> float:
    """Seconds of the fastest of up to five calls, one where it is slow: what else the machine does only adds."""
    found = seconds(run, "cpu", 1)
    while len(found) < 5 and sum(found) < 0.01:
        found.append(timed(run, 1, torch.device("cpu")))
    return min(found)


@dataclass(frozen=True)
class PatternFrame:
    """A pattern's map, its costs at T and at 4,096 tokens, and measured seconds at several lengths."""

    choice: Choice
    map: np.ndarray  # (T, T) numbers of CATEGORIES
    here: Cost
    far: Cost
    lengths: tuple[int, ...]
    seconds: dict[str, np.ndarray]  # "dense" and perhaps "blocked": (lengths,)

    @property
    def faster_from(self) -> int | None:
        """The first measured length from which on the kernel in blocks was faster at all of them; None: at none."""
        if "blocked" not in self.seconds:
            return None
        lost = np.flatnonzero(self.seconds["blocked"] >= self.seconds["dense"])
        return next(iter(self.lengths[lost[-1] + 1 if len(lost) else 0 :]), None)

    def counts(self) -> str:
        """What was counted, in one line: the same on every machine."""
        here, far = self.here, self.far
        return (
            f"{self.choice.kind}, T = {here.length}: {here.pairs:,} pairs, {here.share:.1%} of all; computed are "
            f"{here.computed:,} ({here.flops / 1e6:.3g} MFLOP). T = {far.length}: {far.share:.2g} of all pairs, "
            f"{far.computed / far.length**2:.2g} computed"
        )

    def text(self) -> str:
        """The frame in one line, for readers who cannot see the picture."""
        now = self.lengths.index(self.here.length)
        times = ", ".join(f"{name} {values[now] * 1e3:.2g} ms" for name, values in self.seconds.items())
        return f"{self.counts()}. Measured here at T = {self.here.length}: {times}"


def pattern_frame(
    kind: str, length: int, radius: int, n_random: int, dilation: int, places: Sequence[int], *,
    measure: Measure = quick, timed: Sequence[int] = TIMED,
) -> PatternFrame:  # fmt: skip
    """Map, count and measure a `Choice` at `length` tokens, 2 to 256.

    `measure(run)` gives the seconds of a call; it is asked for `length` and the lengths `timed`. Raises ValueError as
    `Choice` does, for another length, and for a global token behind the end of the text.
    """
    check_range("length", length, 2, LONGEST)
    choice = Choice(kind, radius, n_random, dilation, tuple(places))
    if choice.globals(max(places, default=0) + 1) != choice.globals(length):
        raise ValueError(f"A global token at place {max(places)} needs a text of {max(places) + 1} tokens; T={length}.")
    lengths = tuple(sorted({*timed, length}))
    runs = [choice.runs(n) for n in lengths]
    found = {name: np.array([measure(run[name]) for run in runs]) for name in runs[0]}
    return PatternFrame(choice, choice.map(length), cost(choice, length), cost(choice, FAR), lengths, found)
