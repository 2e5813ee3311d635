"""Plots of the studies of sparse attention: answers by distance, and losses against steps and seconds."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from course_lib.viz.plots import GREY, OKABE_ITO, Line, draw_lines, headline, label_lines, line_plot, new_figure

CHANCE = 1 / 32  # one of 32 things
COLORS = {name: OKABE_ITO[i] for i, name in enumerate(("local", "full", "local + global", "BigBird", "local + random"))}
COLORS |= {"hybrid": COLORS["local + global"], "radius 4": OKABE_ITO[5], "radius 4 + global": OKABE_ITO[4]}

Record = Mapping[str, Any]


def retrieval_lines(record: Record) -> dict[str, Line]:
    """For each arm the share of right answers against the distance (middle of the bin): mean over seeds, and range.

    Raises ValueError for a record without runs, or runs without such shares.
    """
    lines = {}
    for arm, runs in _by_arm(record).items():
        bins = [m for name in runs[0]["metrics"] if (m := re.fullmatch(r"accuracy_(\d+)_(\d+)", name))]
        if not bins:
            raise ValueError(f"record: the arm {arm!r} has no metrics accuracy_LOW_HIGH")
        shares = np.array([[run["metrics"][m[0]] for m in bins] for run in runs], float)  # (seeds, bins)
        middle = [(int(m[1]) + int(m[2])) / 2 for m in bins]
        lines[arm] = Line(middle, shares.mean(0), shares.min(0), shares.max(0), color=COLORS.get(arm))
    return lines


def plot_retrieval(record: Record) -> Figure:
    """Right answers against the distance of question and answer, for each arm of the study `retrieval`.

    Lines are means over seeds, bands the range. A vertical line is the reach of the window: layers times radius.
    Raises ValueError as `retrieval_lines` does.
    """
    lines = {name: _percent(line) for name, line in retrieval_lines(record).items()}
    config = record["arms"][0]["config"]
    layers, radius = config["n_layers"], config["radius"]
    n_seeds = len({run["seed"] for run in record["arms"]})
    figure, axes = new_figure(size=(8.6, 4.2))
    ax = axes[0, 0]
    ax.set(
        xlabel="distance of question and answer (tokens; middle of a bin)", ylabel="right answers, %", ylim=(-3, 106)
    )
    ax.axhline(100 * CHANCE, color=GREY, linestyle=":", lw=1)
    ax.annotate("a guess: 1 of 32", (0.02, 100 * CHANCE), xycoords=("axes fraction", "data"), color=GREY, va="bottom",
                fontsize="small")  # fmt: skip
    ax.axvline(layers * radius, color=GREY, linestyle="--", lw=1)
    ax.annotate(f"{layers} layers × radius {radius}\n= {layers * radius} tokens", (layers * radius + 3, 52), color=GREY,
                va="center", fontsize="small")  # fmt: skip
    first = len(ax.lines)
    draw_lines(ax, lines)
    for curve, width in zip(ax.lines[first:], (1.5, 8.0, 5.5, 3.5, 1.5), strict=False):
        curve.set_linewidth(width)  # where all are right, lines lie on each other: each must show
    label_lines(ax, lines)
    title = _finding(lines, layers * radius) + f"; mean and range of {n_seeds} seed{'s' * (n_seeds > 1)})"
    headline(figure, title)
    return figure


def _finding(lines: Mapping[str, Line], reach: int) -> str:
    """How often the window alone answers within its reach, and beyond, and what the others do at worst."""
    if len(lines) < 2 or "local" not in lines:
        return "Right answers by distance\n(" + ", ".join(lines)
    x, y = np.asarray(lines["local"].x, float), np.asarray(lines["local"].y, float)
    near, far = y[x <= reach].mean(), y[x > reach].mean()
    worst = min(float(np.min(line.y)) for name, line in lines.items() if name != "local")
    return (
        f"A window alone answers {near:.0f} % within its reach of {reach} tokens, and {far:.0f} % beyond\n"
        f"(all others {worst:.3g} % or more at any distance"
    )


def _percent(line: Line) -> Line:
    y, low, high = (100 * np.asarray(values, float) for values in (line.y, line.low, line.high))
    return Line(line.x, y, low, high, color=line.color)


def plot_retrieval_curves(record: Record) -> Figure:
    """Training loss against steps for each arm: mean over seeds and range. Raises ValueError for no runs."""
    lines = {}
    for arm, runs in _by_arm(record).items():
        losses = np.array([run["curve"]["loss"] for run in runs], float)  # (seeds, points)
        bounds = losses.min(0), losses.max(0)
        lines[arm] = Line(runs[0]["curve"]["step"], losses.mean(0), *bounds, color=COLORS.get(arm))
    n_seeds = len({run["seed"] for run in record["arms"]})
    return line_plot(
        {f"Mean and range of {n_seeds} seed{'s' * (n_seeds > 1)}": lines}, xlabel="step", ylabel="training loss, nats",
        title="Retrieval: when each pattern learns where the answer is", size=(8.0, 4.0),
        reference=(float(np.log(1 / CHANCE)), "a guess: ln 32", 0.7),
    )  # fmt: skip


def plot_loss_against_seconds(
    panels: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]], *, title: str = "", ylabel: str = "loss, nats",
    reference: tuple[float, str, float] | None = None,
) -> Figure:  # fmt: skip
    """Loss of hidden tokens against seconds of training: a panel for each length, a line for each arm.

    `panels[panel][arm]` is (seconds (N,), loss (N,)). Each panel has seconds of its own; the losses share one axis.
    `reference` is a level, its name, and where along the axis the name stands, from 0 to 1. Raises ValueError for no
    panel, or seconds and losses that differ in number.
    """
    lines = {
        panel: {arm: Line(*xy, color=COLORS.get(arm)) for arm, xy in arms.items()} for panel, arms in panels.items()
    }
    return line_plot(lines, xlabel="seconds of training", ylabel=ylabel, title=title, reference=reference)


def _by_arm(record: Record) -> dict[str, list[Any]]:
    """Runs of each arm; the arms in the order of COLORS."""
    runs = record["arms"]
    if not runs:
        raise ValueError("record has no runs; needed is at least one")
    order = [name for name in COLORS if any(run["name"] == name for run in runs)]
    names = dict.fromkeys([*order, *(run["name"] for run in runs)])
    return {name: [run for run in runs if run["name"] == name] for name in names}
