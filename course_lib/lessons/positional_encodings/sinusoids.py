"""Pictures of position vectors: the waves of the sinusoids, and how alike two positions are, made or learned."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from course_lib.checks import check_at_least
from course_lib.positions.absolute import sinusoids
from course_lib.viz.plots import GREY, OKABE_ITO, Line, draw_lines, headline, label_lines, new_figure

MARKS = ("o", "x", "^", "+")


@dataclass(frozen=True)
class SinusoidView:
    """The vectors of the first positions, some of their channels, and dot products by distance."""

    table: np.ndarray  # (P, C)
    wavelengths: np.ndarray  # (C / 2,) tokens
    waves: tuple[int, ...]  # channels, all sines
    places: tuple[int, ...]
    dots: np.ndarray  # (places, 2 P - 1) from distance -(P - 1) to P - 1; NaN where there is no such position

    @property
    def distances(self) -> np.ndarray:
        """Position j minus position i of each column of `dots`."""
        return np.arange(1 - len(self.table), len(self.table))


def sinusoid_view(d_model: int, length: int = 128, places: tuple[int, ...] | None = None) -> SinusoidView:
    """Compute `sinusoids` of positions 0 to length - 1, and dot products of each of `places` with all of them.

    `places` None is the first, the middle and the last. Raises ValueError for a length below 8, a place outside, and a
    d_model that `sinusoids` refuses.
    """
    check_at_least("length", length, 8)
    places = (0, length // 2, length - 1) if places is None else tuple(places)
    if not places or not all(0 <= place < length for place in places):
        raise ValueError(f"places={places}; needed is one or more, from 0 to {length - 1}")
    table = sinusoids(torch.arange(length), d_model).double().numpy()
    waves = sorted({round(share * (d_model // 2 - 1)) for share in (0, 0.15, 0.3, 0.5)})
    dots = np.full((len(places), 2 * length - 1), np.nan)
    for row, place in zip(dots, places, strict=True):
        row[length - 1 - place : 2 * length - 1 - place] = table @ table[place]
    wavelengths = 2 * np.pi * 10000 ** (np.arange(0, d_model, 2) / d_model)
    return SinusoidView(table, wavelengths, tuple(waves), places, dots)


def plot_sinusoids(view: SinusoidView) -> Figure:
    """Left: all vectors as colours. Middle: some of their sines. Right: dot products against the distance."""
    width = view.table.shape[1]
    figure, axes = new_figure(3, size=(9.2, 3.3), width_ratios=(1.05, 1.1, 1.05))
    image = axes[0, 0].imshow(view.table, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    axes[0, 0].axvline(width / 2 - 0.5, color="black", lw=1)
    axes[0, 0].set(title="a row is a position", xlabel="channel (sines | cosines)", ylabel="position (tokens)")
    figure.colorbar(image, ax=axes[0, 0], ticks=(-1, 0, 1), shrink=0.8, aspect=15).outline.set_visible(False)
    _draw_waves(axes[0, 1], view)
    _draw_dots(axes[0, 2], view)
    title = "Each channel is a wave; what two positions have in common depends on their distance alone"
    headline(figure, title)
    return figure


def _draw_waves(ax: Axes, view: SinusoidView) -> None:
    """One sine above the other, the fastest on top, each with its channel and wavelength."""
    place = np.arange(len(view.table))
    for i, channel in enumerate(view.waves):
        base = -2.9 * i
        ax.axhline(base, color=GREY, lw=0.5)
        ax.plot(place, base + view.table[:, channel], color=OKABE_ITO[i])
        turn = view.wavelengths[channel]
        text = f"channel {channel}: {turn:,.1f} tokens" if turn < 100 else f"channel {channel}: {turn:,.0f} tokens"
        ax.annotate(text, (0, base + 1.12), color=OKABE_ITO[i], va="bottom", fontsize="small")
    ax.set(title="later channels are slower", xlabel="position (tokens)", yticks=[], ylabel="value, each -1 to 1")
    ax.set_ylim(-2.9 * (len(view.waves) - 1) - 1.2, 2.1)


def _draw_dots(ax: Axes, view: SinusoidView) -> None:
    """Dot products of each place with all positions: marks of all places lie on one curve."""
    x, length = view.distances, len(view.table)
    for i, (place, row) in enumerate(zip(view.places, view.dots, strict=True)):
        thin = (x + i * length // 24) % max(1, length // 12) == 0  # or the marks would hide each other
        ax.plot(x[thin], row[thin], MARKS[i % len(MARKS)], ms=5, mfc="none", color=OKABE_ITO[i], label=f"i = {place}")
    known = np.isfinite(view.dots).any(0)
    curve = np.nanmean(view.dots[:, known], 0)
    ax.plot(x[known], curve, color=GREY, lw=0.8, zorder=0)
    ax.set(title="it falls, then wobbles", xlabel="distance j - i (tokens)", ylabel="dot product of i and j")
    ax.set_ylim(min(0.0, float(curve.min())) - 1, 1.25 * float(curve.max()))
    ax.legend(frameon=False, fontsize="small", ncols=3, loc="upper center", handletextpad=0.1, columnspacing=0.8)


@dataclass(frozen=True)
class Similarity:
    """Cosines of all pairs of positions of one table, and their spread at each distance."""

    cosine: np.ndarray  # (P, P)
    mean: np.ndarray  # (P,) over the pairs of distance 0, 1, 2 …
    low: np.ndarray  # (P,) the 5th percentile of the pairs
    high: np.ndarray  # (P,) the 95th


def position_similarity(table: ArrayLike) -> Similarity:
    """Compare the positions of table (P, C), a vector each. Raises ValueError for other shapes, and a vector of 0."""
    vectors = np.asarray(table, float)
    if vectors.ndim != 2 or len(vectors) < 2:
        raise ValueError(f"table has shape {vectors.shape}; needed is (P, C) with P of 2 or more")
    sizes = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (sizes > 0).all():
        raise ValueError(f"table: the vector of position {int(np.argmin(sizes))} is 0 and has no direction")
    cosine = (vectors / sizes) @ (vectors / sizes).T
    spread = np.stack([np.percentile(np.diagonal(cosine, d), (5, 95)) for d in range(len(cosine))])
    mean = np.array([np.diagonal(cosine, d).mean() for d in range(len(cosine))])
    return Similarity(cosine, mean, spread[:, 0], spread[:, 1])


def plot_position_similarity(tables: Mapping[str, Similarity], title: str = "") -> Figure:
    """A map of cosines for each table, on one scale from -1 to 1, and at the right all of them against the distance.

    Raises ValueError for no table, or more than three.
    """
    if not 1 <= len(tables) <= 3:
        raise ValueError(f"tables has {len(tables)} entries; allowed are 1 to 3")
    figure, axes = new_figure(len(tables) + 1, size=(9.2, 3.4))
    for ax, (name, found) in zip(axes[0], tables.items(), strict=False):
        image = ax.imshow(found.cosine, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        ax.set(title=name, xlabel="position j (tokens)")
    axes[0, 0].set_ylabel("position i (tokens)")
    bar = figure.colorbar(image, ax=axes[0, :-1], location="bottom", shrink=0.4, aspect=30, ticks=(-1, 0, 1))
    bar.set_label("cosine of the vectors of i and j", fontsize="small")
    bar.outline.set_visible(False)
    ax = axes[0, -1]
    lines = {name: Line(np.arange(len(s.mean)), s.mean, s.low, s.high) for name, s in tables.items()}
    ax.axhline(0, color=GREY, linestyle=":", lw=1)
    ax.set(title="by distance", xlabel="distance |i - j| (tokens)")
    ax.set_ylabel("cosine: mean,\n5 to 95 % of pairs", fontsize="small")
    ax.set_ylim(min(-0.3, *(1.1 * float(s.low.min()) for s in tables.values())), 1.05)
    draw_lines(ax, lines)
    label_lines(ax, lines, gap=0.09)
    headline(figure, title or "How alike two positions are")
    return figure
