"""Pictures: Fashion-MNIST."""

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from course_lib.checks import check_choice
from course_lib.corpora import hub
from course_lib.corpora.full_images import published_pictures
from course_lib.paths import verified

if TYPE_CHECKING:
    from datasets import Dataset

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_FASHION_MEAN, _FASHION_STD = 0.286, 0.353  # of the 10,000 shipped training pictures, in 0..1; held by a test


def fashion_mnist(split: str = "train", *, full: bool = False) -> "Dataset":
    """Product photos from Fashion-MNIST: columns image (28, 28), grey 0 to 255, and label, one of FASHION_CLASSES.

    split "train" has 10,000 pictures, "test" 2,000; both have all ten classes in equal number. `full=True` permits the
    download of all 60,000 and 10,000. Stored as uint8, rows come as torch int64 tensors (`datasets` widens integers).
    Raises ValueError for another split or a damaged file, FileNotFoundError for a missing one, ConnectionError, which
    says what to do, when the download fails.
    Source: Xiao, Rasul, Vollgraf 2017, "Fashion-MNIST"; licence and origin in data/SOURCES.md.
    """
    import datasets  # takes about a second to import: only who asks for data pays

    check_choice("split", split, ("train", "test"))
    if full:
        return published_pictures(hub.HUB["fashion_mnist"], split, FASHION_CLASSES, (28, 28))
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
