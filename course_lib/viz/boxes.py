"""Boxes and arrows: the style of all drawings that are no plots. One unit of the canvas is an inch of the page."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from course_lib.viz.plots import GREY, new_figure

Point = tuple[float, float]


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A Figure without axes to draw on, (0, 0) at its lower left; sizes are in inches."""
    figure, axes = new_figure(size=(width, height))
    figure.set_layout_engine("none")
    ax = axes[0, 0]
    ax.set(position=(0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    return figure, ax


def draw_box(ax: Axes, corner: Point, size: Point, color: str, *, filled: bool = True) -> None:
    """A box with round corners: its lower left `corner`, width and height; not `filled` has a dashed border."""
    style = {"facecolor": color, "alpha": 0.18} if filled else {"facecolor": "none", "linestyle": "--"}
    box = FancyBboxPatch(corner, *size, boxstyle="round,pad=0,rounding_size=0.08", **style)
    box.set_edgecolor(color)
    ax.add_patch(box)


def draw_arrow(ax: Axes, start: Point, end: Point, label: str = "", *, bend: float = 0.0) -> None:
    """An arrow, and above its middle what travels along it; `bend` makes an arc of it."""
    curve = f"arc3,rad={bend}"
    ax.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", connectionstyle=curve, mutation_scale=12, color=GREY, shrinkA=0, shrinkB=0
        )
    )
    if label:
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        ax.text(x, y + 0.06, label, ha="center", va="bottom", fontsize=7.5, color=GREY)
