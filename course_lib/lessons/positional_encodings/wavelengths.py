"""How far the pairs of RoPE turn in a text: which never complete a turn in training, and what an extension changes."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from course_lib.checks import check_at_least
from course_lib.positions.rope import rope_frequencies
from course_lib.viz.plots import GREY, OKABE_ITO, Line, draw_lines, headline, label_lines, new_figure

NAMES = {"none": "as it is", "interpolate": "interpolated", "ntk": "NTK-aware"}
COLORS = dict(zip(NAMES, (OKABE_ITO[0], OKABE_ITO[1], OKABE_ITO[2]), strict=True))


@dataclass(frozen=True)
class Wavelengths:
    """Tokens for a full turn of each pair, for each extension."""

    trained: int
    factor: float
    turns: dict[str, np.ndarray]  # extension -> (pairs,) tokens

    @property
    def incomplete(self) -> np.ndarray:
        """Which pairs never complete a turn within the trained length: bool (pairs,)."""
        return self.turns["none"] > self.trained

    def angle_growth(self, extension: str) -> np.ndarray:
        """The largest angle in a text of `factor` times the trained length, over the largest in training: (pairs,)."""
        return self.factor * self.turns["none"] / self.turns[extension]


def wavelengths(rotary_dim: int, theta: float = 10000.0, *, trained: int = 128, factor: float = 8.0) -> Wavelengths:
    """Compute `rope_frequencies` with each extension. Raises ValueError as it does, and for trained below 1."""
    check_at_least("trained", trained, 1)
    turns = {
        name: 2 * np.pi / rope_frequencies(
            rotary_dim, theta, extension=name, factor=1.0 if name == "none" else factor
        ).double().numpy()
        for name in NAMES
    }  # fmt: skip
    return Wavelengths(trained, factor, turns)


def plot_wavelengths(view: Wavelengths) -> Figure:
    """Left: tokens for a full turn of each pair. Right: how much further the pairs turn in the longer text."""
    figure, axes = new_figure(2, size=(9.2, 3.5), width_ratios=(1.25, 1))
    left, right = axes[0]
    pair = np.arange(len(view.incomplete))
    target = round(view.trained * view.factor)
    lines = {NAMES[name]: Line(pair, turns, color=COLORS[name]) for name, turns in view.turns.items()}
    left.set(xlabel="pair", ylabel="tokens for a full turn", yscale="log", title="wavelengths")
    for length, text in ((view.trained, f"trained: {view.trained:,}"), (target, f"to be read: {target:,}")):
        left.axhline(length, color=GREY, linestyle=":", lw=1)
        left.annotate(text, (0.01, length), xycoords=("axes fraction", "data"), ha="left", va="bottom", color=GREY,
                      fontsize="small")  # fmt: skip
    growth = {NAMES[name]: Line(pair, view.angle_growth(name), color=COLORS[name]) for name in view.turns}
    right.set(xlabel="pair", ylabel=f"largest angle at {target:,} tokens\nover that at {view.trained:,}", yscale="log",
              title="above 1×, slow pairs meet new angles", ylim=(0.8, 1.4 * view.factor))  # fmt: skip
    ticks = [2**i for i in range(0, 12) if 2**i <= view.factor]
    right.set_yticks(ticks, labels=[f"{tick}×" for tick in ticks])
    right.minorticks_off()
    for ax, drawn in ((left, lines), (right, growth)):
        if view.incomplete.any():
            first = float(np.argmax(view.incomplete))
            ax.axvspan(first - 0.5, len(pair) - 0.5, color=GREY, alpha=0.12, lw=0)
        ax.set_xlim(-0.5, len(pair) - 0.5)
        ax.set_xticks(pair if len(pair) <= 16 else pair[:: len(pair) // 8])
        draw_lines(ax, drawn)
        label_lines(ax, drawn)
    if view.incomplete.any():
        left.annotate("no full turn\nin training", (0.99, 0.03), xycoords="axes fraction", ha="right", fontsize="small",
                      color=GREY)  # fmt: skip
    title = f"{view.incomplete.sum()} of {len(pair)} pairs never complete a turn in {view.trained:,} tokens of training"
    headline(figure, title)
    return figure
