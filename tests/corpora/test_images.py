"""Fashion-MNIST: counts, labels, pictures that fit them."""

import pytest
import torch

from course_lib import corpora

pytestmark = pytest.mark.slow  # whole sets are read and searched


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


def test_labels_are_in_the_published_order():
    """The order of the table in the data set's own README."""
    assert " ".join(corpora.FASHION_CLASSES) == (
        "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle boot"
    )
