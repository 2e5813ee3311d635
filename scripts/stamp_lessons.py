"""Write the table of lessons, `course_lib.lessons.LESSONS`, into README.md and notebook 00: `make lessons`.

README.md gets it between `<!-- lessons -->` and `<!-- /lessons -->`, docs/recipe.md the table of the recorded search
between marks of its own. In notebook 00 the cells tagged `lessons` show the lessons: they are run again, alone, and
saved with what they show now. Stamping again changes nothing.
"""

import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from course_lib.experiments import load
from course_lib.experiments.recipe import table as search_table
from course_lib.lessons import lesson_table
from course_lib.paths import whole_or_nothing

ROOT = Path(__file__).resolve().parents[1]
SHOWN_BY = {"setup", "lessons"}  # tags; the set-up cell chooses how figures look


def with_table(page: str, mark: str, table: str) -> str:
    """The text of a page with the table between its marks. Raises ValueError without these."""
    block = re.compile(rf"(?<=<!-- {mark} -->\n).*?(?=<!-- /{mark} -->)", re.S)
    text, found = block.subn(lambda _: table, page)
    if found != 1:
        raise ValueError(f"there are {found} places between <!-- {mark} --> and <!-- /{mark} -->, not one")
    return text


def run_tagged(path: Path) -> str:
    """Text of the notebook after its cells tagged `lessons` were run, all others as they were."""
    notebook = nbformat.read(path, as_version=4)
    tagged = [c for c in notebook.cells if c.cell_type == "code" and SHOWN_BY & set(c.metadata.get("tags", []))]
    alone = nbformat.v4.new_notebook(cells=[nbformat.from_dict(cell) for cell in tagged])
    NotebookClient(alone, timeout=120, resources={"metadata": {"path": str(path.parent)}}).execute()
    for cell, ran in zip(tagged, alone.cells, strict=True):
        if "lessons" in cell.metadata.tags:
            cell.outputs = ran.outputs
            for output in cell.outputs:
                output.execution_count = cell.execution_count
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def main(root: Path) -> None:
    """Stamp the course in `root`."""
    readme, recipe, start = root / "README.md", root / "docs" / "recipe.md", root / "notebooks" / "00_start_here.ipynb"
    stamped = {
        readme: with_table(readme.read_text("utf-8"), "lessons", f"{lesson_table('notebooks/')}\n"),
        recipe: with_table(recipe.read_text("utf-8"), "recipe", search_table(load("recipe"))),
        start: run_tagged(start),
    }
    for path, text in stamped.items():
        if text != path.read_text("utf-8"):
            with whole_or_nothing(path) as temporary:
                temporary.write_text(text, "utf-8", newline="\n")
            print(f"stamped {path.relative_to(root)}")


if __name__ == "__main__":
    main(ROOT)
