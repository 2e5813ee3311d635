"""Which run a checkpoint belongs to: whatever changes its numbers, as far as it can be known."""

import hashlib
import inspect
import math
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from numbers import Number
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def identity(model: nn.Module, optimizer: torch.optim.Optimizer, loss_fn: Callable, **settings: Any) -> dict[str, Any]:
    """What must be equal for one run to go on with the checkpoint of another; first weights need not be.

    Of each module its class and settings; of each of the optimizer's groups its values and its parameters, in order,
    with those that are frozen; which function the loss is. What functions and other objects hold inside is not known,
    nor what a module keeps in other attributes than `settings_of` says. A seed that a config names is compared.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}  # a tied one has its first name
    groups = []
    for group in optimizer.param_groups:
        own = [names[parameter] + " (frozen)" * (not parameter.requires_grad) for parameter in group["params"]]
        groups.append({key: in_words(value) for key, value in group.items() if key != "params"} | {"params": own})
    named = isinstance(loss_fn, partial) or hasattr(loss_fn, "__qualname__")
    return {
        "optimizer": type(optimizer).__name__,
        "groups": groups,
        "model": {name: settings_of(module) for name, module in model.named_modules()},
        "loss_fn": in_words(loss_fn) if named else settings_of(loss_fn),
    } | settings


def differences(was: dict[str, Any], now: dict[str, Any], most: int = 5) -> str:
    """The first `most` entries that differ, in words; empty where none does."""
    old, new = dict(_flat("", was)), dict(_flat("", now))
    names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    words = [f"{name} was {old.get(name)}, is {new.get(name)}" for name in names[:most]]
    return "; ".join(words + [f"and {len(names) - most} more"] * (len(names) > most))


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Entries of nested dicts and lists, each with its path, such as `groups.0.lr`."""
    if isinstance(value, dict | list):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(".".join(filter(None, (name, str(key)))), entry)
    else:
        yield name, value


def settings_of(thing: Any) -> dict[str, Any]:
    """The class of a module or config, and its attributes that are named like arguments of its constructor, in words.

    A config (dataclass) among them is taken apart in its turn. A module without any, such as nn.LSTM, says its own.
    """
    kept = getattr(thing, "__dict__", {})
    if _is_config(thing):
        kept = {field.name: getattr(thing, field.name) for field in fields(thing)}
    own = {name: kept[name] for name in inspect.signature(type(thing).__init__).parameters if name in kept}
    words = {name: settings_of(value) if _is_config(value) else in_words(value) for name, value in own.items()}
    if not words and isinstance(thing, nn.Module):
        words = {"settings": thing.extra_repr()}
    return {"class": type(thing).__name__} | words


def _is_config(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type | nn.Module)


def in_words(value: Any) -> str:
    """`value` as text that is the same in each process: no address, no order of a set; functions are their names."""
    match value:
        case Tensor() | np.ndarray() if math.prod(value.shape) > 1:
            return f"{value.dtype} {tuple(value.shape)} {fingerprint(value)[:12]}"
        case Tensor() | np.ndarray() | np.generic():
            return repr(value.tolist())
        case None | str() | bytes() | Number() | Enum() | torch.dtype():
            return repr(value)
        case partial():
            return f"{in_words(value.func)}{in_words(value.args)}{in_words(value.keywords)}"
        case SimpleNamespace() | Namespace():
            return in_words(vars(value))
        case Mapping():
            return f"{{{', '.join(f'{in_words(key)}: {in_words(entry)}' for key, entry in value.items())}}}"
        case Set():
            return f"{{{', '.join(sorted(map(in_words, value)))}}}"
        case Sequence():
            return f"({', '.join(map(in_words, value))})"
    if _is_config(value):
        return str(settings_of(value))
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}".removeprefix("__mp_main__.").removeprefix("__main__.")


def fingerprint(batch: Any) -> str:
    """SHA-256 of a batch: tensors and arrays, bit by bit, in tuples, lists and mappings; anything else `in_words`."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            digest.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
        elif isinstance(value, Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().to_dense().flatten().contiguous().view(torch.uint8).numpy().tobytes())
        elif isinstance(value, np.ndarray):
            add(value.tolist())
        elif isinstance(value, Mapping):
            add([entry for pair in value.items() for entry in pair])
        elif isinstance(value, tuple | list):
            digest.update(f"{len(value)} entries".encode())
            for entry in value:
                add(entry)
        else:
            digest.update(in_words(value).encode())

    add(batch)
    return digest.hexdigest()
