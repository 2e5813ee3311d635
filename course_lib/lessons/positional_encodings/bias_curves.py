"""Pictures of biases by distance: T5's buckets and what they learned, and ALiBi's straight lines."""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from course_lib.checks import check_at_least
from course_lib.positions.alibi import UNIFORM_SLOPE, AlibiPosition
from course_lib.positions.relative import t5_buckets
from course_lib.viz.plots import GREY, OKABE_ITO, Line, draw_lines, headline, label_lines, new_figure


@dataclass(frozen=True)
class Buckets:
    """T5's bucket of each distance, for keys before the query and, if both directions count, for those after it."""

    n_buckets: int
    max_distance: int
    before: np.ndarray  # (N,) bucket of distance 0, 1, … N - 1
    after: np.ndarray | None  # (N,); None under a causal mask


def bucket_view(n_buckets: int = 32, max_distance: int = 128, *, causal: bool = True, length: int = 512) -> Buckets:
    """Compute `t5_buckets` of the distances 0 to length - 1. Raises ValueError as it does, and for a length below 2."""
    far = _distances(length)
    before = t5_buckets(-far, n_buckets, max_distance, bidirectional=not causal).numpy()
    after = None if causal else t5_buckets(far, n_buckets, max_distance).numpy()
    return Buckets(n_buckets, max_distance, before, after)


def plot_buckets(view: Buckets) -> Figure:
    """A staircase of buckets over the distance, on a logarithmic axis."""
    figure, axes = new_figure(size=(8.0, 3.8))
    ax = axes[0, 0]
    own = view.n_buckets // (1 if view.after is None else 2)
    exact = own // 2
    distance = np.arange(len(view.before))
    stairs = {"keys before" if view.after is not None else "bucket": (distance, view.before)}
    if view.after is not None:
        stairs["keys after"] = distance[1:], view.after[1:]
    for i, (x, y) in enumerate(stairs.values()):
        ax.step(x, y, where="post", color=OKABE_ITO[i])
        ax.plot(x[: exact + 1], y[: exact + 1], ".", color=OKABE_ITO[i])
    for edge, text in (
        (exact, f"single distances\nend at {exact - 1}"),
        (view.max_distance, f"max_distance\n{view.max_distance}"),
    ):
        ax.axvline(edge, color=GREY, linestyle=":", lw=1)
        ax.annotate(text, (edge, 0.03), xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points",
                    color=GREY, fontsize="small")  # fmt: skip
    _log_distance(ax, len(view.before))
    ax.set(ylabel="bucket", ylim=(-0.5, view.n_buckets + 0.5))
    if len(stairs) > 1:
        label_lines(ax, {name: Line(x, y) for name, (x, y) in stairs.items()})
    title = f"T5: {exact} buckets of one distance, {own - exact} of growing ranges"
    if view.before[-1] == own - 1:  # else the picture ends before the last bucket
        title += f";\nfrom distance {int(np.argmax(view.before == own - 1))} on, all share one"
    headline(figure, title)
    return figure


@dataclass(frozen=True)
class BiasCurves:
    """Bias of each head by distance of the keys before the query."""

    distance: np.ndarray  # (N,) tokens
    bias: np.ndarray  # (seeds, H, N) natural logits


def t5_curves(embedding: ArrayLike, max_distance: int = 128, *, causal: bool = True, length: int = 128) -> BiasCurves:
    """Read T5's learned numbers as curves: embedding (buckets, H) or (seeds, buckets, H), as `T5Position` has it.

    Each curve is minus its mean: the softmax does not see what is added to all keys alike. Raises ValueError for other
    shapes and as `t5_buckets` does.
    """
    table = np.asarray(embedding, float)
    table = table[None] if table.ndim == 2 else table
    if table.ndim != 3 or 0 in table.shape:
        raise ValueError(f"embedding has shape {table.shape}; needed is (buckets, H) or (seeds, buckets, H)")
    bucket = t5_buckets(-_distances(length), table.shape[1], max_distance, bidirectional=not causal).numpy()
    bias = table[:, bucket].swapaxes(1, 2)  # (seeds, H, N)
    return BiasCurves(np.arange(length), bias - bias.mean(-1, keepdims=True))


def mean_distance(curves: BiasCurves) -> np.ndarray:
    """Where each head would look if all dot products were equal, as a mean distance in tokens: (seeds, H)."""
    weights = np.exp(curves.bias - curves.bias.max(-1, keepdims=True))
    return (weights * curves.distance).sum(-1) / weights.sum(-1)


