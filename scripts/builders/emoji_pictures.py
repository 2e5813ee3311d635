"""Drawings to pictures of 32×32 pixels, and the search for pictures that are the same."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

SIZE = 32
SAME = 8.0  # root mean square difference, of 255, below which a person sees no difference, or takes it for noise


def svg(icon: dict, defaults: dict) -> str:
    """A drawing of an Iconify set as an SVG document, 64×64; `icon` overrides the set's `defaults`."""
    box = {"left": 0, "top": 0, "width": 16, "height": 16} | defaults | icon
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="64" height="64" '
        f'viewBox="{box["left"]} {box["top"]} {box["width"]} {box["height"]}">{icon["body"]}</svg>'
    )


def render(document: str) -> np.ndarray:
    """The document on white, drawn at 64×64 and reduced: (32, 32, 3) uint8."""
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=document, background="white", skip_system_fonts=True)
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGB")
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BOX))


def turns(pictures: np.ndarray) -> Iterator[np.ndarray]:
    """All pictures (N, 32, 32, 3) as they are, then turned and mirrored: eight times in all."""
    for mirrored in (pictures, pictures[:, :, ::-1]):
        for quarter in range(4):
            yield np.rot90(mirrored, quarter, axes=(1, 2))


def alike(pictures: np.ndarray, others: np.ndarray, threshold: float = SAME) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, where pictures[i] and others[j] differ by less than the threshold.

    Means over 8×8 cells never differ by more than the pictures do, so they pick the candidates. All numbers are
    multiples of 1/16 or whole: the arithmetic is exact, and the result the same on every machine.
    """

    def cells(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), 8, 4, 8, 4, 3).mean((2, 4), dtype=np.float64).reshape(len(x), -1)

    a, b = cells(pictures), cells(others)
    squares = (b**2).sum(1)
    pairs = []
    for i in range(len(a)):
        distances = (a[i] ** 2).sum() + squares[i + 1 :] - 2 * (b[i + 1 :] @ a[i])
        near = i + 1 + np.flatnonzero(distances < threshold**2 * a.shape[1])
        difference = others[near].astype(np.int64) - pictures[i]
        pairs += [(i, int(j)) for j in near[(difference**2).mean((1, 2, 3)) < threshold**2]]
    return pairs


def rounded(pictures: np.ndarray) -> np.ndarray:
    """Colours rounded to 64 levels a channel, white and black kept: none moves by more than 2 of 255."""
    return np.round(np.round(pictures / 255 * 63) * 255 / 63).astype(np.uint8)


def webp(picture: np.ndarray) -> bytes:
    """The picture as lossless WebP."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "webp", lossless=True, quality=100, method=6)
    return file.getvalue()
