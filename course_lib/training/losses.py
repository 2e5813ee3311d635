"""Loss functions that lessons and studies share, and the forms that the loss of a step may have."""

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from torch import Tensor, nn

from course_lib.checks import kind_of
from course_lib.training.history import COLUMNS

Batch = Any
Metrics = Mapping[str, Tensor | float]
LossFn = Callable[[nn.Module, Batch], tuple[Tensor, Metrics]]


def classification_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross entropy in nats of model(inputs) (B, classes) against labels (B,), and the accuracy."""
    inputs, labels = batch
    logits = model(inputs)
    loss = nn.functional.cross_entropy(logits.float(), labels)
    return loss, {"accuracy": (logits.argmax(-1) == labels).float().mean()}


def next_token_loss(model: nn.Module, batch: tuple[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean loss in nats of each token of the windows (B, T + 1) but the first, given those before it."""
    (ids,) = batch
    logits = model(ids[:, :-1])  # (B, T, V)
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten()), {}


def loss_and_metrics(given: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
    """Loss and metrics of what a loss function gave: `(loss, metrics)`, or the loss alone.

    The loss is a float tensor of one number that depends on something that trains; a metric is a number, or a tensor
    of one. Raises ValueError for anything else, and for a metric that would hide a column of the history.
    """
    loss, metrics = given if isinstance(given, tuple | list) and len(given) == 2 else (given, {})
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
        raise ValueError(
            f"loss_fn gives {kind_of(loss)} for the loss; needed is a float tensor of one number, alone or as "
            "(loss, metrics)"
        )
    if not loss.requires_grad:
        raise ValueError(
            "loss_fn gives a loss without a gradient: nothing that it depends on trains (requires_grad), or it was "
            "made under no_grad, or with detach() or item()"
        )
    if not isinstance(metrics, Mapping):
        raise ValueError(f"loss_fn gives {kind_of(metrics)} for the metrics; needed is a dict of numbers by name")
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise ValueError(f"loss_fn: the name {name!r} of a metric is a {kind_of(name)}; needed is text")
        one = isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex()
        if not (one or isinstance(value, Real)):
            raise ValueError(f"loss_fn: the metric {name} is {kind_of(value)}; needed is a number or a tensor of one")
    if taken := metrics.keys() & set(COLUMNS):
        raise ValueError(f"loss_fn: a metric is named {', '.join(sorted(taken))}, a column of the history")
    return loss, {name: value.detach() if isinstance(value, Tensor) else value for name, value in metrics.items()}
