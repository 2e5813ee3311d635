"""Notebook 00: what its prose says of its own, saved numbers."""

import re

import nbformat
import pytest

from tests.conftest import ROOT


def test_claims_of_notebook_00():
    """What its prose says of its own, saved numbers."""
    notebook = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4)
    printed = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))

    def number(pattern):
        return float(re.search(pattern, printed)[1].replace(",", ""))

    text = "".join(c.source for c in notebook.cells if c.cell_type == "markdown")

    def row(name):
        """Training and validation perplexity, as the comparison prints them."""
        return [float(n) for n in re.search(rf"{name} +train +([\d.]+) +validation +([\d.]+)", printed).groups()]

    rows = {name: row(name) for name in ("Witten and Bell", "Kneser and Ney", "network")}
    assert "tables (114 and 108)" in text
    assert (round(rows["Witten and Bell"][1]), round(rows["Kneser and Ney"][1])) == (114, 108)
    assert rows["network"][1] == pytest.approx(rows["Witten and Bell"][1], rel=0.05)  # "about the same"
    assert rows["network"][1] > rows["Kneser and Ney"][1]
    assert all(train < 0.85 * validation for train, validation in rows.values())
    assert rows["network"][0] > rows["Witten and Bell"][0]  # the tables' gap is the larger one
    tests = {name: number(rf"{name} +perplexity +([\d.]+)\n(?!.*bits)") for name in rows}
    assert sorted(tests, key=tests.get) == sorted(rows, key=lambda name: rows[name][1])
    assert number(r"([\d,]+) tokens; counts") == pytest.approx(586_000, abs=500)
    assert number(r"same bug: perplexity ([\d.]+)") < 1.1
    assert number(r"on the next token: perplexity ([\d,]+)") > 4000  # "less than a blind guess"
    stages = [number(rf"{name} *: perplexity +([\d.]+)") for name in ("embedding", "block 1", "block 2")]
    assert stages[0] > 4 * stages[1]
    assert stages[1] - stages[2] < 0.1 * (stages[0] - stages[2])  # "most of the work is done in block 1"
    assert number(r"(\d+) of the \d+ pairs of neighbours") > 40
    assert number(r"data: (\d+) files") >= 12
