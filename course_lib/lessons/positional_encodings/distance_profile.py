"""Heads of two models side by side: chosen maps, and how much each head looks at each distance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from course_lib.checks import check_at_least
from course_lib.viz.plots import GREY, OKABE_ITO, Line, draw_lines, headline, new_figure

Head = tuple[int, int]  # layer, head


@dataclass(frozen=True)
class Profile:
    """Attention of all heads of one model on one text, and its mean by distance."""

    maps: np.ndarray  # (L, H, T, T)
    by_distance: np.ndarray  # (L, H, T) mean weight on the key so many tokens before, over queries that have one
    threshold: float

    def strongest(self, n: int) -> list[Head]:
        """The n heads with most weight on the token just before, in this order."""
        weight = self.by_distance[..., 1]
        order = np.argsort(-weight, axis=None, kind="stable")[:n]
        return [(int(i) // weight.shape[1], int(i) % weight.shape[1]) for i in order]

    @property
    def previous(self) -> list[Head]:
        """Heads whose mean weight on the token just before is at least the threshold, the strongest first."""
        weight = self.by_distance[..., 1]
        return [head for head in self.strongest(weight.size) if weight[head] >= self.threshold]


def distance_profile(maps: ArrayLike, threshold: float = 0.4) -> Profile:
    """Mean weight at each distance, of causal maps (L, H, T, T) of one text; `threshold` names previous-token heads.

    Raises ValueError for other shapes, and weights on keys after the query.
    """
    weights = np.asarray(maps, float)
    if weights.ndim != 4 or weights.shape[-1] != weights.shape[-2] or weights.shape[-1] < 2 or 0 in weights.shape:
        raise ValueError(f"maps has shape {weights.shape}; needed is (L, H, T, T) with T of 2 or more")
    if np.triu(weights, 1).any():
        raise ValueError("maps have weights on keys after the query; needed are those of a causal model")
    length = weights.shape[-1]
    means = [np.diagonal(weights, -d, -2, -1).mean(-1) for d in range(length)]
    return Profile(weights, np.stack(means, -1), threshold)


def plot_profiles(
    models: Mapping[str, Profile], chosen: Mapping[str, Sequence[Head]] | None = None, *, longest: int = 16,
    title: str = "",
) -> Figure:  # fmt: skip
    """A row for each model: maps of the chosen heads, and for every head the weight by distance up to `longest`.

    Previous-token heads are coloured and named layer.head, the others grey. `chosen` None are the two with most weight
    on the token before. Raises ValueError for no model, heads that are not there, and rows of unequal numbers of heads.
    """
    if not models:
        raise ValueError("models is empty; give at least one")
    heads = {name: list((chosen or {}).get(name, p.strongest(2))) for name, p in models.items()}
    for name, profile in models.items():
        n_layers, n_heads = profile.by_distance.shape[:2]
        if bad := [head for head in heads[name] if not (0 <= head[0] < n_layers and 0 <= head[1] < n_heads)]:
            raise ValueError(f"chosen: {name!r} has no head {bad[0]}; there are {n_layers} layers of {n_heads}")
    if len({len(row) for row in heads.values()}) > 1:
        raise ValueError(f"chosen: numbers are { {name: len(row) for name, row in heads.items()} }; needed are as many")
    columns = len(next(iter(heads.values())))
    if not columns:
        raise ValueError("chosen has 0 heads for each model; needed is one or more")
    check_at_least("longest", longest, 1)
    figure, axes = new_figure(
        columns + 1,
        len(models),
        size=(4.0 + 3.0 * columns, 2.6 * len(models) + 0.5),
        width_ratios=[1.0] * columns + [1.45],
    )
    top = 1.08 * max(float(profile.by_distance[..., : longest + 1].max()) for profile in models.values())
    for row, (name, profile) in zip(axes, models.items(), strict=True):
        for ax, head in zip(row[:-1], heads[name], strict=True):
            image = ax.imshow(profile.maps[head], cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
            before = profile.by_distance[head][1]
            ax.set_title(f"{head[0]}.{head[1]}: {before:.2f} on the token before", fontsize="small")
            ax.set_xlabel("key (token)", fontsize="small")
        row[0].set_ylabel(f"{name}\nquery (token)", fontsize="small")
        _draw_profile(row[-1], profile, longest, top)
        figure.colorbar(image, ax=row[-2], shrink=0.8, aspect=15, label="weight").outline.set_visible(False)
    counts = ", ".join(f"{len(p.previous)} in {name}" for name, p in models.items())
    at_least = next(iter(models.values())).threshold
    title = title or f"Previous-token heads (layer.head with {at_least:g} or more on the token before):\n{counts}"
    headline(figure, title)
    return figure


def _draw_profile(ax: Axes, profile: Profile, longest: int, top: float) -> None:
    """Mean weight of each head against the distance, and dotted that of a head which attends evenly to all."""
    n_layers, n_heads, length = profile.by_distance.shape
    distance = np.arange(min(longest + 1, length))
    lines = {}
    for layer in range(n_layers):
        for head in range(n_heads):
            values = profile.by_distance[layer, head, : len(distance)]
            if (layer, head) not in profile.previous:
                ax.plot(distance, values, color=GREY, lw=0.9, alpha=0.55)
    for i, (layer, head) in enumerate(profile.previous):
        color = OKABE_ITO[i % len(OKABE_ITO)]
        lines[f"{layer}.{head}"] = Line(distance, profile.by_distance[layer, head, : len(distance)], color=color)
    draw_lines(ax, lines)
    for i, (name, line) in enumerate(lines.items()):  # beside the peaks: at the right end all are 0
        ax.annotate(name, (1, float(np.asarray(line.y)[1])), xytext=(6 + 26 * (i % 3), 0), textcoords="offset points",
                    va="center", color=line.color, fontsize="small")  # fmt: skip
    even = [(1 / np.arange(d + 1, length + 1)).mean() for d in distance]
    ax.plot(distance, even, color="black", linestyle=":", lw=1.4)
    ax.annotate(
        "dotted: attends evenly", (0.98, 0.97), xycoords="axes fraction", ha="right", va="top", fontsize="small"
    )
    ax.set(ylim=(0, top), xlim=(-0.3, distance[-1] + 0.3), title="weight by distance, all heads")
    ax.set_xticks(distance[:: max(1, len(distance) // 8)])
    ax.set_xlabel("distance (tokens before the query)", fontsize="small")
    ax.set_ylabel("mean weight", fontsize="small")
