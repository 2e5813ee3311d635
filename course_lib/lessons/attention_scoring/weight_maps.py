"""Pictures of attention at work: its four steps in one row, and maps of weights side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from course_lib.viz.plots import headline, new_figure


def plot_attention_steps(
    embeddings: ArrayLike, scores: ArrayLike, weights: ArrayLike, outputs: ArrayLike, *,
    queries: Sequence[str], keys: Sequence[str], channels: Sequence[str] = (), answers: Sequence[str] = (),
    output_title: str = "outputs", title: str = "",
) -> Figure:  # fmt: skip
    """The four pictures in one row: embeddings of the keys (S, C), scores (T, S), weights (T, S), outputs (T, Dv).

    Small matrices get their numbers written in, others a colour bar; embeddings and outputs with the same number of
    channels share a scale. `channels` names the columns of embeddings and outputs. Or `answers`
    names those of the outputs, which are then chances, drawn on the weights' scale, 0 to 1. Raises ValueError for
    shapes that do not fit.
    """
    matrices = [np.asarray(m, float) for m in (embeddings, scores, weights, outputs)]
    n_queries, n_keys = len(queries), len(keys)
    shapes = [m.shape for m in matrices]
    fits = all(len(shape) == 2 for shape in shapes) and shapes[1] == shapes[2] == (n_queries, n_keys)
    if not fits or shapes[0][0] != n_keys or shapes[3][0] != n_queries:
        raise ValueError(
            f"embeddings, scores, weights, outputs have shapes {', '.join(map(str, shapes))}; needed for {n_queries} "
            f"queries and {n_keys} keys are (S, C), (T, S), (T, S), (T, Dv)"
        )
    ratios = [max(2.0, min(shape[1], n_keys)) for shape in shapes]
    figure, axes = new_figure(4, size=(10.0, 1.9 + 0.27 * max(n_queries, n_keys)), width_ratios=ratios)
    embedding, score, weight, output = axes[0]
    shared = [matrices[0], matrices[3]] if not answers and shapes[0][1] == shapes[3][1] else [matrices[0]]
    end = max(float(np.abs(m).max()) for m in shared) or None
    _cells(embedding, matrices[0], signed=True, end=end, rows=keys, columns=channels, title="1 embeddings",
           xlabel="channel")  # fmt: skip
    _cells(score, matrices[1], signed=True, rows=queries, columns=keys, title="2 scores", xlabel="key", ylabel="query")
    _cells(weight, matrices[2], signed=False, rows=(), columns=keys, title="3 weights", xlabel="key")
    _cells(output, matrices[3], signed=not answers, end=end if len(shared) == 2 else None, rows=queries,
           columns=answers or channels, title=f"4 {output_title}",
           xlabel="answer" if answers else "channel")  # fmt: skip
    for ax in axes[0]:
        if not ax.texts:
            bar = figure.colorbar(ax.images[0], ax=ax, location="top", shrink=0.8, aspect=12)
            bar.outline.set_visible(False)
    if title:
        headline(figure, title)
    return figure


def plot_weight_panels(
    panels: Mapping[str, ArrayLike], queries: Sequence[str], keys: Sequence[str], title: str = ""
) -> Figure:
    """Weights (T, S) of the same queries and keys side by side, on one scale from 0 to 1; the names are the titles.

    Raises ValueError for no panel, or a matrix of another shape.
    """
    if not panels:
        raise ValueError("panels is empty; give at least one matrix of weights")
    figure, axes = new_figure(len(panels), size=(10.0, 2.0 + 0.24 * len(queries)))
    for i, (ax, (name, matrix)) in enumerate(zip(axes[0], panels.items(), strict=True)):
        values = np.asarray(matrix, float)
        if values.shape != (len(queries), len(keys)):
            raise ValueError(f"panels: {name!r} has shape {values.shape}; needed is {(len(queries), len(keys))}")
        _cells(ax, values, signed=False, rows=queries if i == 0 else (), columns=keys, title=name, xlabel="key",
               ylabel="query" if i == 0 else "", numbers=False)  # fmt: skip
    figure.colorbar(axes[0, -1].images[0], ax=axes[0, -1], label="weight").outline.set_visible(False)
    if title:
        headline(figure, title)
    return figure


def _cells(
    ax: Axes, values: np.ndarray, *, signed: bool, rows: Sequence[str], columns: Sequence[str] = (), title: str,
    xlabel: str, ylabel: str = "", numbers: bool = True, end: float | None = None,
) -> None:  # fmt: skip
    """A matrix as colours, with its numbers where they can be read; signed ones run from -end to end, or their own."""
    end = end or float(np.abs(values).max()) or 1.0 if signed else 1.0
    cmap, low = ("RdBu_r", -end) if signed else ("viridis", 0.0)
    ax.imshow(values, cmap=cmap, vmin=low, vmax=end, aspect="auto", interpolation="nearest")
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    ax.set_yticks(range(len(rows)), labels=list(rows), fontsize="small")
    if columns:
        ax.set_xticks(range(len(columns)), labels=list(columns), rotation=90, fontsize="small")
    elif values.shape[1] <= 4:
        ax.set_xticks(range(values.shape[1]), labels=[str(i + 1) for i in range(values.shape[1])])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if numbers and values.shape[1] <= 6 and values.shape[0] <= 8:
        for (i, j), value in np.ndenumerate(values):
            dark = value < 0.55 if not signed else abs(value) > 0.6 * end
            text = f"{value:.1f}" if signed else f"{value:.2f}"
            ax.text(j, i, text, ha="center", va="center", color="white" if dark else "black", fontsize=8)
