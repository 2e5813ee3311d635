"""The drawing of docs/architecture.md: four ways through the course's code, as boxes and arrows."""

from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib.viz.boxes import Point, canvas, draw_arrow, draw_box
from course_lib.viz.plots import GREY, OKABE_ITO

WIDTH, HEIGHT, GAP = 1.4, 0.56, 0.7  # of a box, and from one box to the next, in inches


class Step(NamedTuple):
    """A box: what does it, where its code is (in course_lib, or else in the checkout), and what leaves it."""

    name: str
    place: str
    gives: str = ""


MODEL = (
    Step("Tokenizer", "tokenization/", "ids\n(B, T)"),
    Step("embedding", "models/", "stream\n(B, T, C)"),
    Step("TransformerBlock  × n_layers", "transformer_block.py", "stream\n(B, T, C)"),
    Step("unembedding", "models/", "logits\n(B, T, V)"),
)
BRANCHES = Step("attention", "attention/"), Step("MLP", "mlp.py")
INPUTS = (
    Step("mask", "attention/masks.py"),
    Step("position", "positions/"),
    Step("places", "attention/places.py"),
    Step("cache", "attention/kv_cache.py"),
)
RECORD = (
    Step("corpora", "corpora/", "windows\n(N, T + 1)"),
    Step("shuffled_batches", "corpora/batches.py", "batch\nof a step"),
    Step("train", "training/loop.py", "curve,\nmetrics"),
    Step("record", "results/*.json", "as_frame"),
    Step("notebook", "notebooks/"),
)
CHECKPOINT = Step("checkpoint", "training/checkpoint.py")
WIDGET = (
    Step("model", "models/", "forward"),
    Step("record_attention", "features.py", "weights\n(B, H, T, S)"),
    Step("AttentionMaps", "viz/attention_maps.py", "a head,\na query"),
    Step("AttentionExplorer", "viz/explorer.py", "what is\nshown"),
    Step("figure()", "viz/attention_plot.py"),
)
MESSAGE = (
    Step("your function", "notebooks/", "called"),
    Step("checker", "exercises/", "answer,\ngradient"),
    Step("mistakes", "lessons/*/exercises.py", "none\nfound"),
    Step("same_model", "exercises/injection.py", "✓  ✗  ○"),
    Step("Result", "exercises/"),
)
LETTERS = "B batch · N windows\nT tokens · S keys\nC width · H heads\nV vocabulary"
STEPS = (*MODEL, *BRANCHES, *INPUTS, *RECORD, CHECKPOINT, *WIDGET, *MESSAGE)


def plot_architecture() -> Figure:
    """How ids become logits, a batch a record, a map a widget, and an answer a message."""
    figure, ax = canvas(10.0, 7.55)
    _draw_model(ax, 6.6, OKABE_ITO[0])
    _draw_chain(ax, RECORD, 3.42, "A batch becomes a record", OKABE_ITO[1])
    train = 0.1 + 2 * (WIDTH + GAP)
    _draw_step(ax, CHECKPOINT, (train, 2.56), (WIDTH, HEIGHT), OKABE_ITO[1])
    draw_arrow(ax, (train + 0.55, 3.42), (train + 0.55, 2.56 + HEIGHT))
    draw_arrow(ax, (train + 0.85, 2.56 + HEIGHT), (train + 0.85, 3.42))
    ax.text(train + WIDTH + 0.1, 2.84, "saved, and resumed bit for bit", va="center", fontsize=8, color=GREY)
    _draw_chain(ax, WIDGET, 1.4, "A map becomes a widget", OKABE_ITO[2])
    _draw_chain(ax, MESSAGE, 0.15, "An answer becomes a message", OKABE_ITO[3])
    return figure


def _draw_step(ax: Axes, step: Step, corner: Point, size: Point, color: str) -> None:
    draw_box(ax, corner, size, color)
    x, y = corner[0] + size[0] / 2, corner[1] + size[1] / 2
    ax.text(x, y + 0.1, step.name, ha="center", va="center", fontsize=9, fontweight="bold")
    ax.text(x, y - 0.13, step.place, ha="center", va="center", fontsize=7.5, color=GREY)


def _draw_chain(ax: Axes, steps: tuple[Step, ...], bottom: float, title: str, color: str) -> None:
    ax.text(0.1, bottom + HEIGHT + 0.24, title, fontweight="bold", color=color, fontsize="medium", va="center")
    for number, step in enumerate(steps):
        left = 0.1 + number * (WIDTH + GAP)
        _draw_step(ax, step, (left, bottom), (WIDTH, HEIGHT), color)
        if step.gives:
            end = left + WIDTH + GAP
            draw_arrow(ax, (left + WIDTH, bottom + HEIGHT / 2), (end, bottom + HEIGHT / 2), step.gives)


def _draw_model(ax: Axes, stream: float, color: str) -> None:
    """The way of the ids; `stream` is the height of the residual stream, which passes straight through the blocks."""
    ax.text(0.1, stream + 0.7, "Ids become logits", fontweight="bold", color=color, fontsize="medium", va="center")
    lefts, widths = (0.1, 1.8, 3.5, 8.1), (1.1, 1.0, 3.9, 1.2)
    for step, left, width, end in zip(MODEL, lefts, widths, (*lefts[1:], 9.95), strict=True):
        if width < 2:
            _draw_step(ax, step, (left, stream - HEIGHT / 2), (width, HEIGHT), color)
        draw_arrow(ax, (left + width, stream), (end, stream), step.gives)
    left, width, block = lefts[2], widths[2], MODEL[2]
    draw_box(ax, (left, stream - 1.2), (width, 1.75), color, filled=False)
    ax.text(left + 0.12, stream + 0.38, block.name, fontsize=9, fontweight="bold", va="center")
    ax.text(left + width - 0.12, stream + 0.38, block.place, fontsize=7.5, color=GREY, va="center", ha="right")
    ax.plot([left, left + width], [stream, stream], color=GREY, lw=1.5)
    for step, start in zip(BRANCHES, (left + 0.2, left + 2.2), strict=True):
        size, corner = (1.1, HEIGHT), (start + 0.2, stream - 1.05)
        _draw_step(ax, step, corner, size, color)
        draw_arrow(ax, (corner[0] + 0.15, stream), (corner[0] + 0.15, corner[1] + HEIGHT))
        ax.text(corner[0] + 0.22, stream - 0.26, "norm", fontsize=8, color=GREY, va="center")
        draw_arrow(ax, (corner[0] + 0.9, corner[1] + HEIGHT), (corner[0] + 0.9, stream - 0.09))
        ax.text(corner[0] + 0.9, stream, "+", fontsize=10, ha="center", va="center", color=GREY,
                bbox={"boxstyle": "circle,pad=0.1", "facecolor": "white", "edgecolor": GREY})  # fmt: skip
    ax.text(0.1, stream - 1.0, LETTERS, va="center", fontsize=8, color=GREY, linespacing=1.5)
    for number, step in enumerate(INPUTS):
        corner = (1.75 + number * 1.5, stream - 2.05)
        _draw_step(ax, step, corner, (1.4, HEIGHT), color)
        draw_arrow(ax, (corner[0] + 0.7, corner[1] + HEIGHT), (4.15 + 0.2 * number, stream - 1.05))
