"""Pieces of text as coloured tiles: how a cut text is drawn in all pictures."""

import re
import unicodedata
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from course_lib.viz.plots import GREY, OKABE_ITO

BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def label(piece: str) -> str:
    """What a tile says: a byte by its two digits, a line break by its sign, "$" so that it opens no formula."""
    byte = BYTE.fullmatch(piece)
    return byte[1] if byte else piece.replace("\n", "⏎").replace("$", r"\$")


def width(piece: str) -> float:
    """Width of a tile, in letters: a Japanese character takes two, a byte a bit more than one."""
    if BYTE.fullmatch(piece):
        return 1.9
    return 0.7 + sum(1.9 if unicodedata.east_asian_width(c) in "WF" else 1.05 for c in piece)


def colours(pieces: Sequence[str]) -> list[str]:
    """A colour for each tile: grey for bytes; equal pieces share one, neighbours do not."""
    known: dict[str, int] = {}
    found, before = [], -1
    for piece in pieces:
        if BYTE.fullmatch(piece):
            found.append(GREY)
            before = -1
            continue
        index = known.get(piece, -1)
        if index in (-1, before):
            index = (len(known) + (len(known) % len(OKABE_ITO) == before)) % len(OKABE_ITO)
            index = (index + 1) % len(OKABE_ITO) if index == before else index
            known[piece] = index
        found.append(OKABE_ITO[index])
        before = index
    return found


def lines_of(pieces: Sequence[str], room: float) -> list[list[int]]:
    """Numbers of the pieces on each line, where `room` letters fit."""
    lines: list[list[int]] = [[]]
    used = 0.0
    for number, piece in enumerate(pieces):
        if lines[-1] and used + width(piece) > room:
            lines.append([])
            used = 0.0
        lines[-1].append(number)
        used += width(piece)
    return lines


def draw_tiles(
    ax: Axes, pieces: Sequence[str], numbers: Sequence[int], y: float, colour: Sequence[str], bold: set[int]
) -> None:
    """One line of tiles, its lower edge at `y`, each 1 high; those of `bold` have a thick black border."""
    x = 0.0
    for number in numbers:
        wide = width(pieces[number])
        box = FancyBboxPatch((x + 0.06, y), wide - 0.12, 0.86, boxstyle="round,pad=0,rounding_size=0.15")
        box.set(facecolor=(colour[number], 0.25), edgecolor="black" if number in bold else (colour[number], 0.9),
                linewidth=2.0 if number in bold else 0.8)  # fmt: skip
        ax.add_patch(box)
        ax.text(x + wide / 2, y + 0.42, label(pieces[number]), ha="center", va="center",
                fontsize="small" if BYTE.fullmatch(pieces[number]) else "medium")  # fmt: skip
        x += wide


def frame(ax: Axes, room: float, rows: float) -> None:
    """Axes that are only a canvas: `room` letters wide, `rows` lines high."""
    ax.set(xlim=(0, room), ylim=(-rows - 0.1, 0.1))
    ax.axis("off")
