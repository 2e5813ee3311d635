"""A panel of controls shows what is computed, or why it is not."""

import ipywidgets
import pytest

from course_lib.viz import plots
from course_lib.viz.animate import png
from course_lib.viz.widgets import ControlPanel


@pytest.fixture(autouse=True)
def _style():
    plots.use_house_style()


def test_a_panel_shows_a_refused_parameter_as_a_sentence():
    def compute(n):
        if n > 3:
            raise ValueError(f"n={n}; allowed is <= 3")
        return Fine

    class Fine:
        text = staticmethod(lambda: "fine")

    panel = ControlPanel(compute, lambda shown: plots.new_figure(size=(1, 1))[0], {"n": ipywidgets.IntSlider(1, 0, 9)})
    picture = panel.children[2].value
    panel.controls["n"].value = 7
    assert "n=7; allowed is &lt;= 3" in panel.children[1].value
    assert panel.children[2].value == picture
    panel.controls["n"].value = 2
    assert "fine" in panel.children[1].value


def test_a_panel_shows_errors_of_the_plot_too():
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

    panel = ControlPanel(Shown, plot, {"n": ipywidgets.IntSlider(7, 0, 9)})
    assert "n=7 costs $7 and \\frac$" in panel.children[1].value
    assert panel.shown is None
    (text,) = panel.figure().axes[0].texts
    assert text.get_text() == r"n=7 costs \$7 and \frac\$"
    assert png(panel.figure())  # not read as a formula, which would stop matplotlib
    panel.controls["n"].value = 2
    assert panel.shown.n == 2
    assert "n is 2" in panel.children[1].value
    assert not panel.figure().axes[0].texts
    picture = panel.children[2].value
    panel.controls["n"].value = 8
    assert "ParseSyntaxException" in panel.children[1].value or "Expected" in panel.children[1].value
    assert (panel.shown.n, panel.children[2].value) == (2, picture)
    panel.controls["n"].value = 3
    assert "n is 3" in panel.children[1].value


def test_a_panel_names_an_unexpected_error():
    panel = ControlPanel(lambda n: {}[n], lambda shown: None, {"n": ipywidgets.IntSlider(1, 0, 9)})
    assert "KeyError: 1" in panel.children[1].value
