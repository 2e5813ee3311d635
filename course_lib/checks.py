"""Argument checks that several modules need: each ValueError names the argument, its value and what is allowed."""

import math
import operator
from collections.abc import Iterable

import torch
from torch import Tensor


def kind_of(value: object) -> str:
    """Type and shape of a tensor, type of anything else, for messages."""
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def on_host(x: Tensor) -> bool:
    """Whether the values of x can be looked at: a GPU would have to wait, and a graph that is captured has none."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def check_at_least(name: str, value: int, least: int) -> int:
    """`value` as an int; ValueError unless it is a whole number, `least` or more. NumPy's integers count."""
    try:
        whole = operator.index(value)
    except TypeError:
        whole = least - 1
    if whole < least or isinstance(value, bool):
        raise ValueError(f"{name}={value!r}; it must be {least} or more, a whole number")
    return whole


def check_sizes(**sizes: int) -> None:
    """Raise ValueError for a size that is not a whole number of 1 or more."""
    for name, value in sizes.items():
        check_at_least(name, value, 1)


def check_even(name: str, value: int) -> None:
    """Raise ValueError unless `value` is an even whole number, 2 or more."""
    try:
        check_at_least(name, value, 2)
        odd = value % 2
    except ValueError:
        odd = True
    if odd:
        raise ValueError(f"{name}={value!r}; it must be even and at least 2, a whole number")


def check_range(name: str, value: int, low: int, high: int) -> int:
    """`value` as an int; ValueError unless it is a whole number from `low` to `high`, both allowed."""
    try:
        whole = operator.index(value)
    except TypeError:
        whole = low - 1
    if not low <= whole <= high or isinstance(value, bool):
        raise ValueError(f"{name}={value!r}; allowed is {low} to {high}, a whole number")
    return whole


def check_whole(name: str, value: int) -> int:
    """`value` as an int; ValueError unless it is a whole number. NumPy's integers count."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise ValueError(f"{name}={value!r}; it must be a whole number")


def check_token_ids(name: str, ids: object, vocab_size: int | None = None) -> None:
    """Raise ValueError unless `ids` is int64 or int32 and, where it is on the CPU, from 0 to vocab_size - 1."""
    # As an index, uint8 is a mask, and a product of small integers overflows: both go on, with wrong numbers.
    if not isinstance(ids, Tensor) or ids.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{name} is {kind_of(ids)}; token ids are int64 or int32")
    if vocab_size is not None and on_host(ids) and ids.numel():
        lowest, highest = (int(extreme) for extreme in ids.aminmax())
        if lowest < 0 or highest >= vocab_size:
            raise ValueError(
                f"{name} goes from {lowest} to {highest}; with vocab_size={vocab_size} the last is {vocab_size - 1}: "
                "do they come from another tokenizer?"
            )


def check_above(name: str, value: float, low: float) -> None:
    """Raise ValueError unless `value` is a finite number above `low`."""
    if not low < value < math.inf:
        raise ValueError(f"{name}={value}; it must be above {low} and finite")


def check_not_negative(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a finite number, 0 or more."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}={value}; it must be 0 or more and finite")


def check_dropout(value: float) -> None:
    """Raise ValueError unless `value` is a share from 0 to below 1."""
    if not 0 <= value < 1:
        raise ValueError(f"dropout={value}; allowed is 0 to below 1")


def check_choice(name: str, value: object, allowed: Iterable[str]) -> None:
    """Raise ValueError unless `value` is one of `allowed`."""
    if value not in (allowed := list(allowed)):
        raise ValueError(f"{name}={value!r}; allowed are {', '.join(map(repr, allowed))}")


def check_device(q: Tensor, **tensors: object) -> None:
    """Raise ValueError for a tensor that is on another device than q."""
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.device != q.device:
            raise ValueError(f"{name} is on {tensor.device}; q is on {q.device}")
