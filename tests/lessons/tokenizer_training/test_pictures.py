"""Lesson 06: what its pictures and its widget show is what is computed."""

import torch

from course_lib.lessons.tokenizer_training.plots import frame, plot_frame, plot_mechanism
from course_lib.lessons.tokenizer_training.widgets import scale_panel
from course_lib.viz.animate import png


def test_rows_are_shares_and_nothing_is_seen_of_the_future():
    weights = frame(1.0).weights
    assert torch.allclose(weights.sum(-1), torch.ones(8))
    assert not weights.triu(1).any()
    assert torch.allclose(frame(0.0).weights[-1], torch.full((8,), 1 / 8))


def test_the_widget_shows_what_is_computed():
    panel = scale_panel()
    panel.controls["scale"].value = 0.5
    assert torch.equal(panel.shown.weights, frame(0.5).weights)
    assert png(panel.figure()) == png(plot_frame(frame(0.5)))
    assert frame(0.5).text() in panel.children[1].value


def test_the_drawing_has_a_shape_on_each_arrow():
    texts = [text.get_text() for text in plot_mechanism().axes[0].texts]
    assert sum("(T, " in text for text in texts) == 4
