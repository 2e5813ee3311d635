"""The one training loop of the course, on Accelerate: any device, several processes, exact resume."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from course_lib.init import seed_of
from course_lib.runtime import processes
from course_lib.training.arguments import check_functions, check_optimizer, check_settings
from course_lib.training.checkpoint import CHECKPOINT, Progress, find_checkpoint, save_checkpoint, state_of
from course_lib.training.history import History
from course_lib.training.identity import fingerprint, identity
from course_lib.training.losses import Batch, LossFn, loss_and_metrics
from course_lib.training.schedules import Schedule, constant, factors

if TYPE_CHECKING:
    from accelerate import Accelerator


def _seed(device: torch.device, value: int) -> None:
    """Seed the generators that a step may draw from. (`torch.manual_seed` also queues calls for absent devices.)"""
    torch.default_generator.manual_seed(value)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(value)


def _mean(accelerator: "Accelerator", value: Tensor | float) -> float:
    """Mean of a number over the processes."""
    if accelerator.num_processes > 1:
        tensor = torch.as_tensor(value, device=accelerator.device)
        value = accelerator.reduce(tensor if tensor.is_floating_point() else tensor.float(), "mean")
    return float(value)


def _gradients(accelerator: "Accelerator", loss: Tensor, trained: list[Tensor], clip_norm: float | None) -> float:
    """Give the parameters in `trained` their clipped gradients; returns the norm before clipping."""
    accelerator.backward(loss)
    if all(parameter.grad is None for parameter in trained):
        raise ValueError("loss_fn gives a loss that depends on none of the optimizer's parameters")
    return float(accelerator.clip_grad_norm_(trained, math.inf if clip_norm is None else clip_norm))


def train(
    model: nn.Module,
    batches: Callable[[int], Batch],
    loss_fn: LossFn | Callable[[nn.Module, Batch], Tensor],
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

    `batches(step)` gives the batch of a step: tensors, in tuples, lists or mappings, that depend on the step alone.
    `loss_fn(model, batch)` gives a scalar loss, or `(loss, metrics)`, metrics being numbers by name.
    `schedule(step)` multiplies the optimizer's learning rates (default: constant); it is asked before the first step.
    What the optimizer has is trained, and nothing else; its gradients are clipped to the norm `clip_norm` (None: not at
    all). Each step's random numbers (dropout) follow from (seed, step, rank) alone. `on_step(step, model)` looks at the
    model, in eval mode, before each step and once after the last of this call.

    With `checkpoint_dir`, weights, optimizer and history are written every `checkpoint_every` steps as one file, whole
    or not at all; the same call later goes on from there and ends, on a CPU, with the same bits as an unbroken run.
    The weights that `model` came with are not compared: the checkpoint's take their place.
    `stop_at` ends a call early, as a time limit would. Training also ends, with `history.diverged`, before the step at
    which loss or gradient is not finite. Under `torchrun` or `accelerate launch` the same call runs on several
    processes: `loss_fn` must call the model as a whole, and average over equally many items in each process (gradients
    are averaged over processes).
    Raises ValueError, before anything is changed, for bad arguments, an optimizer that needs a closure or does not fit
    the model, a checkpoint_dir that cannot be written, and a checkpoint that another kind of run wrote (`identity` says
    what is compared; the last batch is too); later for a loss or a metric that is none, and a state of the optimizer
    that cannot be saved.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import send_to_device
    from tqdm.auto import tqdm

    check_settings(steps, stop_at, seed, clip_norm, mixed_precision, checkpoint_every)
    schedule = schedule or constant()
    check_functions(batches=batches, loss_fn=loss_fn, schedule=schedule, on_step=on_step)
    check_optimizer(model, optimizer)
    factor = factors(schedule, steps)
    processes()
    AcceleratorState._reset_state()  # or the precision of the first call in a notebook would hold for all later ones
    accelerator = Accelerator(mixed_precision=mixed_precision)
    cuda = [accelerator.device] if accelerator.device.type == "cuda" else []

    def draw(step: int) -> Batch:
        _seed(accelerator.device, seed_of(seed, step, accelerator.process_index))
        return batches(step)

    path, run_id, saved, first, history = None, {}, None, 0, History()
    if checkpoint_dir is not None:
        path = Path(checkpoint_dir).expanduser() / CHECKPOINT
        run_id = identity(
            model, optimizer, loss_fn, steps=int(steps), seed=int(seed), schedule=seed_of(*map(repr, factor)),
            clip_norm=None if clip_norm is None else float(clip_norm), mixed_precision=mixed_precision,
            processes=accelerator.num_processes,
        )  # fmt: skip
        with torch.random.fork_rng(cuda):
            saved = find_checkpoint(path, model, run_id, draw)
    if saved is not None:
        first, history.records = saved.progress.step, saved.progress.records
    last = max(first, steps if stop_at is None else min(stop_at, steps))
    base_lrs = [group["lr"] for group in optimizer.param_groups]
    bare, bare_optimizer = model.to(accelerator.device), optimizer
    model, optimizer = accelerator.prepare(bare, optimizer)
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules  # a log file wants no progress bar
    quiet = not (progress and watched and accelerator.is_main_process)

    def look(step: int) -> None:
        if on_step is not None:
            on_step(step, bare.eval())

    try:
        if saved is not None:
            saved.restore(bare, bare_optimizer)
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        with (
            torch.random.fork_rng(cuda),  # the caller's random numbers go on as if nothing had happened
            tqdm(total=last, initial=first, desc="training", leave=False, disable=quiet) as bar,
        ):
            for step in range(first, last):
                look(step)
                model.train()
                batch = draw(step)
                due = path is not None and ((step + 1) % checkpoint_every == 0 or step + 1 == last)
                data = fingerprint(batch) if due else ""  # before loss_fn can write into it
                with accelerator.autocast():
                    loss, metrics = loss_and_metrics(loss_fn(model, send_to_device(batch, accelerator.device)))
                known = {"step": step, "lr": float(base_lrs[0] * factor[step]), "grad_norm": math.nan}
                measured = {"loss": loss.detach()} | metrics
                history.records.append(known | {name: _mean(accelerator, v) for name, v in measured.items()})
                if not math.isfinite(history.records[-1]["loss"]):
                    break
                bare.zero_grad()  # not only what the optimizer has: the rest would pile up
                history.records[-1]["grad_norm"] = _gradients(accelerator, loss, trained, clip_norm)
                if history.diverged:
                    break
                for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
                    group["lr"] = lr * factor[step]
                optimizer.step()
                bar.update()
                bar.set_postfix(loss=f"{history.records[-1]['loss']:.3f}", refresh=False)
                if path is not None and step == first:
                    state_of(bare_optimizer)  # what cannot be saved shows now, not after an hour
                if path is not None and due:
                    if accelerator.is_main_process:
                        now = Progress(step + 1, history.records, run_id, data)
                        save_checkpoint(path, bare, bare_optimizer, now)
                    accelerator.wait_for_everyone()  # nobody runs ahead of a file that is still being written
            if not history.diverged:
                look(last)
    finally:  # after an interrupt too, model and optimizer are as the caller gave them
        for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
            group["lr"] = lr
        accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # takes Accelerate's autocast off
        bare.eval()
    return history
