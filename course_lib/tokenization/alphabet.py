"""Texts without their rare characters, so that a small vocabulary has room for pieces: the rest is spelled in bytes."""

import re
from collections import Counter
from collections.abc import Iterable

from course_lib.checks import check_at_least
from course_lib.tokenization.tokenizer import SPECIAL, Tokenizer, check_several, check_text
from course_lib.tokenization.training import train

BYTES = 256
LEAST = len(SPECIAL) + BYTES + 2  # special tokens, bytes, the line break, the space
COVERAGE = 0.9995  # the default of `train`


def frequent_characters(texts: Iterable[str], most: int, coverage: float = COVERAGE) -> str:
    """The most frequent characters, those that stand for `coverage` of all, but not more than `most`."""
    counts = Counter(character for text in texts for character in text)
    enough, covered = coverage * counts.total(), 0
    kept: list[str] = []
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if covered >= enough or len(kept) == most:
            break
        covered += count
        kept.append(character)
    return "".join(kept)


def without_others(texts: Iterable[str], kept: str) -> list[str]:
    """`texts` with a line break for each run of other characters than `kept`: no piece reaches over it, and no word
    begins behind it, as one would in a text of its own."""
    others = re.compile(f"[^{re.escape(kept)}]+" if kept else r"(?s:.)+")
    return [others.sub("\n", text) for text in texts]


def train_small(
    texts: Iterable[str], vocab_size: int, *, add_dummy_prefix: bool = True, model_type: str = "unigram"
) -> Tokenizer:
    """`tokenization.train` for small sizes, from some 280 on: at most half of the room goes to single characters.

    Japanese has some two thousand characters; SentencePiece gives a piece to each that makes up its coverage, of at
    least 98 %, and refuses a vocabulary that they would fill. Here the rarer ones are spelled in bytes. Raises
    ValueError as `train` does, and for a size below 270.
    """
    check_several("texts", texts)
    texts = list(texts)
    for text in texts:
        check_text(text)
    room = check_at_least("vocab_size", vocab_size, LEAST + 7) - LEAST
    kept = frequent_characters(texts, room // 2)
    return train(
        without_others(texts, kept), vocab_size, coverage=1.0, add_dummy_prefix=add_dummy_prefix, model_type=model_type
    )
