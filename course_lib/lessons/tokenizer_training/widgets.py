"""The widget of lesson 06: a slider over the scale."""

import ipywidgets as widgets

from course_lib.lessons.tokenizer_training.plots import frame, plot_frame
from course_lib.viz.widgets import ControlPanel


def scale_panel() -> ControlPanel:
    """Explore how the scale of the scores shapes the weights."""
    layout = widgets.Layout(width="380px")
    scale = widgets.FloatSlider(value=1.0, min=0, max=2, step=0.05, description="scale", layout=layout)
    return ControlPanel(frame, plot_frame, {"scale": scale})
