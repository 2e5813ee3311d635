"""Lesson 5: sliders turn a query and a key; one that moves both turns the arrows, and the score stands still."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from course_lib.lessons.positional_encodings.rope_frame import RopeFrame, example_vectors, plot_rope_frame, rope_frame

from .drive import errors, open_notebook, press, run_all, shown, to_be_shown
from .lab import Lab, browser_copy
from .test_explorer import python

NOTEBOOK = Path(__file__).parents[2] / "notebooks/05_positional_encodings.ipynb"


def frame(q_pos: int, k_pos: int, pair: int, theta: float = 10_000.0) -> RopeFrame:
    """What the widget must show: the same query and key, here."""
    q, k = example_vectors()
    return rope_frame(q_pos, k_pos, pair, theta, q=q, k=k)


def scores(caption: str) -> tuple[str, ...]:
    """The score of the pair and of all pairs, as the caption says them."""
    found = re.search(r"pair score (-?[\d.]+), of all pairs (-?[\d.]+)", caption)
    assert found, caption
    return found.groups()


def test_query_and_key_turn_and_the_score_stays(page: Page, lab: Lab, shots: Path) -> None:
    notebook = open_notebook(page, lab, browser_copy(NOTEBOOK, lab.root))
    run_all(notebook)
    panel = notebook.locator(".course-panel")
    panel.scroll_into_view_if_needed()
    expect(panel.locator("img")).to_be_visible()
    first = shown(panel)
    assert first == to_be_shown(frame(12, 7, 1), plot_rope_frame)
    page.screenshot(path=shots / "lesson05-first.png")

    query, key, both, pair, theta = panel.get_by_role("slider").all()
    press(both, *["ArrowRight"] * 20)
    moved = shown(panel)
    assert moved == to_be_shown(frame(32, 27, 1), plot_rope_frame)
    assert scores(moved[0]) == scores(first[0])
    assert moved[1] != first[1]
    page.screenshot(path=shots / "lesson05-both.png")

    press(key, *["ArrowRight"] * 9)
    further = shown(panel)
    assert further == to_be_shown(frame(32, 36, 1), plot_rope_frame)
    assert scores(further[0]) != scores(moved[0])
    assert further[1] != moved[1]
    press(pair, "End")
    assert shown(panel) == to_be_shown(frame(32, 36, 7), plot_rope_frame)
    page.screenshot(path=shots / "lesson05-slow-pair.png")
    press(theta, "Home")
    assert shown(panel) == to_be_shown(frame(32, 36, 7, 10.0), plot_rope_frame)

    press(pair, "Home")
    press(theta, *["ArrowRight"] * 3)
    press(both, "End")
    press(query, "Home")
    press(key, "End")  # as far apart as it goes
    far = shown(panel)
    assert far == to_be_shown(frame(64, 128, 0), plot_rope_frame)
    page.screenshot(path=shots / "lesson05-far.png")
    shown_in_python = python(page, "panel.shown.scores.sum().item()")
    assert shown_in_python == pytest.approx(frame(64, 128, 0).scores.sum())
    assert not errors(notebook)
