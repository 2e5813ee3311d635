"""Pure plots and widgets: what is displayed equals what is computed; Japanese glyphs render; bad input is refused."""

import io
import logging
import re

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.experiments import get_study, load_tensors
from course_lib.viz import plots
from course_lib.viz.animate import gif, png
from course_lib.lessons.layernorm_dynamics.norm_frame import norm_frame, plot_norm_frame, plot_norm_frames, plot_sphere
from course_lib.lessons.layernorm_dynamics.norm_widget import norm_panel
from course_lib.viz.widgets import ControlPanel


@pytest.fixture(autouse=True)
def _style():
    plots.use_house_style()


@pytest.fixture(scope="module")
def traces():
    return {arm: load_tensors("norm_dynamics", arm) for arm in get_study("norm_dynamics").arms}


def pixels(figure):
    return np.asarray(Image.open(io.BytesIO(png(figure))).convert("RGB")).astype(int)


def test_japanese_glyphs_render_without_a_warning(caplog):
    import matplotlib_fontja
    from matplotlib.ft2font import FT2Font

    with caplog.at_level(logging.WARNING):
        figures = []
        for text in ("吾輩は猫である", "名前はまだ無い", ""):
            figure, axes = plots.new_figure(size=(3, 1))
            axes[0, 0].axis("off")
            axes[0, 0].set_title(text, fontweight="bold")
            figures.append(pixels(figure))
    assert not caplog.records, caplog.text
    assert not np.array_equal(figures[0], figures[1])  # boxes would be equal: both have seven characters
    assert not np.array_equal(figures[0], figures[2])
    glyphs = FT2Font(matplotlib_fontja.get_font_ttf_path()).get_charmap()
    assert all(ord(c) in glyphs for c in "吾輩は猫であるカタカナ、。「」")


def test_house_style_can_be_set_twice():
    from matplotlib import font_manager

    before = len(font_manager.fontManager.ttflist)
    plots.use_house_style()
    assert len(font_manager.fontManager.ttflist) == before


def test_colours_can_be_told_apart():
    colors = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in plots.OKABE_ITO])
    distance = np.abs(colors[:, None] - colors[None]).sum(-1)
    assert distance[~np.eye(len(colors), dtype=bool)].min() > 60


def test_labels_stand_beside_their_lines():
    lines = {
        "high": plots.Line([0, 1], [0, 10]),
        "low": plots.Line([0, 1], [0, 1]),
        "also low": plots.Line([0, 1], [0, 1]),
    }
    figure = plots.line_plot({"panel": lines}, xlabel="x", ylabel="y")
    heights = {t.get_text(): t.xy[1] for t in figure.axes[0].texts}
    assert heights["high"] == pytest.approx(0.95, abs=0.03)  # 10 of -0.5 to 10.5
    assert 0.05 < min(heights["low"], heights["also low"]) < 0.2
    assert abs(heights["low"] - heights["also low"]) >= 0.06  # moved apart


def test_lines_end_at_their_last_finite_value():
    figure = plots.line_plot({"p": {"a": plots.Line([1, 2, 3], [1, 4, np.nan])}}, xlabel="x", ylabel="y", ylim=(0, 4))
    (text,) = figure.axes[0].texts
    assert text.xy[1] == pytest.approx(1.0)


def test_heatmap_scales():
    weights = plots.heatmap([[0.2, 0.8]], title="t", xlabel="x", ylabel="y", limit=1.0)
    assert weights.axes[0].collections[0].get_clim() == (0, 1)
    assert weights.axes[0].collections[0].get_cmap().name == "viridis"
    signed = plots.heatmap([[-0.2, 0.8]], title="t", xlabel="x", ylabel="y", signed=True)
    assert signed.axes[0].collections[0].get_clim() == (-0.8, 0.8)
    assert signed.axes[0].collections[0].get_cmap().name == "RdBu_r"  # red is positive, as on a thermometer
    grid = plots.picture_grid(np.zeros((3, 2, 2)), ["a", "b", "c"], columns=2)
    assert {ax.images[0].get_cmap().name for ax in grid.axes if ax.images} == {"gray_r"}  # ink on paper


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


def test_what_the_explorer_shows_is_what_is_computed(traces):
    explorer = norm_panel(traces)
    for params in (
        {"norm": "pre-norm lr=0.001", "layer": 12, "step": 0},
        {"norm": "post-norm lr=0.01", "layer": 5, "step": 300},
        {"norm": "RMSNorm lr=0.01", "layer": 0, "step": 1000},
    ):
        for name, value in params.items():
            explorer.controls[name].value = value
        assert explorer.params == params
        expected = norm_frame(traces, **params)
        assert explorer.shown.text() == expected.text()
        assert explorer.children[2].value == png(plot_norm_frame(expected))
        assert expected.text() in explorer.children[1].value
        assert png(explorer.figure()) == explorer.children[2].value


def test_the_layer_menu_follows_the_network(traces):
    explorer = norm_panel(traces)
    explorer.controls["layer"].value = 12
    explorer.controls["norm"].value = "post-norm lr=0.01"
    assert explorer.params["layer"] == 11
    assert "norm 12 of 12" in explorer.shown.text()
    assert "color" not in explorer.children[1].value  # no error on the way
    explorer.controls["norm"].value = "pre-norm lr=0.01"
    assert len(explorer.controls["layer"].options) == 13
    with pytest.raises(ValueError, match="needed is at least one"):
        norm_panel({})


