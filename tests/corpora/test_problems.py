"""What arithmetic and logic share: splits, determinism, arguments."""

import hashlib
from collections import Counter

import pytest

from course_lib.corpora import arithmetic, logic
from course_lib.corpora.problems import generator_of, split_of

KINDS = pytest.mark.parametrize("kind", [arithmetic, logic], ids=lambda f: f.__name__)


@KINDS
def test_rows(kind):
    rows = kind("validation", level=2, count=50)
    assert rows.column_names == ["question", "answer", "level", "text"]
    assert {name: feature.dtype for name, feature in rows.features.items()} == {
        "question": "string", "answer": "string", "level": "int64", "text": "string",
    }  # fmt: skip
    assert str(rows.split) == "validation"
    assert len(rows) == len(set(rows["question"])) == 50
    assert set(rows["level"]) == {2}
    for row in rows:
        assert row["text"] == f"{row['question']} {row['answer']}"
        assert "\n" not in row["text"]
        assert "  " not in row["text"]
    assert len(kind()) == 1000
    assert kind(count=10)[:] == kind("train", level=1, count=10, seed=0)[:]


DIGESTS = {
    ("arithmetic", "train", 1, 0): "be2b304b68cc0d67",
    ("arithmetic", "test", 4, 1): "839deb418c43f5dc",
    ("logic", "train", 1, 0): "c12f0079ee440915",
    ("logic", "test", 4, 1): "507f16d1609edc47",
}


@pytest.mark.parametrize(("name", "split", "level", "seed"), DIGESTS)
def test_the_data_never_change_silently(name, split, level, seed):
    """The same on every machine and under every Python. A change here makes recorded studies wrong: run them again."""
    rows = {"arithmetic": arithmetic, "logic": logic}[name](split, level=level, count=100, seed=seed)
    digest = hashlib.sha256("\n".join(rows["text"]).encode()).hexdigest()[:16]
    assert digest == DIGESTS[name, split, level, seed]


@KINDS
def test_seed_level_and_split_each_matter(kind):
    base = kind("train", level=3, count=60, seed=0)["text"][:]
    assert base == kind("train", level=3, count=60, seed=0)["text"][:]
    others = [("train", 3, 1), ("train", 3, -1), ("train", 4, 0), ("test", 3, 0), ("validation", 3, 0)]
    for split, level, seed in others:
        rows = kind(split, level=level, count=60, seed=seed)["text"]
        assert len(set(base) & set(rows)) < 5


def test_shares_of_the_splits():
    shares = Counter(split_of(f"form {i}") for i in range(10_000))
    assert shares["train"] == pytest.approx(8000, abs=200)
    assert shares["validation"] == pytest.approx(1000, abs=150)
    assert shares["test"] == pytest.approx(1000, abs=150)


@KINDS
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"split": "valid"}, "split='valid'; allowed are 'train', 'validation', 'test'"),
        ({"level": 0}, "level=0; allowed is 1 to 10, a whole number"),
        ({"level": 11}, "level=11; allowed is 1 to 10, a whole number"),
        ({"level": 1.0}, "level=1.0; allowed is 1 to 10, a whole number"),
        ({"level": True}, "level=True; allowed is 1 to 10, a whole number"),
        ({"count": 0}, "count=0; it must be 1 or more, a whole number"),
        ({"count": 2.5}, "count=2.5; it must be 1 or more, a whole number"),
        ({"seed": "a"}, "seed='a'; it must be a whole number"),
        ({"seed": None}, "seed=None; it must be a whole number"),
    ],
)
def test_bad_arguments(kind, arguments, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        kind(**arguments)
    assert str(caught.value) == words


@KINDS
def test_the_highest_level_works(kind):
    assert len(kind(level=10, count=5)) == 5


def test_kinds_and_seeds_have_their_own_numbers():
    draws = {
        generator_of(k, s, n, 5, seed).random()
        for k in "ab"
        for s in ("train", "test")
        for n in (1, 2)
        for seed in (0, 1)
    }
    assert len(draws) == 16
    assert generator_of("a", "train", 1, 5, 0).random() == generator_of("a", "train", 1, 9, 0).random()
