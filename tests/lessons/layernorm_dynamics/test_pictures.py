"""Lesson 01: a frame holds the numbers of its trace; pictures and widget show the frame."""

import re

import numpy as np
import pytest
import torch

from course_lib.experiments import get_study, load_tensors
from course_lib.lessons.layernorm_dynamics.norm_frame import norm_frame, plot_norm_frame, plot_norm_frames, plot_sphere
from course_lib.lessons.layernorm_dynamics.norm_widget import norm_panel
from course_lib.viz import plots
from course_lib.viz.animate import png


@pytest.fixture(autouse=True)
def _style():
    plots.use_house_style()


@pytest.fixture(scope="module")
def traces():
    return {arm: load_tensors("norm_dynamics", arm) for arm in get_study("norm_dynamics").arms}


def test_a_frame_holds_the_traces_numbers(traces):
    name = "pre-norm lr=0.01"
    trace = traces[name]
    frame = norm_frame(traces, name, layer=3, step=100)
    index = trace["steps"].tolist().index(100)
    assert frame.step == 100
    assert np.allclose(frame.gain, trace["gain"][index, 3].float())
    assert np.allclose(frame.density, trace["density"][index, 3].float())
    assert frame.distinct_rows == trace["distinct_rows"][index, 3].item()
    assert norm_frame(traces, name, layer=3, step=101).step == 100  # the last snapshot not after it
    assert np.allclose(frame.bias, trace["bias"][index, 3].float())
    assert np.allclose(frame.path_gain[index], np.percentile(trace["gain"][index, 3].float(), (5, 50, 95)))
    assert frame.input_std == pytest.approx(trace["input_std"][index, 3].item())
    assert frame.gain_limit >= (trace["gain"][:, 3].float() - 1).abs().max()
    assert norm_frame(traces, "RMSNorm lr=0.01", layer=3, step=100).bias is None
    assert "no bias" in norm_frame(traces, "RMSNorm lr=0.01", layer=3, step=100).text()
    assert norm_frame(traces, name, layer=3, step=0).bias is not None  # zeros, but it has one
    text = frame.text()
    assert f"{frame.gain.mean():.3f} ± {frame.gain.std():.3f}" in text
    assert "norm 4 of 13" in text


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"norm": "x", "layer": 0, "step": 0}, "norm='x'"),
        ({"norm": "post-norm lr=0.01", "layer": 12, "step": 0}, "layer=12; allowed is 0 to 11"),
        ({"norm": "pre-norm lr=0.01", "layer": -1, "step": 0}, "layer=-1"),
        ({"norm": "pre-norm lr=0.01", "layer": 0, "step": -1}, "step=-1"),
    ],
)
def test_a_frame_that_is_not_there(traces, params, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        norm_frame(traces, **params)


@pytest.mark.slow
def test_what_the_panel_shows_is_what_is_computed(traces):
    panel = norm_panel(traces)
    for params in (
        {"norm": "pre-norm lr=0.001", "layer": 12, "step": 0},
        {"norm": "post-norm lr=0.01", "layer": 5, "step": 300},
        {"norm": "RMSNorm lr=0.01", "layer": 0, "step": 1000},
    ):
        for name, value in params.items():
            panel.controls[name].value = value
        assert panel.params == params
        expected = norm_frame(traces, **params)
        assert panel.shown.text() == expected.text()
        assert panel.children[2].value == png(plot_norm_frame(expected))
        assert expected.text() in panel.children[1].value
        assert png(panel.figure()) == panel.children[2].value


@pytest.mark.slow
def test_the_layer_menu_follows_the_network(traces):
    panel = norm_panel(traces)
    panel.controls["layer"].value = 12
    panel.controls["norm"].value = "post-norm lr=0.01"
    assert panel.params["layer"] == 11
    assert "norm 12 of 12" in panel.shown.text()
    assert "color" not in panel.children[1].value  # no error on the way
    panel.controls["norm"].value = "pre-norm lr=0.01"
    assert len(panel.controls["layer"].options) == 13
    with pytest.raises(ValueError, match="needed is at least one"):
        norm_panel({})


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: plot_norm_frames([]), "frames show nothing; needed is one learning rate, norm and step"),
        (lambda: plot_sphere(torch.ones(2, 2), torch.ones(2, 3), torch.ones(2, 3)), "needed is (N, 3)"),
    ],
)
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()


