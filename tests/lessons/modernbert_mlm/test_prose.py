"""Lesson 08: what its prose says is in the saved outputs."""

import re

import nbformat

from tests.conftest import ROOT

NOTEBOOK = nbformat.read(ROOT / "notebooks" / "08_modernbert_mlm.ipynb", as_version=4)
PROSE = " ".join(cell.source for cell in NOTEBOOK.cells if cell.cell_type == "markdown").replace("\n", " ")
OUTPUT = "\n".join(o.get("text", "") for cell in NOTEBOOK.cells for o in cell.get("outputs", ()))


def test_the_loss_falls_as_the_prose_says():
    first, last = map(float, re.search(r"loss at first ([\d.]+), at the end ([\d.]+)", OUTPUT).groups())
    assert "falls by more than one nat" in PROSE
    assert first - last > 1
