"""The widget of notebook 00: a text under a bigram, and how far the table's rows are trusted."""

import ipywidgets as widgets
from torch import Tensor

from course_lib.lessons.start_here.bigram_view import BigramView, bigram_view, plot_bigram_view
from course_lib.models.bigram import CountedBigram
from course_lib.tokenization import Tokenizer
from course_lib.viz.widgets import ControlPanel


def bigram_panel(table: CountedBigram, held_out: Tensor, tokenizer: Tokenizer, text: str) -> ControlPanel:
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

    return ControlPanel(compute, plot_bigram_view, controls)
