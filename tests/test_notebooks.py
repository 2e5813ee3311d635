"""Notebooks as saved: run from the top, without errors, warnings, widget state or local paths."""

import json
import re

import nbformat
import pytest

from tests.conftest import ROOT, load_file

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_saved_as_run(path):
    raw = path.read_text("utf-8")
    notebook = nbformat.reads(raw, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert "widgets" not in notebook.metadata
    assert not re.search(r"NBVAL_SKIP|application/vnd.jupyter.widget-view", raw)
    text = json.dumps(outputs)
    assert not re.search(r"Warning|/home/|/root/|/tmp/|site-packages|Traceback", text)
    assert len(raw) < 1_500_000
    assert "setup" in code[0].metadata.get("tags", [])
    assert all(len(cell.source.splitlines()) <= 40 for cell in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_figures_fit_the_page(path):
    """A saved figure is at most 1,040 pixels wide (10 inches at 100 dpi, plus the border that `tight` adds)."""
    import base64
    import struct

    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                header = base64.b64decode(output["data"]["image/png"])[16:24]
                assert struct.unpack(">II", header)[0] <= 1040


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_source_that_is_shown_is_the_last_of_its_cell(path):
    """`show_source` gives Markdown, which Jupyter displays only as a cell's last value."""
    for cell in nbformat.read(path, 4).cells:
        lines = [line for line in cell.source.splitlines() if cell.cell_type == "code" and line.strip()]
        shown = [i for i, line in enumerate(lines) if line.startswith("show_source(")]
        assert shown in ([], [len(lines) - 1]), cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_source_that_is_shown_is_todays(path):
    """Red when the code changed after the notebook was saved."""
    sources = list(load_file(ROOT / "scripts" / "stamp_sources.py").shown_sources(nbformat.read(path, 4)))
    calls = re.findall(r"^ *\"show_source\(", path.read_text("utf-8"), re.M)
    assert len(sources) == len(calls), "a call that cannot be followed: give show_source an imported name"
    for cell, today in sources:
        saved = [output.data["text/markdown"] for output in cell.outputs if "data" in output]
        assert saved == [today], f"{cell.source.splitlines()[-1]}: run `make lessons`"
