"""A static picture of attention maps: the selected one large, all of them small."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from course_lib.viz.attention_maps import AttentionMaps, Selection, visible
from course_lib.viz.plots import OKABE_ITO, new_figure

MASKED_GREY = "#d4d4d4"
_MOST_LABELS = 40
_MOST_NUMBERS = 12  # more numbers than that in a row cannot be read


def plot_maps(maps: AttentionMaps, selection: Selection | None = None) -> Figure:
    """The selected layer and head (or the first) with labels, beside all layers x heads; masked pairs are hatched.

    Of a picture the patches are coloured by the weights of the locked query, or by their mean over all queries.
    Raises ValueError for a selection that the maps do not have.
    """
    selection = selection or Selection()
    maps.check(selection)
    n_queries = len(maps.queries)
    height = 5.0 if maps.image else float(np.clip(1.6 + 0.2 * n_queries, 3.2, 7.0))
    figure, _ = new_figure(size=(10.0, height))
    figure.clear()
    left, right = figure.subfigures(1, 2, width_ratios=(1.65, 1.0))
    main = left.subplots()
    if maps.image is None:
        _draw_map(main, maps, selection)
    else:
        _draw_picture(main, maps, selection)
    scale = left.colorbar(main.images[-1], ax=main, shrink=0.6)
    scale.outline.set_visible(False)
    scale.ax.tick_params(labelsize="x-small", length=2)
    scale.ax.set_title("weight", fontsize="x-small", fontweight="normal", loc="center")
    _draw_small(right.subplots(), maps, selection)
    main.set_title(_plain(maps.text(selection)), loc="left", fontsize="small")
    return figure


def _draw_map(ax: Axes, maps: AttentionMaps, selection: Selection) -> None:
    weights = maps.weights[selection.layer, selection.head]
    n_queries, n_keys = weights.shape
    allowed = np.ones_like(weights, bool) if maps.allowed is None else maps.allowed[selection.layer]
    ax.imshow(np.ma.array(weights, mask=~allowed), cmap="viridis", vmin=0, vmax=1, aspect="auto")
    hatch(ax, allowed)
    size = 8 if max(n_queries, n_keys) <= 30 else 7
    q_step, k_step = -(-n_queries // _MOST_LABELS), -(-n_keys // _MOST_LABELS)
    ax.set_xticks(range(0, n_keys, k_step), [_short(key) for key in maps.keys[::k_step]], rotation=90, fontsize=size)
    ax.set_yticks(range(0, n_queries, q_step), [_short(query) for query in maps.queries[::q_step]], fontsize=size)
    ax.tick_params(length=0)
    ax.set_xlabel("key", fontsize="small")
    ax.set_ylabel("query", fontsize="small")
    for spine in ax.spines.values():
        spine.set_visible(False)
    if selection.query is not None:
        ax.add_patch(Rectangle((-0.5, selection.query - 0.5), n_keys, 1, fill=False, ec=OKABE_ITO[1], lw=1.5))
    if max(n_queries, n_keys) <= _MOST_NUMBERS:
        for q, k in np.argwhere(allowed & (weights >= 0.005)):
            color = "black" if weights[q, k] > 0.5 else "white"
            ax.text(k, q, f"{weights[q, k]:.2f}", ha="center", va="center", color=color, fontsize=7)
    if maps.colors is not None:
        _color_labels(ax, maps, selection.layer, q_step)


def _color_labels(ax: Axes, maps: AttentionMaps, layer: int, step: int) -> None:
    """Queries in the colours of their categories, and what the colours mean."""
    assert maps.colors is not None
    for label, category in zip(ax.get_yticklabels(), maps.colors[layer][::step], strict=True):
        if category >= 0:
            striped = category >= len(OKABE_ITO)
            label.set(
                color=OKABE_ITO[category % len(OKABE_ITO)], style="italic" if striped else "normal", weight="bold"
            )
    handles = [
        Patch(facecolor=OKABE_ITO[i % len(OKABE_ITO)], label=name, hatch="////" if i >= len(OKABE_ITO) else None)
        for i, name in enumerate(maps.color_names)
    ]
    ax.figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize="x-small", frameon=False)


def hatch(ax: Axes, allowed: np.ndarray) -> None:
    """Hatch the cells of a map (T, S) that are not allowed."""
    for q, row in enumerate(allowed):
        # One rectangle for each run of masked cells, so that a long map has few.
        edges = np.flatnonzero(np.diff(np.concatenate(([0], ~row, [0])).astype(int)))
        for begin, end in edges.reshape(-1, 2):
            ax.add_patch(
                Rectangle((begin - 0.5, q - 0.5), end - begin, 1, fill=False, hatch="////", ec="#bbbbbb", lw=0)
            )


def _draw_small(ax: Axes, maps: AttentionMaps, selection: Selection) -> None:
    """All maps in one axes, which is five times as fast as one axes for each."""
    layers, heads, n_queries, n_keys = maps.weights.shape
    colors = mpl.colormaps["viridis"].with_extremes(bad=MASKED_GREY)
    for layer, head in np.ndindex(layers, heads):
        masked = np.zeros((n_queries, n_keys), bool) if maps.allowed is None else ~maps.allowed[layer]
        place = (head + 0.04, head + 0.96, layer + 0.96, layer + 0.04)
        ax.imshow(np.ma.array(maps.weights[layer, head], mask=masked), cmap=colors, vmin=0, vmax=1, extent=place)
    frame = (selection.head + 0.02, selection.layer + 0.02)
    ax.add_patch(Rectangle(frame, 0.96, 0.96, fill=False, ec=OKABE_ITO[1], lw=2.5))
    ax.set(xlim=(0, heads), ylim=(layers, 0), aspect=float(np.clip(n_queries / n_keys, 0.5, 2)), anchor="N")
    ax.set_xticks(np.arange(heads) + 0.5, [str(head) for head in range(heads)], fontsize="x-small")
    ax.set_yticks(np.arange(layers) + 0.5, [_short(name) for name in maps.layer_names], fontsize="x-small")
    ax.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_title("all layers (rows) and heads (columns)", fontsize="small", fontweight="normal")


def _draw_picture(ax: Axes, maps: AttentionMaps, selection: Selection) -> None:
    """The picture under its patches' weights; the locked patch has a frame."""
    assert maps.image is not None
    rows, columns = maps.image.rows, maps.image.columns
    special = len(maps.keys) - rows * columns
    chosen = maps.weights[selection.layer, selection.head]
    weights = chosen.mean(0) if selection.query is None else chosen[selection.query]
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    ax.imshow(maps.image.pixels.mean(-1), cmap="gray", vmin=0, vmax=255, extent=extent)  # colour belongs to the weights
    # By the root: a patch has many neighbours, so that all its weights are small.
    overlay = weights[special:].reshape(rows, columns)
    ax.imshow(overlay, cmap="viridis", norm=PowerNorm(0.5, 0, 1), alpha=0.6, extent=extent)
    if selection.query is not None and selection.query >= special:
        row, column = divmod(selection.query - special, columns)
        ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec=OKABE_ITO[1], lw=2.5))
    whose = "mean over all queries" if selection.query is None else f"query {visible(maps.queries[selection.query])}"
    others = "".join(f", {visible(maps.keys[i])} {weights[i]:.2f}" for i in range(special))
    ax.set_xlabel(_plain(f"{whose}{others}"), fontsize="small")
    ax.set(xticks=[], yticks=[])


def _short(label: str, most: int = 12) -> str:
    label = visible(label)
    return _plain(label if len(label) <= most else label[: most - 1] + "…")


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # or matplotlib would read a formula, and may stop at it