def test_an_explorer_shows_a_refused_parameter_as_a_sentence():
    import ipywidgets

    def compute(n):
        if n > 3:
            raise ValueError(f"n={n}; allowed is <= 3")
        return norm_frame_like

    class norm_frame_like:
        text = staticmethod(lambda: "fine")

    explorer = Explorer(compute, lambda shown: plots.new_figure(size=(1, 1))[0], {"n": ipywidgets.IntSlider(1, 0, 9)})
    picture = explorer.children[2].value
    explorer.controls["n"].value = 7
    assert "n=7; allowed is &lt;= 3" in explorer.children[1].value
    assert explorer.children[2].value == picture
    explorer.controls["n"].value = 2
    assert "fine" in explorer.children[1].value


def test_an_explorer_shows_errors_of_the_plot_too():
    import ipywidgets

    class Shown:
        def __init__(self, n):
            self.n = n

        def text(self):
            return f"n is {self.n}"

    def plot(shown):
        if shown.n == 7:
            raise ValueError("n=7 costs $7 and \\frac$")
        figure, axes = plots.new_figure(size=(1, 1))
        axes[0, 0].set_title(("", r"$\frac$")[shown.n == 8])  # matplotlib stops here, but only when it draws
        return figure

    explorer = Explorer(Shown, plot, {"n": ipywidgets.IntSlider(7, 0, 9)})
    assert "n=7 costs $7 and \\frac$" in explorer.children[1].value
    assert explorer.shown is None
    (text,) = explorer.figure().axes[0].texts
    assert text.get_text() == r"n=7 costs \$7 and \frac\$"
    assert png(explorer.figure())  # not read as a formula, which would stop matplotlib
    explorer.controls["n"].value = 2
    assert explorer.shown.n == 2
    assert "n is 2" in explorer.children[1].value
    assert not explorer.figure().axes[0].texts
    picture = explorer.children[2].value
    explorer.controls["n"].value = 8
    assert "ParseSyntaxException" in explorer.children[1].value or "Expected" in explorer.children[1].value
    assert (explorer.shown.n, explorer.children[2].value) == (2, picture)
    explorer.controls["n"].value = 3
    assert "n is 3" in explorer.children[1].value


def test_an_explorer_names_an_unexpected_error():
    import ipywidgets

    explorer = Explorer(lambda n: {}[n], lambda shown: None, {"n": ipywidgets.IntSlider(1, 0, 9)})
    assert "KeyError: 1" in explorer.children[1].value


def test_gif_has_a_frame_a_figure_and_is_whole_or_nothing(tmp_path, traces):
    frames = [norm_frame(traces, "post-norm lr=0.01", layer=5, step=step) for step in (0, 60, 400)]
    gif((plot_norm_frames([f, f]) for f in frames), tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 3
        assert image.width <= 1000
        assert [image.seek(number) or image.info["duration"] for number in range(3)] == [300, 300, 1200]
        assert image.info["loop"] == 0  # without end
    with pytest.raises(ValueError, match="figures is empty"):
        gif([], tmp_path / "b.gif")
    sizes = (plots.new_figure(size=size)[0] for size in ((1, 1), (2, 1)))
    with pytest.raises(ValueError, match="must be equal"):
        gif(sizes, tmp_path / "b.gif")
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]


def test_every_figure_is_narrow_enough():
    with pytest.raises(ValueError, match="at most 10"):
        plots.new_figure(size=(11, 3))
    panels = {str(i): {"a": plots.Line([0, 1], [0, 1])} for i in range(4)}
    assert plots.line_plot(panels, xlabel="", ylabel="").get_figwidth() <= plots.MAX_WIDTH


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: plots.line_plot({}, xlabel="", ylabel=""), "panels is empty"),
        (lambda: plots.line_plot({"p": {"a": plots.Line([1], [1, 2])}}, xlabel="", ylabel=""), "'a' has x (1,)"),
        (lambda: plots.heatmap([1.0], title="", xlabel="", ylabel=""), "matrix has shape (1,)"),
        (lambda: plots.picture_grid(np.zeros((2, 3, 3)), ["one"]), "for 1 captions"),
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


def test_the_explorer_begins_at_the_end_of_training(traces):
    assert norm_panel(traces).params == {"norm": "pre-norm lr=0.001", "layer": 0, "step": 1000}


def test_lines_are_drawn_as_they_are_given():
    solid = plots.Line([1, 10], [2, 3], low=[1, 2], high=[4, 5])
    dashed = plots.Line([1, 10], [1, 1], dashed=True)
    figure = plots.line_plot(
        {"p": {"solid": solid, "dashed": dashed}}, xlabel="x", ylabel="y", xscale="log", reference=(2.5, "here", 0.5),
        xticks=[1, 5, 10],
    )  # fmt: skip
    (ax,) = figure.axes
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
    here, first, second = ax.lines
    assert here.get_ydata()[0] == 2.5
    assert (first.get_linestyle(), second.get_linestyle()) == ("-", "--")
    assert (first.get_color(), second.get_color()) == plots.OKABE_ITO[:2]
    band = ax.collections[0].get_paths()[0].vertices
    assert {tuple(v) for v in band} >= {(1, 1), (1, 4), (10, 2), (10, 5)}
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "5", "10"]
    colors = {t.get_text(): t.get_color() for t in ax.texts}
    assert (colors["solid"], colors["dashed"]) == plots.OKABE_ITO[:2]
