"""Lesson 08: what its pictures and widgets show is what is computed; its scores of heads by hand."""

import html
import re

import numpy as np
import pytest
import torch
from torch import nn

from course_lib import tokenization
from course_lib.experiments import load
from course_lib.gaps import fill_gaps
from course_lib.lessons.modernbert_mlm import encoder_roles, film
from course_lib.lessons.modernbert_mlm.drawing import plot_model
from course_lib.lessons.modernbert_mlm.film_widget import film_panel, live_picture
from course_lib.lessons.modernbert_mlm.gap_frame import ALL, BARS, gap_view, plot_gap
from course_lib.lessons.modernbert_mlm.gap_widget import gap_panel
from course_lib.lessons.modernbert_mlm.study_plots import by_distance, plot_alternation
from course_lib.masking import Masked
from course_lib.models.modernbert import ModernBertConfig, ModernBertForMaskedLM
from course_lib.tokenization import END, MASK, START
from course_lib.viz.animate import png

TOKENIZER = tokenization.load("prose-4k")
TEXT = "She opened the ____ and went into the room."
TINY = ModernBertConfig(d_model=16, n_heads=2, n_layers=2, local_attention=4)


class Asked(nn.Module):
    """Keeps the ids that it was asked about."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(4000.0))

    def forward(self, ids, *, at):
        self.ids = ids[0].tolist()
        return self.weight.expand(*at.shape, -1)


@pytest.mark.parametrize(
    ("reach", "sides", "words"),
    [
        (ALL, "both sides", TEXT),
        (1, "both sides", "the ____ and"),
        (3, "only what comes before", "opened the ____"),
        (1, "only what comes after", "____ and"),
        (0, "both sides", "____"),
    ],
)
def test_a_gap_is_filled_from_what_may_be_read(reach, sides, words):
    model = Asked()
    view = gap_view(model, TOKENIZER, TEXT, reach, sides)
    read = "".join(TOKENIZER.piece(i) if i != MASK else "▁____" for i in model.ids[1:] if i != END)
    assert read.replace("▁", " ").strip() == words
    assert model.ids[0] == START
    assert (model.ids[-1] == END) == (reach == ALL)
    assert "".join(view.pieces[i] for i in view.read).replace("▁", " ").strip().replace("  ", " ") == words.replace(
        " ____", "____"
    )
    assert len(view.filling.pieces) == BARS


def test_all_that_is_read_gives_what_fill_gaps_gives():
    model = ModernBertForMaskedLM(TINY).eval()
    assert gap_view(model, TOKENIZER, TEXT, ALL, "both sides").filling == fill_gaps(model, TOKENIZER, TEXT, BARS)[0]
    two = "The ____ of the ____."
    assert gap_view(model, TOKENIZER, two, ALL, "both sides").filling == fill_gaps(model, TOKENIZER, two, BARS)[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("no gap", 1, "both sides"), "has no gap"),
        (("____" + "a" * 300, 1, "both sides"), "text has 304 characters; write at most 300"),
        ((TEXT, -1, "both sides"), "reach=-1"),
        ((TEXT, 1, "up"), "sides='up'"),
    ],
)
def test_bad_input_of_a_gap(given, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        gap_view(Asked(), TOKENIZER, *given)


def test_the_widget_of_the_gap():
    model = ModernBertForMaskedLM(TINY).eval()
    panel = gap_panel(model, TOKENIZER, TEXT, reach=2)
    panel.controls["reach"].value = 4
    panel.controls["sides"].value = "only what comes before"
    view = gap_view(model, TOKENIZER, TEXT, 4, "only what comes before")
    assert panel.shown == view
    assert png(panel.figure()) == png(plot_gap(view))
    assert html.escape(view.text()) in panel.children[1].value
    panel.controls["text"].value = ""
    assert "has no gap" in panel.children[1].value
    panel.controls["text"].value = "$ ____ <b> 猫 \n {x}"
    assert panel.shown.pieces.count("____") == 1


def test_weights_on_neighbours_by_hand():
    maps = torch.zeros(1, 1, 2, 4, 4)
    maps[0, 0, 0] = torch.eye(4).roll(-1, 1)  # each looks at the one after it
    maps[0, 0, 1] = torch.eye(4).roll(1, 1)
    maps[0, 0, 1, 2] = torch.tensor([0.1, 0.6, 0.2, 0.1])
    hidden = Masked(torch.zeros(1, 4, dtype=torch.long), torch.tensor([[2, 3]]), torch.zeros(1, 2, dtype=torch.long))
    before, after = film.neighbours(maps, hidden)
    shifted = torch.eye(4).roll(-1, 1)
    assert before[0, 1] == pytest.approx((0.6 + maps[0, 0, 1, 3, 2].item()) / 2)
    assert after[0, 0] == shifted[2, 3]  # the last place has none after it
    assert after[0, 1] == pytest.approx(0.1)


@pytest.fixture(scope="module")
def two_frames():
    shown = []
    made = film.Film(every=2, show=lambda film: shown.append(len(film.steps)))
    model = ModernBertForMaskedLM(film.SIZES).eval()
    for step in range(3):
        made(step, model)
    return made, shown


@pytest.mark.slow
def test_a_film_keeps_what_it_is_asked_to(two_frames):
    made, shown = two_frames
    assert made.steps == [0, 2]
    assert shown == [1, 2]
    assert made.losses[0] == made.losses[1] == pytest.approx(8.3, abs=0.2)
    assert made.pieces.count("<mask>") == 4
    assert made.tables.two_sided < made.tables.unigram < 8.3
    layer, head = made.head(1)
    assert made.column(1)[-1] == made.scores[-1][1].max() == made.scores[-1][1][layer, head]
    panel = film_panel(made)
    assert panel.controls["step"].value == 2  # it never falls below the table
    assert png(panel.figure()) == png(film.plot_film(film.film_frame(made, 2)))
    picture, show = live_picture(every=1)
    show(made)
    assert picture.value == png(film.plot_film(film.film_frame(made, 2)))
    with pytest.raises(ValueError, match="every=0"):
        film.Film(every=0)
    empty = film.Film()
    with pytest.raises(ValueError, match="step=0"):
        film_panel(empty)


def test_scores_of_heads_by_hand():
    wanted = torch.zeros(1, 3, 3, dtype=torch.bool)
    wanted[0, 0, 2] = wanted[0, 2, 0] = wanted[0, 2, 1] = True
    maps = torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8], [0.6, 0.3, 0.1]])[None, None, None]
    assert encoder_roles.on_keys(maps, wanted).item() == pytest.approx((0.5 + 0.9) / 2)
    assert encoder_roles.token_after(maps).item() == pytest.approx((0.3 + 0.8) / 2)


def test_roles_have_controls_and_neighbours_are_no_other_role():
    model = ModernBertForMaskedLM(TINY).eval()
    ids = torch.tensor([TOKENIZER.encode("the cat, the dog, the cat.", start=True)])
    found = encoder_roles.role_table(model, model, TOKENIZER, ids)
    assert list(found) == ["trained", "untrained", "shuffled"]
    for name, values in found["trained"].items():
        assert values.shape == (2, 2)
        np.testing.assert_array_equal(values, found["untrained"][name])
    assert not any(encoder_roles.taken_roles(found).values())  # nothing is above twice its untrained self
    found["trained"]["before"] = np.array([[0.9, 0.2], [0.31, 0.5]])
    found["untrained"]["before"] = np.array([[0.2, 0.0], [0.1, 0.3]])
    assert encoder_roles.taken_roles(found)["before"] == {(0, 0), (1, 0)}


def test_the_study_is_drawn_as_recorded():
    record = load("alternation")
    shares = by_distance(record, "all local")
    assert shares.shape == (3, 8)
    figure = plot_alternation(record, title="t")
    lines = {tuple(np.round(line.get_ydata(), 6)) for line in figure.axes[0].lines}
    assert tuple(np.round(shares.mean(0), 6)) in lines
    dots = [y for line in figure.axes[1].lines for y in line.get_ydata()]
    assert sorted(dots) == sorted(
        run["metrics"][name]
        for run in record["arms"]
        if run["name"] == "alternating"
        for name in ("far_without_0", "far_without_3", "far_without_0_3")
    )
    with pytest.raises(ValueError, match="name='none'"):
        by_distance(record, "none")


def test_the_drawing_numbers_the_layers():
    texts = [text.get_text() for text in plot_model(ModernBertConfig(local_attention=16)).axes[0].texts]
    assert [text for text in texts if text.isdigit()] == list("012345")
    assert "local: 8 tokens to either side" in texts
