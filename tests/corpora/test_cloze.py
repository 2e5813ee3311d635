"""The reading task: real sentences, fair options, no way to answer without reading."""

import hashlib
from collections import Counter

import pytest

from course_lib import corpora
from course_lib.corpora.cloze import GAP, _sentences, _words

QUESTIONS = {split: corpora.cloze(split, count=1000) for split in corpora.SPLITS}


@pytest.mark.parametrize("split", corpora.SPLITS)
def test_the_gap_filled_with_the_answer_is_what_was_said(split):
    texts = corpora.speeches(split)["text"]
    for row in QUESTIONS[split].select(range(60)):
        assert row["passage"].count(GAP) == 1
        said = row["passage"].replace(GAP, row["options"][row["answer"]])
        assert sum(said in text for text in texts) >= 1


@pytest.mark.parametrize("split", corpora.SPLITS)
def test_options_are_alike(split):
    for row in QUESTIONS[split]:
        assert len(set(row["options"])) == 4
        assert len({len(word) for word in row["options"]}) == 1
        words = set(row["passage"].lower().replace(",", " ").replace(".", " ").split())
        assert not words & set(row["options"])  # nothing to copy from the passage


@pytest.mark.parametrize("split", corpora.SPLITS)
def test_passages_and_words_are_as_described(split):
    """Two sentences and the one with the gap, of 8 to 40 words; words of five letters or more that are neither rare nor
    everywhere."""
    counts = Counter(word for text in corpora.speeches("train")["text"] for word in _words(text))
    for row in QUESTIONS[split]:
        before, first, last = _sentences(row["passage"])
        assert before
        assert first
        assert GAP in last
        assert 8 <= len(last.split()) <= 40
        assert all(len(word) >= 5 and 20 <= counts[word] <= 2000 for word in row["options"])


def test_the_questions_never_change_silently():
    """A change here makes recorded studies wrong: run them again."""
    digest = hashlib.sha256(repr(QUESTIONS["test"].select(range(100))[:]).encode()).hexdigest()
    assert digest[:16] == "f4a1036f385b533e"


@pytest.mark.parametrize("split", corpora.SPLITS)
def test_no_shortcut_beats_a_guess(split):
    """By place, by frequency in the training speeches, by the alphabet: each is right in about a quarter of 1,000."""
    counts = Counter(word for text in corpora.speeches("train")["text"] for word in _words(text))
    rows = QUESTIONS[split]
    by_place = Counter(rows["answer"])
    rank = Counter(sorted(r["options"], key=lambda w: (counts[w], w)).index(r["options"][r["answer"]]) for r in rows)
    letters = Counter(sorted(r["options"]).index(r["options"][r["answer"]]) for r in rows)
    for shares in (by_place, rank, letters):
        assert all(180 <= shares[i] <= 320 for i in range(4)), shares  # five standard deviations
    ratios = [max(counts[w] for w in r["options"]) / min(counts[w] for w in r["options"]) for r in rows]
    assert sorted(ratios)[len(ratios) // 2] < 1.2  # like frequency: half of the questions within a fifth


def test_seeded_and_bounded():
    assert corpora.cloze("test", count=20)[:] == QUESTIONS["test"].select(range(20))[:]
    assert corpora.cloze("test", count=20, seed=1)[:] != corpora.cloze("test", count=20)[:]
    for count in (0, 100_000):
        with pytest.raises(ValueError, match=rf"count={count}; allowed is 1 to \d+ from the split 'test'"):
            corpora.cloze("test", count=count)
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
    texts = corpora.speeches("test")["text"][:]
    asked = [next(i for i, t in enumerate(texts) if r["passage"].split(" ____")[0] in t) for r in QUESTIONS["test"]]
    assert len(set(asked[:50])) >= len(texts) - 1
    counts = Counter(word for text in corpora.speeches("train")["text"] for word in _words(text))
    ordered = [sorted(r["options"], key=lambda w: (counts[w], w)) == r["options"] for r in QUESTIONS["test"]]
    assert sum(ordered) < 100  # of 1,000; one in 24 by chance
