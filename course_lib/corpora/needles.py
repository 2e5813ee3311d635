"""A search made of real sentences: which of 32 things does one sentence of a long text mention?"""

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib import tokenization
from course_lib.checks import check_at_least, check_whole
from course_lib.corpora.text import sentence_pairs
from course_lib.init import seed_of
from course_lib.tokenization import MASK, START

# Each a single token of english-4k, and frequent in its everyday sentences.
THINGS = (
    "dog", "cat", "car", "book", "train", "school", "house", "room", "money", "rain", "letter", "door", "bus", "water",
    "doctor", "river", "tree", "picture", "movie", "fish", "coffee", "music", "station", "party", "police", "baby",
    "snow", "mountain", "park", "window", "table", "hat",
)  # fmt: skip


class Needles(NamedTuple):
    """Texts with one needle each: ids (B, T), question marks `at` (B, Q), the thing's token `targets` (B, Q), and the
    place of the thing itself, `needle` (B,)."""

    ids: Tensor
    at: Tensor
    targets: Tensor
    needle: Tensor

    @property
    def distance(self) -> Tensor:
        """How many tokens lie between each question and its answer: (B, Q)."""
        return (self.at - self.needle.unsqueeze(1)).abs()


@cache
def _sentences(split: str) -> tuple[list[list[int]], list[list[tuple[list[int], int]]]]:
    """Token ids of the sentences without a thing, and for each thing those with it alone, and where it is in them."""
    tokenizer = tokenization.load("english-4k")
    tokens = [tokenizer.encode(thing) for thing in THINGS]
    found = re.compile("|".join(THINGS), re.IGNORECASE)  # "books" and "carpet" too: no thing hides in the hay
    hay: list[list[int]] = []
    needles: list[list[tuple[list[int], int]]] = [[] for _ in THINGS]
    for sentence in sentence_pairs(split)["en"]:
        mentioned, ids = found.findall(sentence), tokenizer.encode(sentence)
        if not mentioned:
            hay.append(ids)
        elif len(mentioned) == 1 and mentioned[0] in THINGS:
            (token,) = tokens[THINGS.index(mentioned[0])]
            if token in ids:
                needles[THINGS.index(mentioned[0])].append((ids, ids.index(token)))
    return hay, needles


def needles(split: str, batch_size: int, length: int, n_questions: int = 8, seed: int = 0) -> Callable[[int], Needles]:
    """`batches(step)` of texts of `length` tokens, made of Tatoeba's everyday sentences of `split`.

    <s>, then sentences in random order; one of them, at a random place, mentions one of THINGS, and no other does.
    `n_questions` lone <mask> tokens stand between sentences, evenly spread: each asks for the thing. All things are
    equally frequent, so that a guess is right in 1 of 32. What counts is the token: in 12 % of the needles it is the
    beginning of a longer word, such as "cards". A pure function of seed and step. Raises ValueError for an
    unknown split, or texts too short for their questions: 24 tokens each are needed.
    """
    for name, value in (("batch_size", batch_size), ("length", length), ("n_questions", n_questions)):
        check_at_least(name, value, 1)
    check_whole("seed", seed)
    if length < 24 * (n_questions + 1):
        raise ValueError(f"n_questions={n_questions}, length={length}; needed are 24 tokens for each, and 24 more")
    hay, stacks = _sentences(split)

    def one(generator: torch.Generator) -> tuple[list[int], list[int], int, int]:
        def below(n: int) -> int:
            return int(torch.randint(n, (), generator=generator))

        thing = below(len(THINGS))
        sentence, inside = stacks[thing][below(len(stacks[thing]))]
        begin = 1 + below(length - len(sentence) - 1)  # the needle starts at the first end of a sentence from here
        ids, place = [START], -1
        questions: list[int] = []
        while len(ids) < length:
            due = (len(questions) + 0.5) * length / (n_questions + 0.5)
            if len(questions) < n_questions and len(ids) >= due - 8:
                questions.append(len(ids))
                ids.append(MASK)
            elif place < 0 and (len(ids) >= begin or len(ids) + 40 > length):
                place = len(ids) + inside
                ids += sentence
            else:
                ids += hay[below(len(hay))]
        return ids[:length], questions, place, sentence[inside]

    def batches(step: int) -> Needles:
        generator = torch.Generator().manual_seed(seed_of(seed, step, "needles"))
        texts: list[tuple[list[int], list[int], int, int]] = []
        while len(texts) < batch_size:
            text = one(generator)
            if text[2] < length and len(text[1]) == n_questions and text[1][-1] < length:
                texts.append(text)
        ids, at, needle, answers = (torch.tensor(column) for column in zip(*texts, strict=True))
        return Needles(ids, at, answers.unsqueeze(1).expand(-1, n_questions).contiguous(), needle)

    return batches
