"""Lesson 03: the sampler shows what `next_token` computes, and the explorer what the shipped GPT-2 attends to."""

from pathlib import Path

from playwright.sync_api import Page, expect

from course_lib import pretrained, tokenization
from course_lib.lessons.multi_head_attention.next_token import next_token, plot_next_token
from course_lib.viz.model_maps import maps_of

from .drive import errors, open_notebook, press, run_all, settle, shown, to_be_shown
from .lab import Lab, browser_copy
from .test_explorer import assert_lines, assert_map

NOTEBOOK = Path(__file__).parents[2] / "notebooks/03_multi_head_attention.ipynb"


def computed(text: str, temperature: float, top_k: int, top_p: float) -> tuple[str, str]:
    """What has to be displayed for these settings."""
    model, tokenizer = pretrained.load("gpt2-english"), tokenization.load("prose-4k")
    view = next_token(model, tokenizer, text, temperature, top_k, top_p, model.config.max_positions)
    return to_be_shown(view, plot_next_token)


def test_widgets_of_lesson_03(page: Page, lab: Lab, shots: Path) -> None:
    notebook = open_notebook(page, lab, browser_copy(NOTEBOOK, lab.root))
    run_all(notebook, seconds=240)  # an induction head is born there
    birth, sampler = notebook.locator(".course-panel").all()
    birth.scroll_into_view_if_needed()
    expect(birth.locator("img")).to_be_visible()
    caption, picture = shown(birth)
    press(birth.get_by_role("slider"), "Home")
    assert "step 0" in shown(birth)[0].lower()
    page.screenshot(path=shots / "lesson03-birth.png")
    press(birth.get_by_role("slider"), "End")
    assert shown(birth)[1] != picture
    sampler.scroll_into_view_if_needed()
    expect(sampler.locator("img")).to_be_visible()
    text = "My fellow Americans, the state of our"
    assert shown(sampler) == computed(text, 1.0, 0, 1.0)
    temperature, top_k, top_p = sampler.get_by_role("slider").all()
    press(temperature, "ArrowLeft", "ArrowLeft")
    press(top_k, "End")
    press(top_p, "ArrowLeft", "ArrowLeft")
    caption, picture = shown(sampler)
    assert (caption, picture) == computed(text, 0.8, 500, 0.9)
    field = sampler.locator("input[type=text]")
    field.fill("The United")
    field.press("Enter")
    assert shown(sampler) == computed("The United", 0.8, 500, 0.9)
    field.fill("")
    field.press("Enter")
    expect(sampler).to_contain_text("text is empty; write at least one word")
    page.screenshot(path=shots / "lesson03-sampler.png")

    explorer = notebook.locator(".course-attention")
    explorer.scroll_into_view_if_needed()
    page.screenshot(path=shots / "lesson03-explorer.png")
    typed = "We will not fail. We will not tire."
    explorer.get_by_role("textbox").fill(typed)
    maps = maps_of(pretrained.load("gpt2-english"), tokenization.load("prose-4k"), typed, start=True)
    last = len(maps.queries) - 1
    expect(explorer.locator(".ae-queries [data-query]")).to_have_count(last + 1, timeout=30_000)
    settle(explorer)
    explorer.locator("[data-layer='2'][data-head='3']").click()
    explorer.locator(f".ae-queries [data-query='{last}']").hover()
    assert_lines(explorer, maps, 2, [3], last)
    assert_map(explorer, maps, 2, 3)
    page.screenshot(path=shots / "lesson03-typed.png")
    assert not errors(notebook)
