"""Lesson 08: a gap is filled from what may be read; masks learn to look at neighbours; the explorer knows its bands."""

from pathlib import Path

from playwright.sync_api import Page, expect

from course_lib import pretrained, tokenization
from course_lib.lessons.modernbert_mlm.gap_frame import ALL, gap_view, plot_gap

from .drive import errors, open_notebook, press, run_all, settle, shown, to_be_shown
from .lab import Lab, browser_copy

NOTEBOOK = Path(__file__).parents[2] / "notebooks/08_modernbert_mlm.ipynb"
TEXT = "She opened the ____ and went into the room."


def computed(text: str, reach: int, sides: str) -> tuple[str, str]:
    """What has to be displayed for these settings."""
    view = gap_view(pretrained.load("modernbert-english"), tokenization.load("prose-4k"), text, reach, sides)
    return to_be_shown(view, plot_gap)


def test_widgets_of_lesson_08(page: Page, lab: Lab, shots: Path) -> None:
    notebook = open_notebook(page, lab, browser_copy(NOTEBOOK, lab.root))
    run_all(notebook, seconds=240)  # a small model learns to fill gaps there
    gap, birth = notebook.locator(".course-panel").all()
    gap.scroll_into_view_if_needed()
    expect(gap.locator("img")).to_be_visible()
    assert shown(gap) == computed(TEXT, ALL, "both sides")
    page.screenshot(path=shots / "lesson08-gap.png")
    reach = gap.get_by_role("slider")
    press(reach, "Home")
    assert shown(gap) == computed(TEXT, 0, "both sides")
    press(reach, "ArrowRight", "ArrowRight", "ArrowRight")
    assert shown(gap) == computed(TEXT, 3, "both sides")
    press(reach, "End")
    assert shown(gap) == computed(TEXT, ALL, "both sides")
    gap.locator("select").select_option("only what comes before")
    assert shown(gap) == computed(TEXT, ALL, "only what comes before")
    field = gap.locator("input[type=text]")
    field.fill("I drink ____ every morning.")
    field.press("Enter")
    assert shown(gap) == computed("I drink ____ every morning.", ALL, "only what comes before")
    page.screenshot(path=shots / "lesson08-typed.png")
    field.fill("no gap")
    field.press("Enter")
    expect(gap).to_contain_text("has no gap")

    birth.scroll_into_view_if_needed()
    press(birth.get_by_role("slider"), "Home")
    caption, picture = shown(birth)
    assert caption.startswith("Step 0:")
    press(birth.get_by_role("slider"), "End")
    assert shown(birth)[1] != picture
    page.screenshot(path=shots / "lesson08-film.png")

    explorer = notebook.locator(".course-attention")
    explorer.scroll_into_view_if_needed()
    settle(explorer)
    page.screenshot(path=shots / "lesson08-explorer.png")
    assert not errors(notebook)
