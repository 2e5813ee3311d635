"""Lesson 08: what one-character mutations left green, and what the mends of the vandal's reading hold."""

import re

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.text import Text
from torch import nn

from course_lib import tokenization
from course_lib.attention import attention
from course_lib.attention.unpadded import spread, unpadded_attention
from course_lib.gaps import Filling, fill, with_gaps
from course_lib.lessons.modernbert_mlm import encoder_roles, film, film_widget
from course_lib.lessons.modernbert_mlm import exercises as check
from course_lib.lessons.modernbert_mlm.gap_frame import ALL, GapView, gap_view, plot_gap
from course_lib.masking import NOT_ASKED, Masked, hide
from course_lib.models.bigram import TwoSidedBigram, count_bigrams
from course_lib.tokenization import END, MASK, PAD, START
from course_lib.viz.plots import OKABE_ITO

TOKENIZER = tokenization.load("prose-4k")


def said_by(figure):
    return " ".join(text.get_text() for text in figure.findobj(Text))


# Mutants that lived.


def recorded():
    """A film of two frames, made by hand: the best heads change between them."""
    made = film.Film(tables=film.Baselines(7.0, 6.0))
    size = len(made.ids)
    for step, (layer, head) in ((0, (0, 1)), (10, (2, 3))):
        scores = np.zeros((2, 3, 4))
        scores[0, layer, head], scores[1, layer, head - 1] = 0.9, 0.8
        made.steps.append(step)
        made.losses.append(8.0)
        made.scores.append(scores)
        made.maps.append(np.full((3, 4, size, size), 1 / size))
    return made


def test_the_heads_of_a_film_are_those_of_its_end():
    made = recorded()
    assert (made.head(0), made.head(1)) == ((2, 3), (2, 2))
    assert made.column(0) == [0.0, 0.9]


def test_the_rings_of_a_film_stand_on_the_neighbour_that_the_map_is_of():
    made = recorded()
    maps = [ax for ax in film.plot_film(film.film_frame(made, 10)).axes if ax.images]
    masks = [place for place, i in enumerate(made.ids) if i == MASK]
    for ax, name, shift in zip(maps, ("before", "after"), (-1, 1), strict=True):
        assert f"the token {name}" in ax.get_title()
        rings = ax.collections[0].get_offsets()
        assert rings.tolist() == [[place + shift, row] for row, place in enumerate(masks)]


def test_tables_and_film_are_judged_on_the_same_gaps(monkeypatch):
    asked, made = [], film.Film(tables=film.Baselines(7.0, 6.0))

    class Table(nn.Module):
        def __init__(self, counts):
            super().__init__()

        def forward(self, ids, *, at):
            asked.append((ids, at))
            return torch.zeros(*at.shape, film.SIZES.vocab_size)

    def losses(model, windows, size, rate, seed, batch_size):
        hidden = hide(windows, size, rate, seed)
        asked.append((hidden.ids, hidden.at))
        return torch.zeros(1)

    def maps(model, ids):
        length = ids.shape[1]
        if length == film.LENGTH:
            asked.append((ids, asked[-1][1]))
        return torch.zeros(3, len(ids), 4, length, length)

    monkeypatch.setattr(film, "TwoSidedBigram", Table)
    monkeypatch.setattr(film, "count_bigrams", lambda stream, size: None)
    monkeypatch.setattr(film, "masked_losses", losses)
    monkeypatch.setattr(film.heads, "attention_maps", maps)
    film.baselines()
    made(0, nn.Linear(1, 1))
    table, judged, looked_at = asked
    assert torch.equal(table[1], judged[1])  # the same places
    assert torch.equal(judged[0], looked_at[0])  # the same hidden text
    assert torch.equal(table[0], made.held_out)


def test_neighbours_are_no_score_of_same_token_and_punctuation(monkeypatch):
    ids, maps = torch.tensor([[START, 300, 300, 301, 302]]), torch.full((1, 1, 1, 5, 5), 0.2)
    monkeypatch.setattr(encoder_roles.heads, "attention_maps", lambda model, ids: maps)
    scores = encoder_roles.scores_of(None, ids, [301])
    assert np.isnan(scores["same token elsewhere"]).all()  # the only copy is a neighbour
    assert scores["punctuation"].item() == pytest.approx(0.2)
    maps[..., 2:, 3] = 0.9  # of 301 itself and its neighbours
    assert encoder_roles.scores_of(None, ids, [301])["punctuation"].item() == pytest.approx(0.2)


def test_the_shuffled_text_has_the_same_tokens_and_its_start(monkeypatch):
    seen = []
    monkeypatch.setattr(encoder_roles, "scores_of", lambda model, ids, marks: seen.append(ids))
    ids = torch.cat([torch.full((3, 1), START), torch.arange(300, 360).view(3, 20)], 1)
    encoder_roles.role_table(None, None, TOKENIZER, ids)
    assert torch.equal(seen[0], ids)
    assert (seen[2][:, 0] == START).all()
    assert torch.equal(seen[2].sort(1).values, ids)
    assert not torch.equal(seen[2], ids)


def test_the_live_picture_begins_with_the_first_frame_and_takes_every_second(monkeypatch):
    drawn, made = [], recorded()
    monkeypatch.setattr(film_widget, "live_image", lambda: (None, drawn.append))
    monkeypatch.setattr(film_widget, "plot_film", lambda frame: len(frame.film.steps))
    _, show = film_widget.live_picture(every=2)
    made.steps.clear()
    for step in range(5):
        made.steps.append(step)
        show(made)
    assert drawn == [1, 3, 5]
    with pytest.raises(ValueError, match="every=0"):
        film_widget.live_picture(every=0)


