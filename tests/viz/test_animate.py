"""A GIF has a frame for each figure and is written whole or not at all."""

import pytest
from PIL import Image

from course_lib.viz import plots
from course_lib.viz.animate import gif


@pytest.fixture(autouse=True)
def _style():
    plots.use_house_style()


def test_gif_has_a_frame_a_figure_and_is_whole_or_nothing(tmp_path):
    lines = [plots.Line([0, 1], [0, height]) for height in (1, 2, 3)]
    figures = (plots.line_plot({"p": {"a": line}}, xlabel="x", ylabel="y", ylim=(0, 3)) for line in lines)
    gif(figures, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 3
        assert [image.seek(number) or image.info["duration"] for number in range(3)] == [300, 300, 1200]
        assert image.info["loop"] == 0  # without end
    with pytest.raises(ValueError, match="figures is empty"):
        gif([], tmp_path / "b.gif")
    sizes = (plots.new_figure(size=size)[0] for size in ((1, 1), (2, 1)))
    with pytest.raises(ValueError, match="must be equal"):
        gif(sizes, tmp_path / "b.gif")
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]
