"""Pictures of patterns: one with what it costs, and a gallery of those that are in use."""

from collections.abc import Iterable

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from course_lib.attention.masks import causal
from course_lib.lessons.local_and_global_attention.pattern_choice import CATEGORIES, Choice
from course_lib.lessons.local_and_global_attention.pattern_frame import Cost, PatternFrame
from course_lib.viz.plots import GREY, OKABE_ITO, Line, draw_lines, headline, label_lines, new_figure

COLORS = dict(
    zip(CATEGORIES, ("#ffffff", OKABE_ITO[5], OKABE_ITO[0], OKABE_ITO[2], OKABE_ITO[1], "#d4d4d4"), strict=True)
)
KERNELS = {"dense": OKABE_ITO[4], "blocked": OKABE_ITO[0]}


def plot_pattern_frame(frame: PatternFrame) -> Figure:
    """Left: who sees whom. Middle: counts as shares of full attention, at T and far. Right: measured milliseconds."""
    figure, axes = new_figure(3, size=(10.0, 4.0), width_ratios=(1.15, 1.05, 0.85))
    draw_map(axes[0, 0], frame.map)
    axes[0, 0].set(title="who sees whom", xlabel="key", ylabel="query")
    present = [CATEGORIES[i] for i in np.unique(frame.map)]
    axes[0, 0].legend(
        handles=_patches(name for name in present if name != "nothing"), loc="upper center",
        bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize="small", frameon=False, handlelength=1.0, columnspacing=1.0,
        handletextpad=0.4,
    )  # fmt: skip
    _draw_shares(axes[0, 1], frame)
    _draw_times(axes[0, 2], frame)
    here, far, kind = frame.here, frame.far, frame.choice.kind
    title = f"{_name(frame.choice)}: {_percent(here.share)} of the pairs at T = {here.length}"
    if kind != "full":
        title += f", {_percent(far.share)} at T = {far.length:,}"
    headline(figure, title)
    return figure


def draw_map(ax: Axes, codes: np.ndarray) -> None:
    """Categories (T, T) of pairs in their colours: rows are queries, the first token is above and left.

    Triangles at the edges mark global tokens, whose lines may be thinner than a dot of the screen.
    """
    n, palette = len(codes), np.array([to_rgb(color) for color in COLORS.values()])
    ax.imshow(palette[codes], interpolation="auto")  # colours, so that stripes finer than the screen's become a mean
    places = np.flatnonzero(codes.diagonal() == CATEGORIES.index("global"))
    for share in (places + 0.5) / n:
        for marker, x, y in (("v", share, 1.015), ("<", 1.015, 1 - share)):
            ax.plot(x, y, marker, color=COLORS["global"], ms=5, mew=0, clip_on=False, transform=ax.transAxes)
    ticks = np.linspace(0, n, 5).round().astype(int)[:-1]
    ax.set(xticks=ticks, yticks=ticks)
    for spine in ax.spines.values():
        spine.set(visible=True, color=GREY)


def _patches(names: Iterable[str]) -> list[Patch]:
    return [Patch(facecolor=COLORS[name], edgecolor=GREY, linewidth=0.5, label=name) for name in names]