@pytest.mark.parametrize(
    ("read", "words"), [(range(1, 4), "2 tokens"), (range(2, 4), "1 token"), (range(2, 3), "0 tokens")]
)
def test_picture_and_caption_of_a_gap_count_alike(read, words):
    view = GapView(("▁a", "▁b", "____", "▁c", "."), 2, read, Filling(["x"] * 8, [0.1] * 8))
    assert view.text().startswith(f"{words.split()[0]} of 4 tokens around the gap")
    figure = plot_gap(view)
    assert f"reads {words} around" in said_by(figure)
    blue = [to_hex(box.get_facecolor()) == to_hex(OKABE_ITO[0]) for box in figure.axes[0].patches]
    assert blue == [i in read and i != 2 for i in range(5)]


# What the mends hold.


class Asked(nn.Module):
    def __init__(self, size=4000, value=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), value))

    def forward(self, ids, *, at):
        self.ids = ids[0].tolist()
        return self.weight.expand(*at.shape, -1)


@pytest.mark.parametrize(
    ("text", "reach", "end"),
    [
        ("Go to ____", 0, False),
        ("Go to ____", 1, True),
        ("Go to ____.", 1, False),
        ("Go to ____.", 2, True),
        ("____", 0, False),
        ("____", ALL, True),
    ],
)
def test_no_token_more_is_read_than_the_slider_says(text, reach, end):
    model = Asked()
    gap_view(model, TOKENIZER, text, reach, "both sides")
    assert (model.ids[-1] == END) == end


def test_a_text_of_too_many_tokens_is_not_cut_in_silence():
    with pytest.raises(ValueError, match="text has 1186 tokens; write at most 1000"):
        gap_view(Asked(), TOKENIZER, "😀" * 296 + "____", ALL, "both sides")


def test_a_longer_line_is_one_gap():
    for line in ("_____", "________"):
        assert with_gaps(f"the {line} and", TOKENIZER) == with_gaps("the ____ and", TOKENIZER)
    assert with_gaps("the ____ ____ and", TOKENIZER).count(MASK) == 2


@pytest.mark.parametrize(("model", "words"), [(Asked(100), "model names 100 tokens; the tokenizer has 4000"),
                                              (Asked(value=torch.nan), "NaN")])  # fmt: skip
def test_a_model_that_does_not_fit_fills_no_gap(model, words):
    with pytest.raises(ValueError, match=words):
        fill(model, TOKENIZER, [START, MASK, END], 2)


@pytest.mark.parametrize("at", [[[-1]], [[4]], [[99]]])
def test_a_place_outside_the_text_is_no_place_of_the_table(at):
    table = TwoSidedBigram(count_bigrams(torch.tensor([0, 1, 0, 2, 0, 1, 1, 3, 0, 1, 2, 2, 0, 4]), 6))
    with pytest.raises(ValueError, match="the text has 4 tokens"):
        table(torch.tensor([[0, 5, 1, 2]]), at=torch.tensor(at))


@pytest.mark.parametrize(("rate", "length"), [(0.07, 150), (0.14, 275), (0.21, 150)])
def test_a_full_window_is_asked_as_often_as_promised(rate, length):
    """rate * length ends in .5 but for rounding, which float32 does otherwise."""
    windows = torch.randint(5, 50, (2, length))
    assert (hide(windows, 50, rate, 0).targets != NOT_ASKED).all()
    windows[1, -1] = PAD
    assert (hide(windows, 50, rate, 0).targets[0] != NOT_ASKED).all()


def test_what_is_out_of_sight_does_not_count_against_a_head():
    """A head that looks at the comma wherever it sees one scores 1, however short its sight."""
    place, comma = torch.arange(60), 30
    distance = (place[:, None] - place).abs()
    wanted = ((place == comma) & (distance > 1))[None]
    near = distance <= 8
    maps = torch.where((wanted[0] & near).any(-1, keepdim=True), wanted[0] & near, torch.eye(60, dtype=torch.bool))
    even = near / near.sum(-1, keepdim=True)
    both = torch.stack([maps.float(), even])[None, None]
    assert encoder_roles.on_keys(both, wanted)[0, 0].item() == pytest.approx(1)


def test_a_filler_in_at_is_no_hidden_place():
    maps = torch.zeros(1, 1, 1, 4, 4)
    maps[..., 0, 0] = maps[..., 2, 3] = 1
    hidden = Masked(torch.zeros(1, 4, dtype=torch.long), torch.tensor([[0, 2]]), torch.tensor([[NOT_ASKED, 7]]))
    assert film.neighbours(maps, hidden)[1].item() == 1


def test_one_packed_token_is_not_spread_everywhere():
    keys = torch.tensor([[True, True, False], [True, False, False]])
    with pytest.raises(ValueError, match=re.escape("x is torch.float32 (1, 1, 3)")):
        spread(torch.randn(1, 1, 3), keys)
    q = torch.randn(2, 1, 3, 4)  # not packed
    with pytest.raises(ValueError, match="in one row"):
        unpadded_attention(q, q, q, attention_fn=attention, key_mask=torch.ones(1, 3, dtype=torch.bool))


@pytest.mark.parametrize(("first", "second"), [(0.78, 0.9), (0.82, 0.9), (0.8, 0.88), (0.8, 0.92)])
def test_a_share_that_is_a_little_off_is_found(first, second):
    def wrong(ids, chosen, fate, other):
        new = torch.where(fate < first, MASK, torch.where(fate < second, other, ids))
        return [torch.where(chosen, new, ids), torch.where(chosen, ids, NOT_ASKED)]

    assert check.hide_tokens(wrong).ok is False


def test_a_list_of_two_tensors_is_an_answer():
    assert check.hide_tokens(lambda *given: list(check._hide(*given))).ok is True
