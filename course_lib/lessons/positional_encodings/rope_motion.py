"""RoPE in motion: query and key walk through a text, the vectors turn, the score stays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from course_lib.checks import check_at_least, check_range
from course_lib.lessons.positional_encodings.rope_frame import (
    QUERY,
    SCORE,
    RopeFrame,
    draw_pair,
    rope_frame,
    tokens,
    turned,
)
from course_lib.positions.rope import RotaryPosition
from course_lib.viz.plots import GREY, new_figure

BACK = 5  # the key is so many tokens before the query


@dataclass(frozen=True)
class RopeStep:
    """One step of the walk: the pairs now, and the scores of all queries so far."""

    frame: RopeFrame
    pairs: tuple[int, ...]  # that are drawn
    scores: np.ndarray  # (T, T) query m, key n
    limit: float  # end of the colours

    @property
    def along(self) -> np.ndarray:
        """Score of each query so far with the key at that distance, from the first that has one: (m - back + 1,)."""
        back = self.frame.q_pos - self.frame.k_pos
        return np.diagonal(self.scores, -back)[: self.frame.k_pos + 1]


def rope_steps(
    q: np.ndarray, k: np.ndarray, *, length: int = 29, back: int = BACK, pairs: Sequence[int] = (0, 1, 2, 4),
    theta: float = 10000.0,
) -> list[RopeStep]:  # fmt: skip
    """The same query and key (head_dim,) at each place m of a text, key at m - back, from m = back on.

    Four `pairs` are drawn. Raises ValueError for a back that is not from 1 to length - 2, other numbers of pairs or
    pairs that are not there, and as `rope_frame` does.
    """
    if len(pairs) != 4 or not all(0 <= pair < len(q) // 2 for pair in pairs):
        raise ValueError(f"pairs={tuple(pairs)}; needed are four, from 0 to {len(q) // 2 - 1}")
    check_at_least("length", length, 3)
    check_range("back", back, 1, length - 2)
    position, places = RotaryPosition(len(q), theta), np.arange(length)
    dots = turned(position, q, places).reshape(length, -1) @ turned(position, k, places).reshape(length, -1).T  # (T, T)
    scores = np.where(places[:, None] >= places, dots, np.nan)
    limit = float(np.nanmax(np.abs(scores)))
    return [
        RopeStep(rope_frame(m, m - back, 0, theta, q=q, k=k), tuple(pairs), scores, limit) for m in range(back, length)
    ]


def plot_rope_step(step: RopeStep) -> Figure:
    """Left: four pairs, from fast to slow. Middle: scores of the queries so far. Right: the score at this distance."""
    frame = step.frame
    figure, _ = new_figure(size=(10.0, 4.2))
    figure.clear()
    left, middle, right = figure.subfigures(1, 3, width_ratios=(1.05, 1.1, 0.75))
    for ax, pair in zip(left.subplots(2, 2).flat, step.pairs, strict=True):
        reach = 1.35 * float(max(np.linalg.norm(frame.q[pair]), np.linalg.norm(frame.k[pair])))
        draw_pair(ax, frame, pair, arcs=False, reach=reach)
        ax.set(xticks=[], yticks=[])
        name = f"pair {pair}: turns in {tokens(frame.wavelengths[pair])} tokens"
        ax.set_title(name, fontsize="x-small", fontweight="normal", loc="center")
        ax.set_xlabel(f"score {frame.scores[pair]:+.2f}", color=SCORE, fontsize="small")
    ax = middle.subplots()
    _draw_so_far(ax, step)
    ax = right.subplots()
    ax.axhline(0, color=GREY, lw=0.4)
    back = frame.q_pos - frame.k_pos
    ax.plot(np.arange(back, frame.q_pos + 1), step.along, ".-", color=SCORE)
    ax.plot(frame.q_pos, step.along[-1], "o", color="black", ms=6)
    ax.set(xlim=(-0.5, len(step.scores) + 0.5), ylim=(-step.limit, step.limit), xlabel="position of the query",
           ylabel="score q·k of all pairs")  # fmt: skip
    for part, text in (
        (left, "The vectors turn,"), (middle, f"query at {frame.q_pos}, key at {frame.k_pos}:"),
        (right, f"the score stays {frame.scores.sum():.2f}"),
    ):  # fmt: skip
        part.suptitle(text, x=0.02, ha="left", fontweight="bold", fontsize="medium")
    return figure


def _draw_so_far(ax: Axes, step: RopeStep) -> None:
    """Scores of the queries up to now; the pairs at this distance are framed, the pair of now is marked."""
    frame, length = step.frame, len(step.scores)
    shown = np.where(np.arange(length)[:, None] <= frame.q_pos, step.scores, np.nan)
    image = ax.imshow(shown, cmap="RdBu_r", vmin=-step.limit, vmax=step.limit, interpolation="nearest")
    back = frame.q_pos - frame.k_pos
    for m in range(back, frame.q_pos + 1):
        now = m == frame.q_pos
        ax.add_patch(Rectangle((m - back - 0.5, m - 0.5), 1, 1, fill=False, color="black", lw=2.2 if now else 0.8))
    ax.axhline(frame.q_pos + 0.5, color=QUERY, lw=1)
    ax.set(xlabel="key (position)", ylabel="query (position)")
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    for spine in ax.spines.values():
        spine.set(visible=True, color=GREY)
    bar = ax.figure.colorbar(image, ax=ax, location="bottom", shrink=0.7, aspect=25)
    bar.set_label("score q·k of all pairs", fontsize="small")
    bar.outline.set_visible(False)


def rope_figures(steps: Sequence[RopeStep]) -> Iterator[Figure]:
    """A figure for each step, for `animate.gif`."""
    return (plot_rope_step(step) for step in steps)
