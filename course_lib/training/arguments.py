"""What `train` refuses before it changes anything."""

import inspect
from numbers import Integral, Real

import torch
from torch import Tensor, nn

from course_lib.checks import check_at_least, check_choice, kind_of


def check_settings(
    steps: int, stop_at: int | None, seed: int, clip_norm: float | None, mixed_precision: str, checkpoint_every: int
) -> None:
    """Raise ValueError for a setting that cannot be."""
    if not isinstance(seed, Integral):
        raise ValueError(f"seed={seed!r}; an integer is needed")
    check_at_least("steps", steps, 1)
    check_at_least("checkpoint_every", checkpoint_every, 1)
    if stop_at is not None:
        check_at_least("stop_at", stop_at, 1)
    if clip_norm is not None and not (isinstance(clip_norm, Real) and clip_norm > 0):
        raise ValueError(f"clip_norm={clip_norm!r}; it must be a number above 0, or None for no clipping")
    check_choice("mixed_precision", mixed_precision, ("no", "bf16"))


FUNCTIONS = {
    "batches": "batches(step), such as corpora.shuffled_batches gives",
    "loss_fn": "loss_fn(model, batch)",
    "schedule": "schedule(step), such as cosine(steps) gives",
    "on_step": "on_step(step, model)",
}


def check_functions(**functions: object) -> None:
    """Raise ValueError for what cannot be called, such as a DataLoader for `batches`; only on_step may be None."""
    for name, value in functions.items():
        if not callable(value) and (value is not None or name != "on_step"):
            raise ValueError(f"{name} is a {kind_of(value)}; needed is a function {FUNCTIONS[name]}")


def check_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError for an optimizer that cannot train `model` in this loop, or trains nothing of it."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is a {kind_of(model)}; needed is a module")
    name = type(optimizer).__name__
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"optimizer is a {name}; needed is one of torch.optim")
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ValueError(
            f"optimizer: {name} asks for the loss several times a step (a closure), train() computes it once; take "
            "another, such as AdamW, or call its step(closure) in a loop of your own"
        )
    own = set(model.parameters())
    for group in optimizer.param_groups:
        if strange := [parameter for parameter in group["params"] if parameter not in own]:
            raise ValueError(f"optimizer: {len(strange)} of its {len(group['params'])} parameters are not the model's")
        if not isinstance(group.get("lr"), Real | Tensor):
            raise ValueError(f"optimizer: lr={group.get('lr')!r} of {name}; needed is a number")
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not any(parameter.requires_grad for parameter in held):
        raise ValueError(f"optimizer: all of its {len(held)} parameters are frozen (requires_grad is False)")
