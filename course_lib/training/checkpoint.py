"""A training checkpoint as one safetensors file: written whole or not at all, nothing unpickled."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from course_lib.checks import kind_of
from course_lib.paths import whole_or_nothing
from course_lib.training.identity import differences, fingerprint
from course_lib.training.packing import pack, placed, plain, unpack

CHECKPOINT = "checkpoint.safetensors"
NUMBERS = Tensor | bool | int | float


@dataclass(frozen=True)
class Progress:
    """What a checkpoint knows besides tensors: the next step, the records so far, whose run it was, its last batch."""

    step: int
    records: list[dict[str, float]]
    run_id: dict[str, Any]
    batch: str  # see `fingerprint`


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found to fit."""

    progress: Progress
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Fill model and optimizer, whose learning rates stay as they are."""
        groups = [
            now | then | {"lr": now["lr"]}
            for now, then in zip(optimizer.state_dict()["param_groups"], self.optimizer["param_groups"], strict=True)
        ]
        model.load_state_dict(self.weights, strict=True)
        optimizer.load_state_dict(self.optimizer | {"param_groups": groups})
        indices = [index for group in groups for index in group["params"]]
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for index, parameter in zip(indices, parameters, strict=True):
            if index in self.optimizer["state"]:  # torch gave floats their parameter's dtype, and took text for a list
                optimizer.state[parameter] = placed(self.optimizer["state"][index], optimizer.state[parameter])


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's state; ValueError where a part of it is no tensor, and cannot be saved."""
    state = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"model: {name} of its state is a {kind_of(value)}; a checkpoint holds tensors alone")
    return state


def state_of(optimizer: torch.optim.Optimizer) -> tuple[Any, dict[str, Tensor]]:
    """The optimizer's state as JSON and tensors: all of it, and the numbers in its groups, which some optimizers move.

    Raises ValueError for what is neither.
    """
    state = optimizer.state_dict()
    groups = [{key: v for key, v in group.items() if isinstance(v, NUMBERS)} for group in state["param_groups"]]
    tensors: dict[str, Tensor] = {}
    return pack(state | {"param_groups": groups}, "optimizer", tensors), tensors


def save_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write weights, optimizer state and progress to `path`, replacing what was there in one step."""
    packed, tensors = state_of(optimizer)
    tensors |= {f"model.{name}": tensor for name, tensor in weights_of(model).items()}
    header = vars(progress) | {"optimizer": packed}
    with whole_or_nothing(path) as temporary:
        save_file(plain(tensors), temporary, metadata={"progress": json.dumps(header)})


def find_checkpoint(
    path: Path, model: nn.Module, run_id: dict[str, Any], draw: Callable[[int], Any]
) -> Checkpoint | None:
    """The checkpoint at `path` that a run goes on with, None where there is none yet; nothing is changed.

    `draw(step)` gives the run's batch of a step. Raises ValueError for a checkpoint that `read_checkpoint` refuses, or
    that was trained on another batch; for a folder that cannot be written, and a model that cannot be saved.
    """
    from accelerate.utils import broadcast_object_list

    weights_of(model)
    check_writable(path.parent)
    if not path.exists():
        return None
    found = read_checkpoint(path, model, run_id)
    last = found.progress.step - 1
    same = [fingerprint(draw(last)) == found.progress.batch]
    if not broadcast_object_list(same)[0]:  # the main process knows: the file was written with its batch
        raise another_run(path, f"batches({last}) gave another batch then")
    return found


def read_checkpoint(path: Path, model: nn.Module, run_id: dict[str, Any]) -> Checkpoint:
    """The checkpoint at `path`.

    Raises ValueError when the file is damaged, was written by a run with another `run_id`, or holds weights of other
    names, shapes or dtypes than the model's.
    """
    try:
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        state = unpack(header.pop("optimizer"), tensors)
        progress = Progress(**header)
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"checkpoint {path.name} is damaged, or another version of the course wrote it ({error!r}); delete it to "
            "start anew"
        ) from error
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    there, here = (
        {name: f"{tuple(tensor.shape)} {tensor.dtype}" for name, tensor in kept.items()}
        for kept in (weights, weights_of(model))
    )
    differing = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    if differing:
        first = f"{differing[0]} is {there.get(differing[0])} there, {here.get(differing[0])} here"
        raise ValueError(f"checkpoint {path.name} fits another model: {len(differing)} weights differ; {first}")
    if changes := differences(progress.run_id, run_id):
        raise another_run(path, changes)
    return Checkpoint(progress, weights, state)


def another_run(path: Path, why: str) -> ValueError:
    """The error for a checkpoint that this run cannot go on with."""
    return ValueError(
        f"checkpoint {path.name} was written by another kind of run ({why}); choose another checkpoint_dir or delete it"
    )


def check_writable(folder: Path) -> None:
    """Make `folder` if it is missing; ValueError unless files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"checkpoint_dir={str(folder)!r} cannot be written: {error}") from error
