"""Pictures of the recorded runs of lesson 08: alternation, and the long training."""

from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure

from course_lib.experiments.alternation import LAYERS, PATTERNS, RADIUS
from course_lib.experiments.record import Record
from course_lib.experiments.retrieval import BINS
from course_lib.viz.plots import GREY, OKABE_ITO, Line, draw_lines, headline, label_lines, new_figure

REMOVED = {"far_without_0": "layer 0", "far_without_3": "layer 3", "far_without_0_3": "both"}


def by_distance(record: Record, name: str) -> np.ndarray:
    """Share of right answers of an arm: (seeds, bins of distance). Raises ValueError for an arm that is not there."""
    runs = [run["metrics"] for run in record["arms"] if run["name"] == name]
    if not runs:
        raise ValueError(f"name={name!r}; arms are {', '.join(sorted({run['name'] for run in record['arms']}))}")
    return np.array([[run[f"accuracy_{low + 1}_{high}"] for low, high in pairwise(BINS)] for run in runs])


def plot_alternation(record: Record, *, title: str) -> Figure:
    """Left: right answers by distance, for each pattern its mean and the range over seeds. Right: the alternating
    model with its global layers made local, a dot a seed."""
    figure, axes = new_figure(2, size=(10.0, 3.6), width_ratios=(1.7, 1), sharey=True)
    middle = [(low + high) / 2 for low, high in pairwise(BINS)]
    lines = {}
    for name, color in zip(PATTERNS, OKABE_ITO, strict=False):
        shares = by_distance(record, name)
        lines[name] = Line(middle, shares.mean(0), shares.min(0), shares.max(0), color=color)
    left, right = axes[0]
    left.axvline(LAYERS * RADIUS, color=GREY, ls=":", lw=1)
    left.annotate(f" {LAYERS} layers × {RADIUS}", (LAYERS * RADIUS, 0.5), color=GREY, fontsize="small")
    draw_lines(left, lines)
    left.set(xlabel="distance between question and answer, tokens", ylabel="right answers", ylim=(0, 1.05))
    label_lines(left, lines)
    runs = [run["metrics"] for run in record["arms"] if run["name"] == "alternating"]
    for x, metric in enumerate(REMOVED):
        right.plot([x] * len(runs), [run[metric] for run in runs], "o", color=OKABE_ITO[1], alpha=0.7)
    right.set_xticks(range(len(REMOVED)), labels=list(REMOVED.values()))
    right.set(xlim=(-0.5, 2.5), xlabel="made local afterwards", title="alternating, beyond 96 tokens")
    headline(figure, f"{title}\n(bands: range over three seeds; right: a dot a seed)")
    return figure


def plot_training(record: Record, *, unigram: float, title: str) -> Figure:
    """The recorded training of the shipped model: loss of its batches, smoothed, on a logarithmic axis of steps."""
    (run,) = record["arms"]
    step, loss = (np.array(run["curve"][name], float) for name in ("step", "loss"))
    figure, axes = new_figure(size=(7.5, 3.2))
    ax = axes[0, 0]
    ax.plot(step + 1, loss, color=OKABE_ITO[0], alpha=0.25, lw=0.8)
    reach = np.minimum(0.15 * (step + 1), step[-1] - step)  # as wide on the axis everywhere, and even to both sides
    smooth = [loss[np.abs(step - at) <= wide].mean() for at, wide in zip(step, reach, strict=True)]
    ax.plot(step + 1, smooth, color=OKABE_ITO[0])
    ax.axhline(unigram, color=GREY, ls=":", lw=1)
    ax.annotate("how frequent each token is", (1.1, unigram), color=GREY, va="bottom", fontsize="small")
    ax.set(xscale="log", xlabel="training step", ylabel="loss of the hidden 30 %, nats")
    headline(figure, title)
    return figure
