"""Gaps filled by a model: where the mask stands, what is listed, and the forty sentences written beforehand."""

import re

import pytest
import torch
from torch import nn

from course_lib import pretrained, tokenization
from course_lib.corpora.cloze import GAP
from course_lib.gaps import common_sense, fill, fill_gaps, with_gaps
from course_lib.tokenization import END, MASK, SPECIAL, START

TOKENIZER = tokenization.load("prose-4k")


class Biased(nn.Module):
    """Whatever the text is: the probability of each token; and what it was asked."""

    def __init__(self, shares):
        super().__init__()
        self.logits = nn.Parameter(shares.log())

    def forward(self, ids, *, at):
        self.asked = (ids, at)
        return self.logits.expand(*at.shape, -1)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("She opened the ____ and went in.", "door"),
        ("____ is a country.", "France"),
        ("What ____?", "time"),
        ('"I do not know," ____ Alice.', "said"),
        ("____", "man"),
        ("The end (____) came.", "night"),
    ],
)
def test_the_mask_stands_where_the_word_would(text, word):
    """The other pieces are those of the sentence with the word in it."""
    whole = TOKENIZER.encode(text.replace(GAP, word))
    got = with_gaps(text, TOKENIZER)
    assert (got[0], got[-1]) == (START, END)
    (place,) = (i for i, token in enumerate(got[1:-1]) if token == MASK)
    rest = [token for token in got[1:-1] if token != MASK]
    assert rest == whole[:place] + whole[place + 1 :]


def test_several_gaps_and_line_breaks():
    got = with_gaps("The ____ of\nthe ____.", TOKENIZER)
    assert got.count(MASK) == 2
    assert got == with_gaps("The ____ of the ____.", TOKENIZER)


def test_the_likeliest_pieces_in_order():
    shares = torch.full((4000,), 0.1 / 3996)
    door, room, comma = (TOKENIZER.encode(text)[-1] for text in ("door", "room", "a,"))
    shares[[door, room, comma, END]] = torch.tensor([0.3, 0.2, 0.15, 0.25])
    model = Biased(shares)
    first, second = fill_gaps(model, TOKENIZER, "The ____ and the ____.", 3)
    assert first == second
    assert first.pieces == ["door", "room", ","]  # </s> is no word
    assert first.probabilities == pytest.approx([0.3, 0.2, 0.15], rel=1e-3)
    ids, at = model.asked
    assert ids[0, at[0]].tolist() == [MASK, MASK]
    assert len(fill_gaps(model, TOKENIZER, "A ____.")[0].pieces) == 5


@pytest.mark.parametrize(
    ("text", "count", "words"),
    [
        ("No gap here.", 5, "text='No gap here.' has no gap; write ____"),
        (None, 5, "text=None has no gap"),
        ("A ____.", 0, "count=0; allowed is 1 to 3995"),
        ("A ____.", 4000, "count=4000; allowed is 1 to 3995"),
    ],
)
def test_bad_input_names_itself(text, count, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        fill_gaps(Biased(torch.ones(4000)), TOKENIZER, text, count)


def test_ids_are_filled_as_the_text_is():
    model = Biased(torch.arange(1.0, 4001))
    text = "The ____ and the ____."
    assert fill(model, TOKENIZER, with_gaps(text, TOKENIZER), 2) == fill_gaps(model, TOKENIZER, text, 2)
    with pytest.raises(ValueError, match="ids: none of the 3 is <mask>"):
        fill(model, TOKENIZER, [START, 300, END])


def test_each_of_the_forty_has_one_gap_and_answers_of_one_piece():
    gaps = common_sense()
    assert len(gaps) == len({gap.text for gap in gaps}) == 40
    for gap in gaps:
        assert gap.text.count(GAP) == 1
        for answer in gap.answers:
            (piece,) = TOKENIZER.encode(answer)
            assert piece >= len(SPECIAL)
            assert with_gaps(gap.text, TOKENIZER).count(MASK) == 1


def test_the_shipped_model_fills_half_of_the_forty():
    """One of its first five words is one that a person would put there, in 30 of 40; the first in 11."""
    model = pretrained.load("modernbert-english")
    said = [(fill_gaps(model, TOKENIZER, gap.text)[0].pieces, gap.answers) for gap in common_sense()]
    assert sum(bool(set(pieces) & set(answers)) for pieces, answers in said) >= 28
    assert sum(pieces[0] in answers for pieces, answers in said) >= 10
