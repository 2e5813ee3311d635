"""What each head costs, as a picture."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from course_lib.viz.head_grids import draw_grid
from course_lib.viz.plots import headline, new_figure


def plot_ablation(costs: ArrayLike, errors: ArrayLike, *, title: str) -> Figure:
    """What the loss rises by without each head, in nats: a map, and the heads in order with 95 % intervals.

    costs and errors (layers, heads); errors are half-widths of intervals. Raises ValueError for other shapes.
    """
    mean, half = np.asarray(costs, float), np.asarray(errors, float)
    if mean.ndim != 2 or mean.shape != half.shape:
        raise ValueError(f"costs has shape {mean.shape}, errors {half.shape}; needed is twice (layers, heads)")
    figure, axes = new_figure(2, size=(10.0, 3.6), width_ratios=(1, 1.5))
    draw_grid(axes[0, 0], mean, float(np.abs(mean).max()), "%.3f", signed=True)
    axes[0, 0].set(xlabel="head", ylabel="layer", title="loss without it, minus loss with it")
    order = np.argsort(-mean, axis=None)
    ax = axes[0, 1]
    ax.errorbar(range(len(order)), mean.flat[order], yerr=half.flat[order], fmt=".", ms=5, lw=1, color="#0072B2")
    ax.axhline(0, color="black", lw=0.8)
    names = [f"{i // mean.shape[1]}.{i % mean.shape[1]}" for i in order]
    ax.set_xticks(range(len(order)), labels=names, rotation=90, fontsize="xx-small")
    ax.set(xlabel="layer.head", ylabel="nats a token", title="in order of cost, 95 % intervals over texts")
    headline(figure, title)
    return figure
