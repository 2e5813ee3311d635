"""Emoji: counts, splits that leak nothing, names and labels that a person would give."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from course_lib import corpora

pytestmark = pytest.mark.slow  # whole sets are read and searched

SPLITS = ("train", "validation", "test")
ENGLISH_IN_JAPANESE = {"ATM", "WC", "Wi-Fi"}


@pytest.fixture(scope="module")
def splits():
    return {(by, split): corpora.emoji(split, by) for by in ("base", "vendor") for split in SPLITS}


@pytest.fixture(scope="module")
def everything(splits):
    """All rows: images (N, 32, 32, 3) float, labels (N,), and the text columns as arrays."""
    parts = [splits["base", split][:] for split in SPLITS]
    images = torch.cat([p["image"] for p in parts]).float()
    text = {k: np.concatenate([p[k] for p in parts]) for k in ("vendor", "base", "name_en", "name_ja")}
    return SimpleNamespace(images=images, labels=torch.cat([p["label"] for p in parts]), **text)


def test_counts_and_columns(splits, everything):
    assert {key: len(rows) for key, rows in splits.items()} == {
        ("base", "train"): 3860, ("base", "validation"): 506, ("base", "test"): 769,
        ("vendor", "train"): 3642, ("vendor", "validation"): 631, ("vendor", "test"): 862,
    }  # fmt: skip
    for rows in splits.values():
        assert set(rows.column_names) == {"image", "label", "vendor", "base", "name_en", "name_ja"}
        assert rows.features["label"].names == list(corpora.EMOJI_CLASSES)
        assert rows.features["image"].dtype == "uint8"
        assert rows[0]["image"].shape == (32, 32, 3)
    assert len(set(everything.base)) == 838
    assert set(everything.vendor) == set(corpora.EMOJI_VENDORS)
    assert len(corpora.EMOJI_CLASSES_JA) == len(corpora.EMOJI_CLASSES) == 10


def test_classes_are_of_like_size_in_every_split(splits, everything):
    """No class has more than 800 pictures or less than 240; each has its share in each split."""
    counts = everything.labels.bincount(minlength=10)
    assert 240 < counts.min() < counts.max() <= 800
    for by, low, high in (("base", 0.5, 1.5), ("vendor", 0.6, 1.4)):
        for split in SPLITS:
            labels = splits[by, split][:]["label"]
            share = labels.bincount(minlength=10) / len(labels) / (counts / counts.sum())
            assert low < share.min() < share.max() < high, (by, split)


@pytest.mark.parametrize("by", ["base", "vendor"])
def test_nothing_is_in_two_splits(splits, by):
    """No base (vendor), and no picture: not as it is, not mirrored, not turned."""
    values, pictures = {}, {}
    for split in SPLITS:
        rows = splits[by, split][:]
        values[split] = set(rows[by])
        images = rows["image"].numpy().astype(np.uint8)
        turned = [np.rot90(x, k, (1, 2)) for x in (images, images[:, :, ::-1]) for k in range(4)]
        kept = turned if by == "base" else turned[:1]
        pictures[split] = ({p.tobytes() for p in images}, {p.tobytes() for x in kept for p in x})
    for one, two in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert values[one]
        assert not values[one] & values[two]
        assert not pictures[one][0] & pictures[two][1]


def test_no_two_pictures_look_alike(everything):
    flat = everything.images.flatten(1)
    squares = (flat**2).sum(1)
    distances = squares[:, None] + squares - 2 * flat @ flat.T
    distances.fill_diagonal_(torch.inf)
    assert (distances.min() / flat.shape[1]).sqrt() > 7  # 8 of 255 before colours were rounded


def test_a_base_is_one_emoji_in_one_class(everything):
    pairs = set(zip(everything.base, everything.labels.tolist(), strict=True))
    assert len(pairs) == 838
    assert len(set(zip(everything.vendor, everything.name_en, strict=True))) == len(everything.labels)
    assert "✋" in everything.base  # raised hand, and the hand that is its mirror image
    (arrows,) = {b for b, n in zip(everything.base, everything.name_en, strict=True) if n in ("left arrow", "up arrow")}
    assert arrows == "➡"


def test_names_in_both_languages(everything):
    assert all(re.search("[A-Za-z]", name) for name in everything.name_en)
    strange = {name for name in set(everything.name_ja) if not re.search("[ぁ-んァ-ヶ一-龯]", name)}
    assert strange == ENGLISH_IN_JAPANESE
    names = dict(zip(everything.name_en, everything.name_ja, strict=True))
    assert (names["cat face"], names["red apple"]) == ("ネコの顔", "赤リンゴ")


def test_pictures_show_something_on_white(everything):
    assert everything.images.flatten(1).std(1).min() > 10
    corners = everything.images[:, [0, 0, -1, -1], [0, -1, 0, -1]]  # (N, 4, 3)
    assert (corners == 255).all(-1).float().mean() > 0.75


def test_a_person_would_agree_with_the_labels(everything):
    """Smileys are yellow discs, trees green, hands of yellow or fair skin, arrows and the like of two colours."""
    middle = everything.images[:, 10:22, 10:22].mean((1, 2))
    by_class = {name: everything.labels == i for i, name in enumerate(corpora.EMOJI_CLASSES)}
    for name in ("smiley", "body part"):
        red, green, blue = middle[by_class[name]].median(0).values
        assert red > green > blue + 50, name
    trees = torch.tensor([bool(re.search(r"\b(tree|herb|clover|cactus)$", n)) for n in everything.name_en])
    assert by_class["nature"][trees].all()
    assert (everything.images[trees].mean((1, 2)).argmax(1) == 1).float().mean() > 0.9
    levels = torch.tensor([len(np.unique(x)) for x in everything.images.numpy()]).float()
    assert levels[by_class["sign"]].median() < levels[by_class["food"]].median()


def test_the_vendors_draw_the_same_thing(everything):
    """The nearest picture of another vendor is the same emoji a hundred times as often as by chance."""
    cells = avg_pool2d(everything.images.permute(0, 3, 1, 2), 4).flatten(1)  # (N, 192)
    noto = np.flatnonzero(everything.vendor == "noto")
    for vendor in set(corpora.EMOJI_VENDORS) - {"noto"}:
        mine = np.flatnonzero(everything.vendor == vendor)
        nearest = noto[torch.cdist(cells[mine], cells[noto]).argmin(1).numpy()]
        assert (everything.base[nearest] == everything.base[mine]).mean() > 0.15, vendor


def test_tensors_are_the_rows(splits):
    images, labels = corpora.emoji_tensors("train")
    assert images.shape == (3860, 3, 32, 32)
    assert images.dtype == torch.float32
    rows = splits["base", "train"][:]
    assert torch.equal(labels, rows["label"])
    mean, std = torch.tensor([0.843, 0.794, 0.722]), torch.tensor([0.264, 0.245, 0.327])
    for i in (0, 2000):
        assert torch.allclose(images[i].permute(1, 2, 0), (rows["image"][i] / 255 - mean) / std, atol=1e-5)
    assert torch.allclose(images.mean((0, 2, 3)), torch.zeros(3), atol=5e-3)
    assert torch.allclose(images.std((0, 2, 3)), torch.ones(3), atol=5e-3)
    assert len(corpora.emoji_tensors("test", by="vendor")[1]) == len(splits["vendor", "test"])


def test_vendors_can_be_chosen():
    assert set(corpora.emoji("test", by="vendor")["vendor"]) == {"twemoji"}
    assert set(corpora.emoji("validation", by="vendor")["vendor"]) == {"emojione"}
    assert set(corpora.emoji("test", by="vendor", held_out=("twemoji", "fxemoji"))["vendor"]) == {"fxemoji"}
    train = set(corpora.emoji("train", by="vendor", held_out=("twemoji", "fxemoji"))["vendor"])
    assert train == set(corpora.EMOJI_VENDORS) - {"twemoji", "fxemoji"}


@pytest.mark.parametrize("load", [corpora.emoji, corpora.emoji_tensors])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "valid"}, "split='valid'; allowed are"),
        ({"by": "class"}, "by='class'; allowed are"),
        ({"held_out": ("emojione", "twemoji")}, "with by='base'"),
        ({"by": "vendor", "held_out": ("noto", "twemoji")}, "held_out=.*allowed is a tuple of two different"),
        ({"by": "vendor", "held_out": ("twemoji", "twemoji")}, "held_out=.*allowed is a tuple of two different"),
        ({"by": "vendor", "held_out": 5}, "held_out=5; allowed is a tuple of two different"),
        ({"by": "vendor", "held_out": ("twemoji",)}, "held_out=.*allowed is a tuple of two different"),
    ],
)
def test_bad_arguments(load, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(**arguments)
