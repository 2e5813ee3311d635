"""Widgets of sparse attention: a pattern under sliders, and its cost measured on the reader's machine."""

import html
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets
import traitlets
from matplotlib.figure import Figure

from course_lib.lessons.local_and_global_attention.complexity import Complexity, measure_complexity, plot_complexity
from course_lib.lessons.local_and_global_attention.pattern_choice import KINDS
from course_lib.lessons.local_and_global_attention.pattern_frame import Measure, PatternFrame, pattern_frame, quick
from course_lib.lessons.local_and_global_attention.pattern_plots import plot_pattern_frame
from course_lib.viz.animate import png
from course_lib.viz.widgets import ERROR_RED, ControlPanel, sentence_of

PLACES = tuple(range(0, 256, 32))  # that may be made global


class PlacesPicker(widgets.HBox):
    """A strip of buttons, one for each place of a text; `value` is the tuple of those that are pressed.

    Raises ValueError on setting a value with a place that has no button.
    """

    value = traitlets.Tuple()
    disabled = traitlets.Bool(False)

    def __init__(self, places: Sequence[int], value: Sequence[int], description: str) -> None:
        slim = widgets.Layout(width="58px", margin="2px 1px")
        self.buttons = {place: widgets.ToggleButton(description=str(place), layout=slim) for place in places}
        super().__init__([widgets.Label(description), *self.buttons.values()])
        for button in self.buttons.values():
            button.observe(self._pressed, names="value")
        self.observe(self._set, names="value")
        self.observe(self._disable, names="disabled")
        self.value = tuple(value)

    @traitlets.validate("value")
    def _known(self, proposal: Any) -> tuple[int, ...]:
        if unknown := sorted(set(proposal["value"]) - set(self.buttons)):
            raise ValueError(f"value: place {unknown[0]} has no button; there are {', '.join(map(str, self.buttons))}")
        return tuple(sorted(set(proposal["value"])))

    def _pressed(self, change: Any) -> None:
        self.value = tuple(place for place, button in self.buttons.items() if button.value)

    def _set(self, change: Any) -> None:
        for place, button in self.buttons.items():
            button.unobserve(self._pressed, names="value")
            button.value = place in self.value
            button.observe(self._pressed, names="value")

    def _disable(self, change: Any) -> None:
        for button in self.buttons.values():
            button.disabled = self.disabled


def pattern_panel(measure: Measure = quick) -> ControlPanel:
    """Explore `pattern_frame`: a menu of patterns, sliders for length, radius, random blocks and dilation, and buttons.

    The buttons make tokens global. What the chosen pattern does not know is grey. `measure(run)` gives the seconds of a
    call.
    """
    style = {"description_width": "initial"}

    def slider(description: str, value: int, low: int, high: int, step: int = 1) -> widgets.IntSlider:
        return widgets.IntSlider(
            value=value, min=low, max=high, step=step, description=description, style=style,
            layout=widgets.Layout(width="300px"), continuous_update=False,
        )  # fmt: skip

    names = {"window + global": "window + global (Longformer)", "BigBird": "BigBird: and random blocks"}
    controls: dict[str, Any] = {
        "kind": widgets.Dropdown(
            options=[(names.get(kind, kind), kind) for kind in KINDS], value="window + global", description="pattern",
            style=style,
        ),
        "length": slider("T (tokens)", 128, 32, 256, 16),
        "radius": slider("radius", 8, 0, 64),
        "n_random": slider("random blocks", 1, 0, 4),
        "dilation": slider("dilation", 4, 1, 8),
        "places": PlacesPicker(PLACES, (0,), "global tokens"),
    }  # fmt: skip

    def grey_out() -> None:
        kind = controls["kind"].value
        controls["radius"].disabled = kind == "full"
        controls["n_random"].disabled = kind != "BigBird"
        controls["dilation"].disabled = kind != "dilated"
        controls["places"].disabled = kind not in ("window + global", "BigBird")

    def compute(**params: Any) -> PatternFrame:
        return pattern_frame(**params, measure=measure)

    return ControlPanel(compute, plot_pattern_frame, controls, grey_out)


class ComplexityWidget(widgets.VBox):
    """A figure of recorded measurements, and a button that measures on this machine and draws both.

    `recorded` and `measured` are the rows on display; `figure()` is the same as a static Figure. Where a measurement
    raises an error, its sentence is shown, and the figure stays.
    """

    def __init__(self, recorded: Sequence[Complexity], measure: Callable[..., Sequence[Complexity]]) -> None:
        self.recorded, self._measure = tuple(recorded), measure
        self.measured: tuple[Complexity, ...] = ()
        self._button = widgets.Button(description="Measure on this machine", layout=widgets.Layout(width="220px"))
        self._progress = widgets.IntProgress(value=0, min=0, max=1, layout=widgets.Layout(width="240px"))
        self._caption = widgets.HTML()
        self._picture = widgets.Image(format="png", layout=widgets.Layout(max_width="100%", object_fit="contain"))
        super().__init__([widgets.HBox([self._button, self._progress]), self._caption, self._picture])
        self.add_class("course-complexity")
        self._button.on_click(self._run)
        self._picture.value = png(self.figure())
        self._say("Dashed: recorded. Measuring takes about ten seconds.")

    def figure(self) -> Figure:
        """What is displayed, as a static Figure."""
        return plot_complexity(self.measured, self.recorded)

    def _run(self, button: Any) -> None:
        if self._button.disabled:
            return
        self._button.disabled = True
        self._say("Measuring …")
        before = self.measured
        try:
            self.measured = tuple(self._measure(progress=self._advance))
            if not self.measured:
                raise ValueError("nothing was measured")
            self._picture.value = png(self.figure())
        except Exception as error:  # a widget's traceback ends in a log that nobody reads
            self.measured, self._progress.value = before, 0
            self._caption.value = f'<b style="color:{ERROR_RED}">{html.escape(sentence_of(error))}</b>'
        else:
            self._say("Solid: measured on this machine. Dashed: recorded.")
        finally:  # after a keyboard interrupt too
            self._button.disabled = False
            if "Measuring" in self._caption.value:
                self._say("Interrupted. Dashed: recorded.")

    def _advance(self, done: int, total: int) -> None:
        self._progress.max, self._progress.value = total, done

    def _say(self, text: str) -> None:
        self._caption.value = f'<span class="course-caption">{html.escape(text)}</span>'


def complexity_widget(
    rows: Sequence[Complexity], measure: Callable[..., Sequence[Complexity]] = measure_complexity
) -> ComplexityWidget:
    """Show recorded `rows`, and measure again on demand: `measure(progress=…)` gives new rows.

    Raises ValueError for no rows.
    """
    return ComplexityWidget(rows, measure)
