"""A contact sheet: what the classes of a picture data set look like, style beside style."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from course_lib.viz.plots import GREY, MAX_WIDTH, new_figure


def choose_drawings(
    labels: Sequence[int], vendors: Sequence[str], bases: Sequence[str], order: Sequence[str], each: int
) -> list[list[int]]:
    """For each label, rows of the data: `each` of every vendor in `order`, no base twice where there are enough.

    The first in the order of the data that is free; drawings far apart in it are preferred. Raises ValueError for a
    vendor with fewer than `each` drawings of a class.
    """
    chosen = []
    for label in sorted(set(labels)):
        line: list[int] = []
        for place, vendor in enumerate(order):
            mine = [i for i in range(len(labels)) if (labels[i], vendors[i]) == (label, vendor)]
            if len(mine) < each:
                raise ValueError(f"vendor {vendor!r} has {len(mine)} drawings of label {label}; needed are {each}")
            for n in range(each):
                start = (n * len(order) + place) * len(mine) // (each * len(order))
                turned = mine[start:] + mine[:start]
                used = {bases[i] for i in line}
                line.append(next((i for i in turned if bases[i] not in used), turned[0]))
        chosen.append(line)
    return chosen


def contact_sheet(images: ArrayLike, names: Sequence[str], columns: Mapping[str, int], title: str) -> Figure:
    """Pictures (rows, N, height, width, 3) in 0..255, each row with its name; `columns` maps a heading to its width.

    Raises ValueError for another shape, or names or columns that do not add up to it.
    """
    pictures: np.ndarray[Any, Any] = np.asarray(images)
    if pictures.ndim != 5 or pictures.shape[4] != 3 or pictures.shape[:2] != (len(names), sum(columns.values())):
        raise ValueError(
            f"images has shape {pictures.shape}; needed is ({len(names)}, {sum(columns.values())}, height, width, 3)"
        )
    n_rows, n_columns, height, width, _ = pictures.shape
    gap = height // 8
    paper = np.full((n_rows, height + gap, n_columns, width + gap, 3), 255, np.uint8)
    paper[:, :height, :, :width] = pictures.transpose(0, 2, 1, 3, 4)
    flat = paper.reshape(n_rows * (height + gap), n_columns * (width + gap), 3)
    share = flat.shape[0] / flat.shape[1]
    figure, axes = new_figure(size=(MAX_WIDTH, (MAX_WIDTH - 1.9) * share + 0.7))
    ax = axes[0, 0]
    ax.imshow(flat, interpolation="lanczos")
    ax.set_yticks([(height + gap) * i + height / 2 for i in range(n_rows)], labels=names)
    ax.set_xticks([])
    ax.tick_params(left=False, labelsize="large")
    ax.spines[:].set_visible(False)
    left = 0
    for heading, count in columns.items():
        middle = (width + gap) * (left + count / 2) - gap / 2
        ax.annotate(heading, (middle, -gap), ha="center", va="bottom", color=GREY, fontsize="small",
                    annotation_clip=False)  # fmt: skip
        if left:
            ax.axvline((width + gap) * left - gap / 2, color=GREY, lw=0.5, alpha=0.5)
        left += count
    ax.set_title(title, pad=22)
    return figure
