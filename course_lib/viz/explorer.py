"""The attention explorer: tokens, lines, a grid of heads and a heat map in one widget (ipywidgets 7.7 and 8).

Python holds the maps and the selection; the browser's half, explorer.js and its parts, draws them.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anywidget
import matplotlib as mpl
import numpy as np
import traitlets
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from course_lib.attention.masks import Pattern
from course_lib.checks import check_at_least
from course_lib.tokenization import Tokenizer
from course_lib.viz.attention_maps import AttentionMaps, Selection, visible
from course_lib.viz.attention_plot import plot_maps
from course_lib.viz.model_maps import maps_of
from course_lib.viz.plots import OKABE_ITO
from course_lib.viz.widgets import sentence_of

Compute = Callable[[str], AttentionMaps]
_HERE = Path(__file__).parent
PARTS = ("explorer.shown.js", "explorer.maps.js", "explorer.tokens.js", "explorer.js")  # one module: nothing is fetched
MASKED, FULL = 65535, 65534  # in the uint16 that are sent: a masked pair, and a weight of 1


class AttentionExplorer(anywidget.AnyWidget):
    """Explore attention maps: point at a token to see where it looks, click to hold it, choose layers and heads.

    `maps` is what is shown now, `selection` what is chosen; `layer`, `head`, `query` (None: no token is held), `heads`
    (that lines are drawn for; empty: the chosen one), `query_start` and `key_start` (where the window of `window`
    tokens begins) can be read and set, and each is numbered from 0. With `compute` there is a text field: `text` is
    what stands in it, and where `compute(text)` raises an error, its sentence is `error` and the maps stay.
    `figure()` is a static picture for readers without a kernel.
    Raises ValueError for a window below 1, and on setting what the maps do not have.
    """

    _esm = "\n".join(_HERE.joinpath(name).read_text("utf-8") for name in PARTS)
    _css = _HERE.joinpath("explorer.css").read_text("utf-8")
    layer = traitlets.Int(0).tag(sync=True)
    head = traitlets.Int(0).tag(sync=True)
    query = traitlets.Int(None, allow_none=True).tag(sync=True)
    heads: traitlets.List = traitlets.List(traitlets.Int()).tag(sync=True)
    query_start = traitlets.Int(0).tag(sync=True)
    key_start = traitlets.Int(0).tag(sync=True)
    text = traitlets.Unicode("").tag(sync=True)
    _shown: traitlets.Dict = traitlets.Dict().tag(
        sync=True
    )  # the window's maps; one trait, so that they change at once
    _answer: traitlets.Dict = traitlets.Dict().tag(sync=True)  # {"text": asked for, "error": sentence}, or empty
    _style: traitlets.Dict = traitlets.Dict().tag(sync=True)

    def __init__(
        self, maps: AttentionMaps, *, compute: Compute | None = None, text: str = "", window: int = 64
    ) -> None:
        if not isinstance(maps, AttentionMaps):
            raise ValueError(f"maps is a {type(maps).__name__}; needed are AttentionMaps")
        check_at_least("window", window, 1)
        self.maps, self.window, self._compute, self._count = maps, window, compute, 0
        palette = (mpl.colormaps["viridis"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
        super().__init__(
            text=text,
            _style={"palette": palette.tobytes(), "heads": list(OKABE_ITO)},
            _answer={} if compute is None else {"text": text, "error": ""},
            _shown=self._packed(),
        )
        self.observe(self._move, names=["query_start", "key_start"])
        self.observe(self._ask, names="text")

    @property
    def selection(self) -> Selection:
        """Layer, head, held query and the heads that lines are drawn for."""
        return Selection(self.layer, self.head, self.query, tuple(self.heads))

    @selection.setter
    def selection(self, chosen: Selection) -> None:
        """Select; the browser follows. Raises ValueError for what the maps do not have."""
        self.maps.check(chosen)
        with self.hold_sync():
            self.layer, self.head, self.query = chosen.layer, chosen.head, chosen.query
            self.heads = list(chosen.heads)

    @property
    def error(self) -> str:
        """Why the last text has no maps; empty if it has."""
        return self._answer.get("error", "")

    @property
    def shown(self) -> AttentionMaps:
        """The part of the maps that the window shows."""
        return self.maps if self.maps.image else self.maps.crop(self.query_start, self.key_start, self.window)

    def figure(self) -> Figure:
        """What is displayed, as a static Figure; with the error's sentence, if there is one."""
        shown, query = self.shown, self.query
        if query is not None:
            query -= 0 if self.maps.image else self.query_start
            query = query if 0 <= query < len(shown.queries) else None
        figure = plot_maps(shown, replace(self.selection, query=query))
        notes = filter(None, [self.error and f"{self.error} The last map stays.", self._window_note(), self.maps.note])
        if said := " ".join(notes):
            figure.supxlabel(said.replace("$", r"\$"), fontsize="small", x=0.01, ha="left")
        return figure

    def _window_note(self) -> str:
        parts = [
            f"{name} {start + 1} to {start + len(shown)} of {len(all_)}"
            for name, start, shown, all_ in (
                ("queries", self.query_start, self.shown.queries, self.maps.queries),
                ("keys", self.key_start, self.shown.keys, self.maps.keys),
            )
            if len(shown) < len(all_)
        ]
        return f"Shown are {', '.join(parts)}." if parts else ""

    @traitlets.validate("layer", "head", "query", "heads")
    def _check_selected(self, proposal: Any) -> Any:
        name, value = proposal.trait.name, proposal.value
        alone = {"layer": lambda: Selection(layer=value), "head": lambda: Selection(head=value)}
        alone |= {"query": lambda: Selection(query=value), "heads": lambda: Selection(heads=tuple(value))}
        self.maps.check(alone[name]())
        return value

    @traitlets.validate("query_start", "key_start")
    def _check_start(self, proposal: Any) -> int:
        labels = self.maps.queries if proposal.trait.name == "query_start" else self.maps.keys
        last = 0 if self.maps.image else max(0, len(labels) - self.window)
        if not 0 <= proposal.value <= last:
            raise ValueError(f"{proposal.trait.name}={proposal.value}; allowed is 0 to {last}")
        return proposal.value

    def _move(self, change: Any) -> None:
        self._shown = self._packed()

    def _ask(self, change: Any) -> None:
        """Compute the maps of the text; what is selected stays where the new maps have it."""
        if self._compute is None:
            return
        try:
            maps = self._compute(self.text)
            if not isinstance(maps, AttentionMaps):
                raise ValueError(f"compute returned a {type(maps).__name__}; needed are AttentionMaps")
        except Exception as error:  # a widget's traceback ends in a log that nobody reads
            self._answer = {"text": self.text, "error": sentence_of(error) or type(error).__name__}
            return
        layers, heads, n_queries, _ = maps.weights.shape
        with self.hold_sync():  # one message, so that the browser never sees the new maps under an old selection
            self.maps = maps
            self.layer, self.head = min(self.layer, layers - 1), min(self.head, heads - 1)
            self.heads = [head for head in self.heads if head < heads]
            self.query = self.query if self.query is not None and self.query < n_queries else None
            self.query_start = self.key_start = 0
            self._shown = self._packed()
            self._answer = {"text": self.text, "error": ""}

    def _packed(self) -> dict[str, Any]:
        """The window as the browser gets it; weights in uint16, half of float32 and exact to 0.00001."""
        shown = self.shown
        weights = np.rint(shown.weights * FULL).astype("<u2")
        if shown.allowed is not None:
            weights[np.broadcast_to(~shown.allowed[:, None], weights.shape)] = MASKED
        self._count += 1
        packed: dict[str, Any] = {
            "count": self._count,  # a map equal to the last one is an answer too
            "weights": weights.tobytes(),
            "shape": list(weights.shape),
            "queries": [visible(label) for label in shown.queries],
            "keys": [visible(label) for label in shown.keys],
            "starts": [0, 0] if self.maps.image else [self.query_start, self.key_start],
            "totals": [len(self.maps.queries), len(self.maps.keys)],
            "layer_names": list(shown.layer_names),
            "note": shown.note,
        }
        if shown.colors is not None:
            packed |= {"colors": shown.colors.tolist(), "color_names": list(shown.color_names)}
        if shown.image is not None:
            packed |= {"picture": _png(shown.image.pixels), "grid": [shown.image.rows, shown.image.columns]}
        return packed


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def explore(compute: Compute, text: str, *, window: int = 64) -> AttentionExplorer:
    """Explore `compute(text)`, with a field for other texts.

    `compute` turns any text into AttentionMaps and says by a ValueError why it cannot; for the first text that is
    raised here.
    """
    return AttentionExplorer(compute(text), compute=compute, text=text, window=window)


def explore_model(
    model: nn.Module, tokenizer: Tokenizer, text: str, *, mask: Pattern | Sequence[Pattern] | None = None,
    start: bool = False, end: bool = False, max_tokens: int | None = None, window: int = 64,
) -> AttentionExplorer:  # fmt: skip
    """Explore the attention of a model on a text and on any other that is typed; arguments as in `maps_of`."""

    def compute(text: str) -> AttentionMaps:
        return maps_of(model, tokenizer, text, mask=mask, start=start, end=end, max_tokens=max_tokens)

    return explore(compute, text, window=window)
