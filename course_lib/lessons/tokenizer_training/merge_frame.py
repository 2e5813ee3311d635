"""The merges of a BPE, watched one by one on a text."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from course_lib.checks import check_at_least
from course_lib.tokenization.bpe import BPE, split_words
from course_lib.viz.plots import GREY, headline, new_figure
from course_lib.viz.tiles import colours, draw_tiles, frame, width

SHOWN = 7  # lines of history
LONGEST = 40


@dataclass(frozen=True)
class Step:
    """One merge that changed the text: when it was learned (1: first), its piece, and how often its pair stood."""

    when: int
    piece: str
    count: int
    cut: tuple[str, ...]  # of the text, after it


@dataclass(frozen=True)
class MergeView:
    """A text after some of the merges that change it."""

    start: tuple[str, ...]  # its characters
    steps: tuple[Step, ...]  # those done
    left: int  # those to come

    def text(self) -> str:
        """What the picture shows, in one line."""
        if not self.steps:
            return f"no merge yet: {len(self.start)} characters; {self.left} merges will change this text"
        last = self.steps[-1]
        return (
            f"merge {last.when:,}: “{last.piece}”, whose two parts stood side by side {last.count:,} times; "
            f"{len(last.cut)} tokens, {self.left} merges to come"
        )


def merge_steps(bpe: BPE, text: str) -> list[Step]:
    """The merges of `bpe` that change the cut of `text`, in the order learned. Raises ValueError as `BPE.encode`."""
    if len(bpe.counts) != len(bpe.merges):
        raise ValueError(f"bpe has {len(bpe.merges)} merges and {len(bpe.counts)} counts; needed is one for each")
    words = split_words(text, bpe.prefix)
    steps, before = [], list(BPE((), bpe.prefix).encode(text))
    for when, piece in enumerate(bpe.merges):
        if any(piece in word for word in words):
            after = BPE(bpe.merges[: when + 1], bpe.prefix).encode(text)
            if after != before:
                steps.append(Step(when + 1, piece, bpe.counts[when], tuple(after)))
                before = after
    return steps


def merge_view(bpe: BPE, text: str, step: int) -> MergeView:
    """`text` after the first `step` merges that change it. Raises ValueError for an empty text and a long one."""
    if not 1 <= len(text) <= LONGEST:
        raise ValueError(f"text has {len(text)} characters; write 1 to {LONGEST}")
    check_at_least("step", step, 0)
    steps = merge_steps(bpe, text)
    done = min(step, len(steps))
    return MergeView(tuple(BPE((), bpe.prefix).encode(text)), tuple(steps[:done]), len(steps) - done)


def plot_merges(view: MergeView) -> Figure:
    """The last few steps, one a line: what was just joined has a thick border; its count stands at the right."""
    rows: list[tuple[str, Sequence[str], str]] = [("", view.start, "characters")]
    rows += [(s.piece, s.cut, f"merge {s.when:,} · seen {s.count:,}×") for s in view.steps]
    rows = rows[-SHOWN:]
    room = max(46.0, max(sum(map(width, cut)) for _, cut, _ in rows) + 17)
    figure, axes = new_figure(size=(9.0, 0.6 + 0.36 * SHOWN))
    frame(axes[0, 0], room, SHOWN)
    for row, (piece, cut, said) in enumerate(rows):
        new = {i for i, p in enumerate(cut) if p == piece}
        draw_tiles(axes[0, 0], cut, range(len(cut)), -row - 1.0, colours(cut), new)
        axes[0, 0].text(room, -row - 0.58, said, ha="right", va="center", color=GREY, fontsize="small")
    now = view.steps[-1].cut if view.steps else view.start
    headline(figure, f"After {len(view.steps)} of {len(view.steps) + view.left} merges: {len(now)} tokens")
    return figure
