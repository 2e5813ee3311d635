"""The one training loop of the course, on Accelerate: any device, several processes, exact resume."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.checkpoint import Progress, check_writable, identity, load_checkpoint, save_checkpoint
from course_lib.init import seed_of
from course_lib.runtime import processes

Batch = Any
LossFn = Callable[[nn.Module, Batch], tuple[Tensor, dict[str, Tensor]]]
Schedule = Callable[[int], float]
CHECKPOINT = "checkpoint.safetensors"
COLUMNS = ("step", "loss", "lr", "grad_norm")


@dataclass
class History:
    """One record a logged step: step, loss, lr, grad_norm and the metrics of the loss function."""

    records: list[dict[str, float]] = field(default_factory=list)

    def column(self, name: str) -> list[float]:
        """All values of one column, step by step; ValueError for an unknown name."""
        if self.records and name not in self.records[0]:
            raise ValueError(f"name={name!r}; recorded are {', '.join(self.records[0])}")
        return [record[name] for record in self.records]

    @property
    def diverged(self) -> bool:
        """True when the loss or its gradient stopped being finite; training ended before that step."""
        return not all(math.isfinite(record[name]) for record in self.records[-1:] for name in ("loss", "grad_norm"))


def constant(warmup: int = 0) -> Schedule:
    """Factor of the learning rate: rises in a line over `warmup` steps to 1 and stays there."""
    if warmup < 0:
        raise ValueError(f"warmup={warmup}; it must be 0 or more")
    return lambda step: min(1.0, (step + 1) / (warmup + 1))


def cosine(steps: int, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Factor of the learning rate: a line up over `warmup` steps, then half a cosine down to `floor` at `steps`.

    Source: Loshchilov, Hutter 2017, "SGDR", section 3. Raises ValueError unless 0 <= warmup < steps.
    """
    return _decay(steps, warmup, floor, lambda t: 0.5 * (1 + math.cos(math.pi * t)))


