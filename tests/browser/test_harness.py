"""The harness can fail: it finds an error in a widget's callback, in a cell, and a request to another machine."""

import pytest
from playwright.sync_api import Page

from .drive import errors, open_notebook, press, run_all, settle
from .lab import Lab, browser_copy, write_notebook

SLIDER = """
import ipywidgets
slider = ipywidgets.IntSlider(max=3)
slider.observe(lambda change: 1 / (2 - change["new"]), names="value")
slider
"""


def test_errors_and_requests_are_found(page: Page, lab: Lab, complaints: list[str]) -> None:
    source = write_notebook(lab.root / "harness.ipynb", [SLIDER, "undefined"])
    notebook = open_notebook(page, lab, source)
    with pytest.raises(AssertionError, match="NameError"):
        run_all(notebook)
    slider = notebook.get_by_role("slider")
    press(slider, "ArrowRight")
    settle(notebook)
    assert "ZeroDivisionError" not in "".join(errors(notebook))
    press(slider, "ArrowRight")
    settle(notebook)
    assert "ZeroDivisionError" in "".join(errors(notebook))
    for address in ("https://example.org/cdn.js", "http://192.0.2.1/"):
        assert "Failed to fetch" in page.evaluate("address => fetch(address).catch(String)", address)
        assert f"another machine: {address}" in complaints
    complaints.clear()


def test_a_notebook_without_tagged_cells_is_refused(lab: Lab) -> None:
    with pytest.raises(ValueError, match="no code cell with the tag"):
        browser_copy(write_notebook(lab.root / "untagged.ipynb", ["1"]), lab.root)
