"""The search: one thing in each text, where it is said to be; fair, held out, and always the same."""

import hashlib
import re
from collections import Counter
from itertools import pairwise

import pytest
import torch

from course_lib import corpora, tokenization
from course_lib.corpora.needles import THINGS, _sentences, needles
from course_lib.tokenization import MASK, START

pytestmark = pytest.mark.slow  # whole sets are read and searched

TOKENIZER = tokenization.load("english-4k")
TOKENS = {TOKENIZER.encode(thing)[0]: thing for thing in THINGS}
SPLITS = ("train", "validation")


@pytest.fixture(scope="module")
def batch():
    return needles("validation", 64, 256)(0)


def test_things_are_single_tokens_all_different():
    assert len(THINGS) == len(TOKENS) == 32
    assert all(len(TOKENIZER.encode(thing)) == 1 for thing in THINGS)


def test_shapes_and_the_first_token(batch):
    assert batch.ids.shape == (64, 256)
    assert batch.at.shape == batch.targets.shape == batch.distance.shape == (64, 8)
    assert batch.needle.shape == (64,)
    assert (batch.ids[:, 0] == START).all()
    assert {x.dtype for x in batch} == {torch.int64}


@pytest.mark.parametrize("length", [216, 256, 1024])
def test_one_thing_and_it_is_where_it_is_said_to_be(length):
    for step in range(3):
        batch = needles("train", 8, length, seed=5)(step)
        for ids, at, targets, place in zip(*map(torch.Tensor.tolist, batch), strict=True):
            assert [i for i, token in enumerate(ids) if token in TOKENS] == [place]
            assert set(targets) == {ids[place]}
            assert [i for i, token in enumerate(ids) if token == MASK] == at


def test_no_text_mentions_another_thing(batch):
    """Not even as a part of another word, such as "books". The thing itself may be: "carbon" begins with its token."""
    for ids in batch.ids:
        words = TOKENIZER.decode(ids.tolist()).lower()
        found = {thing for thing in THINGS if thing in words}
        assert found == {TOKENS[token] for token in ids.tolist() if token in TOKENS}


@pytest.mark.parametrize("split", SPLITS)
def test_nothing_hides_in_the_hay(split):
    hay, stacks = _sentences(split)
    for ids in hay[::5]:
        text = TOKENIZER.decode(ids).lower()
        assert not any(thing in text for thing in THINGS), text
        assert not TOKENS.keys() & set(ids)
    for thing, stack in zip(THINGS, stacks, strict=True):
        assert len(stack) >= (20 if split == "train" else 3), thing
        for ids, place in stack:
            assert TOKENS[ids[place]] == thing
            assert sum(token in TOKENS for token in ids) == 1


def test_held_out_texts_are_made_of_held_out_sentences():
    parts = {split: {tuple(ids) for ids in hay} | {tuple(ids) for stack in stacks for ids, _ in stack}
             for split, (hay, stacks) in zip(SPLITS, map(_sentences, SPLITS), strict=True)}  # fmt: skip
    assert not parts["train"] & parts["validation"]
    whole = {tuple(TOKENIZER.encode(text)) for text in corpora.sentence_pairs("validation")["en"]}
    assert parts["validation"] <= whole


def test_distances_are_counted_in_tokens(batch):
    want = [[abs(place - q) for q in at] for at, place in zip(batch.at.tolist(), batch.needle.tolist(), strict=True)]
    assert batch.distance.tolist() == want
    flat = batch.distance.flatten()
    assert flat.min() >= 1
    assert (flat <= 16).sum() > 20  # near and far
    assert (flat > 150).sum() > 20


def test_questions_stand_between_sentences_evenly_spread(batch):
    """After a long sentence two are due, and stand side by side."""
    gaps = batch.at.diff(dim=1)
    assert (gaps >= 1).all()
    assert (gaps < 12).float().mean() < 0.02
    assert gaps.float().mean().item() == pytest.approx(256 / 8.5, abs=3)
    hay, stacks = _sentences("validation")
    known = {tuple(ids) for ids in hay} | {tuple(ids) for stack in stacks for ids, _ in stack}
    for ids, at in zip(batch.ids[:6].tolist(), batch.at[:6].tolist(), strict=True):
        for begin, end in pairwise([0, *at]):
            assert made_of(tuple(ids[begin + 1 : end]), known)


def made_of(ids, sentences):
    """Whether ids are whole sentences, one after the other."""
    reached = {0}
    for end in range(1, len(ids) + 1):
        if any(ids[begin:end] in sentences for begin in reached):
            reached.add(end)
    return len(ids) in reached


def test_things_and_their_places_are_about_equally_frequent():
    batch = needles("train", 1200, 216, seed=2)(0)
    counts = Counter(batch.targets[:, 0].tolist())
    assert len(counts) == 32
    assert all(10 <= n <= 70 for n in counts.values()), counts  # 37.5 expected, five standard deviations
    quarters = (batch.needle * 4 // 216).bincount(minlength=4)
    assert (quarters > 180).all(), quarters
    assert (quarters < 430).all(), quarters


def test_a_pure_function_of_seed_and_step():
    state = torch.random.get_rng_state()
    batches, again = (needles("train", 4, 216, seed=1) for _ in range(2))
    third, first = batches(3), batches(0)
    assert all(torch.equal(a, b) for a, b in zip(again(0), first, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(again(3), third, strict=True))
    assert not torch.equal(first.ids, third.ids)
    assert not torch.equal(first.ids, needles("train", 4, 216, seed=2)(0).ids)
    assert not torch.equal(first.ids, needles("validation", 4, 216, seed=1)(0).ids)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_texts_never_change_silently(batch):
    """A change here makes recorded studies wrong: run them again."""
    digest = hashlib.sha256(batch.ids.numpy().tobytes()).hexdigest()
    assert digest[:16] == DIGEST


DIGEST = "9902384a6eff51af"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_questions": 0}, "n_questions=0; it must be 1 or more, a whole number"),
        ({"n_questions": 8, "length": 215}, "n_questions=8, length=215; needed are 24 tokens for each, and 24 more"),
        ({"split": "dev"}, "split='dev'; allowed are 'train', 'validation', 'test'"),
    ],
)
def test_bad_input_names_itself(arguments, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        needles(**{"split": "train", "batch_size": 2, "length": 256} | arguments)
