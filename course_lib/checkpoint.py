"""A training checkpoint as one safetensors file: written whole or not at all, nothing unpickled."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from course_lib.paths import whole_or_nothing


@dataclass(frozen=True)
class Progress:
    """What a checkpoint knows besides tensors: the next step, the records so far, and which run wrote it."""

    step: int
    records: list[dict[str, float]]
    run_id: dict[str, Any]


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

    Raises ValueError when the file is damaged, was written by a run with another `run_id`, or fits another model.
    """
    try:
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"checkpoint {path.name} is damaged ({error}); delete it to start anew") from error
    was = header["run_id"]
    differing = [key for key in was.keys() | run_id.keys() if was.get(key) != run_id.get(key)]
    if differing:
        changes = "; ".join(f"{key} was {was.get(key)}, is {run_id.get(key)}" for key in sorted(differing))
        raise ValueError(
            f"checkpoint {path.name} was written by another kind of run ({changes}); "
            "choose another checkpoint_dir or delete it"
        )
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ValueError(f"checkpoint {path.name} fits another model: {error}") from error
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    for name, value in header["scalars"].items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return Progress(header["step"], header["records"], header["run_id"])
