"""The widget of the gap: a text of the learner's own, and a slider for how far the model reads."""

import ipywidgets as widgets
from torch import nn

from course_lib.lessons.modernbert_mlm.gap_frame import ALL, SIDES, GapView, gap_view, plot_gap
from course_lib.tokenization import Tokenizer
from course_lib.viz.widgets import ControlPanel

REACHES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24)


def gap_panel(
    model: nn.Module, tokenizer: Tokenizer, text: str, reach: int = ALL, sides: str = "both sides"
) -> ControlPanel:
    """Fill the gap ____ of a text; choose how many tokens around it the model reads, and on which sides."""
    wide = widgets.Layout(width="620px")
    controls = {
        "text": widgets.Text(value=text, description="text", layout=wide, continuous_update=False),
        "reach": widgets.SelectionSlider(
            options=[*((str(n), n) for n in REACHES), ("all", ALL)], value=reach, description="reads",
            layout=widgets.Layout(width="380px"),
        ),
        "sides": widgets.Dropdown(options=list(SIDES), value=sides, description="of"),
    }  # fmt: skip

    def compute(text: str, reach: int, sides: str) -> GapView:
        return gap_view(model, tokenizer, text, reach, sides)

    return ControlPanel(compute, plot_gap, controls)
