"""Batches as a pure function of seed, step and rank."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import check_range, check_whole
from course_lib.init import seed_of
from course_lib.runtime import processes


def shuffled_batches(tensors: tuple[Tensor, ...], batch_size: int, seed: int) -> Callable[[int], tuple[Tensor, ...]]:
    """A function `batches(step)` that cuts `tensors`, each (N, ...), into shuffled batches, epoch after epoch.

    It is a pure function of (seed, step) and of this process's rank, so that training can resume at any step.
    `batch_size` counts all processes together: each gets its equal share, and the result does not depend on how many
    there are. A last, smaller batch of an epoch is left out. Raises ValueError for a tensor that is not in a tuple,
    tensors of unequal length, a batch_size outside 1..N, or one that the processes cannot share equally.
    """
    if isinstance(tensors, Tensor):  # its rows would be taken for the tensors, and its columns shuffled
        raise ValueError(f"tensors is one tensor of shape {tuple(tensors.shape)}; needed is a tuple, such as (x,)")
    lengths = [len(t) for t in tensors]
    if len(set(lengths)) != 1:
        raise ValueError(f"tensors have lengths {lengths}; they must be equal, and there must be at least one")
    check_range("batch_size", batch_size, 1, lengths[0])
    check_whole("seed", seed)
    state = processes()
    share, rest = divmod(batch_size, state.num_processes)
    if rest:
        raise ValueError(f"batch_size={batch_size} cannot be shared by {state.num_processes} processes equally")
    per_epoch = lengths[0] // batch_size

    def batches(step: int) -> tuple[Tensor, ...]:
        epoch, index = divmod(step, per_epoch)
        order = torch.randperm(lengths[0], generator=torch.Generator().manual_seed(seed_of(seed, epoch)))
        start = index * batch_size + state.process_index * share
        rows = order[start : start + share]
        return tuple(t[rows.to(t.device)] for t in tensors)

    return batches
