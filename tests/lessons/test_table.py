"""README, notebook 00, the pictures of the map and the notebooks themselves say what the table LESSONS says."""

import base64
import re
from pathlib import Path

import nbformat
import pytest
from IPython.core.pylabtools import print_figure

from course_lib.lessons import LESSONS, PARTS, lesson_table
from course_lib.viz.animate import png
from course_lib.viz.lesson_map import plot_lesson_map
from course_lib.viz.plots import use_house_style
from tests.conftest import ROOT, load_file
from tests.pictures import same_picture, with_the_pinned_matplotlib

README = (ROOT / "README.md").read_text("utf-8")
START = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4)
READY = [lesson for lesson in LESSONS if lesson.ready]
STAMP = load_file(ROOT / "scripts" / "stamp_lessons.py")


def saved(kind):
    """What notebook 00 shows of the lessons, as data of this MIME type."""
    outputs = [o for c in START.cells if "lessons" in c.metadata.get("tags", []) for o in c.outputs]
    (data,) = [o.data[kind] for o in outputs if kind in o.data]
    return data


def test_lessons_are_numbered_and_named_once():
    assert [lesson.number for lesson in LESSONS] == list(range(1, len(LESSONS) + 1))
    assert len({lesson.name for lesson in LESSONS}) == len(LESSONS)
    assert {lesson.part for lesson in LESSONS} == set(PARTS)
    assert all(before < lesson.number for lesson in LESSONS for before in lesson.after)


def test_a_lesson_is_ready_when_it_is_there():
    files = {lesson.notebook.removesuffix(".ipynb") for lesson in READY} | {"00_start_here"}
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == files
    assert {path.stem for path in (ROOT / "solutions").glob("*.py")} == files
    names = {path.parent.name for path in Path(__file__).parent.glob("*/test_exercises.py")}
    assert names == {lesson.name for lesson in READY} | {"start_here"}


@pytest.mark.parametrize("lesson", READY, ids=lambda lesson: lesson.name)
def test_a_notebook_has_the_title_and_the_minutes_of_the_table(lesson):
    first = nbformat.read(ROOT / "notebooks" / lesson.notebook, as_version=4).cells[0].source
    assert first.splitlines()[0] == f"# {lesson.number:02d} · {lesson.title}"
    read = re.search(r"\*\*Time\.\*\* About (an hour|\d+ minutes) to read", first)[1]
    assert read == ("an hour" if lesson.minutes == 60 else f"{lesson.minutes} minutes")


def test_a_row_links_to_its_notebook_only_if_that_is_ready():
    rows = lesson_table("notebooks/").splitlines()[2:]
    for lesson, row in zip(LESSONS, rows, strict=True):
        assert f"| {lesson.question} |" in row
        link = f"[{lesson.title}](notebooks/{lesson.notebook})"
        assert row.startswith(f"| {lesson.number:02d} | {link if lesson.ready else f'{lesson.title} (planned)'} |")
        assert row.endswith(f"| {lesson.minutes} |" if lesson.ready else "|  |")


def test_readme_has_the_table():
    assert STAMP.with_table(README, "lessons", f"{lesson_table('notebooks/')}\n") == README, "run `make lessons`"
    with pytest.raises(ValueError, match="0 places"):
        STAMP.with_table("# No marks", "lessons", "")


def test_notebook_00_has_the_table():
    assert saved("text/markdown") == lesson_table(), "run `make lessons`"


@with_the_pinned_matplotlib
def test_the_saved_maps_are_todays():
    use_house_style()
    drawn = print_figure(plot_lesson_map(), bbox_inches="tight", base64=True)
    assert same_picture(base64.b64decode(drawn), base64.b64decode(saved("image/png"))), "run `make lessons`"
    saved_map = (ROOT / "images" / "lesson_map.png").read_bytes()
    assert same_picture(png(plot_lesson_map()), saved_map), "run `make lessons`"
