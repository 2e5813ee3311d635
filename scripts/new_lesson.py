"""Begin a lesson: write a small one that passes CI, to be replaced part by part: `make new-lesson`.

    python scripts/new_lesson.py NAME [--title TITLE] [--question QUESTION]

NAME is that of a planned lesson, which keeps its number, or a new one, which gets the next. The files are those of
scripts/lesson_template/, with the lesson's own words for lesson_name, LESSON_TITLE and the like. The notebook comes
from Markdown: a fenced block is a code cell, and the words after `python` are its tags.
"""

import argparse
import ast
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat

from course_lib.lessons import LESSONS, Lesson
from run_notebooks import main as run_notebooks
from stamp_colab import stamp

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = ROOT / "scripts" / "lesson_template"
TABLE = ROOT / "course_lib" / "lessons" / "__init__.py"
MINUTES = 45  # the budget of a lesson; say what it really takes, in its notebook and in the table
CELL = re.compile(r"^```python(.*?)\n(.*?)```\n", re.S | re.M)


def planned(name: str, title: str, question: str) -> Lesson:
    """The lesson to begin. Raises ValueError for a name that cannot be, and for one that is there."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{2,29}", name):
        raise ValueError(f"NAME={name!r}; allowed are 3 to 30 small letters, digits and _, a letter first: my_topic")
    known = next((lesson for lesson in LESSONS if lesson.name == name), None)
    if known is None:
        title = title or name.replace("_", " ").capitalize()
        return Lesson(len(LESSONS) + 1, name, title, question or f"What is {title}, and what is it good for?")
    if known.ready or title or question:
        reason = "is there already" if known.ready else "is planned: change its title and its question in the table"
        raise ValueError(f"NAME={name!r}: lesson {known.number:02d} {reason}")
    return known


def with_lesson(table: str, lesson: Lesson) -> str:
    """The source of the table LESSONS with `lesson` ready: its row gets the minutes, or a new row stands at the end."""
    (rows,) = [node.value for node in ast.parse(table).body if ast.unparse(node).startswith("LESSONS = ")]
    found = {row.args[1].value: ast.get_source_segment(table, row) for row in rows.elts}
    if lesson.name in found:
        row = found[lesson.name]
        return table.replace(row, f"{row.removesuffix(')')}, minutes={MINUTES})")
    new = f"Lesson({lesson.number}, {lesson.name!r}, {lesson.title!r}, {lesson.question!r}, minutes={MINUTES})"
    last = list(found.values())[-1]
    return table.replace(last, f"{last},\n    {new}")


def filled(text: str, lesson: Lesson) -> str:
    """A text of the template, or a path in it, with the lesson's own words."""
    words = {
        "lesson_name": lesson.name, "LESSON_NUMBER": f"{lesson.number:02d}", "LESSON_TITLE": lesson.title,
        "LESSON_QUESTION": lesson.question, "LESSON_MINUTES": str(MINUTES),
    }  # fmt: skip
    return re.sub("|".join(words), lambda found: words[found[0]], text)


def as_notebook(markdown: str) -> nbformat.NotebookNode:
    """A notebook from Markdown with fenced blocks of Python, not yet run."""
    v4, cells, end = nbformat.v4, [], 0
    for block in CELL.finditer(markdown):
        cells.append(v4.new_markdown_cell(markdown[end : block.start()].strip()))
        cells.append(v4.new_code_cell(block[2].rstrip(), metadata={"tags": block[1].split()}))
        end = block.end()
    cells.append(v4.new_markdown_cell(markdown[end:].strip()))
    return v4.new_notebook(cells=[cell for cell in cells if cell.source or cell.metadata])


def write(lesson: Lesson) -> list[Path]:
    """Write the lesson's files and its row of the table, and return their paths."""
    paths = [TABLE]
    TABLE.write_text(with_lesson(TABLE.read_text("utf-8"), lesson), "utf-8", newline="\n")
    for source in sorted(path for path in TEMPLATE.rglob("*.*") if "__pycache__" not in path.parts):
        path = ROOT / filled(source.relative_to(TEMPLATE).as_posix(), lesson)
        text = filled(source.read_text("utf-8"), lesson)
        if path.suffix == ".md":
            path = path.with_suffix(".ipynb")
            text = nbformat.writes(as_notebook(text))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", newline="\n")
        paths.append(path)
    return paths


def main() -> None:
    """Read the command line, write, run the notebook, and stamp what lists lessons."""
    parser = argparse.ArgumentParser(description="Begin a lesson.")
    parser.add_argument("name", help="such as my_topic; that of a planned lesson keeps its number")
    for option, meaning in (("--title", "of a new lesson"), ("--question", "that a new lesson answers")):
        parser.add_argument(option, default="", help=meaning)
    options = parser.parse_args()
    try:
        lesson = replace(planned(options.name, options.title, options.question), minutes=MINUTES)
    except ValueError as error:
        raise SystemExit(f"nothing was written: {error}") from error
    paths = write(lesson)
    stamp(ROOT)  # the set-up cell
    for command in (["check", "--fix", "-q"], ["format", "-q"]):  # a long name moves line breaks
        subprocess.run([sys.executable, "-m", "ruff", *command, *paths], cwd=ROOT, check=True)
    run_notebooks([str(ROOT / "notebooks" / lesson.notebook)])
    for script in (["stamp_lessons.py"], ["build_images.py", "lesson_map"]):  # in a Python that reads the new table
        subprocess.run([sys.executable, ROOT / "scripts" / script[0], *script[1:]], cwd=ROOT, check=True)
    print("wrote", *(path.relative_to(ROOT) for path in paths), sep="\n  ")
    print("what to do next: docs/add-a-lesson.md")


if __name__ == "__main__":
    main()
