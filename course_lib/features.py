"""The only recorder of what happens inside a model."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.attention import MultiHeadAttention
from course_lib.names import select


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


@contextmanager
def record_attention(model: nn.Module, names: str | Iterable[str] | None = None) -> Iterator[dict[str, Tensor]]:
    """While the block runs, keep the attention weights: `with record_attention(model) as seen: model(ids)`.

    `seen` maps the name of each `MultiHeadAttention` to a detached copy of its weights (B, H, T, S) in the last
    forward, in order of execution. Meanwhile each module's function is asked for its weights with
    `return_weights=True`, and computes without a kernel, which never has them. `names` are names or patterns, see
    `select`; None is all. Afterwards, after an error too, each module has its own function back. Raises ValueError for
    a name that matches no such module, a model without one, and an `attention_fn` that takes no `return_weights`: what
    it computes cannot be seen from outside.
    """
    modules = {name: m for name, m in model.named_modules() if isinstance(m, MultiHeadAttention)}
    if not modules:
        raise ValueError(f"model is a {type(model).__name__} without a MultiHeadAttention")
    seen: dict[str, Tensor] = {}
    kept = {name: modules[name].attention_fn for name in (modules if names is None else select(names, modules))}
    for name, own in kept.items():
        if "return_weights" not in signature(own.forward if isinstance(own, nn.Module) else own).parameters:
            raise ValueError(
                f"model: {name!r} has attention_fn={own!r}, whose weights cannot be recorded: it has no return_weights"
            )

    def recorder(name: str) -> Any:
        def attend(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> Tensor:
            asked: Any = kept[name]
            output, weights = asked(q, k, v, **arguments, return_weights=True)
            seen[name] = weights.detach().clone()
            return output

        return attend

    try:
        for name in kept:
            modules[name].set_attention_fn(recorder(name))
        yield seen
    finally:
        for name, own in kept.items():
            modules[name].set_attention_fn(own)


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
