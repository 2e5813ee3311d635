"""`make colab`: badges, set-up cells and README say one address, or none."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.conftest import load_file

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "stamp_colab.py"


colab = load_file(SCRIPT)
A, B = "https://github.com/first-owner/course", "https://github.com/Second/the.course_2"
README = "# course\n\n<!-- colab -->\n<!-- /colab -->\n\nThe end.\n"


def run_script(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script as `make colab` does."""
    command = [sys.executable, str(SCRIPT), *arguments, "--root", str(root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def lesson(
    title: str = "# 題: LayerNorm\n\nWhat is it?", setup: str = "from course_lib import setup"
) -> nbformat.NotebookNode:
    """A small notebook with outputs, in which the set-up cell is not yet stamped."""
    v4 = nbformat.v4
    stream = v4.new_output("stream", text="π ≈ 3.14\nsecond line\n")
    result = v4.new_output("execute_result", {"text/plain": "2"})
    cells = [
        v4.new_markdown_cell(title, id="title"),
        v4.new_code_cell(setup, id="set-up", metadata={"tags": ["setup"]}, execution_count=1, outputs=[stream]),
        v4.new_code_cell("1 + 1", id="sum", execution_count=2, outputs=[result]),
        v4.new_markdown_cell("# Not the title", id="other"),
    ]
    return v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


def contents(root: Path) -> dict[str, bytes]:
    """Bytes of all files below `root`, by name."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """The checkout's pyproject.toml and notebooks and two small ones, with no address, not yet stamped."""
    root = tmp_path / "コース 1"
    (root / "notebooks").mkdir(parents=True)
    for path in ROOT.glob("notebooks/*.ipynb"):
        shutil.copy(path, root / "notebooks")
    nbformat.write(lesson(), root / "notebooks" / "90_small.ipynb")
    nbformat.write(lesson("# Only a title"), root / "notebooks" / "91_title.ipynb")
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    (root / "pyproject.toml").write_text(re.sub(r'\[project\.urls\]\nRepository = ".*"\n', "", text), "utf-8")
    (root / "README.md").write_text(README, "utf-8")
    return root


@pytest.mark.slow
def test_first_second_and_other_stamp(course: Path) -> None:
    colab.stamp(course)
    bare = contents(course)
    assert colab.NO_ADDRESS in bare["README.md"].decode()

    done = run_script(course, "first-owner/course")
    assert done.returncode == 0, done.stderr
    first = contents(course)
    changed = {name for name in first if first[name] != bare[name]}
    assert changed == set(bare), "every file says the address"
    assert colab.read_address(first["pyproject.toml"].decode()) == A
    lines = set(first["pyproject.toml"].decode().splitlines())
    assert lines - set(bare["pyproject.toml"].decode().splitlines()) == {"[project.urls]", f'Repository = "{A}"'}

    assert "nothing had to change" in run_script(course).stdout
    assert colab.stamp(course, "first-owner/course") == []
    assert contents(course) == first

    colab.stamp(course, "Second/the.course_2")
    other = contents(course)
    assert not [name for name, data in other.items() if b"first-owner" in data]
    assert {n: d.replace(B[19:].encode(), A[19:].encode()) for n, d in other.items()} == first

    text = other["pyproject.toml"].decode().replace(f'[project.urls]\nRepository = "{B}"\n', "")
    (course / "pyproject.toml").write_text(text, "utf-8")
    colab.stamp(course)
    assert contents(course) == bare, "taking the address away takes all of it away"


def test_only_two_sources_change(course: Path) -> None:
    path = course / "notebooks" / "90_small.ipynb"
    before = nbformat.read(path, 4)
    colab.stamp(course, "first-owner/course")
    after, text = nbformat.read(path, 4), path.read_text("utf-8")
    assert after.cells[0].source == f"# 題: LayerNorm\n{colab.badge(A, '90_small')}\n\nWhat is it?"
    assert after.cells[1].source == colab.setup_source(A)
    for cell, old in zip(after.cells[:2], before.cells[:2], strict=True):
        cell.source = old.source
    assert after == before
    assert "題" in text
    assert text.startswith('{\n "cells": [\n  {\n')
    assert text.endswith("}\n")
    assert not text.endswith("\n\n")


def test_readme_lists_every_notebook(course: Path) -> None:
    colab.stamp(course, "first-owner/course")
    text = (course / "README.md").read_text("utf-8")
    assert f"- [題: LayerNorm](notebooks/90_small.ipynb) {colab.badge(A, '90_small')}\n" in text
    assert text.count("colab-badge.svg") == len(list(course.glob("notebooks/*.ipynb")))
    assert text.startswith("# course\n\n<!-- colab -->\n- [")
    assert text.endswith("<!-- /colab -->\n\nThe end.\n")


def test_other_entries_of_the_table_stay() -> None:
    text = f'[project]\nname = "x"\n\n[project.urls]\nDocs = "there"\nRepository = "{A}"\n\n[tool.x]\n'
    changed = colab.with_address(text, B)
    assert sorted(changed.splitlines()) == sorted(text.replace(A, B).splitlines())
    assert colab.read_address(changed) == B
    assert colab.read_address(colab.with_address('[project]\nname = "x"\n', A)) == A
    with pytest.raises(ValueError, match=r"pyproject\.toml"):
        colab.read_address(colab.with_address('[project]\nname = "x"\nurls.Docs = "there"\n', A))


@pytest.mark.parametrize(
    "repo",
    ["", "name", "owner/", "/name", "a/b/c", "own er/name", "o/n\n", "-o/n", "o/..", "o/n.git", 'o/n"', "https://github.com/o/n"],
)  # fmt: skip
def test_invalid_names_change_nothing(course: Path, repo: str) -> None:
    before = contents(course)
    with pytest.raises(ValueError, match="owner/name") as caught:
        colab.stamp(course, repo)
    assert repr(repo) in str(caught.value)
    assert contents(course) == before


@pytest.mark.slow
def test_error_on_the_command_line(course: Path) -> None:
    done = run_script(course, "https://github.com/o/n")
    assert done.returncode == 1
    assert "'https://github.com/o/n'" in done.stderr
    assert "owner/name" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("broken", ["title", "setup"])
def test_a_notebook_without_title_or_set_up_cell_stops_everything(course: Path, broken: str) -> None:
    notebook = lesson("No title" if broken == "title" else "# Title")
    if broken == "setup":
        notebook.cells[1].metadata = {}
    nbformat.write(notebook, course / "notebooks" / "99_broken.ipynb")
    before = contents(course)
    with pytest.raises(ValueError, match=r"99_broken\.ipynb.*(title|setup)"):
        colab.stamp(course, "first-owner/course")
    assert contents(course) == before


def test_the_checkout_agrees_with_its_pyproject() -> None:
    address = colab.read_address((ROOT / "pyproject.toml").read_text("utf-8"))
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        notebook = nbformat.read(path, 4)
        (setup,) = [c for c in notebook.cells if "setup" in c.metadata.get("tags", [])]
        assert setup.source == colab.setup_source(address), f"{path.name}: run `make colab`"
        badges = [line for cell in notebook.cells for line in cell.source.splitlines() if "colab-badge.svg" in line]
        assert badges == ([colab.badge(address, path.stem)] if address else []), f"{path.name}: run `make colab`"
        assert not address or notebook.cells[0].source.splitlines()[1] == badges[0], f"{path.name}: run `make colab`"


def test_a_stamp_would_not_change_the_checkout(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "notebooks").mkdir()
    for path in ROOT.glob("notebooks/*.ipynb"):
        shutil.copy(path, tmp_path / "notebooks")
    assert colab.stamp(tmp_path) == [], "run `make colab`"


@pytest.mark.parametrize("address", [None, A])
def test_stamped_cells_keep_the_house_style(tmp_path: Path, address: str | None) -> None:
    path = tmp_path / "lesson.ipynb"
    nbformat.write(lesson(setup=colab.setup_source(address)), path)
    options = [str(path), "--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    for command in (["check"], ["format", "--check", "--diff"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


# Runs a set-up cell as Colab would: IPython transforms it, its %pip magic builds the command, the shell only prints it.
COLAB = """
import sys, types
from IPython.core.interactiveshell import InteractiveShell

if sys.argv[1] == "colab":
    sys.modules["google.colab"] = types.ModuleType("google.colab")
sys.modules["course_lib"] = types.ModuleType("course_lib")
sys.modules["course_lib"].setup = lambda seed: print("SETUP", seed)
shell = InteractiveShell.instance(colors="NoColor")
shell.system = lambda command: print("SHELL", command)
result = shell.run_cell(sys.stdin.read())
if result.error_in_exec:
    print("ERROR", type(result.error_in_exec).__name__, result.error_in_exec)
"""


def run_setup_cell(folder: Path, address: str | None, where: str = "colab") -> tuple[list[str], str]:
    """Run the set-up cell in `folder`: arguments of its `pip install` (or []), and all that was printed."""
    env = os.environ | {"IPYTHONDIR": str(folder.parent / "ipython"), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-c", COLAB, where],
        input=colab.setup_source(address),
        cwd=folder, env=env, capture_output=True, text=True, encoding="utf-8", timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    commands = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("SHELL ")]
    assert len(commands) <= 1
    return (commands[0][commands[0].index("pip") + 1 :] if commands else []), done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to open a notebook in, with a name that shells dislike."""
    folder = tmp_path / "授業 1" / "notebooks"
    folder.mkdir(parents=True)
    return folder


def test_guard_installs_from_the_address(folder: Path) -> None:
    arguments, printed = run_setup_cell(folder, A)
    assert arguments == ["install", "-q", f"course_lib @ git+{A}"]
    assert "SETUP 0" in printed


@pytest.mark.parametrize("address", [None, A])
def test_guard_does_nothing_outside_colab(folder: Path, address: str | None) -> None:
    arguments, printed = run_setup_cell(folder, address, where="elsewhere")
    assert arguments == []
    assert "SETUP 0" in printed
    assert "ERROR" not in printed


@pytest.mark.parametrize("clone", ["..", ".", "my course"])
def test_guard_finds_a_clone(folder: Path, clone: str) -> None:
    (folder / clone / "course_lib").mkdir(parents=True)
    (folder / clone / "pyproject.toml").touch()
    (folder / "another project").mkdir()
    (folder / "another project" / "pyproject.toml").touch()
    arguments, printed = run_setup_cell(folder, None)
    assert arguments == ["install", "-q", str((folder / clone).resolve())]
    assert "SETUP 0" in printed


def test_guard_prefers_a_wheel(folder: Path) -> None:
    (folder.parent / "course_lib").mkdir()
    (folder.parent / "pyproject.toml").touch()
    (folder / "course_lib-0.1.0-py3-none-any (1).whl").touch()  # a browser's second download: pip refuses this name
    wheel = folder / "course_lib-0.1.0-py3-none-any.whl"
    wheel.touch()
    arguments, printed = run_setup_cell(folder, None)
    assert arguments == ["install", "-q", str(wheel)]
    assert "SETUP 0" in printed


def test_guard_says_what_to_do(folder: Path) -> None:
    arguments, printed = run_setup_cell(folder, None)
    assert arguments == []
    assert "ERROR RuntimeError Put the course's folder or its course_lib-….whl beside this notebook" in printed
    assert "SETUP" not in printed


def test_the_badge_opens_the_notebook_of_the_main_branch() -> None:
    assert colab.badge("https://github.com/o/n", "01_x") == (
        "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        "(https://colab.research.google.com/github/o/n/blob/main/notebooks/01_x.ipynb)"
    )
