"""An optimizer's state, nested as it likes, as JSON and a flat dict of tensors: what safetensors can hold."""

from typing import Any

import torch
from torch import Tensor

from course_lib.checks import kind_of


def pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON; each tensor in it goes into `tensors`, and stands there under its path from `name` on.

    Raises ValueError for what is no tensor, number, text, None, dict, list or tuple.
    """
    if isinstance(value, Tensor) and value.layout == torch.strided:
        while name in tensors:
            name += "'"  # keys such as 1 and "1" give the same path
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        pairs = [[pack(key, name, {}), pack(entry, f"{name}.{key}", tensors)] for key, entry in value.items()]
        return {"dict": pairs}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [pack(entry, f"{name}.{i}", tensors) for i, entry in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{name} is {kind_of(value)}; a checkpoint holds dense tensors, numbers, text, None, lists, dicts")


def unpack(packed: Any, tensors: dict[str, Tensor]) -> Any:
    """What was packed."""
    match packed:
        case {"tensor": name}:
            return tensors[name]
        case {"dict": pairs}:
            return {unpack(key, tensors): unpack(entry, tensors) for key, entry in pairs}
        case {"list": entries}:
            return [unpack(entry, tensors) for entry in entries]
        case {"tuple": entries}:
            return tuple(unpack(entry, tensors) for entry in entries)
    return packed


def plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU: safetensors refuses views, and tensors that share memory (tied weights)."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def placed(value: Any, like: Any) -> Any:
    """`value`, with each tensor in it on the device of the one that stands at its place in `like`."""
    if isinstance(value, Tensor):
        return value.to(like.device)
    if isinstance(value, dict):
        return {key: placed(entry, like[key]) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(placed, value, like))
    return value
