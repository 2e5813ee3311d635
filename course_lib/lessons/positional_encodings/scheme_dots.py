"""A dot plot of schemes at the trained length, each against one of them, with what was published beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from course_lib.experiments.seeds import interval
from course_lib.viz.plots import GREY, OKABE_ITO, headline, new_figure


@dataclass(frozen=True)
class Relative:
    """Perplexity of a scheme over that of another: per cent more, with a 95 % interval over seeds."""

    name: str
    mean: float
    low: float
    high: float
    seeds: int


def relative_perplexity(
    losses: Mapping[str, ArrayLike], reference: str, first: int = 65, last: int = 128
) -> list[Relative]:
    """Compare all schemes with `reference` at the positions first to last, seed by seed; the best first.

    losses (seeds, positions) in nats, the first column position 1. A seed's difference is one of mean losses, and its
    exponential a ratio of perplexities; the interval is Student's t over the seeds. The reference itself is left out.
    Raises ValueError for an unknown reference, positions that are not there, or different numbers of seeds.
    """
    if reference not in losses:
        raise ValueError(f"reference={reference!r}; the schemes are {', '.join(losses)}")
    means = {}
    for name, values in losses.items():
        array = np.asarray(values, float)
        if array.ndim != 2 or not 1 <= first <= last <= array.shape[1]:
            raise ValueError(f"losses: {name!r} has shape {array.shape}; needed are the positions {first} to {last}")
        means[name] = array[:, first - 1 : last].mean(1)  # (seeds,)
    if len({len(mean) for mean in means.values()}) > 1:
        raise ValueError(f"losses: seeds are { {name: len(mean) for name, mean in means.items()} }; needed are as many")
    rows = []
    for name, mean in means.items():
        if name != reference:
            middle, low, high = (100 * np.expm1(x) for x in interval(mean - means[reference]))
            rows.append(Relative(name, middle, low, high, len(mean)))
    return sorted(rows, key=lambda row: row.mean)


def plot_relative(
    rows: Sequence[Relative], reference: str, published: Mapping[str, float] | None = None, *,
    where: str = "positions 65 to 128", level: str = "", title: str = "",
) -> Figure:  # fmt: skip
    """A dot and its interval for each scheme, hollow ones for `published` per cents; grey where the interval has 0.

    `level` stands behind the name of the reference, such as " (89)". Raises ValueError for no row, and
    published names without a row.
    """
    names = [row.name for row in rows]
    if not rows:
        raise ValueError("rows is empty; give at least one")
    if unknown := sorted(set(published or {}) - set(names)):
        raise ValueError(f"published: {', '.join(unknown)} unknown; the rows are {', '.join(names)}")
    figure, axes = new_figure(size=(8.0, 1.5 + 0.36 * len(rows)))
    ax = axes[0, 0]
    ax.axvline(0, color="black", lw=0.8)
    for y, row in enumerate(rows):
        color = GREY if row.low <= 0 <= row.high else OKABE_ITO[1] if row.mean > 0 else OKABE_ITO[0]
        ax.plot((row.low, row.high), (y, y), color=color, lw=2)
        ax.plot(row.mean, y, "o", color=color, ms=7)
        ax.annotate(f"{row.mean:+.1f} %", (1.01, y), xycoords=("axes fraction", "data"), va="center", color=color,
                    fontsize="small")  # fmt: skip
        if row.name in (published or {}):
            ax.plot((published or {})[row.name], y, "D", color="black", mfc="none", ms=9, mew=1.4)
    ax.set_yticks(range(len(rows)), labels=names)
    ax.set(xlabel=f"perplexity against {reference}{level}, {where}, %", ylim=(len(rows) - 0.4, -0.6))
    worse = [row.name for row in rows if row.low > 0]
    better = [row.name for row in rows if row.high < 0]
    said = [f"{len(names)} {word} than {reference}" for names, word in ((better, "better"), (worse, "worse")) if names]
    told = ", ".join([*said, f"{len(rows) - len(worse) - len(better)} not told apart"])
    note = f"dots: mean and 95 % interval over {rows[0].seeds} seeds, paired" + ("; ◇ published" if published else "")
    headline(figure, f"{title or f'At the trained length: {told}'}\n({note})")
    return figure
