"""The notebooks that `make test-colab` runs (scripts/imitate_colab.py)."""

from pathlib import Path

import nbformat

from stamp_colab import setup_source

STARTUP = "import google.colab\n"  # Colab's kernel loads it before the first cell
BEFORE = """\
import importlib.util
import sys

assert "google.colab" in sys.modules
assert importlib.util.find_spec("course_lib") is None"""
AFTER = """\
import course_lib

assert course_lib.__file__.startswith(sys.prefix), course_lib.__file__"""
ON_GUARD = """\
import runpy
import warnings

_ = runpy.run_path({hook!r})  # from here on only loopback can be reached


def refuse(warning, *where):
    raise warning


warnings.showwarning = refuse  # called for what a learner would see"""


def for_colab(notebook: nbformat.NotebookNode, address: str, hook: Path) -> nbformat.NotebookNode:
    """`notebook` with the set-up cell that installs from `address`; after it no network, and no warning to be seen."""
    (at,) = [i for i, cell in enumerate(notebook.cells) if "setup" in cell.metadata.get("tags", [])]
    notebook.cells[at].source = setup_source(address)
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(ON_GUARD.format(hook=str(hook))))
    return notebook


def set_up_alone(address: str) -> nbformat.NotebookNode:
    """A notebook of the set-up cell, and the proof that it ran on Colab and installed the course."""
    cells = [nbformat.v4.new_code_cell(source) for source in (BEFORE, setup_source(address), AFTER)]
    return nbformat.v4.new_notebook(cells=cells)
