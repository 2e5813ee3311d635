"""Emoji: colour pictures in ten classes, as seven sets of drawings show them."""

import io
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from course_lib.checks import check_choice
from course_lib.corpora.documents import SPLITS, check_split
from course_lib.init import seed_of
from course_lib.paths import verified

if TYPE_CHECKING:
    from datasets import Dataset

EMOJI_CLASSES = (
    "smiley", "person", "body part", "animal", "food", "vehicle", "building", "clothing", "nature", "sign",
)  # fmt: skip
EMOJI_CLASSES_JA = ("顔マーク", "人", "体の部分", "動物", "食べ物", "乗り物", "建物", "衣類", "自然", "記号")
EMOJI_VENDORS = ("noto", "noto-v1", "fluent-emoji", "fluent-emoji-flat", "twemoji", "emojione", "fxemoji")
_HELD_OUT = ("twemoji", "emojione", "fxemoji")  # the others are two sets by one maker: one would give the other away
_VALIDATION, _TEST = 0.10, 0.15  # shares of the bases of each class
# Of the pictures to train on, by base; held by a test.
_EMOJI_MEAN, _EMOJI_STD = (0.843, 0.794, 0.722), (0.264, 0.245, 0.327)


def emoji(split: str = "train", by: str = "base", held_out: tuple[str, str] | None = None) -> "Dataset":
    """Emoji drawings: columns image (32, 32, 3), RGB 0 to 255 on white, label, one of EMOJI_CLASSES, and names.

    The other columns are vendor, one of EMOJI_VENDORS; base, the emoji that all vendors' drawings of it share; and its
    names name_en, name_ja. A drawing that is another's mirrored or turned copy (arrows, left and right fist) shares the
    other's base, and pictures that look alike are in the data once.

    by="base": what a base looks like in any style stays in one split. In each class the bases are put in the order of
    a hash; the first 15 % are "test", the next 10 % "validation", the rest "train".
    by="vendor": a style stays in one split. `held_out` names the vendors of "validation" and "test", by default
    ("emojione", "twemoji"): twemoji is the only set that is complete and has no sibling by the same maker, as noto and
    fluent-emoji have. Most bases of the test are then known from training in another style.

    Stored as uint8, rows come as torch int64 tensors (`datasets` widens integers). Raises ValueError for another
    split, by or held_out, or a damaged file; FileNotFoundError for a missing one.
    Source: seven open emoji sets, names from CLDR; licences and origin in data/SOURCES.md.
    """
    import datasets  # takes about a second to import: only who asks for data pays

    rows = _rows(split, by, held_out)
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in ("vendor", "base", "name_en", "name_ja")}
    columns |= {"image": _pictures(rows), "label": [EMOJI_CLASSES.index(row["label"]) for row in rows]}
    features = datasets.Features(
        {"image": datasets.Array3D((32, 32, 3), "uint8"), "label": datasets.ClassLabel(names=list(EMOJI_CLASSES))}
        | {name: datasets.Value("string") for name in ("vendor", "base", "name_en", "name_ja")}
    )
    return datasets.Dataset.from_dict(columns, features=features, split=split).with_format("torch")


def emoji_tensors(
    split: str = "train", by: str = "base", held_out: tuple[str, str] | None = None
) -> tuple[Tensor, Tensor]:
    """The whole split as two tensors: images (N, 3, 32, 32) float32, each channel about mean 0 and variance 1, and
    labels (N,) int64. Arguments and errors as for `emoji`."""
    rows = _rows(split, by, held_out)
    images = torch.from_numpy(_pictures(rows)).permute(0, 3, 1, 2).float() / 255  # (N, 3, 32, 32)
    mean, std = (torch.tensor(x, dtype=torch.float32)[:, None, None] for x in (_EMOJI_MEAN, _EMOJI_STD))
    return (images - mean) / std, torch.tensor([EMOJI_CLASSES.index(row["label"]) for row in rows])


def _rows(split: str, by: str, held_out: tuple[str, str] | None) -> list[dict]:
    """The rows of a split, as the file has them."""
    import pyarrow.parquet as pq

    check_split(split)
    check_choice("by", by, ("base", "vendor"))
    if by == "base" and held_out is not None:
        raise ValueError(f"held_out={held_out!r} with by='base'; it belongs to by='vendor'")
    held_out = ("emojione", "twemoji") if held_out is None else held_out
    if held_out not in permutations(_HELD_OUT, 2):
        raise ValueError(f"held_out={held_out!r}; allowed is a tuple of two different ones of {_HELD_OUT}")
    rows = pq.read_table(verified("emoji10.parquet")).to_pylist()
    where = _split_by_base(rows) if by == "base" else dict(zip(held_out, SPLITS[1:], strict=True))
    return [row for row in rows if where.get(row[by], "train") == split]


def _split_by_base(rows: list[dict]) -> dict[str, str]:
    """Split of every base that is not for training."""
    where: dict[str, str] = {}
    for name in EMOJI_CLASSES:
        bases = sorted({row["base"] for row in rows if row["label"] == name}, key=lambda base: seed_of("emoji10", base))
        test, end = round(_TEST * len(bases)), round((_TEST + _VALIDATION) * len(bases))
        where |= dict.fromkeys(bases[:test], "test") | dict.fromkeys(bases[test:end], "validation")
    return where


def _pictures(rows: list[dict]) -> np.ndarray:
    """The rows' pictures, (N, 32, 32, 3) uint8."""
    from PIL import Image

    return np.stack([np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB")) for row in rows])
