"""Several optimizers, each with parameters of its own, in the place of one."""

from itertools import islice
from typing import Any

import torch
from torch.optim import Optimizer

from course_lib.checks import kind_of
from course_lib.optim.muon import refuse_closure


class Joined(Optimizer):
    """`parts`, optimizers of different parameters, as one: their groups in order, one state, one step.

    Raises ValueError for no parts, what is no optimizer or joined itself, one that has made steps already, and a
    parameter that two of them have.
    """

    def __init__(self, *parts: Optimizer) -> None:
        if not parts:
            raise ValueError("parts is empty; needed is one optimizer or more")
        for part in parts:
            if not isinstance(part, Optimizer):
                raise ValueError(f"parts: {kind_of(part)}; needed are optimizers")
            if isinstance(part, Joined) or part.state:
                what = "is joined" if isinstance(part, Joined) else "has made steps"
                raise ValueError(f"parts: one {what} already; needed are new optimizers")
        held = [parameter for part in parts for group in part.param_groups for parameter in group["params"]]
        if twice := len(held) - len(set(held)):
            raise ValueError(f"parts: {twice} parameters belong to more than one optimizer")
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._joined = True
        self._share()

    def _share(self) -> None:
        """Let the parts work on this optimizer's own groups and state, so that there is one copy of each."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = list(islice(groups, len(part.param_groups)))
            part.state = self.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Only the parts have groups: ValueError once they are joined."""
        if hasattr(self, "_joined"):
            raise ValueError("param_group: none can be added to joined optimizers; add it to a part before joining")
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state that `state_dict` gave."""
        super().load_state_dict(state_dict)
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles keep: the parts too."""
        return super().__getstate__() | {"parts": self.parts, "_joined": True}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of each part, in order. Raises ValueError for a closure, which would not be called."""
        refuse_closure(closure)
        for part in self.parts:
            part.step()
