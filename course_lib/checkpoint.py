"""A training checkpoint as one safetensors file: written whole or not at all, nothing unpickled."""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from course_lib.init import seed_of
from course_lib.paths import whole_or_nothing


@dataclass(frozen=True)
class Progress:
    """What a checkpoint knows besides tensors: the next step, the records so far, and which run wrote it."""

    step: int
    records: list[dict[str, float]]
    run_id: dict[str, Any]


def identity(model: nn.Module, optimizer: torch.optim.Optimizer, **settings: Any) -> dict[str, Any]:
    """What must be equal for one run to go on with the checkpoint of another; data and first weights need not be.

    A group's "params" is a number that stands for the names of its parameters. Raises ValueError for an optimizer
    with parameters that are not the model's: its steps would train nothing.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        if strange := [parameter for parameter in group["params"] if parameter not in names]:
            raise ValueError(f"optimizer: {len(strange)} of its {len(group['params'])} parameters are not the model's")
        values = {key: v.tolist() if isinstance(v, torch.Tensor) else v for key, v in group.items() if key != "params"}
        groups.append({key: repr(value) for key, value in values.items()})
        groups[-1]["params"] = seed_of(*(names[parameter] for parameter in group["params"]))
    return {"optimizer": type(optimizer).__name__, "groups": groups} | settings


def save_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write weights, optimizer state and progress to `path`, replacing what was there in one step."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    scalars = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            elif value is not None:
                scalars[f"{index}.{key}"] = value
    header = {"step": progress.step, "records": progress.records, "run_id": progress.run_id, "scalars": scalars}
    # safetensors refuses tensors that share memory (tied weights) and views: give it plain copies.
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with whole_or_nothing(path) as temporary:
        save_file(plain, temporary, metadata={"progress": json.dumps(header)})


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, run_id: dict[str, Any]) -> Progress:
    """Fill model and optimizer from `path` and return its progress.

    Raises ValueError, and changes nothing, when the file is damaged, was written by a run with another `run_id`, or
    holds weights of other names, shapes or dtypes than the model's.
    """
    try:
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        progress, scalars = Progress(header["step"], header["records"], header["run_id"]), header["scalars"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"checkpoint {path.name} is damaged ({error!r}); delete it to start anew") from error
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    there, here = _kinds(weights), _kinds(model.state_dict())
    differing = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    if differing:
        first = f"{differing[0]} is {there.get(differing[0])} there, {here.get(differing[0])} here"
        raise ValueError(f"checkpoint {path.name} fits another model: {len(differing)} weights differ; {first}")
    was = progress.run_id
    differing = [key for key in was.keys() | run_id.keys() if was.get(key) != run_id.get(key)]
    if differing:
        changes = "; ".join(f"{key} was {was.get(key)}, is {run_id.get(key)}" for key in sorted(differing))
        raise ValueError(
            f"checkpoint {path.name} was written by another kind of run ({changes}); "
            "choose another checkpoint_dir or delete it"
        )
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    for name, value in scalars.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    model.load_state_dict(weights, strict=True)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress


def _kinds(tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """Shape and dtype of each tensor, in words."""
    return {name: f"{tuple(tensor.shape)} {tensor.dtype}" for name, tensor in tensors.items()}


def check_writable(folder: Path) -> None:
    """Make `folder` if it is missing; ValueError unless files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"checkpoint_dir={str(folder)!r} cannot be written: {error}") from error
