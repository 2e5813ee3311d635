"""The sampler of lesson 03: a text, and sliders for temperature, top-k and top-p."""

import ipywidgets as widgets

from course_lib.lessons.multi_head_attention.next_token import NextToken, next_token, plot_next_token
from course_lib.models.gpt2 import GPT2
from course_lib.tokenization import Tokenizer
from course_lib.viz.widgets import ControlPanel


def next_token_panel(model: GPT2, tokenizer: Tokenizer, text: str) -> ControlPanel:
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

    return ControlPanel(compute, plot_next_token, controls)
