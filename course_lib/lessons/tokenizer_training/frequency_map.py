"""Which strings became a piece: how long they are, and how often they stand in the corpus."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from course_lib.tokenization import Tokenizer
from course_lib.viz.plots import OKABE_ITO, headline, new_figure

LENGTHS = range(2, 8)  # characters
LEAST = 4  # a rarer string is not drawn
END = "\0"  # of a text


@dataclass(frozen=True)
class FrequencyMap:
    """Shares of the strings that are pieces, by length and by powers of two of their count."""

    edges: np.ndarray  # (bins + 1,) counts
    share: np.ndarray  # (lengths, bins); NaN where there is no string
    strings: np.ndarray  # (lengths, bins) how many there are
    marked: dict[str, tuple[int, bool]]  # count, and whether it is a piece


def string_counts(texts: Iterable[str], lengths: Sequence[int] = LENGTHS) -> Counter[str]:
    """How often each string of these lengths stands in the texts, LEAST times or more, places that overlap included.

    A string is numbered by the string without its last character, and that character: sorting numbers is fast.
    """
    joined = END.join(text.replace(END, "") for text in texts)
    codes = np.frombuffer(joined.encode("utf-32-le"), np.uint32).astype(np.int64)
    counts: Counter[str] = Counter()
    numbers = codes
    for length in range(2, max(lengths) + 1):
        keys = numbers[:-1] * (len(codes) + 0x110000) + codes[length - 1 :]
        _, first, numbers, times = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        if length in lengths:
            often = times >= LEAST
            found = zip(first[often].tolist(), times[often].tolist(), strict=True)
            counts.update({joined[at : at + length]: n for at, n in found if END not in joined[at : at + length]})
    return counts


def frequency_map(counts: Counter[str], pieces: set[str], marked: Mapping[str, int]) -> FrequencyMap:
    """Sort the strings of `counts` by length and count, and say which share of each group is in `pieces`.

    `marked` are strings, with their counts, that will be shown by name.
    """
    top = max(counts.values(), default=LEAST)
    edges = 2.0 ** np.arange(np.log2(LEAST), np.floor(np.log2(top)) + 2)  # the last is above `top`
    strings, found = np.zeros((2, len(LENGTHS), len(edges) - 1))
    for string, count in counts.items():
        if count >= LEAST and len(string) in LENGTHS:
            at = len(string) - LENGTHS[0], int(np.searchsorted(edges, count, "right")) - 1
            strings[at] += 1
            found[at] += string in pieces
    share = np.where(strings > 0, found / np.maximum(strings, 1), np.nan)
    return FrequencyMap(edges, share, strings, {s: (n, s in pieces) for s, n in marked.items()})


def vocabulary(tokenizer: Tokenizer) -> set[str]:
    """All pieces of `tokenizer`."""
    return {tokenizer.piece(i) for i in range(tokenizer.vocab_size)}


def plot_frequency_map(view: FrequencyMap, title: str = "") -> Figure:
    """Colours: share of the strings that are pieces. Marked strings stand at their place: a dot is a piece."""
    figure, axes = new_figure(size=(9.2, 3.9))
    ax = axes[0, 0]
    mesh = ax.pcolormesh(view.edges, np.arange(len(LENGTHS) + 1) + LENGTHS[0] - 0.5, view.share, cmap="viridis",
                         vmin=0, vmax=1, alpha=0.75)  # fmt: skip
    ax.set(xscale="log", xlabel="times in the corpus", ylabel="length (characters)", yticks=list(LENGTHS))
    bar = figure.colorbar(mesh, ax=ax, ticks=(0, 0.5, 1), shrink=0.8, aspect=18)
    bar.ax.set_yticklabels(["0 %", "50 %", "100 %"])
    bar.set_label("share that is a piece", fontsize="small")
    for i, (string, (count, piece)) in enumerate(view.marked.items()):
        length = min(len(string), LENGTHS[-1])
        x, y = max(count, view.edges[0] * 1.05), length + 0.3 * (i % 3 - 1)
        colour = OKABE_ITO[1]
        ax.plot(x, y, "o", color=colour, mfc=colour if piece else "white", ms=8, mew=2, zorder=5)
        ax.annotate(string, (x, y), xytext=(8, 0), textcoords="offset points", va="center", zorder=6,
                    bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1})  # fmt: skip
    headline(
        figure,
        title or "Of strings of two characters or more the rare ones are never a piece; of the frequent ones, some",
    )
    return figure
