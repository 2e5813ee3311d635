"""Checks of the exercises on BPE: which pair is merged, and how a word is cut."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from course_lib.exercises import Wrong, call, checker
from course_lib.exercises.mistakes import Mistakes
from course_lib.lessons.tokenizer_training.exercises.answers import call_for_list, judge
from course_lib.tokenization.bpe import BPE, preference, split_words

Words = Mapping[tuple[str, ...], int]


def _counts(words: Words, weigh: bool = True, once: bool = False) -> Counter[tuple[str, str]]:
    pairs: Counter[tuple[str, str]] = Counter()
    for pieces, count in words.items():
        found = list(pairwise(pieces))
        for pair in set(found) if once else found:
            pairs[pair] += count if weigh else 1
    return pairs


def _best(words: Words, **how: bool) -> tuple[str, str]:
    pairs = _counts(words, **how)
    return min(pairs, key=lambda pair: preference(pair, pairs[pair]))


def _by(key: Callable[[tuple[str, str], int], Any]) -> Callable[[Words], tuple[str, str]]:
    return lambda words: min(pairs := _counts(words), key=lambda pair: key(pair, pairs[pair]))


BEST_PAIR: Mistakes = {
    "You count each word once. A word that came 5 times brings 5 of each of its pairs.":
        lambda words: _best(words, weigh=False),
    "You count a pair once in a word. In b-a-n-a-n-a the pair (a, n) stands twice.":
        lambda words: _best(words, once=True),
    "That is the rarest pair. The most frequent is merged first.": _by(lambda p, n: (n, len(p[0] + p[1]), p[0] + p[1])),
    "Of two equally frequent pairs you take the longer. The rule takes the shorter.":
        _by(lambda p, n: (-n, -len(p[0] + p[1]), p[0] + p[1])),
    "Of two equally frequent pairs you take the one that comes first in the text. The rule goes by length, then by "
    "characters: it must not depend on the order of the texts.": _by(lambda p, n: -n),
    "Of pairs of equal count and length you take the last by characters. The rule takes the first, as `min` does.":
        _by(lambda p, n: (-n, len(p[0] + p[1]), [-ord(c) for c in p[0] + p[1]])),
    "You compare the characters before the lengths. Of equally frequent pairs the shortest is taken first.":
        _by(lambda p, n: (-n, p[0] + p[1])),
    "Of pairs of equal count and length you compare the parts. Compare the joined strings: aba, of ab + a, is before "
    "abc, of a + bc.": _by(lambda p, n: (-n, len(p[0] + p[1]), p)),
    "You compare pairs by their parts alone. Of equally frequent pairs the one whose joined string is shortest goes "
    "first.": _by(lambda p, n: (-n, p)),
}  # fmt: skip
WORDS_TO_COUNT: tuple[Words, ...] = (
    {("z", "y"): 3, ("x", "y"): 1, ("x", "y", "w"): 1, ("b", "c"): 2, ("q", "x", "y"): 2},
    {tuple("banana"): 2, ("c", "d"): 3},
    {("n", "m"): 2, ("z", "yx"): 2, ("k", "l"): 2, ("k",): 9},
    {("m", "n"): 2, ("a", "bc"): 2},
    {("a", "bc"): 2, ("ab", "a"): 2},
    {("p", "q"): 5, ("e", "f"): 3, ("g", "h"): 3, ("g", "hh"): 2},
)


@checker
def best_pair(fn: Callable[[Words], tuple[str, str]]) -> str:
    """Check `fn(words)`: of words as tuples of pieces with their counts, the pair that BPE merges first."""
    cases = []
    for words in WORDS_TO_COUNT:
        got = call(fn, dict(words))
        if isinstance(got, str):
            raise Wrong(f"You return the joined piece {got!r}; needed are its two parts, a tuple.")
        if not (isinstance(got, tuple) and len(got) == 2 and all(isinstance(piece, str) for piece in got)):
            raise Wrong(f"You return {got!r}; needed is a tuple of two pieces, such as ('a', 'b').")
        cases.append(((words,), got, f"the words {dict(words)}"))
    judge(cases, _best, BEST_PAIR)
    return "Right: counts are weighted, and ties are broken by a rule."


def _cut(word: str, merges: Sequence[str], choose: Callable[[list[int]], int]) -> list[str]:
    """Join neighbours; `choose` picks a place by the ranks of the joins, len(merges) where there is none."""
    pieces, rank = list(word), {piece: when for when, piece in enumerate(merges)}
    while True:
        ranks = [rank.get(a + b, len(merges)) for a, b in pairwise(pieces)]
        if not ranks or min(ranks) == len(merges):
            return pieces
        at = choose(ranks)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]


def _learned(word: str, merges: Sequence[str]) -> list[str]:
    return _cut(word, merges, lambda ranks: ranks.index(min(ranks)))


def longest_first(word: str, merges: Sequence[str]) -> list[str]:
    """A mistake: from left to right, always the longest piece that fits."""
    known, pieces, at = set(merges), [], 0
    while at < len(word):
        end = next(e for e in range(len(word), at, -1) if word[at:e] in known or e == at + 1)
        pieces.append(word[at:end])
        at = end
    return pieces


def _once(word: str, merges: Sequence[str]) -> list[str]:
    pieces = list(word)
    for piece in merges:
        for at, (a, b) in enumerate(pairwise(pieces)):
            if a + b == piece:
                pieces[at : at + 2] = [piece]
                break
    return pieces


def _replaced(word: str, merges: Sequence[str]) -> list[str]:
    text = " ".join(word)
    for piece in merges:
        for at in range(1, len(piece)):
            text = text.replace(f"{piece[:at]} {piece[at:]}", piece)
    return text.split()


ENCODE: Mistakes = {
    "You join the first pair that you meet in the text. The piece that was learned first goes first, wherever it "
    "stands.": lambda word, merges: _cut(
        word, merges, lambda ranks: next(i for i, r in enumerate(ranks) if r < len(merges))
    ),
    "You take the longest piece that fits, from left to right. BPE joins two neighbours at a time, by rank.":
        longest_first,
    "You begin with the piece that was learned last. Begin with the first.":
        lambda word, merges: _cut(word, merges, lambda ranks: ranks.index(max(r for r in ranks if r < len(merges)))),
    "You use each merge once. A pair may stand in a word several times.": _once,
    "Of equal pairs you join the last one. The leftmost is joined first: aaa is aa + a.":
        lambda word, merges: _cut(word, merges, lambda ranks: len(ranks) - 1 - ranks[::-1].index(min(ranks))),
    "Nothing is joined: these are the characters.": lambda word, merges: list(word),
    "You join across the border of a piece: where ab and c stand, the b is inside ab.": _replaced,
}  # fmt: skip
WORDS_TO_CUT = (
    ("abc", ("bc", "ab")), ("lowlow", ("lo", "low")), ("aaa", ("aa",)), ("unhug", ("un", "ug", "hug", "nh", "unh")),
    ("xyz", ("xy", "yz")), ("abc", ("ab", "bc", "cd")), ("abcd", ("ab", "bc", "bcd", "abcd")), ("q", ("ab",)),
)  # fmt: skip


@checker
def encode(fn: Callable[[str, Sequence[str]], list[str]]) -> str:
    """Check `fn(word, merges)`: the pieces of a word, by merges in the order learned."""
    cases = []
    for word, merges in WORDS_TO_CUT:
        cases.append(((word, merges), call_for_list(fn, word, merges), f"{word!r} and merges {merges}"))
    judge(cases, _learned, ENCODE)
    return "Right: rank before place, and the leftmost of equal ones."


@checker
def encodes_like(
    fn: Callable[[str, Sequence[str]], list[str]], bpe: BPE, sentencepiece: Any, texts: Sequence[str]
) -> str:
    """Cut whole texts by the learner's function, and compare with SentencePiece's BPE of the same merges."""
    tokens = 0
    if not texts:
        raise ValueError("texts is empty; needed is at least one")
    for text in texts:
        got = [piece for word in split_words(text, bpe.prefix) for piece in call_for_list(fn, word, bpe.merges)]
        want = sentencepiece.encode(text, out_type=str)
        if got != want:
            at = next((i for i, (a, b) in enumerate(zip(got, want, strict=False)) if a != b), min(len(got), len(want)))
            raise Wrong(f"In {text!r} piece {at} is {got[at : at + 3]} …; SentencePiece has {want[at : at + 3]} …")
        tokens += len(got)
    return f"Your function cuts {len(texts)} held-out sentences into the same {tokens:,} tokens as SentencePiece."
