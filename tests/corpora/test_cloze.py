"""The reading task: real sentences, fair options, no way to answer from the gap's neighbours alone."""

import hashlib
import re
from collections import Counter
from functools import cache
from itertools import pairwise
from unittest import mock

import pytest

from course_lib import corpora
from course_lib.corpora.cloze import GAP, _Bigrams, _sentences, _tokens
from tests.corpora.sets import MADE

pytestmark = pytest.mark.slow  # whole sets are read and searched


@pytest.fixture(scope="module", autouse=True)
def _one_table():
    """The bigrams of the training speeches, which every call counts anew, are counted once."""
    with mock.patch.dict(corpora.cloze.__globals__, _Bigrams=cache(_Bigrams)):
        yield


@cache
def questions(split):
    return MADE["cloze"](split)


@cache
def sentences():
    return [sentence for text in MADE["speeches"]("train")["text"] for sentence in _sentences(text)]


@cache
def counted(tokens):
    """How often words and pairs of neighbours come in the training speeches, cut by this function."""
    cut = [tokens(sentence) for sentence in sentences()]
    return Counter(t for s in cut for t in s), Counter(pair for s in cut for pair in pairwise(s))


def frequency(word):
    return counted(_tokens)[0][word]


@pytest.mark.parametrize("split", corpora.SPLITS)
def test_the_gap_filled_with_the_answer_is_what_was_said(split):
    texts = MADE["speeches"](split)["text"]
    for row in questions(split).select(range(60)):
        assert row["passage"].count(GAP) == 1
        said = row["passage"].replace(GAP, row["options"][row["answer"]])
        assert sum(said in text for text in texts) >= 1


@pytest.mark.parametrize("split", corpora.SPLITS)
def test_options_are_alike(split):
    for row in questions(split):
        assert len(set(row["options"])) == 4
        assert len({len(word) for word in row["options"]}) == 1
        words = set(row["passage"].lower().replace(",", " ").replace(".", " ").split())
        assert not words & set(row["options"])  # nothing to copy from the passage


@pytest.mark.parametrize("split", corpora.SPLITS)
def test_passages_and_words_are_as_described(split):
    """A sentence and the one with the gap, of 5 to 50 words; options of five letters or more, not rare, not everywhere,
    the commonest at most three times as frequent as the rarest."""
    for row in questions(split):
        before, gapped = _sentences(row["passage"])
        assert before
        assert GAP in gapped
        assert 5 <= len(gapped.split()) <= 50
        often = [frequency(word) for word in row["options"]]
        assert all(len(word) >= 5 for word in row["options"])
        assert 15 <= min(often) <= max(often) <= 2000
        assert max(often) <= 3 * min(often)


@pytest.mark.parametrize("split", corpora.SPLITS)
def test_no_passage_answers_another(split):
    """Sentences of five words or more: "Thank you." and the like do come twice."""
    said = Counter[str]()
    for row in questions(split):
        before, gapped = _sentences(row["passage"])
        said.update({s for s in (before, gapped.replace(GAP, row["options"][row["answer"]])) if len(s.split()) >= 5})
    assert [s for s, n in said.items() if n > 1] == []


def test_the_questions_never_change_silently():
    """A change here makes recorded studies wrong: run them again."""
    digest = hashlib.sha256(repr(questions("test").select(range(100))[:]).encode()).hexdigest()
    assert digest[:16] == "4c194d45d761b5a9"


@pytest.mark.parametrize("split", corpora.SPLITS)
def test_no_shortcut_beats_a_guess(split):
    """By place and by the alphabet about a quarter of 1,000; by frequency in the training speeches exactly."""
    rows = questions(split)
    letters = Counter(sorted(r["options"]).index(r["options"][r["answer"]]) for r in rows)
    for shares in (Counter(rows["answer"]), letters):
        assert all(180 <= shares[i] <= 320 for i in range(4)), shares  # five standard deviations
    rank = Counter(sorted(r["options"], key=lambda w: (frequency(w), w)).index(r["options"][r["answer"]]) for r in rows)
    assert all(245 <= rank[i] <= 255 for i in range(4)), rank


def _words_alone(sentence):
    return ["", *re.findall(r"[a-z']+", sentence.lower()), ""]


def _right_by_bigrams(rows, tokens, *, left=1, right=1, own=0):
    """Share answered by the largest P(word | before)^left P(after | word)^right, counted here anew; `own` is how often
    the question's sentence was counted."""
    words, pairs = counted(tokens)
    total, found = words.total(), 0
    for row in rows:
        start, end = _sentences(row["passage"])[-1].split(GAP)
        before, after = tokens(start)[-2], tokens(end)[1]
        answer = row["options"][row["answer"]]
        scores = {}
        for word in row["options"]:
            out = own * (word == answer)
            n = words[word] - out
            fits = pairs[before, word] - out + (n + 0.5) / total
            follows = (pairs[word, after] - out + (words[after] + 0.5) / total) / (n + 1)
            scores[word] = fits**left * follows**right
        found += max(scores, key=scores.get) == answer
    return found / len(rows)


@pytest.mark.parametrize("split", corpora.SPLITS)
def test_bigrams_of_the_training_speeches_do_not_answer(split):
    """Without the choice by score they answer 76 %."""
    rows, own = questions(split), int(split == "train")
    assert 0.22 <= _right_by_bigrams(rows, _tokens, own=own) <= 0.28
    assert (_right_by_bigrams(rows, _tokens) > 0.8) == (split == "train")  # who knows the sentence knows the word
    assert _right_by_bigrams(rows, _words_alone, own=own) <= 0.35
    for tokens in (_tokens, _words_alone):
        assert _right_by_bigrams(rows, tokens, right=0, own=own) <= 0.40
        assert _right_by_bigrams(rows, tokens, left=0, own=own) <= 0.40


def test_seeded_and_bounded():
    assert corpora.cloze("test", count=20)[:] == questions("test").select(range(20))[:]
    assert corpora.cloze("test", count=20, seed=1)[:] != corpora.cloze("test", count=20)[:]
    with pytest.raises(ValueError, match=r"count=100000; allowed is 1 to 10\d\d from the split 'test'"):
        corpora.cloze("test", count=100_000)
    with pytest.raises(ValueError, match="split='dev'"):
        corpora.cloze("dev")
    with pytest.raises(ValueError, match="split=None; allowed are 'train', 'validation', 'test'"):
        corpora.cloze(None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"count": 2.5}, "count=2.5; it must be a whole number"),  # it gave all that there are
        ({"count": True}, "count=True; it must be a whole number"),
        ({"count": None}, "count=None; it must be a whole number"),
        ({"seed": 0.5}, "seed=0.5; it must be a whole number"),
        ({"count": 0}, r"count=0; allowed is 1 to \d{3,5} from the split 'test'"),
        ({"count": -1}, r"count=-1; allowed is 1 to \d{3,5} from"),
    ],
)
def test_bad_numbers(arguments, words):
    with pytest.raises(ValueError, match=words):
        corpora.cloze("test", **arguments)


def test_places_and_options_are_shuffled():
    """Not the first questions of the first speeches, and not the options in the order of their frequency."""
    texts = MADE["speeches"]("test")["text"][:]
    asked = [next(i for i, t in enumerate(texts) if r["passage"].split(" ____")[0] in t) for r in questions("test")]
    assert len(set(asked[:50])) >= len(texts) - 1
    ordered = [sorted(r["options"], key=lambda w: (frequency(w), w)) == r["options"] for r in questions("test")]
    assert sum(ordered) < 100  # of 1,000; one in 24 by chance
