"""Notebook 00: the bigram panel and its pictures show the numbers of the model."""

import numpy as np
import pytest
import torch

from course_lib import tokenization
from course_lib.evaluation import next_token_losses, perplexity
from course_lib.lessons.start_here.bigram_view import WEIGHTS, bigram_view, plot_bigram_view, plot_token_losses
from course_lib.lessons.start_here.bigram_widget import bigram_panel
from course_lib.models.bigram import CountedBigram, count_bigrams
from course_lib.viz.animate import png

TOKENIZER = tokenization.load("english-4k")
STREAM = torch.tensor(
    TOKENIZER.encode("We the people of the world want peace. The people of the world want work. " * 5)
)
HELD_OUT = torch.tensor(TOKENIZER.encode("The people want the work of the world. We want peace for the people."))
COUNTS = count_bigrams(STREAM, TOKENIZER.vocab_size)
TABLE = CountedBigram(COUNTS)
TEXT = "We want the world."


def test_a_view_holds_the_models_numbers():
    for weight in (0.0, 0.5, 0.98):
        view = bigram_view(TABLE, HELD_OUT, TOKENIZER, TEXT, weight)
        model = CountedBigram(COUNTS, weight)
        ids = torch.tensor([TOKENIZER.encode(TEXT)])
        assert view.pieces == TOKENIZER.pieces(TEXT)
        assert np.allclose(view.losses, next_token_losses(model, ids)[0], atol=1e-4)
        at = np.abs(WEIGHTS - weight).argmin()
        assert view.perplexities[at] == pytest.approx(perplexity(next_token_losses(model, HELD_OUT[None])), rel=1e-3)
        assert f"perplexity {view.perplexities[at]:.0f} at weight {weight:.2f}" in view.text()
    assert view.witten_bell == pytest.approx(perplexity(next_token_losses(TABLE, HELD_OUT[None])), rel=1e-3)


def test_pictures_show_the_view():
    view = bigram_view(TABLE, HELD_OUT, TOKENIZER, TEXT, 0.5)
    left, right = plot_bigram_view(view).axes
    assert np.allclose([bar.get_height() for bar in left.patches], view.losses)
    assert [bar.get_x() + bar.get_width() / 2 for bar in left.patches] == pytest.approx(range(1, len(view.pieces)))
    assert [line.get_ydata()[0] for line in left.lines] == pytest.approx([view.losses.mean(), np.log(4000)])
    assert [label.get_text() for label in left.get_xticklabels()] == view.pieces
    assert np.allclose(right.lines[0].get_ydata(), view.perplexities)
    assert right.lines[1].get_xdata()[0] == 0.5
    bars = plot_token_losses(view.pieces, view.losses, view.blind, "title").axes[0].patches
    assert np.allclose([bar.get_height() for bar in bars], view.losses)


@pytest.mark.slow
def test_the_panel_shows_what_is_computed_and_takes_any_text():
    panel = bigram_panel(TABLE, HELD_OUT, TOKENIZER, TEXT)
    panel.controls["weight"].value = 0.4
    panel.controls["text"].value = "The $1 people\\frac 日本 😀"
    expected = bigram_view(TABLE, HELD_OUT, TOKENIZER, "The $1 people\\frac 日本 😀", 0.4)
    assert panel.shown.text() == expected.text()
    assert panel.children[2].value == png(plot_bigram_view(expected))
    assert "color" not in panel.children[1].value
    panel.controls["text"].value = ""
    assert "write at least two words" in panel.children[1].value
    panel.controls["text"].value = "people " * 100
    assert panel.shown.cut == len(TOKENIZER.encode("people " * 100)) - 40 > 0
    assert f"({panel.shown.cut} more tokens are not shown)" in panel.children[1].value


def test_bad_numbers():
    with pytest.raises(ValueError, match=r"losses has shape \(3,\) for 3 pieces"):
        plot_token_losses(["a", "b", "c"], [1, 2, 3], 8.0, "")
