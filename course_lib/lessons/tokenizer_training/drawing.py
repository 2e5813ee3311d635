"""The drawing of the lesson: from a text to vectors, and the way back."""

from matplotlib.figure import Figure

from course_lib.viz.boxes import canvas, draw_arrow, draw_box
from course_lib.viz.plots import GREY, OKABE_ITO, headline

STEPS = (  # name, what it does, what comes out
    ("text", "", "ﾃﾞｰﾀ 10 MB"),
    ("normalise", "NFKC: one form\nfor each character", "データ▁10▁MB"),
    ("cut", "into pieces of\nthe vocabulary", "データ|▁|1|0|▁|M|B"),
    ("look up", "the number\nof each piece", "ids (B, T)"),
    ("embed", "a row of a table\n(V, C) for each id", "vectors (B, T, C)"),
)


def plot_pipeline() -> Figure:
    """Text, normal form, pieces, ids, vectors, in boxes; below, what was trained beforehand, and the way back."""
    figure, ax = canvas(9.6, 3.0)
    size, gap = (1.42, 0.86), 0.5
    for i, (name, does, result) in enumerate(STEPS):
        x = 0.15 + i * (size[0] + gap)
        trained = name in ("cut", "embed")
        draw_box(ax, (x, 1.25), size, OKABE_ITO[1] if trained else OKABE_ITO[0], filled=name != "text")
        middle = x + size[0] / 2
        ax.text(middle, 1.95 if does else 1.68, name, ha="center", va="center", fontweight="bold", fontsize=9)
        ax.text(middle, 1.56, does, ha="center", va="center", fontsize=7.5, color=GREY)
        ax.text(middle, 1.08, result, ha="center", va="center", fontsize=8)
        if i:
            draw_arrow(ax, (x - gap + 0.04, 1.68), (x - 0.04, 1.68))
    ax.text(2 * (size[0] + gap) + 0.15 + size[0] / 2, 2.28, "trained on text, once,\nbefore the model", ha="center",
            va="bottom", fontsize=7.5, color=OKABE_ITO[1])  # fmt: skip
    ax.text(4 * (size[0] + gap) + 0.15 + size[0] / 2, 2.28, "trained with\nthe model", ha="center", va="bottom",
            fontsize=7.5, color=OKABE_ITO[1])  # fmt: skip
    back = 0.15 + 3 * (size[0] + gap) + size[0] / 2
    draw_arrow(ax, (back, 0.92), (0.15 + size[0] / 2, 0.92), bend=-0.16)
    ax.text(4.0, 0.2, "decode: look the pieces up, join them, ▁ becomes a space; the first form is lost", ha="center",
            fontsize=7.5, color=GREY)  # fmt: skip
    headline(figure, "A tokenizer is three steps before the model: normalise, cut, look up")
    return figure
