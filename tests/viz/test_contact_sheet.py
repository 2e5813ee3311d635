"""The contact sheet shows the pictures it is given, where it says."""

import io

import numpy as np
import pytest
from PIL import Image

from course_lib.viz import plots
from course_lib.viz.animate import png
from course_lib.viz.contact_sheet import choose_drawings, contact_sheet


def test_every_vendor_shows_each_class_and_no_base_twice():
    labels = [1] * 6 + [0] * 6
    vendors = ["a", "a", "a", "b", "b", "b"] * 2
    bases = [*"zxyxyz", *"wuvuvw"]  # half way down its own, "a" comes upon the first of "b"
    chosen = choose_drawings(labels, vendors, bases, ["b", "a"], each=1)
    assert [[labels[i] for i in line] for line in chosen] == [[0, 0], [1, 1]]
    assert [[vendors[i] for i in line] for line in chosen] == [["b", "a"], ["b", "a"]]
    assert all(len({bases[i] for i in line}) == 2 for line in chosen)
    assert len(set(choose_drawings(labels, vendors, bases, ["b"], each=3)[0])) == 3
    with pytest.raises(ValueError, match="vendor 'a' has 3 drawings of label 0; needed are 4"):
        choose_drawings(labels, vendors, bases, ["a"], each=4)


def test_pictures_stand_in_their_row_and_column():
    plots.use_house_style()
    images = np.full((2, 3, 8, 8, 3), 255, np.uint8)
    images[1, 0] = (255, 0, 0)
    images[0, 2] = (0, 0, 255)
    figure = contact_sheet(images, ["eins 一", "zwei 二"], {"left": 2, "right": 1}, "title")
    (ax,) = figure.axes
    shown = ax.images[0].get_array()
    assert (shown[9:17, :8] == (255, 0, 0)).all()
    assert (shown[:8, 18:26] == (0, 0, 255)).all()
    assert [t.get_text() for t in ax.get_yticklabels()] == ["eins 一", "zwei 二"]
    assert [t.get_text() for t in ax.texts] == ["left", "right"]
    pixels = np.asarray(Image.open(io.BytesIO(png(figure))).convert("RGB")).astype(int)
    assert pixels.shape[1] == 1000
    red, blue = ((pixels - color).__abs__().sum(2) < 60 for color in ((255, 0, 0), (0, 0, 255)))
    assert np.argwhere(red)[:, 0].mean() > np.argwhere(blue)[:, 0].mean() + 50
    assert np.argwhere(red)[:, 1].mean() < np.argwhere(blue)[:, 1].mean() - 50


@pytest.mark.parametrize(
    ("shape", "columns"), [((2, 3, 8, 8, 3), {"a": 2}), ((3, 3, 8, 8, 3), {"a": 3}), ((2, 3, 8, 8), {"a": 3})]
)
def test_bad_shapes(shape, columns):
    with pytest.raises(ValueError, match="images has shape"):
        contact_sheet(np.zeros(shape), ["one", "two"], columns, "title")
