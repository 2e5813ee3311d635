"""The pictures of lesson 06: the mechanism as a drawing, and the arrays behind the widget."""

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from course_lib.attention import causal, masked_softmax
from course_lib.viz.boxes import canvas, draw_arrow, draw_box
from course_lib.viz.plots import OKABE_ITO, heatmap

STEPS = {"scores": "(T, S)", "softmax": "(T, S)", "weights · v": "(T, D)"}  # a box, and the shape that leaves it


@dataclass(frozen=True, eq=False)
class Frame:
    """What the widget shows: the attention weights (T, T) of random queries and keys, at one scale of the scores."""

    scale: float
    weights: Tensor

    def text(self) -> str:
        """The frame in one line, for readers who cannot see the picture."""
        return f"scale {self.scale:.2f}: the largest weight of the last query is {self.weights[-1].max():.2f}"


def frame(scale: float, length: int = 8) -> Frame:
    """Causal attention weights of `length` random queries and keys of width 16; `scale` multiplies their scores."""
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(length, 16, generator=generator) for _ in range(2))  # (T, D) each
    place = torch.arange(length)
    return Frame(scale, masked_softmax(scale * q @ k.T, causal.dense(place, place)))


def plot_frame(shown: Frame) -> Figure:
    """The weights of a frame as colours."""
    title = f"At a scale of {shown.scale:.2f} the last query gives its favourite {shown.weights[-1].max():.0%}"
    return heatmap(shown.weights, title=title, xlabel="key", ylabel="query", limit=1.0)


def plot_mechanism() -> Figure:
    """Boxes and arrows, with the shapes on the arrows."""
    figure, ax = canvas(8.0, 1.2)
    draw_arrow(ax, (0.2, 0.5), (1.2, 0.5), "q, k, v\n(T, D)")
    for number, (step, shape) in enumerate(STEPS.items()):
        left = 1.2 + 2.2 * number
        draw_box(ax, (left, 0.2), (1.3, 0.6), OKABE_ITO[number])
        ax.text(left + 0.65, 0.5, step, ha="center", va="center", fontsize=9, fontweight="bold")
        draw_arrow(ax, (left + 1.3, 0.5), (left + 2.2, 0.5), shape)
    return figure
