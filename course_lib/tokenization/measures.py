"""What a vocabulary does to held-out text: length, bits a character, pieces a word."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from course_lib.checks import check_at_least
from course_lib.tokenization.tokenizer import SPACE, check_several

Encode = Callable[[str], Sequence[str]]  # text to pieces
# Runs of one script: kanji, hiragana, katakana; else of letters and digits. Japanese writes no spaces between words.
WORDS = re.compile(r"[一-鿿々]+|[ぁ-ゟ]+|[゠-ヿー]+|[^\W一-鿿々ぁ-ゟ゠-ヿ]+")


@dataclass(frozen=True)
class Measures:
    """Of a vocabulary on held-out text. None of them needs a model, and none says how good a model will be."""

    characters_per_token: float
    bits_per_character: float  # of a unigram over pieces
    fertility: float  # tokens a word; where no spaces are written, a word is a run of one script
    single_share: float  # of the tokens, those that are one character, or a byte of one
    unused: float  # of the pieces that the training text was cut into, or not: share that the held-out text never uses

    def text(self) -> str:
        """All in one line."""
        return (
            f"{self.characters_per_token:.2f} characters a token, {self.bits_per_character:.2f} bits a character, "
            f"{self.fertility:.2f} tokens a word, {self.single_share:.0%} of the tokens are single characters"
        )


def measure(encode: Encode, vocab_size: int, train: Iterable[str], held_out: Iterable[str]) -> Measures:
    """Cut both texts by `encode`, estimate each piece's chance on `train`, and measure on `held_out`.

    Chances are counts plus one over all `vocab_size` pieces, and one more, the end of each text: with it, the bits
    tell a whole text from its beginning. Raises ValueError where there are no held-out characters.
    """
    check_several("train", train)
    check_several("held_out", held_out)
    check_at_least("vocab_size", vocab_size, 1)
    held = list(held_out)
    counts, found = (Counter(p for text in texts for p in [*encode(text), ""]) for texts in (train, held))
    characters = sum(map(len, held))
    if not characters:
        raise ValueError("held_out has no characters; needed is at least one")
    if (used := len((counts | found).keys() - {""})) > vocab_size:
        raise ValueError(f"vocab_size={vocab_size}; the texts were cut into {used} different pieces")
    total = counts.total() + vocab_size + 1
    bits = -sum(n * math.log2((counts[piece] + 1) / total) for piece, n in found.items())
    del found[""]
    words = sum(len(WORDS.findall(text)) for text in held)
    single = sum(n for piece, n in found.items() if is_single(piece))
    return Measures(
        characters / found.total(), bits / characters, found.total() / max(1, words), single / found.total(),
        1 - len(found) / vocab_size,
    )  # fmt: skip


def is_single(piece: str) -> bool:
    """Whether a piece is one character, with or without the mark of a space before it, or one byte."""
    return len(piece.removeprefix(SPACE)) <= 1 or re.fullmatch(r"<0x[0-9A-F]{2}>", piece) is not None