def _draw_shares(ax: Axes, frame: PatternFrame) -> None:
    """Three counts at T (filled) and far (hollow), each as a share of what full attention takes."""
    here, far = frame.here, frame.far
    kernel = "in blocks" if frame.choice.has_kernel else "(not in blocks)"
    computed = [c.computed / c.length**2 for c in (here, far)]
    copied = [c.copied_bytes / c.weight_bytes if c.copied_bytes else 1.0 for c in (here, far)]  # else weights
    rows = {
        f"pairs that may meet: {_short(here.pairs)} → {_short(far.pairs)}": [here.share, far.share],
        f"FLOPs {kernel}: {_short(here.flops)} → {_short(far.flops)}": computed,
        f"bytes: {_bytes(here)} → {_bytes(far)}": copied,
    }
    for y, (text, (now, later)) in enumerate(rows.items()):
        ax.annotate(
            "", (later, y), (now, y), arrowprops={"arrowstyle": "->", "color": GREY, "shrinkA": 5, "shrinkB": 5}
        )
        ax.plot(now, y, "o", color=OKABE_ITO[0], ms=8)
        ax.plot(later, y, "o", color=OKABE_ITO[0], ms=8, mfc="white", mew=1.6)
        label = ax.annotate(text, (0, y - 0.2), xycoords=("axes fraction", "data"), va="bottom", fontsize="small")
        label.set_in_layout(False)
    ax.axvline(1, color=GREY, linestyle=":", lw=1)
    ax.set(
        xscale="log",
        xlim=(0.003, 12),
        ylim=(2.45, -0.75),
        yticks=[],
        title=f"T = {here.length} ● → T = {far.length:,} ○",
    )
    ax.set_xticks((0.01, 0.1, 1, 10), labels=("1 %", "10 %", "100 %", "1000 %"))
    ax.minorticks_off()
    ax.set_xlabel("share of full attention\n(bytes: of its weights, if stored)")
    ax.spines["left"].set_visible(False)


def _draw_times(ax: Axes, frame: PatternFrame) -> None:
    """Milliseconds against the length, dense and in blocks; a dotted line marks T."""
    lines = {name: Line(frame.lengths, 1e3 * s, color=KERNELS[name]) for name, s in frame.seconds.items()}
    ax.set(xscale="log", yscale="log", xlabel="T (tokens)", ylabel="milliseconds", ylim=(0.05, 300))
    if "blocked" not in lines:
        title = "time of dense alone"
    elif frame.faster_from is None:
        title = "time: blocks are not faster"
    else:
        title = f"blocks win at T ≥ {frame.faster_from}"
    ax.set_title(title)
    ticks = (64, 256, 1024)
    ax.set_xticks(ticks, labels=[str(tick) for tick in ticks])
    ax.set_yticks((0.1, 1, 10, 100), labels=("0.1", "1", "10", "100"))
    ax.minorticks_off()
    ax.axvline(frame.here.length, color=GREY, linestyle=":", lw=1)
    draw_lines(ax, lines)
    label_lines(ax, lines)


def pattern_gallery(length: int = 128, radius: int = 8) -> Figure:
    """Six patterns side by side, each with the share of all pairs that it allows."""
    choices = {
        "window": Choice("window", radius),
        "window + global (Longformer)": Choice("window + global", radius, places=(0, length // 2)),
        "BigBird": Choice("BigBird", radius, n_random=1, places=(0,)),
        "dilated window": Choice("dilated", radius, dilation=4),
        "causal window (Mistral)": Choice("window", radius),
        "full": Choice("full"),
    }
    places = torch.arange(length)
    figure, axes = new_figure(3, 2, size=(9.0, 6.5))
    for ax, (name, choice) in zip(axes.flat, choices.items(), strict=True):
        pattern = choice.pattern(length) & causal if "causal" in name else choice.pattern(length)
        allowed = pattern.dense(places, places).numpy()
        draw_map(ax, np.where(allowed, choice.map(length), 0))
        ax.set_title(f"{name}\n{_percent(allowed.mean())} of all pairs", fontsize="small")
    for ax in axes[:, 0]:
        ax.set_ylabel("query")
    for ax in axes[1]:
        ax.set_xlabel("key")
    names = [name for name in CATEGORIES if name not in ("nothing", "computed in vain")]
    figure.legend(handles=_patches(names), loc="outside lower center", ncols=len(names), frameon=False)
    headline(figure, f"Who sees whom among {length} tokens, with a radius of {radius}")
    return figure


def _name(choice: Choice) -> str:
    return "window + global (Longformer)" if choice.kind == "window + global" else choice.kind


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"


def _short(number: float) -> str:
    """Three digits and a letter: 16,384 is 16.4 k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.0f}"


def _bytes(cost: Cost) -> str:
    return f"copies {_short(cost.copied_bytes)}B" if cost.copied_bytes else f"weights {_short(cost.weight_bytes)}B"
