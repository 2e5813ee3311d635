"""The mixture: equal amounts, and the splits of its parts."""

import hashlib
from itertools import pairwise

import pytest

from course_lib import corpora, tokenization
from course_lib.corpora.documents import shared_shingles
from course_lib.corpora.mixture import _shortened
from tests.corpora.sets import MADE, texts

pytestmark = pytest.mark.slow  # whole sets are read and searched
PROSE = {"code": "python_code", "glosses": "glosses", "english": "speeches", "japanese": "neko"}


def of_kind(split, kind):
    """The mixture's documents of one kind."""
    number = corpora.MIXTURE_KINDS.index(kind)
    rows = MADE["mixture"](split)
    return [text for k, text in zip(rows["kind"], rows["text"], strict=True) if k == number]


@pytest.mark.parametrize("split", corpora.SPLITS)
def test_kinds_have_equal_amounts(split):
    assert MADE["mixture"](split).features["kind"].names == list(corpora.MIXTURE_KINDS)
    tokenizer = tokenization.load("mixture-4k")
    size = 180_000 if split == "train" else 18_000
    for kind in corpora.MIXTURE_KINDS:
        tokens = sum(len(tokenizer.encode(text, end=True)) for text in of_kind(split, kind))
        assert 0.9 * size < tokens < 1.12 * size, kind


@pytest.mark.parametrize("split", corpora.SPLITS)
@pytest.mark.parametrize("kind", PROSE)
def test_documents_keep_the_split_of_their_set(split, kind):
    whole = list(texts(PROSE[kind], split))
    found, documents = of_kind(split, kind), set(whole)
    cut = [text for text in found if text not in documents]
    assert len(cut) <= 1
    assert all(any(text in document for document in whole) for text in cut)
    assert len(set(found)) == len(found)
    if len(found) > 5:
        assert found != whole[: len(found)]  # shuffled


@pytest.mark.parametrize("split", corpora.SPLITS)
@pytest.mark.parametrize("kind", ["arithmetic", "logic"])
def test_sheets_are_problems_of_four_levels_of_the_same_split(split, kind):
    sheets = [sheet.split("\n") for sheet in of_kind(split, kind)]
    assert sorted({len(lines) for lines in sheets})[-1] == 50
    assert sum(len(lines) < 50 for lines in sheets) <= 1
    lines = [line for sheet in sheets for line in sheet]
    count = len(lines) // 4
    levels = [set(getattr(corpora, kind)(split, level=n, count=count)["text"]) for n in (1, 2, 3, 4)]
    assert set(lines) == set.union(*levels)
    assert len(set(lines)) == len(lines) == 4 * count
    assert all(level & set(sheets[0]) for level in levels)  # shuffled


@pytest.mark.parametrize("held_out", ["validation", "test"])
def test_nothing_leaks_from_the_mixture_or_into_it(held_out):
    train = set(MADE["mixture"]("train")["text"])
    assert not train & set(MADE["mixture"](held_out)["text"])
    for kind, name in PROSE.items():
        assert shared_shingles(of_kind("train", kind), texts(name, held_out)) < 0.01
    for kind in ("arithmetic", "logic"):
        lines = {line for sheet in of_kind("train", kind) for line in sheet.split("\n")}
        assert not lines & set(getattr(corpora, kind)(held_out, level=1, count=500)["text"])


def test_kinds_are_shuffled():
    kinds = MADE["mixture"]("test")["kind"][:]
    changes = sum(a != b for a, b in pairwise(kinds))
    assert changes > 50


def test_the_mixture_never_changes_silently():
    """Its vocabulary was trained on it, and so are recorded models."""
    digest = hashlib.sha256("\0".join(MADE["mixture"]("test")["text"]).encode()).hexdigest()
    assert digest[:16] == "a5ec6273d68105ad"


def test_the_last_text_ends_at_a_sentence_or_line():
    assert _shortened(["abcd", "One. Two. Three."], 15) == ["abcd", "One. Two."]
    assert _shortened(["abcd", "one\ntwo\nthree"], 12) == ["abcd", "one\ntwo"]
    assert _shortened(["猫。犬。鳥。"], 14) == ["猫。犬。"]  # 14 bytes: not in the middle of a character
    assert _shortened(["abcdef"], 3) == []
    assert _shortened(["abc", "def"], 3) == ["abc"]
    assert _shortened(["abc", "def"], 6) == ["abc", "def"]


def test_another_split_is_refused():
    with pytest.raises(ValueError, match="split='dev'; allowed are"):
        corpora.mixture("dev")
