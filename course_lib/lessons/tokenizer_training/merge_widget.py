"""The widget of the merges: one slider steps through them, on a text of the learner."""

from collections.abc import Mapping

import ipywidgets as widgets

from course_lib.lessons.tokenizer_training.merge_frame import LONGEST, MergeView, merge_steps, merge_view, plot_merges
from course_lib.tokenization.bpe import BPE
from course_lib.viz.widgets import ControlPanel


def merge_panel(trained: Mapping[str, tuple[BPE, str]]) -> ControlPanel:
    """Step through merges: `trained` maps the name of a language to its BPE and a text to begin with.

    Raises ValueError where it is empty.
    """
    if not trained:
        raise ValueError("trained is empty; give at least one BPE and its text")
    first = next(iter(trained))
    texts = {text for _, text in trained.values()}
    wide = widgets.Layout(width="460px")
    controls: dict[str, widgets.Widget] = {
        "language": widgets.Dropdown(options=list(trained), value=first, description="language"),
        "step": widgets.IntSlider(value=8, min=0, max=100, description="merges", layout=wide),
        "text": widgets.Text(value=trained[first][1], description="text", layout=wide, continuous_update=False),
    }

    def adapt() -> None:
        """Another language brings its text; the slider ends where the last merge of the text is done."""
        bpe, text = trained[controls["language"].value]
        if controls["text"].value in texts:
            controls["text"].value = text
        if 1 <= len(text := controls["text"].value) <= LONGEST:  # others are refused; their steps could take hours
            controls["step"].max = max(1, len(merge_steps(bpe, text)))

    def compute(language: str, step: int, text: str) -> MergeView:
        return merge_view(trained[language][0], text, step)

    return ControlPanel(compute, plot_merges, controls, adapt)
