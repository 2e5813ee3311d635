"""Scores of many heads at once: grids, layer by head."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from course_lib.viz.plots import MAX_WIDTH, headline, new_figure


def plot_score_grids(
    scores: Mapping[str, Mapping[str, ArrayLike]], *, title: str, limits: Mapping[str, float] | None = None
) -> Figure:
    """A grid of small maps: a column for each role, a row for each model; `scores[role][model]` is (layers, heads).

    Scores from 0.3 on stand in their cells. All maps of a role share one scale, from 0 to 1 or to `limits[role]`, so
    that a trained model can be compared with its controls. Raises ValueError for roles with different models, scores
    that are not (layers, heads), and a limit of a role that is not there.
    """
    rows = {role: list(models) for role, models in scores.items()}
    names = next(iter(rows.values()), [])
    if not names or any(models != names for models in rows.values()):
        raise ValueError(f"scores: models are {rows}; needed are the same ones, at least one, for each role")
    if unknown := sorted(set(limits or {}) - set(scores)):
        raise ValueError(f"limits: {', '.join(unknown)} unknown; the roles are {', '.join(scores)}")
    width, height = min(MAX_WIDTH, 1.7 * len(scores) + 0.6), 1.55 * len(names) + 0.75
    figure, axes = new_figure(len(scores), len(names), size=(width, height))
    for column, (role, models) in enumerate(scores.items()):
        limit = (limits or {}).get(role, 1.0)
        for row, (name, values) in enumerate(models.items()):
            ax = axes[row, column]
            fmt, least = ("%.2f", 0.3) if limit <= 2 else ("%.0f", 0.0)  # all of them would not fit
            draw_grid(ax, np.asarray(values, float), limit, fmt, least=least)
            if row == 0:
                ax.set_title(role, fontsize="small", loc="center")
            if column == 0:
                ax.set_ylabel(f"{name}\nlayer", fontsize="small")
            if row == len(names) - 1:
                ax.set_xlabel("head", fontsize="small")
    headline(figure, title)
    return figure


def draw_grid(
    ax: Axes, values: np.ndarray, limit: float, fmt: str = "%.2f", signed: bool = False, least: float = 0.0
) -> None:
    """One map (layers, heads) with the numbers from `least` on in their cells; layer 0 on top."""
    if values.ndim != 2:
        raise ValueError(f"values has shape {values.shape}; needed is (layers, heads)")
    ax.imshow(values, cmap="RdBu_r" if signed else "viridis", vmin=-limit if signed else 0, vmax=limit, aspect="auto")
    for (layer, head), value in np.ndenumerate(values):
        if abs(value) < least:
            continue
        dark = abs(value) > 0.6 * limit if signed else value < 0.6 * limit
        text = (fmt % value).replace("0.", ".", 1) if abs(value) < 1 else fmt % value
        ax.text(head, layer, text, ha="center", va="center", fontsize=6.5, color="white" if dark else "black")
    ax.set_xticks(range(values.shape[1]))
    ax.set_yticks(range(values.shape[0]))
    ax.tick_params(labelsize="x-small", length=2)
