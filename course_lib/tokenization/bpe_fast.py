"""Byte-pair encoding, trained fast: pair counts that are kept up to date, an index of their places, and a lazy heap."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise

from course_lib.checks import check_at_least
from course_lib.tokenization.bpe import BPE, Pair, count_words, merge, preference


def train_bpe(texts: Iterable[str], n_merges: int, prefix: bool = True) -> BPE:
    """Learn what `bpe.train_plain` learns, fast: counts are kept, and a merge visits only the words that have its pair.

    A pair is born with all its places, by the merge that makes one of its two pieces; from then on its count can only
    fall. So it lies in a heap once, under a count that may be too high: when it comes up, that count is compared with
    today's, and a pair that lost places goes back. Raises ValueError as `train_plain`.
    """
    check_at_least("n_merges", n_merges, 0)
    counted = count_words(texts, prefix)
    words, counts = [list(word) for word in counted], list(counted.values())
    pairs: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # numbers of words that have, or had, the pair
    for number, pieces in enumerate(words):
        for pair in pairwise(pieces):
            pairs[pair] += counts[number]
            where[pair].add(number)
    heap = [preference(pair, count) for pair, count in pairs.items()]
    heapq.heapify(heap)
    learned: dict[str, int] = {}
    while heap and len(learned) < n_merges:
        negative, _, piece, best = heapq.heappop(heap)
        if not pairs[best]:
            continue
        if pairs[best] != -negative:
            heapq.heappush(heap, preference(best, pairs[best]))
            continue
        learned[piece] = pairs[best]
        for pair in _merge_everywhere(best, words, counts, pairs, where):
            heapq.heappush(heap, preference(pair, pairs[pair]))
    return BPE(tuple(learned), prefix, tuple(learned.values()))


def _merge_everywhere(
    best: Pair, words: list[list[str]], counts: list[int], pairs: Counter[Pair], where: dict[Pair, set[int]]
) -> set[Pair]:
    """Join `best` in all words that have it, bring counts and places up to date; return the pairs that were born."""
    piece, born = "".join(best), set()
    for number in where.pop(best):
        before, count = words[number], counts[number]
        words[number] = after = merge(before, best)
        if len(after) == len(before):  # it had the pair once
            continue
        for pair in pairwise(before):
            pairs[pair] -= count
        for pair in pairwise(after):
            pairs[pair] += count
            if piece in pair:
                where[pair].add(number)
                born.add(pair)
    return born