def plot_t5(curves: BiasCurves, untrained: BiasCurves | None = None, title: str = "") -> Figure:
    """A panel for each seed, a line for each head, labelled; those of the untrained model are grey.

    Heads have no order of their own, so colours follow `mean_distance` within each seed: the first looks nearest.
    Raises ValueError for more than four seeds.
    """
    n_seeds, _, length = curves.bias.shape
    if n_seeds > 4:
        raise ValueError(f"curves has {n_seeds} seeds; at most 4 can be shown side by side")
    figure, axes = new_figure(n_seeds, size=(8.0, 4.0) if n_seeds == 1 else (10.0, 3.9), sharey=True)
    far = mean_distance(curves)
    panels = [_by_reach(curves, seed, far[seed]) for seed in range(n_seeds)]
    for seed, (ax, lines) in enumerate(zip(axes[0], panels, strict=True)):
        if untrained is not None:
            for row in untrained.bias.reshape(-1, untrained.bias.shape[-1]):
                ax.plot(untrained.distance, row, color=GREY, lw=1, alpha=0.7)
            ax.annotate("grey: untrained", (0.02, 0.02), xycoords="axes fraction", color=GREY, fontsize="small")
        ax.axhline(0, color=GREY, linestyle=":", lw=1)
        draw_lines(ax, lines)
        _log_distance(ax, length)
        if n_seeds > 1:
            ax.set_title(f"seed {seed}")
    for ax, lines in zip(axes[0], panels, strict=True):  # only now are the shared limits final
        label_lines(ax, lines)
    axes[0, 0].set_ylabel("bias minus its mean (logits)")
    near, wide = far.min(1).mean(), far.max(1).mean()
    finding = "T5's heads divide the distances" if wide > 1.5 * near else "T5's heads look about equally far"
    by_bias = f"by the bias alone,\nthe nearest looks {near:.0f} tokens back on average, the farthest {wide:.0f}"
    title = title or f"{finding}: {by_bias} (evenly: {(length - 1) / 2:.0f})"
    headline(figure, title)
    return figure


def _by_reach(curves: BiasCurves, seed: int, far: np.ndarray) -> dict[str, Line]:
    """A line for each head of one seed, the nearest first, so that equal colours are equal ranks."""
    return {
        f"head {head}: {far[head]:.0f} tokens": Line(curves.distance, curves.bias[seed, head])
        for head in np.argsort(far)
    }


def alibi_curves(n_heads: int, slope: float | None = None, length: int = 128) -> BiasCurves:
    """ALiBi's biases of the distances 0 to length - 1, for one seed, as there is nothing to learn.

    `slope` None is a slope of its own for each head, (1, H, N); a number is one for all, (1, 1, N). Raises ValueError
    as `AlibiPosition` does, and for a length below 2.
    """
    bias = AlibiPosition(n_heads, slope).bias(torch.zeros(1, dtype=torch.int64), _distances(length))  # (H, 1, N)
    return BiasCurves(np.arange(length), bias.transpose(0, 1).double().numpy())


def plot_alibi(n_heads: int = 4, length: int = 128, uniform: float = UNIFORM_SLOPE) -> Figure:
    """Left: bias of each head against the distance. Right: the factor exp(bias) on the weight. Dashed: one slope."""
    figure, axes = new_figure(2, size=(9.2, 3.5))
    curves, one = alibi_curves(n_heads, None, length), alibi_curves(n_heads, uniform, length)
    slopes = -curves.bias[0, :, 1]
    half = np.log(2) / slopes  # tokens after which the factor is 1/2
    left = {f"slope {_fraction(slope)}": row for slope, row in zip(slopes, curves.bias[0], strict=True)}
    right = {f"½ at {at:.1f} tokens": row for at, row in zip(half, curves.bias[0], strict=True)}
    for ax, rows, change in ((axes[0, 0], left, np.asarray), (axes[0, 1], right, np.exp)):
        lines = {name: Line(curves.distance, change(row)) for name, row in rows.items()}
        dashed = Line(one.distance, change(one.bias[0, 0]), dashed=True, color="black")
        draw_lines(ax, lines)
        draw_lines(ax, {"uniform": dashed})
        if ax is axes[0, 0]:
            ax.set(ylim=(-1.02 * length * float(slopes[min(1, n_heads - 1)]), 0.2), xlabel="distance (tokens)")
        else:
            _log_distance(ax, length)
            ax.set_ylim(0, 1.02)
        label_lines(ax, lines)
    axes[0, 0].set(ylabel="bias (logits)", title=f"as logits: lines (dashed: {_fraction(uniform)} for all)")
    axes[0, 1].set(ylabel="exp(bias): factor on the weight", title="as weights: each head has its reach")
    headline(
        figure,
        f"ALiBi: each head halves the weight within a distance of its own, {half.min():.0f} to {half.max():.0f} tokens",
    )
    return figure


def _fraction(slope: float) -> str:
    """1/16 where that is exact to three digits, else 0.0442."""
    return f"1/{1 / slope:.0f}" if abs(1 / slope - round(1 / slope)) < 1e-3 else f"{slope:.3g}"


def _distances(length: int) -> torch.Tensor:
    return torch.arange(check_at_least("length", length, 2))


def _log_distance(ax: Axes, length: int) -> None:
    """A logarithmic axis of distances that has a place for 0."""
    ax.set_xscale("symlog", linthresh=1, linscale=0.5)
    ticks = [0, *(2**i for i in range(0, 20) if 2**i <= length)]
    ticks = ticks if len(ticks) < 8 else [0, *ticks[1::2]]
    ax.set_xticks(ticks, labels=[str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.set(xlim=(-0.15, length), xlabel="distance (tokens before the query)")
