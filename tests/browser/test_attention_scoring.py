"""Lesson 2: the sliders show what `score_frame` computes, and the trained head can be asked."""

from pathlib import Path

import numpy as np
from playwright.sync_api import Page, expect

from course_lib.corpora import capitals
from course_lib.experiments.attention_scores import ARMS, HELD_OUT, Config, build, fit
from course_lib.lessons.attention_scoring.score_frame import plot_score_frame, score_frame
from course_lib.lessons.attention_scoring.widgets import Atlas, atlas_maps

from .drive import choose, errors, open_notebook, press, run_all, settle, shown, to_be_shown
from .lab import Lab, browser_copy
from .test_explorer import colors, pixels, python

NOTEBOOK = Path(__file__).parents[2] / "notebooks/02_attention_scoring.ipynb"


def computed(d: int, temperature: float, scale: str) -> tuple[str, str]:
    """What has to be shown."""
    return to_be_shown(score_frame(d, temperature, scale), plot_score_frame)


def test_sliders_and_the_trained_head(page: Page, lab: Lab, shots: Path) -> None:
    notebook = open_notebook(page, lab, browser_copy(NOTEBOOK, lab.root))
    run_all(notebook)
    panel = notebook.locator(".course-panel")
    panel.scroll_into_view_if_needed()
    expect(panel.locator("img")).to_be_visible()
    (width, temperature), scale = panel.get_by_role("slider").all(), panel.locator("select")
    assert shown(panel) == computed(64, 1.0, "none")
    page.screenshot(path=shots / "lesson02-first.png")
    press(width, "End")
    assert shown(panel) == computed(1024, 1.0, "none")
    press(width, "Home", "ArrowLeft")
    assert shown(panel) == computed(1, 1.0, "none")
    press(width, *["ArrowRight"] * 20)
    choose(scale, "ArrowDown")
    assert shown(panel) == computed(1024, 1.0, "1/√d")
    choose(scale, "ArrowDown")
    assert shown(panel) == computed(1024, 1.0, "1/d")
    press(temperature, "Home")
    assert shown(panel) == computed(1024, 0.1, "1/d")
    press(temperature, "End")
    choose(scale, "Home")
    assert shown(panel) == computed(1024, 100.0, "none")
    page.screenshot(path=shots / "lesson02-moved.png")

    config = Config(**ARMS["scaled"], width=64, lr=3e-3)
    model = build(config, 0)
    fit(model, config, 0, progress=False)
    table = capitals()
    _, countries, towns, _ = (t[0, :8].tolist() for t in HELD_OUT(batch_size=1, n_pairs=8)(0))
    pairs = list(zip(countries, towns, strict=True))
    for country, town in (("Vietnam", "Oslo"), ("Uruguay", "Lima")):
        pairs.append((table["country"].index(country), table["capital"].index(town)))
    atlas = Atlas(table["country"], table["capital"], pairs)

    head = notebook.locator(".course-attention")
    head.scroll_into_view_if_needed()
    typed = f"{table['country'][countries[2]]}, Japan, {table['country'][countries[0]]}"
    for text in (python(page, "lookup_explorer.text"), typed):
        field = head.get_by_role("textbox")
        field.fill(text)
        maps = atlas_maps(model, atlas, text)
        expect(head.locator(".ae-queries [data-query]")).to_have_count(len(maps.queries))
        settle(notebook)
        assert head.locator(".ae-queries [data-query]").all_inner_texts() == list(maps.queries)
        drawn = pixels(head, ".ae-cells")
        assert np.abs(drawn.astype(int) - colors(maps, 0, 0)).max() <= 12  # trained in another process
        assert python(page, "lookup_explorer.error") == ""
        page.screenshot(path=shots / f"lesson02-asked-{len(maps.queries)}.png")
    expect(head).to_contain_text(maps.note)
    field.fill("Narnia")
    expect(head.get_by_role("alert")).to_contain_text("'Narnia' is not one of the 221 countries")
    assert not errors(notebook)
