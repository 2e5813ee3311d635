"""Lesson 6: a slider cuts a sentence by vocabularies of any size; another steps through the merges of a BPE."""

from pathlib import Path

from playwright.sync_api import Page, expect

from course_lib import corpora
from course_lib.lessons.tokenizer_training.cut_frame import SENTENCES, Vocabularies, cut_view, plot_cut
from course_lib.lessons.tokenizer_training.merge_frame import merge_steps, merge_view, plot_merges
from course_lib.tokenization.bpe_fast import train_bpe

from .drive import errors, open_notebook, press, run_all, shown, to_be_shown
from .lab import Lab, browser_copy

NOTEBOOK = Path(__file__).parents[2] / "notebooks/06_tokenizer_training.ipynb"


def test_cuts_and_merges_are_what_is_computed(page: Page, lab: Lab, shots: Path) -> None:
    vocabularies = Vocabularies()
    japanese = train_bpe(list(corpora.sentence_pairs("train")["ja"][:8000]), 3000, prefix=False)

    def cut(language: str, size: int, text: str) -> tuple[str, str]:
        return to_be_shown(cut_view(vocabularies, language, size, "bpe", text), plot_cut)

    notebook = open_notebook(page, lab, browser_copy(NOTEBOOK, lab.root))
    run_all(notebook)
    cuts, merges = (notebook.locator(".course-panel").nth(number) for number in range(2))
    cuts.scroll_into_view_if_needed()
    expect(cuts.locator("img")).to_be_visible()
    assert shown(cuts) == cut("Japanese", 300, SENTENCES["ja"])
    page.screenshot(path=shots / "lesson06-first.png")
    press(cuts.get_by_role("slider"), "End")
    assert shown(cuts) == cut("Japanese", 16000, SENTENCES["ja"])
    page.screenshot(path=shots / "lesson06-large.png")
    cuts.locator("select").first.select_option("English")
    assert shown(cuts) == cut("English", 16000, SENTENCES["en"])
    text = cuts.locator("input[type=text]").first
    text.fill("naïve 猫 $100 🦊")
    text.press("Enter")
    assert shown(cuts) == cut("English", 16000, "naïve 猫 $100 🦊")
    text.fill("")
    text.press("Enter")
    expect(cuts.locator("b", has_text="write 1 to")).to_be_visible()

    merges.scroll_into_view_if_needed()
    steps = len(merge_steps(japanese, SENTENCES["ja"]))
    first = merge_view(japanese, SENTENCES["ja"], 8)
    assert shown(merges) == to_be_shown(first, plot_merges)
    press(merges.get_by_role("slider"), "Home")
    assert shown(merges) == to_be_shown(merge_view(japanese, SENTENCES["ja"], 0), plot_merges)
    press(merges.get_by_role("slider"), "End")
    assert shown(merges) == to_be_shown(merge_view(japanese, SENTENCES["ja"], steps), plot_merges)
    page.screenshot(path=shots / "lesson06-merges.png")
    assert not errors(notebook)
