"""Widgets: controls on top, a picture below, wired to pure functions (ipywidgets 7.7 and 8)."""

import html
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import ipywidgets as widgets
from matplotlib.figure import Figure
from torch import Tensor

from course_lib.models.bigram import CountedBigram
from course_lib.models.gpt2 import GPT2
from course_lib.tokenization import Tokenizer
from course_lib.viz.animate import png
from course_lib.viz.language import BigramView, bigram_view, plot_bigram_view
from course_lib.viz.norms import NormFrame, Traces, layer_names, norm_frame, plot_norm_frame
from course_lib.viz.plots import new_figure
from course_lib.viz.sampling import NextToken, next_token, plot_next_token

ERROR_RED = "#a00"


def sentence_of(error: Exception) -> str:
    """What a reader of a widget is told of an error: a ValueError is a sentence, others need their name."""
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


class Described(Protocol):
    """What `compute` returns: arrays that can also say in one line what they hold."""

    def text(self) -> str: ...


class Explorer(widgets.VBox):
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
        self.add_class("course-explorer")
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


def norm_explorer(traces: Traces) -> Explorer:
    """Explore what norms did while networks trained: slider over the step, menus for the network and the norm.

    `traces` maps a network's name to `NormTrace.tensors()`; all must have the same steps.
    Raises ValueError for no trace, or traces with different steps.
    """
    if len({tuple(trace["steps"].tolist()) for trace in traces.values()}) != 1:
        raise ValueError(f"traces: {', '.join(traces) or 'none'}; needed is at least one, all with the same steps")
    names = list(traces)
    steps = [int(step) for step in traces[names[0]]["steps"]]
    style, wide = {"description_width": "initial"}, widgets.Layout(width="380px")
    network = widgets.Dropdown(options=names, description="network", style=style)
    layer = widgets.Dropdown(options=_numbered(traces[names[0]]), description="layer", style=style)
    step = widgets.SelectionSlider(options=steps, value=steps[-1], description="step", style=style, layout=wide)

    def compute(norm: str, layer: int, step: int) -> NormFrame:
        return norm_frame(traces, norm, layer, step)

    def offer_layers() -> None:
        """Networks differ in their number of norms; stay at the same one where there is."""
        options, chosen = _numbered(traces[network.value]), layer.value
        if list(layer.options) != options:
            layer.options = options
            layer.value = min(chosen, len(options) - 1)

    return Explorer(compute, plot_norm_frame, {"norm": network, "layer": layer, "step": step}, offer_layers)


def _numbered(trace: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [(name, i) for i, name in enumerate(layer_names(trace))]


def bigram_explorer(table: CountedBigram, held_out: Tensor, tokenizer: Tokenizer, text: str) -> Explorer:
    """Explore a counted bigram: type a text, and move how far the rows of the table are trusted.

    `held_out` is a stream of token ids (N,) that the table was not counted from.
    """
    wide = widgets.Layout(width="560px")
    controls = {
        "text": widgets.Text(value=text, description="text", layout=wide, continuous_update=False),
        "weight": widgets.FloatSlider(value=0.8, min=0, max=0.98, step=0.02, description="weight", layout=wide),
    }

    def compute(text: str, weight: float) -> BigramView:
        return bigram_view(table, held_out, tokenizer, text, weight)

    return Explorer(compute, plot_bigram_view, controls)


def next_token_explorer(model: GPT2, tokenizer: Tokenizer, text: str) -> Explorer:
    """Explore what a model draws its next token from: type a text, and move temperature, top-k (0: all) and top-p."""
    wide, slider = widgets.Layout(width="560px"), widgets.Layout(width="380px")
    controls = {
        "text": widgets.Text(value=text, description="text", layout=wide, continuous_update=False),
        "temperature": widgets.FloatSlider(
            value=1.0, min=0, max=2, step=0.1, description="temperature", layout=slider, continuous_update=False
        ),
        "top_k": widgets.SelectionSlider(
            options=[("all", 0), *((str(k), k) for k in (1, 2, 5, 10, 20, 50, 100, 500))],
            description="top-k", layout=slider, continuous_update=False,
        ),
        "top_p": widgets.FloatSlider(
            value=1.0, min=0.05, max=1, step=0.05, description="top-p", layout=slider, continuous_update=False
        ),
    }  # fmt: skip

    def compute(text: str, temperature: float, top_k: int, top_p: float) -> NextToken:
        return next_token(model, tokenizer, text, temperature, top_k, top_p, model.config.max_positions)

    return Explorer(compute, plot_next_token, controls)
