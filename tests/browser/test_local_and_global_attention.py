"""Lesson 4: sliders and buttons change the pattern, and the button measures on this machine."""

from pathlib import Path

from playwright.sync_api import Page, expect

from course_lib.lessons.local_and_global_attention.pattern_frame import pattern_frame

from .drive import choose, errors, open_notebook, press, run_all, settle
from .lab import Lab, browser_copy
from .test_explorer import python

NOTEBOOK = Path(__file__).parents[2] / "notebooks/04_local_and_global_attention.ipynb"


def counts(kind: str, length: int, radius: int, n_random: int, places: tuple[int, ...]) -> str:
    """The part of the caption that is the same on every machine."""
    return pattern_frame(kind, length, radius, n_random, 4, places, measure=lambda run: 1e-3).counts()


def test_patterns_and_the_cost_on_this_machine(page: Page, lab: Lab, shots: Path) -> None:
    notebook = open_notebook(page, lab, browser_copy(NOTEBOOK, lab.root))
    run_all(notebook)
    panel = notebook.locator(".course-panel")
    panel.scroll_into_view_if_needed()
    expect(panel.locator("img")).to_be_visible()
    caption = panel.locator(".course-caption")
    expect(caption).to_contain_text(counts("window + global", 128, 8, 1, (0,)))
    page.screenshot(path=shots / "lesson04-first.png")

    length, radius = panel.get_by_role("slider").all()[:2]
    press(length, "End")
    expect(caption).to_contain_text(counts("window + global", 256, 8, 1, (0,)))
    press(radius, *["ArrowRight"] * 8)
    expect(caption).to_contain_text(counts("window + global", 256, 16, 1, (0,)))
    panel.get_by_role("button", name="224", exact=True).click()
    expect(caption).to_contain_text(counts("window + global", 256, 16, 1, (0, 224)))
    choose(panel.locator("select"), "End")
    settle(notebook)
    kind = python(page, "panel.params['kind']")
    shown = python(page, "panel.shown.counts()")
    expect(caption).to_contain_text(shown)
    assert kind in ("full", "dilated", "BigBird")
    page.screenshot(path=shots / "lesson04-moved.png")
    press(length, "Home")  # a global token beyond the text
    settle(notebook)

    costs = notebook.locator(".course-complexity")
    costs.scroll_into_view_if_needed()
    before = costs.locator("img").get_attribute("src")
    costs.get_by_role("button", name="Measure on this machine").click()
    expect(costs).to_contain_text("Solid: measured on this machine", timeout=90_000)
    settle(notebook)
    assert costs.locator("img").get_attribute("src") != before
    assert python(page, "len(costs.measured)") > 0
    page.screenshot(path=shots / "lesson04-measured.png")
    assert not errors(notebook)
