"""The course's data sets, each a function that returns a Hugging Face `datasets.Dataset`."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from course_lib.init import seed_of
from course_lib.paths import verified
from course_lib.runtime import processes

if TYPE_CHECKING:
    from datasets import Dataset

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_FASHION_MEAN, _FASHION_STD = 0.286, 0.353  # of the 10,000 shipped training pictures, in 0..1; held by a test


def fashion_mnist(split: str = "train") -> "Dataset":
    """Product photos from Fashion-MNIST: columns image (28, 28), grey 0 to 255, and label, one of FASHION_CLASSES.

    split "train" has 10,000 pictures, "test" 2,000; both have all ten classes in equal number. Stored as uint8, rows
    come as torch int64 tensors (`datasets` widens integers). Raises ValueError for another split or a damaged file,
    FileNotFoundError for a missing one.
    Source: Xiao, Rasul, Vollgraf 2017, "Fashion-MNIST"; licence and origin in data/SOURCES.md.
    """
    import datasets  # takes about a second to import: only who asks for data pays

    if split not in ("train", "test"):
        raise ValueError(f"split={split!r}; allowed are 'train' and 'test'")
    with np.load(verified("fashion_mnist.npz"), allow_pickle=False) as arrays:
        columns = {"image": arrays[f"{split}_images"], "label": arrays[f"{split}_labels"].astype(np.int64)}
    features = datasets.Features(
        {"image": datasets.Array2D((28, 28), "uint8"), "label": datasets.ClassLabel(names=list(FASHION_CLASSES))}
    )
    return datasets.Dataset.from_dict(columns, features=features, split=split).with_format("torch")


def fashion_tensors(split: str = "train") -> tuple[Tensor, Tensor]:
    """The whole split as two tensors: images (N, 784) float32, about mean 0 and variance 1, and labels (N,) int64."""
    rows = fashion_mnist(split)[:]
    images = (rows["image"].flatten(1).float() / 255 - _FASHION_MEAN) / _FASHION_STD  # (N, 784)
    return images, rows["label"]


def shuffled_batches(tensors: tuple[Tensor, ...], batch_size: int, seed: int) -> Callable[[int], tuple[Tensor, ...]]:
    """A function `batches(step)` that cuts `tensors`, each (N, ...), into shuffled batches, epoch after epoch.

    It is a pure function of (seed, step) and of this process's rank, so that training can resume at any step.
    `batch_size` counts all processes together: each gets its equal share, and the result does not depend on how many
    there are. A last, smaller batch of an epoch is left out. Raises ValueError for tensors of unequal length, a
    batch_size outside 1..N, or one that the processes cannot share equally.
    """
    lengths = [len(t) for t in tensors]
    if len(set(lengths)) != 1:
        raise ValueError(f"tensors have lengths {lengths}; they must be equal, and there must be at least one")
    if not 1 <= batch_size <= lengths[0]:
        raise ValueError(f"batch_size={batch_size}; allowed is 1 to {lengths[0]}")
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
