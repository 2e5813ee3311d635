"""The widget of the moving picture: a slider over sizes, two languages, two types, the learner's own text."""

import ipywidgets as widgets

from course_lib.lessons.tokenizer_training.cut_frame import (
    LANGUAGES,
    SENTENCES,
    SIZES,
    CutView,
    Vocabularies,
    cut_view,
    plot_cut,
)
from course_lib.viz.widgets import ControlPanel


def cut_panel(vocabularies: Vocabularies) -> ControlPanel:
    """Explore `cut_view`. It opens on Japanese with the smallest vocabulary; another language brings its sentence."""
    wide = widgets.Layout(width="460px")
    controls: dict[str, widgets.Widget] = {
        "language": widgets.Dropdown(options=list(LANGUAGES), value="Japanese", description="language"),
        "vocab_size": widgets.SelectionSlider(
            options=[(f"{size:,}", size) for size in SIZES], value=SIZES[0], description="pieces", layout=wide,
            continuous_update=False,
        ),
        "model_type": widgets.Dropdown(options=["bpe", "unigram"], value="bpe", description="type"),
        "text": widgets.Text(value=SENTENCES["ja"], description="text", layout=wide, continuous_update=False),
    }  # fmt: skip

    def adapt() -> None:
        """A sentence of ours gives way to that of the other language; a learner's own text stays."""
        if controls["text"].value in SENTENCES.values():
            controls["text"].value = SENTENCES[LANGUAGES[controls["language"].value]]

    def compute(language: str, vocab_size: int, model_type: str, text: str) -> CutView:
        return cut_view(vocabularies, language, vocab_size, model_type, text)

    return ControlPanel(compute, plot_cut, controls, adapt)
