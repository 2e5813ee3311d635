"""Lesson 02: its pictures show the arrays that they are given, its widgets what is computed."""

import numpy as np
import pytest
import torch

from course_lib.corpora import capitals
from course_lib.lessons.attention_scoring.score_frame import (
    SCALES,
    plot_score_frame,
    plot_sweep,
    score_frame,
    softmax_gradient,
    sweep,
)
from course_lib.lessons.attention_scoring.weight_maps import plot_attention_steps, plot_weight_panels
from course_lib.lessons.attention_scoring.widgets import Atlas, atlas_explorer, atlas_maps, score_panel
from course_lib.models.lookup import inside
from course_lib.viz import plots


@pytest.fixture(autouse=True)
def _style():
    plots.use_house_style()


def test_a_score_frame_is_a_softmax_and_its_jacobian():
    frame = score_frame(64, 2.0, "none")
    logits = torch.tensor(frame.logits)
    np.testing.assert_allclose(frame.weights, logits.softmax(-1))
    want = torch.autograd.functional.jacobian(lambda x: x.softmax(-1), logits)
    np.testing.assert_allclose(frame.jacobian, want)
    assert softmax_gradient(logits.softmax(-1)).item() == pytest.approx(want.norm().item())
    assert frame.expected == pytest.approx(4)
    np.testing.assert_allclose(score_frame(64, 1.0, "1/√d").logits, score_frame(64, 8.0, "none").logits)  # "Try this" 3
    np.testing.assert_allclose(score_frame(64, 1.0, "1/d").logits, score_frame(64, 64.0, "none").logits)
    assert frame.text() in score_frame(64, 2.0, "none").text()
    for d, temperature, scale in (
        (0, 1, "none"),
        (1025, 1, "none"),
        (4, 0, "none"),
        (4, float("nan"), "none"),
        (4, 1, "2"),
    ):
        with pytest.raises(ValueError, match=r"d=|temperature=|scale="):
            score_frame(d, temperature, scale)
    assert plot_score_frame(frame).axes[1].get_ylim() == (0, 1)
    assert plot_score_frame(score_frame(1, 100.0, "none"))
    assert plot_score_frame(score_frame(1024, 0.1, "none"))


def test_the_sweep_says_what_section_4_says():
    found = sweep()
    d = np.array(found.widths)
    np.testing.assert_allclose(found.spread["q·k"], np.sqrt(d), rtol=0.06)
    np.testing.assert_allclose(found.spread["q·k/√d"], 1, rtol=0.06)
    last, first = (dict(zip(found.widths, np.median(found.entropy["q·k"], 1), strict=True))[w] for w in (1024, 1))
    assert (last, first) == (pytest.approx(0, abs=0.01), pytest.approx(2.6, abs=0.1))
    assert np.median(found.entropy["q·k/√d"], 1).min() > 2.3
    typical, mean = np.median(found.gradient["q·k"], 1), found.gradient["q·k"].mean(1)
    assert 1e-6 < typical[-1] < 1e-4  # "falls by four powers of ten"
    assert 1e3 < typical[0] / typical[-1] < 1e5
    assert mean[-1] > 0.05  # "but the mean falls slowly"
    assert plot_sweep(found).axes[0].get_yscale() == "log"
    for wrong in ({"n_keys": 0}, {"n_draws": 0}, {"widths": ()}, {"widths": (0, 2)}, {"n_draws": 9.0}):
        with pytest.raises(ValueError, match="must be 1 or more, a whole number"):
            sweep(**wrong)


def test_the_four_pictures_show_the_four_matrices():
    x = torch.randn(3, 2)
    scores = x @ x.T
    weights = scores.softmax(-1)
    names = ["a", "b", "c"]
    figure = plot_attention_steps(x, scores, weights, weights @ x, queries=names, keys=names, channels=["p", "q"])
    for ax, matrix in zip(figure.axes, (x, scores, weights, weights @ x), strict=True):
        np.testing.assert_allclose(ax.images[0].get_array(), matrix)
    assert figure.axes[2].images[0].get_clim() == (0, 1)
    low, high = figure.axes[1].images[0].get_clim()
    assert low == -high
    with pytest.raises(ValueError, match="needed for 2 queries and 3 keys"):
        plot_attention_steps(x, scores, weights, weights @ x, queries=names[:2], keys=names)
    panels = plot_weight_panels({"one": weights, "two": weights.T}, names, names)
    assert {ax.images[0].get_clim() for ax in panels.axes[:2]} == {(0, 1)}
    assert plot_weight_panels({"one": weights}, names, names, title="Found").get_suptitle() == "Found"
    assert len({figure.axes[i].images[0].get_clim() for i in (0, 3)}) == 1  # embeddings and outputs are compared
    wide = plot_attention_steps(torch.randn(3, 9), scores, weights, weights, queries=names, keys=names, answers=names)
    assert len(wide.axes) == 5  # what has no numbers has a colour bar
    with pytest.raises(ValueError, match="panels is empty"):
        plot_weight_panels({}, names, names)
    with pytest.raises(ValueError, match=r"'one' has shape \(3, 3\)"):
        plot_weight_panels({"one": weights}, names[:2], names)


@pytest.mark.slow
def test_widgets_show_what_is_computed(trained):
    panel = score_panel()
    assert panel.shown.text() == score_frame(**panel.params).text()
    for scale in SCALES:
        panel.controls["scale"].value = scale
        for d in (1, 1024):
            panel.controls["d"].value = d
            for temperature in (0.1, 100.0):
                panel.controls["temperature"].value = temperature
                assert panel.shown.text() == score_frame(**panel.params).text()
    table = capitals()
    atlas = Atlas(table["country"], table["capital"], [(3, 50), (120, 7), (150, 90)])
    names = [table["country"][i] for i in (150, 3)]
    maps = atlas_maps(trained, atlas, f" {names[0].upper()} \n{names[1]},")
    want = inside(trained, *(torch.tensor([ids]) for ids in ((150, 3), (3, 120, 150), (50, 7, 90)))).weights
    np.testing.assert_allclose(maps.weights, want)
    assert list(maps.queries) == names
    assert f"{names[0]}: {table['capital'][90]}" in maps.note
    widget = atlas_explorer(trained, atlas, names[0])
    widget.text = "Narnia"
    assert "'Narnia' is not one of the 221 countries" in widget.error
    for text, words in {"": "0 countries", ", ,": "0 countries", "Japan," * 65: "65 countries"}.items():
        with pytest.raises(ValueError, match=words):
            atlas_maps(trained, atlas, text)
