"""Splitting by document, cutting windows, and the measure for leaks."""

import hashlib
import json
import lzma

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib import corpora, paths
from course_lib.corpora.documents import SPLITS, fold, members, read_jsonl, shared_shingles


@given(st.sets(st.text(), min_size=3, max_size=80), st.integers(0, 3))
def test_every_key_is_in_one_split(keys, seed):
    parts = {split: members(keys, split, seed) for split in SPLITS}
    assert set.union(*parts.values()) == keys
    assert sum(map(len, parts.values())) == len(keys)
    assert len(parts["validation"]) == len(parts["test"]) == max(1, round(len(keys) / 10))
    assert members(sorted(keys, reverse=True), "test", seed) == parts["test"]  # the order of the keys is no matter


def test_seeds_give_other_splits():
    keys = range(100)
    assert members(keys, "test", 0) != members(keys, "test", 1)
    assert members(keys, "test", 0) == {int(k) for k in members(map(str, keys), "test", 0)}


@pytest.mark.parametrize(("keys", "words"), [([1, 2], "keys: 2, of which 2"), ([1, 2, 3, 3], "keys: 4, of which 3")])
def test_bad_keys(keys, words):
    with pytest.raises(ValueError, match=words):
        members(keys, "train")


def test_windows_are_the_stream_with_ends():
    windows = corpora.token_windows([[5, 6, 7], [8], [], [9, 10]], 4, end=3)
    assert windows.tolist() == [[5, 6, 7, 3], [8, 3, 3, 9]]  # the last two tokens are not a window
    assert windows.dtype == torch.int64


@given(st.lists(st.lists(st.integers(4, 99), max_size=30), min_size=1, max_size=9), st.integers(1, 20))
def test_windows_keep_every_token_but_the_rest(documents, length):
    stream = [t for d in documents for t in [*d, 3]]
    if len(stream) < length:
        with pytest.raises(ValueError, match=f"length={length}; the documents have {len(stream)} tokens"):
            corpora.token_windows(documents, length, 3)
    else:
        windows = corpora.token_windows(documents, length, 3)
        assert windows.shape == (len(stream) // length, length)
        assert windows.flatten().tolist() == stream[: windows.numel()]


def test_bad_windows():
    with pytest.raises(ValueError, match="length=0; it must be 1 or more"):
        corpora.token_windows([[1]], 0, 3)


@pytest.mark.parametrize("documents", [["not encoded"], [1, 2, 3], [[1.5, 2]], [[None]]])
def test_windows_of_what_is_no_id(documents):
    with pytest.raises(ValueError, match="documents must be sequences of token ids"):
        corpora.token_windows(documents, 1, 3)
    with pytest.raises(ValueError, match=r"end=1\.5 an id"):
        corpora.token_windows([[1, 2]], 1, 1.5)


def test_fold():
    assert fold("Ｔｏｍ's “book” … ①!") == fold("toms BOOK 1") == "tomsbook1"
    assert fold("本を　読む。") == "本を読む"


def test_shared_shingles_by_hand():
    one, two = "a b c d e", "x b c d y"
    assert shared_shingles([one], [two], n=3) == 1 / 3  # of x-b-c, b-c-d and c-d-y
    assert shared_shingles([one], ["A, b; C!"], n=3) == 1
    assert shared_shingles([one], ["a b"], n=3) == 0
    assert shared_shingles(["私は猫です"], ["彼は猫です"], n=3) == 2 / 3
    assert shared_shingles(["私は猫です"], ["彼は猫です"], n=13) == 0


@pytest.mark.parametrize(
    ("train", "held_out", "n", "words"),
    [
        (["a b"], ["a b"], 0, "n=0; it must be 1 or more"),  # no run at all would be no leak
        ("a b c", ["a b"], 2, "one of them is a single string"),
        (["a b"], "a b c", 2, "one of them is a single string"),
    ],
)
def test_a_leak_is_not_hidden_by_a_slip(train, held_out, n, words):
    with pytest.raises(ValueError, match=words):
        shared_shingles(train, held_out, n=n)


def test_read_jsonl_checks_the_file(tmp_path, monkeypatch):
    raw = lzma.compress((json.dumps({"name": "猫"}, ensure_ascii=False) + "\n").encode())
    (tmp_path / "a.jsonl.xz").write_bytes(raw)
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(raw).hexdigest()}  a.jsonl.xz\n")
    monkeypatch.setattr(paths, "shipped", lambda _: tmp_path)
    assert read_jsonl("a.jsonl.xz") == [{"name": "猫"}]
    (tmp_path / "a.jsonl.xz").write_bytes(raw[:-1])
    with pytest.raises(ValueError, match="is damaged"):
        read_jsonl("a.jsonl.xz")
