"""Pictures of RoPE: one pair of channels that turns, scores by distance, and how far each pair turns in a text."""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc

from course_lib.checks import check_at_least, check_even, check_range
from course_lib.positions.rope import RotaryPosition, rope_frequencies
from course_lib.viz.plots import GREY, OKABE_ITO, headline, new_figure

QUERY, KEY, SCORE = OKABE_ITO[0], OKABE_ITO[1], OKABE_ITO[2]
SPAN = 64  # distances shown to each side


def example_vectors(head_dim: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A query and a key that suit each other: each pair of channels points in about one direction in both.

    The first pairs are the longest, so that the score of all pairs swings.

    -> two arrays (head_dim,), the pairs in the layout "half_split". Raises ValueError for a head_dim that is odd or
    below 2.
    """
    check_even("head_dim", head_dim)
    draw = np.random.default_rng(seed)
    angle = draw.uniform(-np.pi, np.pi, head_dim // 2)
    vectors = []
    for turn in (0.0, draw.uniform(-0.6, 0.6, head_dim // 2)):
        pairs = (
            np.geomspace(1.2, 0.4, head_dim // 2) * draw.uniform(0.8, 1.2, head_dim // 2) * np.exp(1j * (angle + turn))
        )
        vectors.append(np.concatenate([pairs.real, pairs.imag]))
    return vectors[0], vectors[1]


@dataclass(frozen=True)
class RopeFrame:
    """A query and a key at their positions: each pair before and after the turn, and scores by distance."""

    q_pos: int
    k_pos: int
    pair: int
    wavelengths: np.ndarray  # (pairs,) tokens for a full turn
    q: np.ndarray  # (pairs, 2)
    k: np.ndarray  # (pairs, 2)
    q_turned: np.ndarray  # (pairs, 2)
    k_turned: np.ndarray  # (pairs, 2)
    distances: np.ndarray  # (N,) key minus query
    by_distance: np.ndarray  # (N, pairs) score of each pair

    @property
    def scores(self) -> np.ndarray:
        """q·k after the turn, pair by pair: (pairs,)."""
        return (self.q_turned * self.k_turned).sum(-1)

    def text(self) -> str:
        """The frame in one line, for readers who cannot see the picture."""
        angles = 360 * np.array([self.q_pos, self.k_pos]) / self.wavelengths[self.pair]
        return (
            f"query at {self.q_pos}, key at {self.k_pos}, distance {self.k_pos - self.q_pos}: pair {self.pair} turned "
            f"the query by {angles[0]:,.1f}°, the key by {angles[1]:,.1f}°; "
            f"pair score {self.scores[self.pair]:.2f}, of all pairs {self.scores.sum():.2f}"
        )


def rope_frame(q_pos: int, k_pos: int, pair: int, theta: float = 10000.0, *, q: np.ndarray, k: np.ndarray) -> RopeFrame:
    """Turn q and k (head_dim,) as `RotaryPosition` does at their positions, and at all distances up to SPAN.

    Raises ValueError for positions below 0, a pair that is not there, q and k of different shapes, and as
    `RotaryPosition` does.
    """
    check_at_least("q_pos", q_pos, 0)
    check_at_least("k_pos", k_pos, 0)
    if q.shape != k.shape or q.ndim != 1:
        raise ValueError(f"q has shape {q.shape}, k {k.shape}; needed is twice (head_dim,)")
    position = RotaryPosition(len(q), theta)
    check_range("pair", pair, 0, len(q) // 2 - 1)

    distances = np.arange(-SPAN, SPAN + 1)
    fixed = turned(position, q, np.array([SPAN]))
    here_q, here_k = turned(position, q, np.array([q_pos]))[0], turned(position, k, np.array([k_pos]))[0]
    by_distance = (fixed * turned(position, k, SPAN + distances)).sum(-1)
    wavelengths = 2 * np.pi / rope_frequencies(len(q), theta).double().numpy()
    return RopeFrame(q_pos, k_pos, pair, wavelengths, _pairs(q), _pairs(k), here_q, here_k, distances, by_distance)


def turned(position: RotaryPosition, x: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The vector x (head_dim,) at each of the places (N,), as pairs: (N, pairs, 2)."""
    rows, pos = torch.from_numpy(np.tile(x, (len(places), 1)))[None, None], torch.from_numpy(places)
    return _pairs(position.rotate(rows, rows, pos, pos)[0][0, 0].numpy())


def _pairs(x: np.ndarray) -> np.ndarray:
    """(..., D) -> (..., D / 2, 2): channel i and channel i + D / 2 are a pair."""
    return np.stack(np.split(x, 2, axis=-1), -1)


def plot_rope_frame(frame: RopeFrame) -> Figure:
    """The plane of one pair, its score by distance, the score of all pairs by distance; below, all wavelengths."""
    figure, _ = new_figure(size=(10.0, 4.7))
    figure.clear()
    figure.set_layout_engine("none")  # sliders move it: solving for a layout takes longer than drawing
    plane, one, every = (figure.add_axes((left, 0.335, 0.247, 0.525)) for left in (0.088, 0.41, 0.738))
    strip = figure.add_axes((0.088, 0.115, 0.897, 0.08))
    reach = 1.25 * float(max(np.linalg.norm(frame.q[frame.pair]), np.linalg.norm(frame.k[frame.pair])))
    draw_pair(plane, frame, frame.pair, arcs=True, reach=reach)
    plane.set(title=f"pair {frame.pair}, before (faint) and after", xlabel="first channel of the pair",
              ylabel="second channel")  # fmt: skip
    turn = frame.wavelengths[frame.pair]
    _draw_scores(one, frame, frame.by_distance[:, frame.pair], frame.scores[frame.pair], (-(reach**2), reach**2))
    one.set(title=f"its score: period {tokens(turn)} tokens", ylabel="q·k of this pair")
    total = frame.by_distance.sum(1)
    _draw_scores(every, frame, total, frame.scores.sum(), (min(-1.0, 1.1 * total.min()), 1.25 * total.max()))
    every.set(title=f"score of all {len(frame.scores)} pairs", ylabel="q·k")
    draw_wavelengths(strip, frame.wavelengths, frame.pair)
    title = (
        f"Query at {frame.q_pos}, key at {frame.k_pos}: the score {frame.scores.sum():.2f} depends on the distance "
        f"{frame.k_pos - frame.q_pos} alone"
    )
    headline(figure, title)
    return figure


def draw_pair(ax: Axes, frame: RopeFrame, pair: int, *, arcs: bool, reach: float) -> None:
    """One pair's plane: q and k before (faint) and after the turn, with the angles if `arcs`."""
    ax.axhline(0, color=GREY, lw=0.4)
    ax.axvline(0, color=GREY, lw=0.4)
    both = (
        (frame.q, frame.q_turned, QUERY, "q", frame.q_pos, 0.36),
        (frame.k, frame.k_turned, KEY, "k", frame.k_pos, 0.56),
    )
    for before, after, color, name, place, radius in both:
        for (x, y), alpha, width in ((before[pair], 0.28, 0.014), (after[pair], 1.0, 0.035)):
            ax.arrow(0, 0, x, y, alpha=alpha, width=width * reach, head_width=0.1 * reach, length_includes_head=True,
                     color=color, lw=0)  # fmt: skip
        ax.text(1.14 * x, 1.14 * y, name, color=color, ha="center", va="center", fontweight="bold")
        if arcs:
            start, angle = np.degrees(np.arctan2(*before[pair][::-1])), 360 * place / frame.wavelengths[pair]
            size = 2 * radius * reach / 1.25
            turns, rest = divmod(angle, 360.0)
            ax.add_patch(Arc((0, 0), size, size, theta1=start, theta2=start + rest, color=color, lw=1.4))
            whole = f"{turns:.0f} turn{'s' if turns > 1 else ''} + " if turns else ""
            said = f"{name}: {whole}{rest:.0f}°"
            ax.annotate(said, (0.02, 0.99 if name == "q" else 0.91), xycoords="axes fraction", color=color, va="top",
                        fontsize="small")  # fmt: skip
    wide, top = (1.2 * reach, 1.4 * reach) if arcs else (reach, reach)  # the angles stand above all arrows
    ax.set(xlim=(-wide, wide), ylim=(-reach, top), aspect="equal")


def _draw_scores(ax: Axes, frame: RopeFrame, scores: np.ndarray, now: float, ends: tuple[float, float]) -> None:
    """Scores (N,) at all distances, and the one that holds now."""
    ax.axhline(0, color=GREY, lw=0.4)
    ax.plot(frame.distances, scores, ".-", color=SCORE, ms=2.5, lw=0.9)
    ax.plot(frame.k_pos - frame.q_pos, now, "o", color="black", ms=7)
    ax.annotate(f"{now:.2f}", (frame.k_pos - frame.q_pos, now), xytext=(0, 10), textcoords="offset points", ha="center",
                fontweight="bold", bbox={"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 1})  # fmt: skip
    ax.set(xlabel="distance, key - query (tokens)", ylim=ends)


def draw_wavelengths(ax: Axes, wavelengths: np.ndarray, chosen: int | None = None) -> None:
    """A dot for each pair on a logarithmic axis of tokens, with its number; the chosen one is black."""
    for i, turn in enumerate(wavelengths):
        color = "black" if i == chosen else SCORE
        ax.plot(turn, 0, "o", color=color, ms=8 if i == chosen else 5)
        ax.annotate(f"pair {i}" if i == (chosen or 0) else f"{i}", (turn, 0), xytext=(0, 6), textcoords="offset points",
                    ha="center", color=color, fontsize="small")  # fmt: skip
    ax.set(xscale="log", yticks=[], ylim=(-0.6, 2.0), xlabel="wavelength: tokens for a full turn, 2π / frequency")
    ax.set_xlim(4, max(100_000, 1.5 * float(wavelengths.max())))
    ax.minorticks_off()
    ax.spines["left"].set_visible(False)


def tokens(number: float) -> str:
    """A length in words of a title: 6.3, 628, 62,832."""
    return f"{number:,.1f}" if number < 100 else f"{number:,.0f}"
