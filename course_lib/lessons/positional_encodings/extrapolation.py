"""Plots of texts longer than those of the training: perplexity by position, alone and against short windows."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from course_lib.checks import check_at_least, check_range
from course_lib.viz.plots import GREY, OKABE_ITO, Line, draw_lines, headline, label_lines, new_figure

HOLDS = 1.1  # a scheme whose perplexity grows by at most this factor beyond the trained length, holds
# A colour for each family of schemes, by the first word of the name; the second of a family is dashed.
FAMILIES = {
    "rope": OKABE_ITO[0], "alibi": OKABE_ITO[1], "t5": OKABE_ITO[2], "shaw": OKABE_ITO[3], "sinusoidal": OKABE_ITO[4],
    "learned": OKABE_ITO[5], "none": "black",
}  # fmt: skip


@dataclass(frozen=True)
class ByPosition:
    """Perplexity, or a ratio of two, in bins of positions for each scheme: geometric mean and range over seeds."""

    trained: int
    edges: np.ndarray  # (N + 1,) a bin is the positions above an edge, up to the next; positions begin at 1
    seeds: dict[str, int]
    mean: dict[str, np.ndarray]  # (N,); NaN where a model has no such position
    low: dict[str, np.ndarray]
    high: dict[str, np.ndarray]

    @property
    def middles(self) -> np.ndarray:
        """Geometric middle of each bin: (N,)."""
        return np.sqrt((self.edges[:-1] + 1) * self.edges[1:])


def position_edges(length: int, trained: int, per_octave: int = 2) -> np.ndarray:
    """Edges of bins that grow by a factor 2 ** (1 / per_octave), with `trained` among them, from 0 to `length`.

    Raises ValueError unless 1 <= trained <= length and per_octave is 1 or more.
    """
    check_at_least("per_octave", per_octave, 1)
    check_at_least("length", length, 1)
    check_range("trained", trained, 1, length)
    steps = np.arange(-per_octave * 20, per_octave * 20 + 1)
    edges = np.unique(np.round(trained * 2.0 ** (steps / per_octave)).astype(int))
    return np.array([0, *edges[(edges >= 1) & (edges < length)], length])


def perplexity_by_position(losses: Mapping[str, ArrayLike], trained: int = 128, per_octave: int = 2) -> ByPosition:
    """Average losses of each scheme, (seeds, positions) nats, in `position_edges`; the first column is position 1.

    A scheme that ends early has fewer columns, or NaN. Raises ValueError for no scheme, other shapes, and as
    `position_edges` does.
    """
    arrays = {name: np.asarray(values, float) for name, values in losses.items()}
    for name, values in arrays.items():
        if values.ndim != 2 or 0 in values.shape:
            raise ValueError(f"losses: {name!r} has shape {values.shape}; needed is (seeds, positions)")
    if not arrays:
        raise ValueError("losses is empty; give at least one scheme")
    edges = position_edges(max(values.shape[1] for values in arrays.values()), trained, per_octave)
    seeds, mean, low, high = {}, {}, {}, {}
    for name, values in arrays.items():
        full = np.pad(values, ((0, 0), (0, edges[-1] - values.shape[1])), constant_values=np.nan)
        bins = np.stack([full[:, a:b].mean(1) for a, b in itertools.pairwise(edges)], 1)  # (seeds, N)
        seeds[name] = len(values)
        mean[name], low[name], high[name] = np.exp(bins.mean(0)), np.exp(bins.min(0)), np.exp(bins.max(0))
    return ByPosition(trained, edges, seeds, mean, low, high)


def growth_by_position(
    losses: Mapping[str, ArrayLike], windows: Mapping[str, ArrayLike], trained: int = 128, per_octave: int = 2
) -> ByPosition:
    """Perplexity over that of the *same tokens* in windows of the trained length, so that their difficulty cancels.

    `losses` and `windows` (seeds, positions) in nats as in `perplexity_by_position`; ratios are made seed by seed.
    Raises ValueError as it does, and for schemes or seeds that `windows` lacks.
    """
    differences = {}
    for name, values in losses.items():
        own, short = np.asarray(values, float), np.asarray(windows.get(name, np.nan), float)
        if short.ndim != 2 or own.ndim != 2 or len(own) != len(short) or own.shape[1] > short.shape[1]:
            raise ValueError(f"windows: {name!r} has shape {short.shape}; needed for losses {own.shape} is the same")
        differences[name] = own - short[:, : own.shape[1]]
    return perplexity_by_position(differences, trained, per_octave)


def plot_by_position(
    found: ByPosition, title: str = "", *, first: int = 8, colors: Mapping[str, str] | None = None
) -> Figure:
    """Perplexity against the position from `first` on, both logarithmic: means over seeds, and bands of their range."""
    figure, ax = _draw(found, first, colors)
    ax.set_ylabel("perplexity")
    _headline(figure, found, title or f"Perplexity by position: trained on {found.trained} tokens, read on")
    return figure


def plot_growth(
    found: ByPosition, title: str = "", *, first: int | None = None, colors: Mapping[str, str] | None = None
) -> Figure:
    """Ratio to windows against the position, both logarithmic, from `first` on; None is half the trained length."""
    figure, ax = _draw(found, found.trained // 2 if first is None else first, colors)
    ax.axhline(1, color=GREY, linestyle=":", lw=1)
    ax.set_ylabel("perplexity over that of\nthe same tokens in windows")
    _headline(figure, found, title or _finding(found))
    return figure


def _draw(found: ByPosition, first: int, colors: Mapping[str, str] | None) -> tuple[Figure, Axes]:
    """The lines of the bins from the position `first` on, their names, and the trained length."""
    figure, axes = new_figure(size=(8.4, 4.2))
    ax, length = axes[0, 0], int(found.edges[-1])
    lines = _lines(found, found.edges[1:] >= first, colors)
    ax.set(xscale="log", yscale="log", xlabel="position in the text (tokens; points are middles of bins)")
    ax.axvline(found.trained, color=GREY, linestyle="--", lw=1)
    draw_lines(ax, lines)
    for line in lines.values():
        last = np.flatnonzero(np.isfinite(np.asarray(line.y)))[-1]
        if last < len(np.asarray(line.y)) - 1:
            ax.plot(np.asarray(line.x)[last], np.asarray(line.y)[last], "s", color=line.color, ms=6)
    _plain_ticks(ax, length)
    ax.set_xlim(min(np.asarray(line.x)[0] for line in lines.values()) * 0.97, length)
    ax.annotate(f"trained: {found.trained}", (found.trained, 0.99), xycoords=("data", "axes fraction"), color=GREY,
                ha="right", va="top", fontsize="small", xytext=(-4, 0), textcoords="offset points")  # fmt: skip
    label_lines(ax, lines, gap=0.055)
    return figure, ax


def _lines(found: ByPosition, shown: np.ndarray, colors: Mapping[str, str] | None) -> dict[str, Line]:
    """A line for each scheme; one that ends before the axis says so in its name."""
    lines, met = {}, set()
    for i, name in enumerate(found.mean):
        color = (colors or FAMILIES).get(name) or FAMILIES.get(name.split()[0]) or OKABE_ITO[i % len(OKABE_ITO)]
        mean, low, high = (values[name][shown] for values in (found.mean, found.low, found.high))
        if not np.isfinite(mean).any():  # it ends before the first position that is shown
            continue
        last = int(found.edges[1:][np.isfinite(found.mean[name])].max())
        label = name if last == found.edges[-1] else f"{name} (■ ends at {last})"
        lines[label] = Line(found.middles[shown], mean, low, high, color=color, dashed=color in met)
        met.add(color)
    if not lines:
        raise ValueError("first: no scheme has finite losses from there on")
    return lines


def _finding(found: ByPosition) -> str:
    """Which schemes hold in the last bin, and how much the others' perplexity grows."""
    growth = {name: float(mean[-1]) for name, mean in found.mean.items() if np.isfinite(mean[-1])}
    hold = [name for name, times in growth.items() if times <= HOLDS]
    grow = sorted(times for times in growth.values() if times > HOLDS)
    begin, end = int(found.edges[-2]) + 1, int(found.edges[-1])
    said = [f"{', '.join(hold)} within {100 * (HOLDS - 1):.0f} %"] if hold else []
    if grow:
        times = f"{grow[0]:.2f} to {grow[-1]:.2f}" if len(grow) > 1 else f"{grow[0]:.2f}"
        said.append(f"{'the others' if hold else 'all'} {times} times as high")
    return f"Perplexity at {begin:,} to {end:,} against windows of {found.trained}:\n" + "; ".join(said)


def _headline(figure: Figure, found: ByPosition, text: str) -> None:
    counts = sorted(set(found.seeds.values()))
    note = "one seed" if counts == [1] else f"mean and range of {' or '.join(map(str, counts))} seeds"
    headline(figure, f"{text}\n({note})")


def _plain_ticks(ax: Axes, length: int) -> None:
    """Powers of two below; at the side plain numbers, more of them where the axis spans less."""
    ticks = [2**i for i in range(20) if 2**i <= length]
    ax.set_xticks(ticks, labels=[f"{tick:,}" for tick in ticks])
    low, high = ax.get_ylim()
    span = high / low
    few, some, many = (1, 2, 5), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), tuple(np.arange(10, 100) / 10)
    steps = few if span > 8 else some if span > 1.5 else many
    levels = [float(m * 10.0**e) for e in range(-2, 8) for m in steps if low <= m * 10.0**e <= high]
    if span < 1.15:
        levels = [hundredth / 100 for hundredth in range(math.ceil(100 * low), math.floor(100 * high) + 1)]
    ax.set_yticks(levels, labels=[f"{level:,.3g}" if level < 100 else f"{level:,.0f}" for level in levels])
    ax.minorticks_off()
