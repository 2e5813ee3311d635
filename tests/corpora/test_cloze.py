"""The reading task: real sentences, fair options, no way to answer without reading."""

from collections import Counter

import pytest

from course_lib import corpora
from course_lib.corpora.cloze import GAP, _words

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
