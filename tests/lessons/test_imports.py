"""A folder per lesson: named like its notebook, alone with what it needs, and not needed by the library."""

import ast
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

import course_lib
from course_lib.lessons import LESSONS
from tests.conftest import ROOT

PACKAGE = Path(course_lib.__file__).parent  # of what is installed: a wheel must hold it all
HOME = PACKAGE / "lessons"
FOLDERS = sorted(path.parent.name for path in HOME.glob("*/__init__.py"))


def lesson_of(path):
    """The lesson whose folder `path` is in; None outside."""
    return path.relative_to(HOME).parts[0] if path.is_relative_to(HOME) and path.parent != HOME else None


def lessons_imported(source, package):
    """The lessons that a file of `package` imports, anywhere in it and in any way of writing an import."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            home = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module
            modules |= {f"{home}.{alias.name}" for alias in node.names}
    steps = [module.split(".") for module in modules if module.startswith("course_lib.lessons.")]
    return {step[2] for step in steps if step[2] in FOLDERS}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import course_lib.lessons.start_here.exercises as check", {"start_here"}),
        ("from course_lib.lessons import LESSONS, start_here", {"start_here"}),
        ("def f():\n    from course_lib.lessons.start_here.exercises import next_token_loss", {"start_here"}),
        ("from ..start_here import exercises", {"start_here"}),
        ("from .. import start_here", {"start_here"}),
        ("from . import norm_frame", {"layernorm_dynamics"}),
        ("from course_lib.lessons import LESSONS, PARTS", set()),
        ("import course_lib.viz.plots, torch", set()),
    ],
)
def test_every_way_to_import_is_seen(line, found):
    assert lessons_imported(line, "course_lib.lessons.layernorm_dynamics") == found


def test_lessons_do_not_import_each_other_nor_the_library_a_lesson():
    """What a second lesson needs moves to viz/, exercises/ or the library."""
    foreign = {}
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE.parent)
        found = lessons_imported(path.read_text("utf-8"), ".".join(place.parent.parts))
        foreign[place.as_posix()] = found - {lesson_of(path)}
    assert len(foreign) > 100
    assert not {place: found for place, found in foreign.items() if found}


def test_each_notebook_has_a_folder_with_its_name():
    notebooks = sorted(path.stem.split("_", 1)[1] for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks == FOLDERS
    assert {lesson.name for lesson in LESSONS if lesson.ready} | {"start_here"} == set(FOLDERS)
    tested = {path.name for path in (ROOT / "tests" / "lessons").iterdir() if (path / "__init__.py").is_file()}
    assert tested == set(FOLDERS)


def test_reading_the_table_is_cheap():
    """It needs nothing beyond Python, and loads no lesson."""
    code = "import sys; before = set(sys.modules); import course_lib.lessons; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {name for name in loaded if name.startswith("course_lib")} == {"course_lib", "course_lib.lessons"}
    assert {name.split(".")[0] for name in loaded} <= {*sys.stdlib_module_names, "course_lib"}
