"""What a network's norms do while it trains: snapshots of activations, gains and biases."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from course_lib.checks import check_not_negative
from course_lib.features import record
from course_lib.norms import LayerNorm, RMSNorm

# Bins of the normalised activations; what lies outside counts in the last bin.
EDGES = torch.linspace(-5, 5, 101, dtype=torch.float32)


@dataclass
class NormTrace:
    """Snapshots of every norm of a network; a function to hand to `train(on_step=...)`.

    `images` (B, d_in) are what the network is looked at with; `steps` says when. For S snapshots, L norms and C
    channels, `tensors()` gives steps (S,), density (S, L, bins), gain and bias (S, L, C), input_std (S, L), the
    spread of what enters each norm, and distinct_rows (S, L), see `snapshot`. Activations are those before gain and
    bias. A trace follows one run: a step at or before an earlier one (training that starts again, or goes on from a
    checkpoint) drops all snapshots from there on.
    """

    images: Tensor
    steps: tuple[int, ...]
    snapshots: list[dict[str, Tensor]] = field(default_factory=list)

    def __call__(self, step: int, model: nn.Module) -> None:
        """Take a snapshot if this step is wanted."""
        self.snapshots = [snapshot for snapshot in self.snapshots if snapshot["steps"] < step]
        if step in self.steps:
            self.snapshots.append({"steps": torch.tensor(step)} | snapshot(model, self.images))

    def tensors(self) -> dict[str, Tensor]:
        """All snapshots stacked; ValueError while there is none."""
        if not self.snapshots:
            raise ValueError("no snapshot was taken yet: hand the trace to train(on_step=...)")
        return {name: torch.stack([s[name] for s in self.snapshots]).cpu() for name in self.snapshots[0]}


def norm_names(model: nn.Module) -> list[str]:
    """Names of the LayerNorms and RMSNorms of a model, in its order; ValueError where it has none."""
    names = [name for name, module in model.named_modules() if isinstance(module, LayerNorm | RMSNorm)]
    if not names:
        raise ValueError("model has no LayerNorm or RMSNorm to look at")
    return names


@torch.no_grad()
def snapshot(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Look at each norm of a model: density (L, bins), gain and bias (L, C), input_std and distinct_rows (L,).

    The bias of an RMSNorm, which has none, is nan. distinct_rows counts normalised rows that are far from each other,
    see there.
    """
    names = norm_names(model)
    parameter = next(model.parameters())
    with record(model, names, inputs=True) as seen:
        model(images.to(parameter))  # its device and type
    density, gain, bias, spread, distinct = [], [], [], [], []
    for name in names:
        norm = model.get_submodule(name)
        assert isinstance(norm, LayerNorm | RMSNorm)
        x = norm.norm_fn(seen[name], None, None, norm.eps).float().cpu()
        counts = torch.histc(x.clamp(EDGES[0], EDGES[-1]), len(EDGES) - 1, EDGES[0].item(), EDGES[-1].item())
        density.append(counts / counts.sum() / (EDGES[1] - EDGES[0]))
        gain.append(norm.weight.float().cpu().clone())
        bias.append(torch.full_like(gain[-1], math.nan) if norm.bias is None else norm.bias.float().cpu().clone())
        spread.append(seen[name].float().std().cpu())
        distinct.append(torch.tensor(distinct_rows(x), dtype=torch.float32))
    return {
        "density": torch.stack(density),
        "gain": torch.stack(gain),
        "bias": torch.stack(bias),
        "input_std": torch.stack(spread),
        "distinct_rows": torch.stack(distinct),
    }


def distinct_rows(rows: Tensor, distance: float = 1.0) -> int:
    """How many of the rows (N, C) are far from each other: farther than `distance` from all that were counted before.

    Normalised rows have length sqrt(C), so a distance of 1 is small: for C = 128 less than a tenth of the length. Rows
    are taken in order; another order may change the count a little. Rows that are not finite do not count.
    Raises ValueError for a tensor that is not (N, C), and for distance < 0.
    """
    if rows.ndim != 2:
        raise ValueError(f"rows has shape {tuple(rows.shape)}; needed is (N, C)")
    check_not_negative("distance", distance)
    rows = rows[rows.isfinite().all(-1)].cpu()
    near = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist") <= distance  # (N, N)
    uncovered, count = torch.ones(len(rows), dtype=torch.bool), 0
    for row in range(len(rows)):
        if uncovered[row]:
            uncovered &= ~near[row]
            count += 1
    return count
