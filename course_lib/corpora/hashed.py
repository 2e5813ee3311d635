"""Splits that depend on a document's text alone."""

import hashlib


def digest(text: str) -> str:
    """A name for a document that has none: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def position(text: str) -> float:
    """A number in [0, 1), as good as random and the same everywhere, by which documents go to splits.

    Equal texts have equal positions: a document that was published twice is never on both sides of a cut.
    """
    return int(digest(text)[:13], 16) / 16**13  # 52 bits: exact in a float
