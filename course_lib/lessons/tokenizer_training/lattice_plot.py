"""The lattice of a text as arcs: each is a piece that could stand there, as thick as it is probable."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Arc

from course_lib.tokenization.unigram import Cut, Edge, Unigram
from course_lib.viz.plots import GREY, OKABE_ITO, headline, new_figure
from course_lib.viz.tiles import label

LONGEST = 24


@dataclass(frozen=True)
class LatticeView:
    """A text, the probability of each edge, the best cut, and how many cuts there are."""

    characters: str
    shares: dict[Edge, float]
    best: Cut
    count: int
    alpha: float = 1.0  # what the scores were multiplied by


def lattice_view(unigram: Unigram, text: str, alpha: float = 1.0) -> LatticeView:
    """Compute the lattice of `text`. Raises ValueError for an empty or long one, and as `Lattice.marginals`."""
    lattice = unigram.lattice(text)
    if not 1 <= len(lattice.text) <= LONGEST:
        raise ValueError(f"text has {len(lattice.text)} characters; the picture holds 1 to {LONGEST}")
    return LatticeView(lattice.text, lattice.marginals(alpha), lattice.best(), lattice.count(), alpha)


def plot_lattice(view: LatticeView) -> Figure:
    """Arcs over the characters; the best cut is blue, below it stand its pieces."""
    longest = max(e.end - e.start for e in view.shares)
    figure, axes = new_figure(size=(9.4, 1.5 + 0.36 * longest))
    ax = axes[0, 0]
    chosen = set(view.best.edges)
    for edge, share in sorted(view.shares.items(), key=lambda item: item[0] in chosen):
        wide, high = edge.end - edge.start, 0.62 * (edge.end - edge.start)
        colour = OKABE_ITO[0] if edge in chosen else GREY
        ax.add_patch(Arc((edge.start + wide / 2, 0), wide * 0.94, 2 * high, theta1=0, theta2=180, color=colour,
                         lw=0.6 + 4 * share, alpha=1.0 if edge in chosen else 0.35 + 0.65 * share))  # fmt: skip
        if wide > 1 or edge in chosen:
            said = f"{share:.0%}" if share >= 0.005 else ""
            ax.annotate(said, (edge.start + wide / 2, high), xytext=(0, 2 + 2 * share), textcoords="offset points",
                        ha="center", va="bottom", fontsize="x-small", color=colour)  # fmt: skip
    for i, character in enumerate(view.characters):
        ax.text(i + 0.5, -0.28, label(character), ha="center", va="center", fontsize="large")
    for edge in view.best.edges:
        ax.plot((edge.start + 0.08, edge.end - 0.08), (-0.62, -0.62), color=OKABE_ITO[0], lw=3, solid_capstyle="butt")
    ax.plot(np.arange(len(view.characters) + 1), np.zeros(len(view.characters) + 1), "o", color="black", ms=3)
    ax.set(xlim=(-0.2, len(view.characters) + 0.2), ylim=(-0.8, 0.62 * longest + 0.35))
    ax.axis("off")
    best = f"the best has {len(view.best.edges)} pieces and a score of {view.best.score:.1f} nats"
    scaled = "" if view.alpha == 1 else f"scores times {view.alpha:g}; "
    note = f"({scaled}an arc is a piece, as thick as the share of draws that pass it)"
    headline(figure, f"{view.count:,} ways to cut it; {best}\n{note}")
    return figure
