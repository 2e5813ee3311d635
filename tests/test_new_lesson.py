"""`make new-lesson`: what it writes into a copy of the checkout passes CI; the table of lessons grows by one row."""

import os
import shutil
import subprocess
import sys

import pytest

from course_lib.lessons import LESSONS, Lesson
from tests.checkout import copy_checkout
from tests.conftest import ROOT, load_file

new_lesson = load_file(ROOT / "scripts" / "new_lesson.py")
TABLE = new_lesson.TABLE.read_text("utf-8")
PLANNED = next(lesson for lesson in LESSONS if not lesson.ready)
READY = next(lesson for lesson in LESSONS if lesson.ready)
NEW = Lesson(len(LESSONS) + 1, "my_topic", 'The "why"', "Isn't it √2?")


def lessons_of(table):
    scope = {"__name__": "course_lib.lessons"}  # where the dataclass looks for its module
    exec(table, scope)
    return {lesson.name: lesson for lesson in scope["LESSONS"]}


def test_a_new_name_gets_the_next_number():
    assert new_lesson.planned("my_topic", 'The "why"', "Isn't it √2?") == NEW
    assert new_lesson.planned("my_topic", "", "").title == "My topic"


@pytest.mark.parametrize("lesson", [NEW, PLANNED], ids=["new", "planned"])
def test_the_table_says_that_the_lesson_is_ready(lesson):
    before, after = lessons_of(TABLE), lessons_of(new_lesson.with_lesson(TABLE, lesson))
    now = after.pop(lesson.name)
    assert (now.ready, now.minutes, now.after) == (True, new_lesson.MINUTES, lesson.after)
    assert (now.number, now.title, now.question) == (lesson.number, lesson.title, lesson.question)
    before.pop(lesson.name, None)
    assert {name: repr(other) for name, other in after.items()} == {name: repr(o) for name, o in before.items()}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("", "", ""), "NAME=''; allowed are 3 to 30 small letters"),
        (("My-topic", "", ""), "a letter first: my_topic"),
        (("x" * 31, "", ""), "3 to 30"),
        ((READY.name, "", ""), f"lesson {READY.number:02d} is there already"),
        ((PLANNED.name, "Other", ""), "is planned: change its title"),
    ],
)
def test_names_that_cannot_be(given, words):
    with pytest.raises(ValueError, match="NAME=") as caught:
        new_lesson.planned(*given)
    assert words in str(caught.value)


def test_fenced_blocks_become_tagged_cells():
    markdown = "# Title\n\nText.\n\n```python setup browser\n```\n\n```python\nx = 1\n\ny = 2\n```\n\nEnd.\n"
    cells = new_lesson.as_notebook(markdown).cells
    assert [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in cells] == [
        ("markdown", "# Title\n\nText.", []),
        ("code", "", ["setup", "browser"]),
        ("code", "x = 1\n\ny = 2", []),
        ("markdown", "End.", []),
    ]


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    """A copy of the checkout in which a lesson was begun, and how to run Python there."""
    course = copy_checkout(tmp_path_factory.mktemp("course"))
    if (ROOT / ".mypy_cache").is_dir():
        shutil.copytree(ROOT / ".mypy_cache", course / ".mypy_cache")
    environment = os.environ | {"PYTHONPATH": str(course)}

    def python(*arguments):
        done = subprocess.run([sys.executable, *arguments], cwd=course, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{arguments}:\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    python("scripts/new_lesson.py", NEW.name, "--title", NEW.title, "--question", NEW.question)
    return python


@pytest.mark.slow
def test_a_new_lesson_passes_style_and_types(lesson):
    written = ["course_lib/lessons", f"notebooks/{NEW.notebook}", "solutions", "tests/lessons/my_topic"]
    lesson("-m", "ruff", "check", *written)
    lesson("-m", "ruff", "format", "--check", *written)
    lesson("-m", "mypy", "course_lib/lessons")


@pytest.mark.slow
def test_a_new_lesson_passes_its_tests_and_those_of_every_lesson(lesson):
    every = ["test_notebooks.py", "test_docs.py", "test_colab.py", "lessons/test_imports.py", "lessons/test_table.py"]
    chosen = ["-k", "my_topic or test_imports or test_table or checkout or readme", "tests/lessons/my_topic"]
    lesson("-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen, *(f"tests/{name}" for name in every))
