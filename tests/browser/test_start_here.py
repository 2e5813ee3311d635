"""Notebook 00: the bigram panel shows what `bigram_view` computes, for the learner's own text too."""

from pathlib import Path

import matplotlib as mpl
import torch
from playwright.sync_api import Page, expect

from course_lib import corpora, tokenization
from course_lib.lessons.start_here.bigram_view import bigram_view, plot_bigram_view
from course_lib.models.bigram import CountedBigram, count_bigrams
from course_lib.tokenization import END
from course_lib.viz.plots import use_house_style

from .drive import errors, open_notebook, press, run_all, shown, to_be_shown
from .lab import Lab, browser_copy

NOTEBOOK = Path(__file__).parents[2] / "notebooks/00_start_here.ipynb"
SENTENCE = "The Second World War radically changed the power relationships of the world."


def test_bigram_panel_shows_what_is_computed(page: Page, lab: Lab, shots: Path) -> None:
    tokenizer = tokenization.load("english-4k")
    streams = {
        split: torch.tensor([i for text in corpora.speeches(split)["text"] for i in (*tokenizer.encode(text), END)])
        for split in ("train", "validation")
    }
    table = CountedBigram(count_bigrams(streams["train"], tokenizer.vocab_size))

    def computed(text: str, weight: float) -> tuple[str, str]:
        view = bigram_view(table, streams["validation"], tokenizer, text, weight)
        return to_be_shown(view, plot_bigram_view)

    notebook = open_notebook(page, lab, browser_copy(NOTEBOOK, lab.root))
    run_all(notebook)
    panel = notebook.locator(".course-panel")
    panel.scroll_into_view_if_needed()
    expect(panel.locator("img")).to_be_visible()
    slider, text = panel.get_by_role("slider"), panel.locator("input[type=text]").first
    with mpl.rc_context():
        use_house_style()
        assert shown(panel) == computed(SENTENCE, 0.8)
        page.screenshot(path=shots / "start-first.png")
        press(slider, "Home")
        assert shown(panel) == computed(SENTENCE, 0.0)
        press(slider, "End")
        assert shown(panel) == computed(SENTENCE, 0.98)
        press(slider, *["ArrowLeft"] * 4)
        text.fill("Money can't buy $ 日本 happiness 😀")
        text.press("Enter")
        assert shown(panel) == computed("Money can't buy $ 日本 happiness 😀", 0.9)
        page.screenshot(path=shots / "start-typed.png")
        text.fill("")
        text.press("Enter")
        expect(panel.locator("b", has_text="write at least two words")).to_be_visible()
        text.fill("We the people " * 30)
        text.press("Enter")
        assert "more tokens are not shown" in shown(panel)[0]
    assert not errors(notebook)
