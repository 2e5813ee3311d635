"""The sets that need no network, each made once: to read or draw them takes seconds, and no test changes them."""

from functools import cache

from course_lib import corpora
from course_lib.corpora import cards
from course_lib.corpora.documents import shared_shingles

MADE = {name: cache(getattr(corpora, name)) for name in cards.SHIPPED}  # MADE["neko"]("test") is corpora.neko("test")


@cache
def texts(name: str, split: str) -> tuple[str, ...]:
    """All strings of a set's split, every language."""
    rows = MADE[name](split)
    return tuple(text for column in ("text", "ja", "en") if column in rows.column_names for text in rows[column][:])


@cache
def shared(train: tuple[str, ...], held_out: tuple[str, ...]) -> float:
    """`shared_shingles` of these texts, counted once."""
    return shared_shingles(train, held_out)
