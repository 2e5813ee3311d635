"""The house style, and pure plots: data in, Figure out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

# Okabe, Ito 2008, "Color Universal Design": told apart with every kind of colour vision. Black is for reference lines.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#6b6b6b"
MAX_WIDTH = 10.0  # inches, at 100 dpi


def use_house_style() -> None:
    """Set seaborn's theme, the colours, and fonts with Japanese glyphs; let notebooks show a returned Figure."""
    import matplotlib_fontja

    sns.set_theme(style="ticks", palette=OKABE_ITO, font="DejaVu Sans", font_scale=0.95)
    japanese = _add_japanese_font(matplotlib_fontja.get_font_ttf_path())
    mpl.rcParams.update(
        {
            "font.family": ["DejaVu Sans", japanese],  # glyph by glyph: the second where the first has none
            "figure.dpi": 100,
            "savefig.dpi": 100,
            "axes.titlesize": "medium",
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    try:
        from IPython.core.getipython import get_ipython
        from IPython.core.pylabtools import select_figure_formats
    except ImportError:
        return
    if (shell := get_ipython()) is not None:
        select_figure_formats(shell, {"png"}, bbox_inches="tight")


def _add_japanese_font(path: str) -> str:
    """Make the font at `path` known to matplotlib, once, and return its name."""
    known = font_manager.fontManager.ttflist
    if not any(entry.fname == path and entry.weight == 700 for entry in known):
        font_manager.fontManager.addfont(path)
        # The font has one weight. Known as bold too, it prints no warning under every bold title.
        known.append(replace(known[-1], weight=700))
    return font_manager.FontProperties(fname=path).get_name()


@dataclass(frozen=True)
class Line:
    """A curve: x and y (N,), perhaps a band from low to high (N,), perhaps dashed. NaN leaves a gap."""

    x: ArrayLike
    y: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    dashed: bool = False
    color: str | None = None


def new_figure(columns: int = 1, rows: int = 1, size: tuple[float, float] = (7.0, 3.8), **options: Any) -> Any:
    """A Figure outside pyplot (it is shown once, where it is returned, and freed) and its grid of axes."""
    if size[0] > MAX_WIDTH:
        raise ValueError(f"size={size}; a figure is at most {MAX_WIDTH} inches wide")
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def headline(figure: Figure, text: str) -> None:
    """The finding, over all panels of a figure and at its left edge."""
    figure.suptitle(text, x=0.01, ha="left", fontweight="bold", fontsize="medium")


def draw_lines(ax: Axes, lines: Mapping[str, Line]) -> None:
    """Draw each line with its band."""
    for index, (name, line) in enumerate(lines.items()):
        color = line.color or OKABE_ITO[index % len(OKABE_ITO)]
        x, y = np.asarray(line.x, float), np.asarray(line.y, float)
        if x.shape != y.shape or x.ndim != 1:
            raise ValueError(f"lines: {name!r} has x {x.shape} and y {y.shape}; both must be (N,)")
        ax.plot(x, y, color=color, linestyle="--" if line.dashed else "-", marker="." if len(x) < 16 else "")
        if line.low is not None and line.high is not None:
            ax.fill_between(x, np.asarray(line.low, float), np.asarray(line.high, float), color=color, alpha=0.18, lw=0)


def label_lines(ax: Axes, lines: Mapping[str, Line], gap: float = 0.065) -> None:
    """Write each line's name beside its right end in its colour, once the limits of the axes are final.

    Names that would overlap are moved apart by `gap`, a share of the axes' height.
    """
    ax.get_xlim(), ax.get_ylim()  # reading the limits brings them up to date
    to_share = ax.transData + ax.transAxes.inverted()
    wanted = []
    for index, (name, line) in enumerate(lines.items()):
        x, y = np.asarray(line.x, float), np.asarray(line.y, float)
        if np.isfinite(y).any():
            last = np.flatnonzero(np.isfinite(y))[-1]
            height = float(np.clip(to_share.transform((x[last], y[last]))[1], 0, 1))
            wanted.append((height, name, line.color or OKABE_ITO[index % len(OKABE_ITO)]))
    wanted.sort()
    heights: list[float] = []
    for height, _, _ in wanted:
        heights.append(max(height, heights[-1] + gap) if heights else height)
    if heights and heights[-1] > 1.0:  # push down what was pushed over the top
        heights[-1] = 1.0
        for i in range(len(heights) - 2, -1, -1):
            heights[i] = min(heights[i], heights[i + 1] - gap)
    for height, (_, name, color) in zip(heights, wanted, strict=True):
        ax.annotate(name, (1.01, height), xycoords="axes fraction", color=color, va="center", fontsize="small")


def line_plot(
    panels: Mapping[str, Mapping[str, Line]],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    xscale: str = "linear",
    yscale: str = "linear",
    ylim: tuple[float, float] | None = None,
    xticks: Sequence[float] | None = None,
    reference: tuple[float, str, float] | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Panels side by side with one y axis; `panels` maps a panel's title to its lines.

    `xticks` writes plain numbers where a logarithmic axis has few points. `reference` is a grey dotted line: its
    height, its name, and where along the axis (0 to 1) the name stands.
    Raises ValueError for no panel, or x and y that differ.
    """
    if not panels:
        raise ValueError("panels is empty; give at least one panel of lines")
    figure, axes = new_figure(len(panels), size=size or (min(MAX_WIDTH, 2.4 + 3.8 * len(panels)), 3.8), sharey=True)
    for ax, (name, lines) in zip(axes[0], panels.items(), strict=True):
        ax.set(xscale=xscale, yscale=yscale, xlabel=xlabel, title=name)
        if ylim is not None:
            ax.set_ylim(ylim)
        if xticks is not None:
            ax.set_xticks(xticks, labels=[f"{tick:g}" for tick in xticks])
            ax.minorticks_off()
        if reference is not None:
            ax.axhline(reference[0], color=GREY, linestyle=":", lw=1)
            ax.annotate(reference[1], (reference[2], reference[0]), xycoords=("axes fraction", "data"), color=GREY,
                        va="bottom", fontsize="small")  # fmt: skip
        draw_lines(ax, lines)
    for ax, lines in zip(axes[0], panels.values(), strict=True):  # only now are the shared limits final
        label_lines(ax, lines)
    axes[0, 0].set_ylabel(ylabel)
    if title:
        headline(figure, title)
    return figure


def heatmap(
    matrix: ArrayLike,
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    signed: bool = False,
    limit: float | None = None,
    xticks: Sequence[Any] | str = "auto",
    yticks: Sequence[Any] | str = "auto",
    annotate: bool = False,
    size: tuple[float, float] = (6.0, 3.6),
) -> Figure:
    """A matrix as colours: weights from 0 on viridis, signed values around 0 on a diverging map.

    `limit` fixes the end of the scale, so that pictures can be compared. `annotate` writes the values to two digits;
    what would be 0.00 stays empty. Raises ValueError unless matrix has two axes.
    """
    values = np.asarray(matrix, float)
    if values.ndim != 2:
        raise ValueError(f"matrix has shape {values.shape}; two axes are needed")
    end = float(np.nanmax(np.abs(values))) if limit is None else limit
    figure, axes = new_figure(size=size)
    numbers = np.where(np.abs(values) < 0.005, "", np.char.mod("%.2f", values))
    sns.heatmap(
        values, ax=axes[0, 0], cmap="RdBu_r" if signed else "viridis", vmin=-end if signed else 0, vmax=end,
        xticklabels=xticks, yticklabels=yticks, annot=numbers if annotate else None, fmt="",
    )  # fmt: skip
    axes[0, 0].set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes[0, 0].tick_params(axis="y", rotation=0)
    return figure


def picture_grid(images: ArrayLike, captions: Sequence[str], columns: int = 10) -> Figure:
    """Grey pictures (N, height, width) in rows, each with its caption. Raises ValueError for unequal numbers."""
    pictures = np.asarray(images)
    if pictures.ndim != 3 or len(pictures) != len(captions):
        raise ValueError(
            f"images has shape {pictures.shape} for {len(captions)} captions; needed is (N, height, width)"
        )
    rows = -(-len(pictures) // columns)
    figure, axes = new_figure(columns, rows, size=(min(MAX_WIDTH, columns * 1.0), rows * 1.25))
    for ax in axes.flat:
        ax.axis("off")
    for ax, picture, caption in zip(axes.flat, pictures, captions, strict=False):
        ax.imshow(picture, cmap="gray_r")
        ax.set_title(caption, fontsize="x-small", fontweight="normal", loc="center")
    return figure
