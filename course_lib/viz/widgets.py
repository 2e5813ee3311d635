"""Widgets: controls on top, a picture below, wired to pure functions (ipywidgets 7.7 and 8)."""

import html
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import ipywidgets as widgets
from matplotlib.figure import Figure

from course_lib.viz.animate import png
from course_lib.viz.plots import new_figure

ERROR_RED = "#a00"


def sentence_of(error: Exception) -> str:
    """What a reader of a widget is told of an error: a ValueError is a sentence, others need their name."""
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def live_image() -> tuple[widgets.Image, Callable[[Figure], None]]:
    """A picture to display while something runs, and the function that puts another figure into it."""
    picture = widgets.Image(format="png", layout=widgets.Layout(max_width="100%", object_fit="contain"))

    def show(figure: Figure) -> None:
        picture.value = png(figure)

    return picture, show


class Described(Protocol):
    """What `compute` returns: arrays that can also say in one line what they hold."""

    def text(self) -> str: ...


class ControlPanel(widgets.VBox):
    """Controls that choose the parameters of `compute`, and the picture that `plot` makes of the result.

    `params` is what the controls say now, `shown` the arrays on display, `figure()` a static picture of them for
    readers without a kernel. Where `compute` or `plot` raises an error, its sentence is shown instead.
    `adapt()` runs before each computation: there one control may change what another one offers.
    """

    def __init__(
        self,
        compute: Callable[..., Any],
        plot: Callable[[Any], Figure],
        controls: Mapping[str, widgets.Widget],
        adapt: Callable[[], None] = lambda: None,
    ) -> None:
        self._compute, self._plot, self._adapt, self.controls = compute, plot, adapt, dict(controls)
        self._updating = False
        self._refusal: str | None = None
        self.shown: Any = None
        self._picture = widgets.Image(format="png", layout=widgets.Layout(max_width="100%", object_fit="contain"))
        self._caption = widgets.HTML()
        wrap = widgets.Layout(flex_flow="row wrap")
        super().__init__([widgets.HBox(list(self.controls.values()), layout=wrap), self._caption, self._picture])
        self.add_class("course-panel")
        for control in self.controls.values():
            control.observe(self._update, names="value")
        self._update()

    @property
    def params(self) -> dict[str, Any]:
        """Value of each control, by the name of its parameter."""
        return {name: control.value for name, control in self.controls.items()}

    def figure(self) -> Figure:
        """What is displayed, as a static Figure: the picture, or the sentence that says why there is none."""
        if self._refusal is None:
            return self._plot(self.shown)
        figure, axes = new_figure(size=(7.0, 1.0))
        axes[0, 0].axis("off")
        plain = self._refusal.replace("$", r"\$")  # or matplotlib would read a formula, and may stop at it
        axes[0, 0].text(0, 0.5, plain, color=ERROR_RED, va="center", wrap=True)
        return figure

    def _update(self, change: Any = None) -> None:
        if self._updating:  # `adapt` moved a control; what it leads to is drawn once, below
            return
        self._updating = True
        try:
            self._adapt()
            shown = self._compute(**self.params)
            picture, text = png(self._plot(shown)), shown.text()
        except Exception as error:  # a widget's traceback ends in a log that nobody reads
            self._refusal = sentence_of(error)
            self._caption.value = f'<b style="color:{ERROR_RED}">{html.escape(self._refusal)}</b>'
        else:
            self.shown, self._refusal, self._picture.value = shown, None, picture
            self._caption.value = f'<span class="course-caption">{html.escape(text)}</span>'
        finally:
            self._updating = False
