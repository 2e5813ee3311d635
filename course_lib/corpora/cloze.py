"""A reading task made from real text: which of four words did the speaker say?"""

import random
import re
from collections import Counter
from itertools import combinations, pairwise, product
from typing import TYPE_CHECKING, Any

from course_lib.checks import check_whole
from course_lib.corpora.documents import check_split
from course_lib.corpora.text import speeches
from course_lib.init import seed_of

if TYPE_CHECKING:
    from datasets import Dataset

GAP = "____"
_RARE, _COMMON = 15, 2000  # how often a word stands in the training speeches to be an option
_ALIKE = 1.7  # an option is at most so many times as frequent as the answer, and the answer as it
_NEAR = 5  # options are sought among so many words on either side of the answer in the order of their scores
_PRIOR = 1.0  # weight of a word's own frequency in the smoothed bigrams, in occurrences
_RANKS = list(product(range(4), range(4)))  # of the answer among the options: by score, by frequency


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?]) +(?=[A-Z])", text)


def _words(text: str) -> list[str]:
    """Words of five lower-case letters or more: names, and the short words of grammar, are not asked for."""
    return re.findall(r"(?<![\w'-])[a-z]{5,}(?![\w'-])", text)


def _tokens(sentence: str) -> list[str]:
    """What bigrams are counted on: words in lower case and punctuation marks, with "" at both ends."""
    return ["", *re.findall(r"[\w'-]+|[^\w\s]", sentence.lower()), ""]


class _Bigrams:
    """The training speeches' words and pairs of neighbours, and how well a word fits between two others."""

    def __init__(self) -> None:
        sentences = [_tokens(s) for text in speeches("train")["text"] for s in _sentences(text)]
        self.counts = Counter(token for tokens in sentences for token in tokens)
        self.total = self.counts.total()
        self._pairs = Counter(pair for tokens in sentences for pair in pairwise(tokens))
        self.options = [w for w, n in self.counts.items() if _RARE <= n <= _COMMON and _words(w) == [w]]

    def score(self, before: str, word: str, after: str, *, seen: bool = False) -> float:
        """P(word | before) P(after | word), smoothed, up to a factor; less one occurrence, its own, where `seen`."""
        n = self.counts[word] - seen
        left = self._pairs[before, word] - seen + _PRIOR * n / self.total
        right = self._pairs[word, after] - seen + _PRIOR * self.counts[after] / self.total
        return left * right / (n + _PRIOR)  # no logarithm, whose last digit differs between machines


def _neighbours(words: list[str], at: int, commoner: list[bool], lower: int, rarer: int) -> list[str] | None:
    """Three words near place `at`: so many before it, and so many that are not commoner; None where there are not."""
    below, above = range(at - 1, max(at - 1 - _NEAR, -1), -1), range(at + 1, min(at + 1 + _NEAR, len(words)))
    for places in product(combinations(below, lower), combinations(above, 3 - lower)):
        chosen = [*places[0], *places[1]]
        if sum(not commoner[i] for i in chosen) == rarer:
            return [words[i] for i in chosen]
    return None


def _question(
    before: str, sentence: str, bigrams: _Bigrams, seen: bool, wanted: list[tuple[int, int]], rng: random.Random
) -> dict[str, Any] | None:
    """A row whose answer has one of the `wanted` ranks, by score and by frequency, which is struck off; or None."""
    counts, tokens = bigrams.counts, _tokens(sentence)
    here = Counter(re.findall(r"[a-z]+", f"{before} {sentence}".lower()))
    answers = [word for word in _words(sentence) if here[word] == 1 and _RARE <= counts[word] <= _COMMON]
    for answer in rng.sample(answers, len(answers)):
        left, right = tokens[(at := tokens.index(answer)) - 1], tokens[at + 1]
        peers = [w for w in bigrams.options if len(w) == len(answer) and (w == answer or not here[w])]
        peers = [w for w in peers if max(counts[w], counts[answer]) <= _ALIKE * min(counts[w], counts[answer])]
        peers.sort(key=lambda w: (bigrams.score(left, w, right, seen=seen and w == answer), w))
        commoner = [(counts[w], w) > (counts[answer], answer) for w in peers]
        for ranks in wanted:
            if others := _neighbours(peers, peers.index(answer), commoner, *ranks):
                wanted.remove(ranks)
                options = rng.sample([answer, *others], 4)
                gapped = re.sub(rf"(?<![\w'-]){answer}(?![\w'-])", GAP, sentence, count=1)
                return {"passage": f"{before} {gapped}", "options": options, "answer": options.index(answer)}
    return None


def cloze(split: str = "train", *, count: int = 1000, seed: int = 0) -> "Dataset":
    """Multiple-choice cloze from the speeches. Columns passage (with the gap ____), options (four words), answer (0-3).

    The passage is a sentence with a gap, after the one before it, from the speeches of `split`; no two
    passages overlap. The options have the same length, stand nowhere else in the passage, and the training
    speeches have the commonest at most three times as often as the rarest. They are also neighbours in the order in
    which those speeches' bigrams rank such words, P(option | token before) P(token after | option), and the author's is
    equally often at each of the four ranks, by this score as by frequency (on train its own occurrence is not counted).

    So a guess, frequency and this table are right in 25 % of the cases; without this care the table had 76 %. Tables of
    another make (other smoothing, one neighbour alone, words without punctuation marks) reach 27 to 38 % of 1,000; a
    table that has counted the question's own sentence, as one of the training speeches has on train, 84 %. A person who
    read 80 passages of validation answered all, often because one option alone fits the grammar. Raises ValueError for
    another split, a `count` that the split cannot give (about 8,000 in train, 1,150 in validation, 1,050 in test), or
    a number that is not whole.
    """
    import datasets

    check_split(split)
    check_whole("count", count)
    check_whole("seed", seed)
    bigrams, rng = _Bigrams(), random.Random(seed_of("cloze", split, seed))
    texts = [_sentences(text) for text in speeches(split)["text"]]
    places = [(t, i) for t, text in enumerate(texts) for i in range(1, len(text)) if 5 <= len(text[i].split()) <= 50]
    rng.shuffle(places)
    rows: dict[tuple[int, int], dict[str, Any]] = {}  # by the place of the gap
    wanted: list[tuple[int, int]] = []
    for t, i in places:
        if len(rows) == count > 0:
            break
        if (t, i - 1) in rows or (t, i + 1) in rows:
            continue
        if len(wanted) < 4:  # not only when empty: the last few ranks would fit hardly any sentence
            wanted += rng.sample(_RANKS, len(_RANKS))
        if row := _question(texts[t][i - 1], texts[t][i], bigrams, split == "train", wanted, rng):
            rows[t, i] = row
    if not 1 <= count <= len(rows):
        raise ValueError(f"count={count}; allowed is 1 to {len(rows)} from the split {split!r}")
    return datasets.Dataset.from_list(list(rows.values()), split=split)
