"""Lesson 1: the panel of norms shows what `norm_frame` computes."""

from pathlib import Path

from playwright.sync_api import Page, expect

from course_lib.experiments import load_tensors
from course_lib.lessons.layernorm_dynamics.norm_frame import norm_frame, plot_norm_frame

from .drive import choose, errors, open_notebook, press, run_all, shown, to_be_shown
from .lab import Lab, browser_copy

NOTEBOOK = Path(__file__).parents[2] / "notebooks/01_layernorm_dynamics.ipynb"


def computed(network: str, layer: int, snapshot: int) -> tuple[str, str]:
    """What has to be shown for a network, a layer (its last one where it has fewer) and the number of a snapshot."""
    trace = load_tensors("norm_dynamics", network)
    layer, step = min(layer, trace["gain"].shape[1] - 1), int(trace["steps"][snapshot])
    return to_be_shown(norm_frame({network: trace}, norm=network, layer=layer, step=step), plot_norm_frame)


def test_norm_panel_shows_what_is_computed(page: Page, lab: Lab, shots: Path) -> None:
    notebook = open_notebook(page, lab, browser_copy(NOTEBOOK, lab.root))
    run_all(notebook)
    panel = notebook.locator(".course-panel")
    panel.scroll_into_view_if_needed()
    expect(panel.locator(".course-caption")).to_be_visible()
    expect(panel.locator("img")).to_be_visible()
    slider, (network, layer) = panel.get_by_role("slider"), panel.locator("select").all()
    names = network.locator("option").evaluate_all("options => options.map(option => option.value)")
    first = shown(panel)
    assert first == computed(names[0], 0, -1)
    page.screenshot(path=shots / "lesson01-first.png")

    press(slider, *["ArrowLeft"] * 5)
    moved = shown(panel)
    assert moved == computed(names[0], 0, -6)
    assert moved[1] != first[1]
    choose(layer, "ArrowDown", "ArrowDown")
    choose(network, "ArrowDown", "ArrowDown")
    assert shown(panel) == computed(names[2], 2, -6)
    choose(layer, "End")
    choose(network, "ArrowUp")  # to a network that may have fewer norms
    assert shown(panel) == computed(names[1], 99, -6)
    page.screenshot(path=shots / "lesson01-moved.png")

    press(slider, "Home", "ArrowLeft")
    assert shown(panel) == computed(names[1], 99, 0)
    press(slider, *["ArrowRight"] * 20)
    assert shown(panel) == computed(names[1], 99, 20)
    press(slider, "End", "ArrowRight")
    assert shown(panel) == computed(names[1], 99, -1)
    assert not errors(notebook)