def linear(steps: int, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Factor of the learning rate: a line up over `warmup` steps, then a line down to `floor` at `steps`."""
    return _decay(steps, warmup, floor, lambda t: 1 - t)


def _decay(steps: int, warmup: int, floor: float, shape: Callable[[float], float]) -> Schedule:
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup={warmup}, steps={steps}; needed is 0 <= warmup < steps")
    up = constant(warmup)

    def factor(step: int) -> float:
        if step < warmup:
            return up(step)
        return floor + (1 - floor) * shape(min(1.0, (step - warmup) / (steps - warmup)))

    return factor


def classification_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross entropy in nats of model(inputs) (B, classes) against labels (B,), and the accuracy."""
    inputs, labels = batch
    logits = model(inputs)
    loss = nn.functional.cross_entropy(logits.float(), labels)
    return loss, {"accuracy": (logits.argmax(-1) == labels).float().mean()}


def _check_arguments(
    steps: int, stop_at: int | None, seed: int, clip_norm: float | None, mixed_precision: str, checkpoint_every: int
) -> None:
    if not isinstance(seed, Integral):
        raise ValueError(f"seed={seed!r}; an integer is needed")
    for name, value in (("steps", steps), ("checkpoint_every", checkpoint_every), ("stop_at", stop_at)):
        if value is not None and not (isinstance(value, Integral) and value >= 1):
            raise ValueError(f"{name}={value!r}; needed is an integer of at least 1")
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm={clip_norm}; it must be above 0, or None for no clipping")
    if mixed_precision not in ("no", "bf16"):
        raise ValueError(f"mixed_precision={mixed_precision!r}; allowed are 'no' and 'bf16'")


def _seed(device: torch.device, value: int) -> None:
    """Seed the generators that a step may draw from. (`torch.manual_seed` also queues calls for absent devices.)"""
    torch.default_generator.manual_seed(value)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(value)


def train(
    model: nn.Module,
    batches: Callable[[int], Batch],
    loss_fn: LossFn,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    schedule: Schedule | None = None,
    clip_norm: float | None = 1.0,
    seed: int = 0,
    mixed_precision: str = "no",
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int = 100,
    stop_at: int | None = None,
    on_step: Callable[[int, nn.Module], None] | None = None,
    progress: bool = True,
) -> History:
    """Train `model` in place for `steps` steps and return its history; the model ends on its device, in eval mode.

    `batches(step)` gives the batch of a step, `loss_fn(model, batch) -> (loss, metrics)` a scalar loss and scalar
    metrics; `schedule(step)` multiplies the optimizer's learning rates (default: constant). Gradients are clipped to
    the norm `clip_norm` (None: not at all). Each step's random numbers (dropout) follow from (seed, step, rank) alone.
    `on_step(step, model)` looks at the model, in eval mode, before each step and once after the last of this call.

    With `checkpoint_dir`, weights, optimizer and history are written every `checkpoint_every` steps as one file, whole
    or not at all; the same call later goes on from there and ends, on a CPU, with the same bits as an unbroken run.
    The weights that `model` came with are not compared: the checkpoint's take their place.
    `stop_at` ends a call early, as a time limit would. Training also ends, with `history.diverged`, before the step at
    which loss or gradient is not finite. Under `torchrun` or `accelerate launch` the same call runs on several
    processes: `loss_fn` must call the model as a whole, and average over equally many items in each process (gradients
    are averaged over processes).
    Raises ValueError for bad arguments, an optimizer of another model, a metric named like one of COLUMNS, a
    checkpoint_dir that cannot be written, or a checkpoint that another kind of run wrote.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import send_to_device
    from tqdm.auto import tqdm

    _check_arguments(steps, stop_at, seed, clip_norm, mixed_precision, checkpoint_every)
    schedule = schedule or constant()
    run_id = identity(
        model, optimizer, steps=int(steps), seed=int(seed), mixed_precision=mixed_precision,
        clip_norm=None if clip_norm is None else float(clip_norm),
        schedule=seed_of(*(repr(float(schedule(step))) for step in range(steps))),
    )  # fmt: skip
    processes()
    AcceleratorState._reset_state()  # or the precision of the first call in a notebook would hold for all later ones
    accelerator = Accelerator(mixed_precision=mixed_precision)
    base_lrs = [group["lr"] for group in optimizer.param_groups]
    bare, bare_optimizer = model.to(accelerator.device), optimizer
    history, first = History(), 0
    path = Path(checkpoint_dir) / CHECKPOINT if checkpoint_dir is not None else None
    if path is not None:
        check_writable(path.parent)
    if path is not None and path.exists():
        done = load_checkpoint(path, bare, optimizer, run_id)
        first, history.records = done.step, done.records
    model, optimizer = accelerator.prepare(bare, optimizer)
    last = steps if stop_at is None else min(stop_at, steps)
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules  # a log file wants no progress bar
    quiet = not (progress and watched and accelerator.is_main_process)
    cuda = [accelerator.device] if accelerator.device.type == "cuda" else []

    def look(step: int) -> None:
        if on_step is not None:
            on_step(step, bare.eval())

    try:
        with (
            torch.random.fork_rng(cuda),  # the caller's random numbers go on as if nothing had happened
            tqdm(total=last, initial=first, desc="training", leave=False, disable=quiet) as bar,
        ):
            for step in range(first, last):
                look(step)
                _seed(accelerator.device, seed_of(seed, step, accelerator.process_index))
                model.train()
                batch = send_to_device(batches(step), accelerator.device)
                with accelerator.autocast():
                    loss, metrics = loss_fn(model, batch)
                if taken := metrics.keys() & set(COLUMNS):
                    raise ValueError(f"loss_fn: a metric is named {', '.join(sorted(taken))}, a column of the history")
                means = accelerator.reduce({"loss": loss.detach()} | metrics, "mean")
                factor = schedule(step)
                known = {"step": step, "lr": float(base_lrs[0] * factor), "grad_norm": math.nan}
                history.records.append(known | {name: float(value) for name, value in means.items()})
                if not math.isfinite(history.records[-1]["loss"]):
                    break
                optimizer.zero_grad()
                accelerator.backward(loss)
                norm = accelerator.clip_grad_norm_(model.parameters(), math.inf if clip_norm is None else clip_norm)
                history.records[-1]["grad_norm"] = float(norm)
                if history.diverged:
                    break
                for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
                    group["lr"] = lr * factor
                optimizer.step()
                bar.update()
                bar.set_postfix(loss=f"{history.records[-1]['loss']:.3f}", refresh=False)
                if path is not None and ((step + 1) % checkpoint_every == 0 or step + 1 == last):
                    if accelerator.is_main_process:
                        save_checkpoint(path, bare, bare_optimizer, Progress(step + 1, history.records, run_id))
                    accelerator.wait_for_everyone()  # nobody runs ahead of a file that is still being written
            if not history.diverged:
                look(last)
    finally:  # after an interrupt too, model and optimizer are as the caller gave them
        for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
            group["lr"] = lr
        accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # takes Accelerate's autocast off
        bare.eval()
    return history
