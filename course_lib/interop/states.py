"""State dicts with the names that others gave: older ones made new, and in words what is missing or left over."""

import re
from collections.abc import Mapping

from torch import Tensor

from course_lib.checks import check_at_least


class State(dict[str, Tensor]):
    """A state dict whose every tensor is asked for: ValueError names the one that is missing, or `done` one left over.

    `model` is what it should be of, with `n_layers` layers, for the message.
    """

    def __init__(self, state: Mapping[str, Tensor], model: str, n_layers: int) -> None:
        super().__init__(state)
        self.model, self.n_layers, self.asked = model, check_at_least("n_layers", n_layers, 1), set[str]()

    def __getitem__(self, name: str) -> Tensor:
        self.asked.add(name)
        return super().__getitem__(name)

    def __missing__(self, name: str) -> Tensor:
        raise ValueError(f"state has no {name!r}: {self._layers() or self._sample()}")

    def done(self) -> None:
        """Raise ValueError where something was not asked for."""
        if rest := [name for name in self if name not in self.asked]:
            hint = self._layers() or f"a {self.model} has no place for it; leave it out if it is not needed"
            raise ValueError(f"state has {rest[0]!r}{f' and {len(rest) - 1} more' if rest[1:] else ''}: {hint}")

    def _layers(self) -> str:
        numbers = [int(found[1]) for name in self if (found := re.search(r"\.(\d+)\.", name))]
        count = max(numbers, default=-1) + 1
        return "" if count in (0, self.n_layers) else f"it has {count} layers, n_layers={self.n_layers}"

    def _sample(self) -> str:
        names = ", ".join(map(repr, list(self)[:3]))
        return f"it has {len(self)} others, such as {names}; is it of a {self.model}?" if self else "it is empty"


def with_new_names(
    state: Mapping[str, Tensor], *, stem: str, heads: tuple[str, ...], renamed: Mapping[str, str], buffers: str
) -> dict[str, Tensor]:
    """The state with the names that `transformers` gives today: files on the hub have those of their time.

    Where no name begins with `stem`, as in a file of the bare model, all get it but those of `heads`; `renamed` maps
    old names to new ones; what the pattern `buffers` fits are masks and angles, which newer models compute.
    """
    named = {renamed.get(name, name): tensor for name, tensor in state.items() if not re.search(buffers, name)}
    if any(name.startswith(stem) for name in named):
        return named
    return {name if name.startswith(heads) else stem + name: tensor for name, tensor in named.items()}
