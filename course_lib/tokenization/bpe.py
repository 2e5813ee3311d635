"""Byte-pair encoding by hand: training, encoding in the order learned, decoding. The fast training is in bpe_fast.py.

It works on characters, as SentencePiece does; a byte-level BPE, such as GPT-2's, is the same on the 256 bytes. Merges
and encodings equal SentencePiece's BPE, if that is told to leave the text as it is: `split_by_unicode_script`,
`split_by_number` and `remove_extra_whitespaces` False, `normalization_rule_name="identity"`, `character_coverage=1.0`,
and a long `max_sentencepiece_length`. Source: Sennrich, Haddow and Birch 2016, section 3.2.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from course_lib.checks import check_at_least
from course_lib.tokenization.tokenizer import SPACE, check_several, check_text

Pair = tuple[str, str]


@dataclass(frozen=True)
class BPE:
    """A trained BPE: its `merges` are the pieces that were joined from two, in the order learned.

    `prefix` puts a space before a text. `counts` says how often each pair stood in the texts when it was merged;
    encoding does not need it. `decode(encode(text))` is `text`, but "▁", the mark of a space, becomes one.
    """

    merges: tuple[str, ...]
    prefix: bool = True
    counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.merges, str) or len(set(self.merges)) < len(self.merges):
            raise ValueError(f"merges={self.merges!r:.80}; needed is a sequence of pieces, none of them twice")

    @cached_property
    def rank(self) -> dict[str, int]:
        """When each piece was learned: 0 for the first."""
        return {piece: when for when, piece in enumerate(self.merges)}

    def encode(self, text: str) -> list[str]:
        """The pieces of `text`. Raises ValueError for what is no string, or has a lone surrogate."""
        check_text(text)
        return [piece for word in split_words(text, self.prefix) for piece in self._cut(word)]

    def _cut(self, word: str) -> list[str]:
        """Join the two neighbours whose piece was learned first, the leftmost of equal ones, until none is known."""
        pieces = list(word)
        while True:
            ranks = [self.rank.get(a + b, len(self.merges)) for a, b in pairwise(pieces)]
            first = min(ranks, default=len(self.merges))
            if first == len(self.merges):
                return pieces
            at = ranks.index(first)
            pieces[at : at + 2] = [self.merges[first]]

    def decode(self, pieces: Iterable[str]) -> str:
        """The text of `pieces`."""
        text = "".join(pieces).replace(SPACE, " ")
        return text[1:] if self.prefix and text.startswith(" ") else text


def split_words(text: str, prefix: bool = True) -> list[str]:
    """`text` with "▁" for each space, cut before each "▁": no piece reaches over a space."""
    marked = (SPACE * prefix + text).replace(" ", SPACE) if text else ""
    return re.findall(f"{SPACE}[^{SPACE}]*|[^{SPACE}]+", marked)


def count_words(texts: Iterable[str], prefix: bool = True) -> Counter[str]:
    """How often each word comes: equal words are merged alike, so that each is kept once.

    Raises ValueError for one string in place of several, and as `BPE.encode` does.
    """
    check_several("texts", texts)
    counts: Counter[str] = Counter()
    for text in texts:
        check_text(text)
        counts.update(split_words(text, prefix))
    return counts


def preference(pair: Pair, count: int) -> tuple[int, int, str, Pair]:
    """What sorts the pair to be merged first: the most frequent; of equals the shortest, then the first by characters.

    Ties decide which pieces there are, so they must not be left to chance. This rule is SentencePiece's.
    """
    piece = pair[0] + pair[1]
    return -count, len(piece), piece, pair


def merge(pieces: Sequence[str], pair: Pair) -> list[str]:
    """`pieces` with `pair` joined wherever it stands, from left to right."""
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def train_plain(texts: Iterable[str], n_merges: int, prefix: bool = True) -> BPE:
    """Learn up to `n_merges` pieces: count all pairs again for each. Slow, and the oracle of `bpe_fast.train_bpe`.

    Raises ValueError as `count_words`, and for n_merges below 0.
    """
    counts = count_words(texts, prefix)
    words = {word: list(word) for word in counts}
    merges: dict[str, int] = {}  # in the order learned, with their counts
    while len(merges) < check_at_least("n_merges", n_merges, 0):
        pairs: Counter[Pair] = Counter()
        for word, pieces in words.items():
            for pair in pairwise(pieces):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: preference(pair, pairs[pair]))
        merges["".join(best)] = pairs[best]
        words = {word: merge(pieces, best) for word, pieces in words.items()}
    return BPE(tuple(merges), prefix, tuple(merges.values()))
