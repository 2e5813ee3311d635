"""Fashion-MNIST, from the Debian package that carries the published IDX files."""

import gzip
from pathlib import Path

import numpy as np

from builders.packages import debian
from course_lib.paths import shipped, whole_or_nothing


def read_idx(path: Path) -> np.ndarray:
    """Array in a gzipped IDX file: magic number (its last byte counts the axes), sizes, then unsigned bytes."""
    raw = gzip.decompress(path.read_bytes())
    n_axes = raw[3]
    shape = np.frombuffer(raw, ">u4", n_axes, 4).astype(int)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * n_axes).reshape(shape)


def first_per_class(images: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` pictures of each class, in the order of the source."""
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(10)]))
    return images[chosen], labels[chosen]


def fashion_mnist(folder: Path) -> list[Path]:
    """10,000 training and 2,000 test pictures: the first 1,000 (200) of each of the ten classes."""
    root = debian(
        "dataset-fashion-mnist",
        "0.0~git20200523.55506a9-1",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        folder,
    )
    arrays = {}
    for split, prefix, count in (("train", "train", 1000), ("test", "t10k", 200)):
        (images,) = root.rglob(f"{prefix}-images-idx3-ubyte.gz")
        (labels,) = root.rglob(f"{prefix}-labels-idx1-ubyte.gz")
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = first_per_class(
            read_idx(images), read_idx(labels), count
        )
    target = shipped("data") / "fashion_mnist.npz"
    with whole_or_nothing(target) as path, open(path, "wb") as file:
        np.savez_compressed(file, **arrays)
    return [target]
