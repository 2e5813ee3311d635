"""Shipped data: counts, labels, integrity; batches that are a pure function of seed and step."""

import gzip
import re
import shutil
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from course_lib import corpora, paths
from tests.conftest import ROOT, load_file


@pytest.mark.parametrize(("split", "count"), [("train", 10_000), ("test", 2_000)])
def test_fashion_mnist(split, count):
    rows = corpora.fashion_mnist(split)
    assert len(rows) == count
    assert rows.features["label"].names == list(corpora.FASHION_CLASSES)
    first = rows[0]
    assert first["image"].shape == (28, 28)
    assert rows.features["image"].dtype == "uint8"
    assert 0 <= first["image"].min() < first["image"].max() <= 255
    images, labels = corpora.fashion_tensors(split)
    assert images.shape == (count, 784)
    assert images.dtype == torch.float32
    assert labels.bincount().tolist() == [count // 10] * 10
    assert torch.allclose(images[0].view(28, 28), (first["image"].float() / 255 - 0.286) / 0.353, atol=1e-3)
    if split == "train":
        assert images.mean().item() == pytest.approx(0, abs=5e-3)
        assert images.std().item() == pytest.approx(1, abs=5e-3)


def test_no_picture_is_in_both_splits():
    train, test = (corpora.fashion_mnist(s)[:]["image"].flatten(1).numpy() for s in ("train", "test"))
    assert not {row.tobytes() for row in train} & {row.tobytes() for row in test}


def test_a_person_would_agree_with_the_labels():
    """Trousers are tall and narrow, sneakers flat, bags wide: the labels belong to the pictures."""
    images, labels = (corpora.fashion_mnist("test")[:][c] for c in ("image", "label"))
    filled = (images > 40).float()
    rows, columns = filled.any(2).float().sum(1), filled.any(1).float().sum(1)
    by_class = {name: labels == i for i, name in enumerate(corpora.FASHION_CLASSES)}
    assert columns[by_class["Trouser"]].median() < 16 < columns[by_class["Bag"]].median()
    assert rows[by_class["Sneaker"]].median() < 16 < rows[by_class["Dress"]].median()


def test_damaged_and_missing_files_say_so(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "data", tmp_path / "data")
    monkeypatch.setattr(paths, "shipped", lambda folder: tmp_path / folder)
    file = tmp_path / "data" / "fashion_mnist.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1000])
    with pytest.raises(ValueError, match=r"data/fashion_mnist\.npz is damaged.*git checkout"):
        corpora.fashion_mnist()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="is damaged"):
        corpora.fashion_mnist()
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"data/fashion_mnist\.npz is missing.*make data"):
        corpora.fashion_mnist()
    with pytest.raises(ValueError, match=r"name='other\.npz' is not listed"):
        paths.verified("other.npz")
    with pytest.raises(ValueError, match="split='valid'"):
        corpora.fashion_mnist("valid")


def test_every_file_is_listed_and_named_in_the_sources():
    listed = paths.checksums()
    sources = (ROOT / "data" / "SOURCES.md").read_text("utf-8")
    kept = {p.relative_to(ROOT / "data").as_posix() for p in (ROOT / "data").rglob("*") if p.is_file()}
    assert kept - set(listed) == {"SHA256SUMS", "SOURCES.md"}
    for name, digest in listed.items():
        assert paths.sha256(ROOT / "data" / name) == digest, name
        assert name in sources, f"{name} has no origin in SOURCES.md"
        assert digest in sources, f"SOURCES.md has another SHA-256 for {name}"
    assert sum((ROOT / "data" / n).stat().st_size for n in listed if not n.startswith("weights/")) < 15e6


def test_batches_are_pure_and_cover_an_epoch():
    x = torch.arange(23)
    batches = corpora.shuffled_batches((x, x * 2), 5, seed=1)
    again = corpora.shuffled_batches((x, x * 2), 5, seed=1)
    assert all(torch.equal(batches(step)[0], again(step)[0]) for step in (7, 0, 3))
    epoch = torch.cat([batches(step)[0] for step in range(4)])
    assert len(set(epoch.tolist())) == 20  # nothing twice; the last three wait for another epoch
    second = torch.cat([batches(step)[0] for step in range(4, 8)])
    assert epoch.tolist() != second.tolist()
    assert torch.equal(batches(2)[1], batches(2)[0] * 2)
    assert not torch.equal(corpora.shuffled_batches((x,), 5, seed=2)(0)[0], batches(0)[0])


@pytest.mark.parametrize(
    ("tensors", "size", "words"),
    [
        ((torch.ones(4), torch.ones(3)), 2, "lengths [4, 3]"),
        ((), 2, "lengths []"),
        ((torch.ones(4),), 5, "batch_size=5"),
    ],
)
def test_bad_batches(tensors, size, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        corpora.shuffled_batches(tensors, size, 0)


def test_the_builder_reads_idx_and_takes_the_first_of_each_class(tmp_path):
    build = load_file(ROOT / "scripts" / "build_data.py")
    pictures = np.arange(40 * 6, dtype=np.uint8).reshape(40, 2, 3)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 40, 2, 3) + pictures.tobytes()))
    assert np.array_equal(build.read_idx(path), pictures)
    labels = np.arange(40) % 10
    images, kept = build.first_per_class(pictures, labels, 2)
    assert np.array_equal(images, pictures[:20])
    assert np.array_equal(kept, labels[:20])


def test_whole_or_nothing(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with paths.whole_or_nothing(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()

    def fail_half_way():
        with paths.whole_or_nothing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        fail_half_way()
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_labels_are_in_the_published_order():
    """The order of the table in the data set's own README."""
    assert " ".join(corpora.FASHION_CLASSES) == (
        "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle boot"
    )


def test_batches_are_full_and_epochs_differ_from_seeds():
    x = torch.arange(23)
    one, two = (corpora.shuffled_batches((x,), 5, seed) for seed in (1, 2))
    assert {len(one(step)[0]) for step in range(12)} == {5}
    assert not torch.equal(one(4)[0], two(0)[0])  # the second epoch of seed 1 is not the first of seed 2
    with pytest.raises(ValueError, match="batch_size=0"):
        corpora.shuffled_batches((x,), 0, 1)


def test_processes_share_a_batch(monkeypatch):
    x = torch.arange(23)
    whole = corpora.shuffled_batches((x,), 6, 1)(2)[0]
    parts = []
    for rank in range(2):
        monkeypatch.setattr(
            corpora, "processes", lambda rank=rank: SimpleNamespace(num_processes=2, process_index=rank)
        )
        parts.append(corpora.shuffled_batches((x,), 6, 1)(2)[0])
    assert torch.equal(torch.cat(parts), whole)
    with pytest.raises(ValueError, match="batch_size=5 cannot be shared by 2"):
        corpora.shuffled_batches((x,), 5, 1)
