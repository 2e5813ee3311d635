"""A drawing of multi-head attention: parallel lanes that read one stream and add to it."""

from matplotlib.figure import Figure

from course_lib.checks import check_range
from course_lib.viz.boxes import canvas, draw_arrow, draw_box
from course_lib.viz.plots import GREY, OKABE_ITO


def plot_heads(n_heads: int = 4, d_model: int = 128) -> Figure:
    """Boxes and arrows, with shapes: the stream below, one lane a head above it, each from reading to writing.

    Raises ValueError for fewer than 1 head or more than 4.
    """
    check_range("n_heads", n_heads, 1, 4)
    width = d_model // n_heads
    lane, low = 0.72, 1.15
    top = low + n_heads * lane
    figure, ax = canvas(10.0, top + 0.55)
    draw_box(ax, (0.15, 0.3), (9.7, 0.42), GREY)
    ax.text(0.3, 0.51, f"the residual stream, (B, T, {d_model})", va="center", fontsize=9)
    for i in range(n_heads):
        y, color = low + (n_heads - 1 - i) * lane, OKABE_ITO[i % len(OKABE_ITO)]
        for x, size, text in (
            (1.15, 1.75, f"$W^Q_{i}, W^K_{i}, W^V_{i}$"),
            (4.25, 2.0, f"softmax($Q_{i}K_{i}^T/\\sqrt{{{width}}}$)$\\,V_{i}$"),
            (7.6, 1.0, f"$W^O_{i}$"),
        ):
            draw_box(ax, (x, y), (size, 0.5), color)
            ax.text(x + size / 2, y + 0.25, text, ha="center", va="center", fontsize=9)
        draw_arrow(ax, (2.9, y + 0.25), (4.25, y + 0.25), f"3 × (B, T, {width})")
        draw_arrow(ax, (6.25, y + 0.25), (7.6, y + 0.25), f"(B, T, {width})")
        draw_arrow(ax, (0.75, y + 0.25), (1.15, y + 0.25))
        draw_arrow(ax, (8.6, y + 0.25), (9.15, y + 0.25))
        ax.text(0.68, y + 0.25, f"head {i}", ha="right", va="center", fontsize=8.5, color=color)
    middle = low + 0.25, low + (n_heads - 1) * lane + 0.25
    ax.plot([0.75, 0.75], [0.72, middle[1]], color=GREY, lw=1)  # all read the same
    ax.plot([9.15, 9.15], [middle[0], middle[1]], color=GREY, lw=1)
    draw_arrow(ax, (9.15, middle[0]), (9.15, 0.74))
    ax.text(9.25, 0.95, "add", fontsize=8.5, color=GREY, va="center")
    ax.text(0.85, 0.95, "read (through a norm)", fontsize=8.5, color=GREY, va="center")
    for x, text in ((2.0, "project"), (5.25, "attend: no head sees another"), (8.1, "write")):
        ax.text(x, top + 0.18, text, ha="center", fontsize=9, fontweight="bold")
    return figure