def steps_of(ax):
    """Values and edges of the histogram in an axes."""
    (patch,) = [p for p in ax.patches if hasattr(p, "get_data")]
    return np.asarray(patch.get_data().values), np.asarray(patch.get_data().edges)


def channels_are_drawn(ax, values, start, limit):
    counts, edges = steps_of(ax)
    assert counts.sum() == len(values)
    assert np.array_equal(counts, np.histogram(values, edges)[0])
    assert edges[[0, -1]] == pytest.approx([start - limit, start + limit])
    assert ax.get_xlim() == pytest.approx((start - limit, start + limit))
    cut = [t.get_text() for t in ax.texts]
    assert cut == ([f"cut: {counts.max()}"] if counts.max() > ax.get_ylim()[1] else [])


def test_the_picture_shows_the_frame(traces):
    frame = norm_frame(traces, "pre-norm lr=0.01", layer=12, step=100)
    activations, path, gain, bias = plot_norm_frame(frame).axes
    assert np.array_equal(steps_of(activations)[0], frame.density)
    assert activations.get_ylim() == (0, 0.8)
    assert [t.get_text() for t in activations.get_xticklabels()] == ["≤ −5", "0", "≥ 5"]  # the ends hold all beyond
    assert [t.get_text() for t in activations.texts] == ["dotted:\nnormal"]
    high = norm_frame(traces, "post-norm lr=0.01", layer=11, step=900)
    assert high.density.max() == pytest.approx(2.45, abs=0.01)
    assert "cut: 2.5" in [t.get_text() for t in plot_norm_frame(high).axes[0].texts]
    x, normal = activations.lines[0].get_data()
    assert np.trapezoid(normal, x) == pytest.approx(1, abs=1e-3)
    median, now = path.lines
    assert np.array_equal(median.get_ydata(), frame.path_gain[:, 1])
    assert now.get_xdata()[0] == 100
    channels_are_drawn(gain, frame.gain, 1.0, frame.gain_limit)
    channels_are_drawn(bias, frame.bias, 0.0, frame.bias_limit)
    assert (
        "RMSNorm"
        in plot_norm_frame(norm_frame(traces, "RMSNorm lr=0.01", layer=2, step=100)).axes[3].texts[0].get_text()
    )
    text = frame.text()
    assert f"{frame.bias.mean():+.3f} ± {frame.bias.std():.3f}, spread of the input {frame.input_std:.2f}" in text


def test_pictures_side_by_side_show_their_own_frame(traces):
    frames = [norm_frame(traces, f"{n} lr=0.01", layer=5, step=s) for n, s in (("pre-norm", 160), ("post-norm", 160))]
    for other in ({"step": 300}, {"layer": 4}, {"norm": "post-norm lr=0.001"}):
        odd = norm_frame(traces, **({"norm": "post-norm lr=0.01", "layer": 5, "step": 160} | other))
        with pytest.raises(ValueError, match="needed is one learning rate, norm and step"):
            plot_norm_frames([frames[0], odd])
    figure = plot_norm_frames(frames)
    assert figure.get_suptitle() == "learning rate 0.01, norm 6, step 160"
    assert figure.get_figwidth() <= plots.MAX_WIDTH
    widest = max(f.gain_limit for f in frames)
    for column, frame in enumerate(frames):
        top, below = figure.axes[column], figure.axes[2 + column]
        assert np.array_equal(steps_of(top)[0], frame.density)
        assert f": {frame.distinct_rows} different rows" in top.get_title(loc="left")
        channels_are_drawn(below, frame.gain, 1.0, widest)


def test_the_sphere_shows_its_three_clouds():
    clouds = [torch.randn(7, 3, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    for ax, cloud in zip(plot_sphere(*clouds).axes, clouds, strict=True):
        assert np.allclose(np.stack(ax.collections[0]._offsets3d, 1), cloud)


def test_the_panel_begins_at_the_end_of_training(traces):
    assert norm_panel(traces).params == {"norm": "pre-norm lr=0.001", "layer": 0, "step": 1000}
