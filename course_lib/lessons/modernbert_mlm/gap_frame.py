"""The moving picture: what a model puts into a gap, by how much of the text around it may be read."""

from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import nn

from course_lib.checks import check_at_least, check_choice
from course_lib.corpora.cloze import GAP
from course_lib.gaps import Filling, fill, with_gaps
from course_lib.tokenization import MASK, Tokenizer
from course_lib.viz.plots import GREY, OKABE_ITO, headline, new_figure
from course_lib.viz.tiles import draw_tiles, frame, lines_of

SIDES = {"both sides": (True, True), "only what comes before": (True, False), "only what comes after": (False, True)}
ALL = 1000  # tokens to either side: a text may not have more
LONGEST = 300  # characters
BARS = 8
ROOM = 92.0  # letters on a line


@dataclass(frozen=True)
class GapView:
    """A text with a gap, which of its pieces were read, and what the model would put there."""

    pieces: tuple[str, ...]
    place: int  # of the gap among them
    read: range  # numbers of the pieces that the model saw, the gap's own included
    filling: Filling

    @property
    def best(self) -> str:
        """The likeliest piece and its probability, in words."""
        return f"“{self.filling.pieces[0]}”, {self.filling.probabilities[0]:.0%}"

    def text(self) -> str:
        """What the picture shows, in one line."""
        said = ", ".join(f"{p} {share:.0%}" for p, share in zip(*self.filling, strict=True))
        return f"{len(self.read) - 1} of {len(self.pieces) - 1} tokens around the gap are read: {said}"


def gap_view(model: nn.Module, tokenizer: Tokenizer, text: str, reach: int, sides: str) -> GapView:
    """Fill the first gap of `text`; the model reads `reach` tokens to either side of it, or to one of them.

    What is not read is cut away, as if the text were no longer; </s> is read where the reach goes beyond the last
    token. Raises ValueError for a text without a gap, or of more than 300 characters or 1,000 tokens, a reach below 0
    and unknown sides.
    """
    if isinstance(text, str) and len(text) > LONGEST:
        raise ValueError(f"text has {len(text)} characters; write at most {LONGEST}")
    check_at_least("reach", reach, 0)
    check_choice("sides", sides, SIDES)
    before, after = SIDES[sides]
    start, *body, end = with_gaps(text, tokenizer)
    if len(body) > ALL:  # a sign that is spelled in bytes is several
        raise ValueError(f"text has {len(body)} tokens; write at most {ALL}")
    place = body.index(MASK)
    read = range(max(0, place - reach * before), min(len(body), place + reach * after + 1))
    ids = [start, *body[read.start : read.stop]]
    ids += [end] if place + reach * after >= len(body) else []
    filling = fill(model, tokenizer, ids, BARS)[0]
    pieces = tuple(GAP if i == MASK else tokenizer.piece(i) for i in body)
    return GapView(pieces, place, read, filling)


def plot_gap(view: GapView) -> Figure:
    """The text as tiles, what is read in blue, the gap with a thick border; below it the likeliest pieces as bars."""
    lines = lines_of(view.pieces, ROOM)
    high = 0.34 * len(lines)
    figure, axes = new_figure(rows=2, size=(9.6, 2.9 + high), height_ratios=(high + 0.05, 2.6))
    top, bars = axes[:, 0]
    frame(top, ROOM, len(lines))
    colours = [OKABE_ITO[0] if i in view.read else GREY for i in range(len(view.pieces))]
    colours[view.place] = OKABE_ITO[1]
    for row, numbers in enumerate(lines):
        draw_tiles(top, view.pieces, numbers, -row - 1.0, colours, {view.place})
    names = [piece.replace("\n", "⏎").replace("$", r"\$") for piece in view.filling.pieces]
    places = range(len(names))
    bars.barh(places, view.filling.probabilities, color=OKABE_ITO[1], height=0.65)
    for y, share in enumerate(view.filling.probabilities):
        bars.annotate(f"{share:.1%}", (share, y), xytext=(4, 0), textcoords="offset points", va="center", size="small")
    bars.set_yticks(places, labels=names)
    bars.set(xlim=(0, 1.08), ylim=(len(names) - 0.4, -0.6), xlabel="probability")
    count = len(view.read) - 1
    headline(figure, f"It reads {count} token{'s' * (count != 1)} around the gap and says {view.best}")
    return figure
