"""A drawing of ModernBERT: which layers see all, what is in a block, and the head that fills gaps."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib.models.modernbert import ModernBertConfig
from course_lib.viz.boxes import canvas, draw_arrow, draw_box
from course_lib.viz.plots import GREY, OKABE_ITO

BLOCK = ("norm", "attention\nRoPE", "+", "norm", "GeGLU", "+")
HEAD = (("linear, GELU", "(B, M, C)"), ("norm", "(B, M, C)"), ("embedding, again\n+ bias", "(B, M, C)"))


def plot_model(config: ModernBertConfig) -> Figure:
    """Boxes and arrows, with shapes: ids on the left, the layers, the head; below, the inside of one block."""
    figure, ax = canvas(10.0, 2.9)
    top, high = 1.65, 0.62
    ax.text(0.05, top + high / 2, "I drink <mask>\nevery morning.", va="center", fontsize=8.5)
    draw_arrow(ax, (0.98, top + high / 2), (1.4, top + high / 2), "(B, T)")
    draw_box(ax, (1.4, top), (0.85, high), GREY)
    ax.text(1.825, top + high / 2, "embedding\nnorm", ha="center", va="center", fontsize=8.5)
    left = 2.75
    draw_arrow(ax, (2.25, top + high / 2), (left, top + high / 2), "(B, T, C)")
    wide = 2.4 / config.n_layers
    for i in range(config.n_layers):
        color = OKABE_ITO[1] if config.is_global(i) else OKABE_ITO[0]
        x = left + i * wide
        draw_box(ax, (x, top), (wide - 0.06, high), color)
        ax.text(x + wide / 2 - 0.03, top + high / 2, str(i), ha="center", va="center", fontsize=9, fontweight="bold")
    end = left + 2.4
    ax.text(left, top + high + 0.32, "global: sees all tokens", color=OKABE_ITO[1], fontsize=8.5)
    ax.text(left, top + high + 0.1, f"local: {config.radius} tokens to either side", color=OKABE_ITO[0], fontsize=8.5)
    ax.text(end - 0.06, top - 0.08, "and a last norm", color=GREY, fontsize=8.5, ha="right", va="top")
    x = end
    for name, shape in HEAD:
        draw_arrow(ax, (x, top + high / 2), (x + 0.5, top + high / 2), shape)
        size = 1.25 if "\n" in name else 0.75 if "," in name else 0.5
        draw_box(ax, (x + 0.5, top), (size, high), OKABE_ITO[2])
        ax.text(
            x + 0.5 + size / 2, top + high / 2, name.replace(", GELU", "\nGELU"), ha="center", va="center", fontsize=8.5
        )
        x += 0.5 + size
    draw_arrow(ax, (x, top + high / 2), (x + 0.45, top + high / 2), "(B, M, V)")
    ax.text(end + 0.5, top + high + 0.1, "the head: only at the M gaps", color=OKABE_ITO[2], fontsize=8.5)
    _draw_block(ax)
    return figure


def _draw_block(ax: Axes) -> None:
    y, x, high = 0.45, 1.9, 0.56
    ax.text(0.05, y + high / 2, "one layer\n(all without biases)", va="center", fontsize=8.5)
    draw_arrow(ax, (1.4, y + high / 2), (x, y + high / 2), "(B, T, C)")
    branch = 0.0
    for i, name in enumerate(BLOCK):
        size = {"norm": 0.75, "+": 0.36}.get(name, 1.25)
        plus = name == "+"
        draw_box(ax, (x, y), (size, high), GREY if plus or name == "norm" else OKABE_ITO[4])
        ax.text(x + size / 2, y + high / 2, name, ha="center", va="center", fontsize=8.5)
        if i in (0, 3):
            branch = x - 0.2
        if plus:  # the stream goes round what was computed, and both are added
            ax.plot([branch, branch, x + size / 2], [y + high / 2, y - 0.22, y - 0.22], color=GREY, lw=1)
            draw_arrow(ax, (x + size / 2, y - 0.22), (x + size / 2, y))
        x += size
        draw_arrow(ax, (x, y + high / 2), (x + 0.32, y + high / 2))
        x += 0.32
    ax.text(
        x + 0.08,
        y + high / 2,
        "layer 0: no first norm,\nthe embedding has one",
        va="center",
        fontsize=8,
        color=GREY,
    )
