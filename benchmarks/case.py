"""What a benchmark is: a case, its settings, and for each setting a race of ours against rivals."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

Setting = dict[str, Any]
Run = Callable[[], Mapping[str, Tensor]]
CASES = ("norms", "training_step", "gpt2_step", "pythia_step", "decoding", "local", "bpe")
AGAIN = "again: "  # before the name of a rival's copy


@dataclass(frozen=True)
class Race:
    """Runs that compute the same thing, ours and the rivals', by name; Races compare each of ours with each rival.

    A run takes no argument and returns named tensors: what is timed is also what is compared, before any timing. Their
    largest difference, relative to the largest entry, must stay within `tolerance`. `dtype` is the one of its matrix
    products; `model_flops` is what one run must compute (`flops.count_flops`), or None where no matrix product is made.
    Raises ValueError when a side is empty or a name stands on both.
    """

    ours: Mapping[str, Run]
    rivals: Mapping[str, Run]
    dtype: torch.dtype
    tolerance: float
    model_flops: int | None

    def __post_init__(self) -> None:
        for side in ("ours", "rivals"):
            if not getattr(self, side):
                raise ValueError(f"{side} is empty; a race needs at least one run on each side")
        if both := sorted(set(self.ours) & set(self.rivals)):
            raise ValueError(f"ours and rivals share the name {both[0]!r}; names must differ")

    @cached_property
    def runs(self) -> dict[str, Run]:
        """All runs by name: the rivals, of each a copy with tensors of its own (the A/A control), and ours.

        The copies are made when this is first asked for.
        """
        copies = {AGAIN + name: deepcopy(run) for name, run in self.rivals.items()}
        return {**self.rivals, **copies, **self.ours}


@dataclass(frozen=True)
class Case:
    """A benchmark: a question, and `race(setting, device)`, which builds the race of one of its `settings`.

    A setting holds JSON values only (shape, dtype, ...): it labels the rows of the report.
    """

    name: str
    question: str
    settings: Sequence[Setting]
    race: Callable[[Setting, torch.device], Race]


def get_case(name: str) -> Case:
    """The case called `name`; ValueError names those there are."""
    if name not in CASES:
        raise ValueError(f"case={name!r}; cases are {', '.join(CASES)}")
    return import_module(f"benchmarks.cases.{name}").CASE
