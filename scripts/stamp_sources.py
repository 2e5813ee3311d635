"""Write the source that each `show_source(...)` of a notebook shows, as it is today, into its saved output.

    python scripts/stamp_sources.py [NOTEBOOK ...]        (default: all)

It is a part of `make lessons`: after a change of words in the library nothing has to be run again.
"""

import ast
import re
import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import nbformat

from course_lib import show_source
from course_lib.paths import whole_or_nothing

ROOT = Path(__file__).resolve().parents[1]


def shown_sources(notebook: nbformat.NotebookNode) -> Iterator[tuple[nbformat.NotebookNode, str]]:
    """Each cell that ends with `show_source(X)`, and what it shows today; the notebook's own imports find X.

    Raises ValueError where X begins with a name that no cell above imports.
    """
    imported: dict[str, ast.stmt] = {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        body = ast.parse(re.sub(r"^( *)%.*", r"\1pass", cell.source, flags=re.M)).body  # without IPython's magics
        for node in body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                imported |= {(alias.asname or alias.name).partition(".")[0]: node for alias in node.names}
        last = ast.unparse(body[-1]) if body else ""
        if found := re.fullmatch(r"show_source\(([\w.]+)\)", last):
            name, *attributes = found[1].split(".")
            if name not in imported:
                raise ValueError(f"{last}: no cell above imports {name}")
            scope: dict[str, Any] = {}
            exec(compile(ast.Module([imported[name]], []), "<import>", "exec"), scope)
            yield cell, show_source(reduce(getattr, attributes, scope[name])).data


def main(paths: list[str]) -> None:
    """Stamp each notebook that shows another source than today's."""
    for path in [Path(p) for p in paths] or sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = path.read_text("utf-8")
        notebook = nbformat.reads(text, as_version=4)
        for cell, today in shown_sources(notebook):
            (shown,) = [output.data for output in cell.outputs if "text/markdown" in output.get("data", {})]
            shown["text/markdown"] = today
        if (stamped := nbformat.writes(notebook).rstrip("\n") + "\n") != text:
            with whole_or_nothing(path) as temporary:
                temporary.write_text(stamped, "utf-8", newline="\n")
            print(f"stamped {path.name}")


if __name__ == "__main__":
    main(sys.argv[1:])
