"""Solutions to the exercises of lesson 06. Try first: each has a hint in the notebook."""

import math
from collections import Counter
from itertools import pairwise

from course_lib.tokenization.alphabet import train_small


def bits(nats, tokens, characters):
    """Exercise 1: the whole text costs nats * tokens; a bit is log 2 nats."""
    return nats * tokens / math.log(2) / characters


def best_pair(words):
    """Exercise 2: count neighbours, each as often as its word comes; then a rule without chance."""
    pairs = Counter()
    for pieces, count in words.items():
        for pair in pairwise(pieces):
            pairs[pair] += count
    return min(pairs, key=lambda pair: (-pairs[pair], len(pair[0] + pair[1]), pair[0] + pair[1]))


def encode(word, merges):
    """Exercise 3: always join the pair whose piece was learned first."""
    rank = {piece: when for when, piece in enumerate(merges)}
    pieces = list(word)
    while known := [(rank[a + b], at) for at, (a, b) in enumerate(pairwise(pieces)) if a + b in rank]:
        _, at = min(known)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return pieces


def viterbi(text, scores):
    """Exercise 4: at each place, keep the best way to come there and the piece that it ended with."""
    longest = max(map(len, scores))
    best, last = [0.0], [""]
    for end in range(1, len(text) + 1):
        starts = range(max(0, end - longest), end)
        score, piece = max((best[s] + scores[text[s:end]], text[s:end]) for s in starts if text[s:end] in scores)
        best.append(score)
        last.append(piece)
    pieces, at = [], len(text)
    while at > 0:
        pieces.append(last[at])
        at -= len(last[at])
    return pieces[::-1]


def weights(sums, edges, alpha):
    """Exercise 5: all cuts before the piece, times the piece, as shares of 1."""
    terms = [math.exp(sums[e.start] + alpha * e.score) for e in edges]
    return [term / sum(terms) for term in terms]


def vocabulary(texts):
    """Exercise 6: BPE wants to make texts short, and does; the default rules keep every text."""
    return train_small(texts, 2000, add_dummy_prefix=False, model_type="bpe")
