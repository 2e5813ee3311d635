"""Execute notebooks in order and save them with their outputs: `make notebooks`.

    python scripts/run_notebooks.py [NOTEBOOK ...]        (default: all)

What a reader without a kernel cannot use is left out: widgets and progress bars (the cell after a widget draws a
static figure), widget state, times of execution.
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from course_lib.paths import whole_or_nothing

ROOT = Path(__file__).resolve().parents[1]
WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def clean(notebook: nbformat.NotebookNode) -> None:
    """Remove what changes from run to run or shows only with a kernel."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:03d}"
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]


def main(paths: list[str]) -> None:
    """Run and save each notebook; an error in a cell ends the program and leaves the file as it was."""
    for path in [Path(p) for p in paths] or sorted((ROOT / "notebooks").glob("*.ipynb")):
        start = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(
            notebook, timeout=300, coalesce_streams=True, resources={"metadata": {"path": str(path.parent)}}
        ).execute()
        clean(notebook)
        with whole_or_nothing(path) as temporary:
            nbformat.write(notebook, temporary)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
