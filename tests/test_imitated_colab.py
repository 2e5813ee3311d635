"""`make test-colab`: what its scripts compare, count and run. The run itself takes minutes and is not part of this."""

import re
import tomllib
import warnings
from types import ModuleType

import nbformat
import pytest

from tests.conftest import ROOT, load_file

report = load_file(ROOT / "scripts" / "colab_report.py")
PINS = (ROOT / "tests" / "colab" / "requirements.txt").read_text("utf-8")
RECORD = {
    "date": "2001-02-03",
    "python": "3.13.9",
    "versions": {"torch": "2.11.0", "numpy": "2.1.3", "ipywidgets": "7.7.1", "ipython": "7.34.0"},
    "preinstalled": 17,
    "added": ["course_lib 0.1.0", "matplotlib-fontja 1.1.0"],
    "notebooks": {"a.ipynb": 4, "b.ipynb": 5},
    "unit_tests": {"passed": 311, "skipped": 0},
    "seconds": {"one": 100, "two": 50},
}


@pytest.fixture
def notebooks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return load_file(ROOT / "scripts" / "colab_notebooks.py")


def test_added_packages() -> None:
    before = {"numpy": "2.1.3", "torch": "2.11.0"}
    assert report.added(before, before) == {}
    assert report.added(before, before | {"course_lib": "0.1.0"}) == {"course_lib": "0.1.0"}


def test_a_replaced_or_removed_package_is_named() -> None:
    before = {"numpy": "2.1.3", "pandas": "2.2.3", "torch": "2.11.0"}
    with pytest.raises(ValueError, match=re.escape("numpy 2.1.3 -> 2.2.0, torch 2.11.0 -> gone")) as caught:
        report.added(before, {"numpy": "2.2.0", "pandas": "2.2.3"})
    assert "pandas" not in str(caught.value)


def test_counts_of_a_report(tmp_path) -> None:
    xml = tmp_path / "report.xml"

    def counted(suite: str) -> dict[str, int]:
        xml.write_text(f"<testsuites><testsuite {suite}/></testsuites>")
        return report.counted(xml)

    assert counted('tests="7" failures="0" errors="0" skipped="2"') == {"passed": 5, "skipped": 2}
    for bad in ('tests="7" failures="1"', 'tests="7" errors="1"', 'tests="2" skipped="2"', 'tests="0"'):
        with pytest.raises(ValueError, match="tests:"):
            counted(bad)


def test_the_sentence_of_readme() -> None:
    said = report.sentence(RECORD)
    for part in ("2001-02-03", "torch 2.11.0", "numpy 2.1.3", "ipywidgets 7.7.1", "IPython 7.34.0", "Python 3.13.9"):
        assert part in said
    for part in ("311 unit tests and", "9 cells of 2 notebooks", "of 17 packages", "in 2 minutes"):
        assert part in said
    assert said.endswith("added course_lib 0.1.0 and matplotlib-fontja 1.1.0.")
    assert "311 unit tests (3 skipped)" in report.sentence(RECORD | {"unit_tests": {"passed": 311, "skipped": 3}})


def test_the_sentence_replaces_the_one_before() -> None:
    bare = "- One:\n  <!-- test-colab -->\n  <!-- /test-colab -->\n- Two.\n"
    first = report.with_sentence(bare, RECORD)
    assert (
        " ".join(first.split()) == f"- One: <!-- test-colab --> {report.sentence(RECORD)} <!-- /test-colab --> - Two."
    )
    assert max(map(len, first.splitlines())) <= 120
    assert report.with_sentence(first, RECORD) == first
    later = report.with_sentence(first, RECORD | {"date": "2001-02-04"})
    assert later == first.replace("02-03", "02-04")
    with pytest.raises(ValueError, match="0 places"):
        report.with_sentence("- One:\n", RECORD)


def test_a_lesson_is_cut_off_after_its_set_up_cell(notebooks: ModuleType) -> None:
    cell = nbformat.v4.new_code_cell
    lesson = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# T"), cell("old", metadata={"tags": ["setup"]}), cell("1 + 1")]
    )
    title, setup, guard, rest = notebooks.for_colab(lesson, "file:///a%20b", ROOT / "hook.py").cells
    assert '%pip install -q "course_lib @ git+file:///a%20b"' in setup.source
    assert repr(str(ROOT / "hook.py")) in guard.source
    assert (title.source, rest.source) == ("# T", "1 + 1")


def test_the_guard_cuts_off_and_refuses_the_warnings_that_are_shown(notebooks: ModuleType, tmp_path) -> None:
    (tmp_path / "hook.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'was run')!r})\n")
    lesson = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", metadata={"tags": ["setup"]})])
    guard = notebooks.for_colab(lesson, "file:///x", tmp_path / "hook.py").cells[1].source
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("ignore", DeprecationWarning)
        exec(guard, {})
        warnings.warn("nobody sees this", DeprecationWarning, stacklevel=1)
        with pytest.raises(FutureWarning, match="a learner sees this"):
            warnings.warn("a learner sees this", FutureWarning, stacklevel=1)
    assert (tmp_path / "was run").exists()


def test_pins_are_exact_and_meet_the_floors() -> None:
    lines = [line for line in PINS.splitlines() if line and not line.startswith("#")]
    pins = {}
    for line in lines:
        assert re.fullmatch(r"[\w.-]+==[\w.]+(\.\*)?", line), line
        name, version = line.split("==")
        pins[name.lower().replace("_", "-")] = tuple(map(int, re.findall(r"\d+", version)))
    assert pins["ipywidgets"] == (7, 7, 1)
    assert pins["ipython"] == (7, 34, 0)
    assert pins["torch"] == (2, 11)
    assert lines.count("torch==2.11.*") == 1, "the line that --torch replaces"
    missing = set()
    for requirement in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]:
        name, floor = requirement.lower().split(">=")
        if name in pins:
            assert pins[name] >= tuple(map(int, floor.split("."))), f"{requirement}: Colab has less"
        else:
            missing.add(name)
    assert missing == {"matplotlib-fontja"}, "all else is preinstalled on Colab"
