"""Pure plots: what is drawn is what is given; Japanese glyphs render; bad input is refused."""

import io
import logging
import re

import numpy as np
import pytest
from PIL import Image

from course_lib.viz import plots
from course_lib.viz.animate import png


@pytest.fixture(autouse=True)
def _style():
    plots.use_house_style()


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
    ],
)
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()


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
