"""Turn a series of figures into an animated GIF."""

import io
from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from course_lib.paths import whole_or_nothing


def png(figure: Figure) -> bytes:
    """The figure as a PNG file: the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def gif(figures: Iterable[Figure], path: Path, seconds: float = 0.3, colors: int = 64) -> None:
    """Write the figures, all of one size, as an endless GIF with `seconds` a frame and a longer look at the last.

    Raises ValueError for no figure, or figures of different sizes.
    """
    frames = [Image.open(io.BytesIO(png(figure))).convert("RGB") for figure in figures]
    if not frames:
        raise ValueError("figures is empty; a GIF needs at least one")
    if len({frame.size for frame in frames}) > 1:
        raise ValueError(f"figures have sizes {sorted({f.size for f in frames})}; they must be equal")
    # One palette for all frames, or colours flicker.
    palette = frames[-1].quantize(colors)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [int(1000 * seconds)] * (len(frames) - 1) + [int(4000 * seconds)]
    with whole_or_nothing(path) as temporary:
        frames[0].save(temporary, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
