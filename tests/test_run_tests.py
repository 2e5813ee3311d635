"""`make test`: every part runs, a failure anywhere is one of the whole, and slow tests are marked as such."""

import nbformat
import pytest
from nbclient import NotebookClient

import run_tests
from tests import conftest
from tests.conftest import ROOT

pytest_plugins = ["pytester"]
GOOD, BAD = ("-c", "print('good')"), ("-c", "raise SystemExit(3)")


def test_every_part_runs_and_the_table_says_what_failed(monkeypatch, capfd):
    monkeypatch.setattr(run_tests, "ALL", {"first": GOOD, "second": BAD, "third": GOOD})
    assert run_tests.main([]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines.count("good") == 2
    assert [line.split()[:2] for line in lines[-4:]] == [
        ["part", "result"], ["first", "passed"], ["second", "FAILED"], ["third", "passed"],
    ]  # fmt: skip
    monkeypatch.setattr(run_tests, "ALL", {"first": GOOD})
    assert run_tests.main([]) == 0


def test_fast_is_a_part_of_all(monkeypatch):
    asked = []
    monkeypatch.setattr(run_tests, "run", lambda parts: asked.append(parts) or {})
    run_tests.main([])
    run_tests.main(["--fast"])
    everything, fast = asked
    assert list(everything) == ["ruff check", "mypy", "ruff format", "unit", "notebooks", "browser"]
    assert list(fast) == ["ruff check", "mypy", "unit"]
    assert set(everything["unit"]) < set(fast["unit"])
    with pytest.raises(SystemExit, match="arguments=\\['--slow'\\]; allowed is --fast"):
        run_tests.main(["--slow"])


@pytest.mark.slow
def test_a_part_that_finds_no_test_has_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(run_tests, "ROOT", tmp_path)
    (tmp_path / "test_x.py").write_text("def test_x(): ...")
    parts = {name: (*run_tests.PYTEST, *options) for name, options in {"some": (), "none": ("-k", "nothing")}.items()}
    results = run_tests.run(parts)
    assert {name: passed for name, (passed, _) in results.items()} == {"some": True, "none": False}


def test_what_runs_side_by_side_has_one_thread(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = {part: run_tests.environment(part).get("OMP_NUM_THREADS") for part in run_tests.ALL}
    side_by_side = {part for part, command in run_tests.ALL.items() if "-n" in command}
    assert threads == {part: "1" if part in side_by_side else None for part in run_tests.ALL}


def test_notebooks_are_cut_off_in_their_kernels_too(monkeypatch):
    """A kernel starts in the folder of its notebook."""
    for name, value in run_tests.environment("notebooks").items():
        monkeypatch.setenv(name, value)
    asked = (
        "import socket\ntry:\n    socket.create_connection(('192.0.2.1', 80), timeout=5)\nexcept OSError as error:\n"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(asked + "    print(type(error).__name__)")])
    place = {"metadata": {"path": str(ROOT / "notebooks")}}
    NotebookClient(notebook, timeout=60, kernel_name="python3", resources=place).execute()
    assert notebook.cells[0].outputs[0].text == "OfflineError\n"
    assert "$(CURDIR)/tests/offline" in (ROOT / "Makefile").read_text("utf-8")


BURN = "import time; end = time.process_time() + 0.3\n    while time.process_time() < end: ..."


@pytest.mark.slow
def test_a_slow_test_must_say_so(pytester, monkeypatch):
    monkeypatch.setattr(conftest, "MOST_UNMARKED", 0.2)
    pytester.makeconftest("from tests.conftest import pytest_runtest_call")
    child = f'import subprocess, sys; subprocess.run([sys.executable, "-c", """if True:\n    {BURN}"""])'
    pytester.makepyfile(
        f"""import pytest, time
def test_quick(): ...
def test_that_waits():
    time.sleep(0.3)
def test_unmarked():
    {BURN}
def test_child():
    {child}
@pytest.mark.slow
def test_marked():
    {BURN}"""
    )
    done = pytester.runpytest()
    done.assert_outcomes(passed=3, failed=2)
    done.stdout.re_match_lines([r".*0\.[34] s of processor time: mark it with pytest.mark.slow"])


def test_files_with_slow_tests_come_first(pytester):
    pytester.makeconftest("from tests.conftest import pytest_collection_modifyitems")
    mark = "import pytest\n@pytest.mark.slow\ndef test_slow(): ..."
    two = "def test_one(): ...\ndef test_two(): ...\n"
    pytester.makepyfile(test_a=two, test_b=two + mark, test_c=two)
    lines = pytester.runpytest("--collect-only", "-q").outlines
    assert [line.split("::")[0] for line in lines[:7]] == ["test_b.py"] * 3 + ["test_a.py"] * 2 + ["test_c.py"] * 2
