"""The only recorder of what happens inside a model."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn


def select(names: str | Iterable[str], known: Iterable[str]) -> list[str]:
    """Those of `known` that a name or pattern in `names` matches, level by level, in the order of `known`.

    `*` does not reach over a dot: "blocks.*" matches blocks.0, not blocks.0.mlp. Raises ValueError for a pattern that
    matches nothing.
    """

    def matches(name: str, pattern: str) -> bool:
        parts, patterns = name.split("."), pattern.split(".")
        return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))

    patterns, known = [names] if isinstance(names, str) else list(names), list(known)
    for pattern in patterns:
        if not any(matches(name, pattern) for name in known):
            raise ValueError(f"names: {pattern!r} matches nothing; there are {', '.join(filter(None, known[:8]))}, …")
    return [name for name in known if any(matches(name, pattern) for pattern in patterns)]


@contextmanager
def record(model: nn.Module, names: str | Iterable[str], inputs: bool = False) -> Iterator[dict[str, Tensor]]:
    """While the block runs, keep the output of each named submodule: `with record(model, "blocks.*") as seen:`.

    `names` are names or patterns over `model.named_modules()`, see `select`.
    `seen` maps each name to a detached copy of its output in the last forward, in order of execution and on its
    device; with `inputs`, of its first input instead, as it was before the module ran.
    The hooks are gone after the block, after an error too. Raises ValueError for a name that matches nothing, and for
    a module that gives something else than a tensor.
    """
    modules = dict(model.named_modules())
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any = None) -> None:
            value = (args[0] if args else None) if inputs else output
            if not isinstance(value, Tensor):
                raise ValueError(f"names: {name!r} gives {type(value).__name__}, not a tensor")
            seen[name] = value.detach().clone()  # a copy: later in-place operations must not change the record

        return hook

    handles = []
    for name in select(names, modules):
        register = modules[name].register_forward_pre_hook if inputs else modules[name].register_forward_hook
        handles.append(register(keep(name)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def spread_by_depth(model: nn.Module, names: str | Iterable[str], x: Tensor) -> list[float]:
    """Standard deviation of the output of each named submodule when the model sees x, in order of execution."""
    with record(model, names) as seen:
        model(x)
    return [output.float().std().item() for output in seen.values()]


def gradient_norms(model: nn.Module, names: str | Iterable[str]) -> list[float]:
    """Norm of the gradient of each named parameter after a backward pass, in the model's order.

    `names` are names or patterns as in `record`, over `model.named_parameters()`. Raises ValueError where a pattern
    matches no parameter, or a parameter has no gradient.
    """
    parameters = dict(model.named_parameters())
    norms = []
    for name in select(names, parameters):
        gradient = parameters[name].grad
        if gradient is None:
            raise ValueError(f"names: {name!r} has no gradient; call backward() first")
        norms.append(gradient.norm().item())
    return norms
