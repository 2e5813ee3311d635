"""A reading task made from real text: which of four words did the speaker say?"""

import random
import re
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Any

from course_lib.corpora.documents import check_split
from course_lib.corpora.problems import check_whole
from course_lib.corpora.text import speeches
from course_lib.init import seed_of

if TYPE_CHECKING:
    from datasets import Dataset

GAP = "____"
_CONTEXT = 2  # sentences before the one with the gap
_RARE, _COMMON = 20, 2000  # how often a word stands in the training speeches to be asked for


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?]) +(?=[A-Z])", text)


def _words(text: str) -> list[str]:
    """Words of five lower-case letters or more: names, and the short words of grammar, are not asked for."""
    return re.findall(r"(?<![\w'-])[a-z]{5,}(?![\w'-])", text)


def cloze(split: str = "train", *, count: int = 1000, seed: int = 0) -> "Dataset":
    """Multiple-choice cloze from the speeches. Columns passage (with the gap ____), options (four words), answer (0-3).

    The passage is a sentence with a gap, after the two before it; from the speeches of `split`, at most one question a
    sentence. The four words have the same length. On the list of the words of that length, sorted by how often
    the training speeches use them, they are neighbours, and the author's is equally often the rarest, the second, the
    third and the commonest: frequency and length give nothing away. None of the four stands elsewhere in the passage. A
    guess is right in 25 % of the cases. Raises ValueError for another split, a `count` that the split cannot give, or a
    number that is not whole.
    """
    import datasets

    check_split(split)
    check_whole("count", count)
    check_whole("seed", seed)
    counts = Counter(word for text in speeches("train")["text"] for word in _words(text))
    ranked: dict[int, list[tuple[int, str]]] = {}  # length -> (frequency, word), rarest first
    for word, n in counts.items():
        if _RARE <= n <= _COMMON:
            ranked.setdefault(len(word), []).append((n, word))
    for words in ranked.values():
        words.sort()
    random_ = random.Random(seed_of("cloze", split, seed))
    places = [(text, i) for text in map(_sentences, speeches(split)["text"]) for i in range(_CONTEXT, len(text))]
    random_.shuffle(places)
    rows: list[dict[str, Any]] = []
    for text, i in places:
        if len(rows) == count > 0:
            break
        sentence, before = text[i], " ".join(text[i - _CONTEXT : i])
        here = Counter(re.findall(r"[a-z]+", f"{before} {sentence}".lower()))
        candidates = [w for w in _words(sentence) if here[w] == 1 and _RARE <= counts[w] <= _COMMON]
        if not (8 <= len(sentence.split()) <= 40) or not candidates:
            continue
        answer = random_.choice(candidates)
        peers = [pair for pair in ranked[len(answer)] if pair[1] == answer or not here[pair[1]]]
        lowest = bisect_left(peers, (counts[answer], answer)) - random_.randrange(4)
        options = [word for _, word in peers[max(lowest, 0) : lowest + 4]]
        if len(options) < 4:
            continue
        random_.shuffle(options)
        gapped = re.sub(rf"(?<![\w'-]){answer}(?![\w'-])", GAP, sentence, count=1)
        rows.append({"passage": f"{before} {gapped}", "options": options, "answer": options.index(answer)})
    if not 1 <= count <= len(rows):
        raise ValueError(f"count={count}; allowed is 1 to {len(rows)} from the split {split!r}")
    return datasets.Dataset.from_list(rows, split=split)
