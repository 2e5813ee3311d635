"""Try the course in an imitation of a Google Colab runtime: `make test-colab`.

A fresh environment `.venv-colab` gets Colab's own versions (`tests/colab/requirements.txt`). There, away from the
checkout, the set-up cell runs as Colab runs it and installs the course from a git address, that of a copy of this
checkout; every notebook runs, after that cell with the network cut off; the unit tests run against the installed
package. Nothing that was there before may change. When all of it passes, `tests/colab/last_run.json` and the sentence
of README that is made from it are written.

    python scripts/imitate_colab.py [--python python3.13] [--torch 2.13.0]
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import nbformat

from colab_notebooks import STARTUP, for_colab, set_up_alone
from colab_report import added, counted, sentence, with_sentence
from course_lib.paths import whole_or_nothing

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "tests" / "colab" / "last_run.json"
VENV = ROOT / ".venv-colab"
PYTHON = VENV / ("Scripts" if os.name == "nt" else "bin") / "python"
TOOLS = ("hypothesis", "nbval")  # what the tests need and Colab has not; pytest it has
REPORTED = ("torch", "transformers", "numpy", "datasets", "ipywidgets", "ipython")
NOT_HERE = {  # tests that do not depend on the versions of packages, and why they are left out
    "--ignore=tests/browser": "drives JupyterLab, which Colab has not",
    "--ignore=tests/test_docs.py": "reads the checkout's own course_lib, which is taken away here",
    "--deselect=tests/test_wheel.py::test_wheel_carries_the_shipped_files": "makes an environment of its own",
    "--deselect=tests/test_wheel.py::test_lesson_runs_from_the_wheel_offline": "makes an environment of its own",
    "--deselect=tests/test_wheel.py::test_every_set_loads_from_a_clone": "the installed course would be found first",
    "--deselect=tests/test_colab.py::test_stamped_cells_keep_the_house_style": "needs ruff, which Colab has not",
}


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    """Standard output of a command, or the end of the program when it fails."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout[-6000:]}\n{' '.join(map(str, command))[:300]} ended with {done.returncode}")
    return done.stdout


def environment(home: Path) -> dict[str, str]:
    """This environment less what could lead a Python to the checkout or to this user's files; these are in `home`."""
    foreign = ("PYTHON", "VIRTUAL_ENV", "JUPYTER", "IPYTHON", "HF_", "MPL", "COURSE_")
    private = {name: str(home / name.lower()) for name in ("HF_HOME", "MPLCONFIGDIR", "IPYTHONDIR", "JUPYTER_DATA_DIR")}
    startup = home / "ipythondir" / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    (startup / "00_colab.py").write_text(STARTUP)
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | private


def packages(env: dict[str, str]) -> dict[str, str]:
    """Version of each package that the new environment holds, by its name."""
    listed = run(PYTHON, "-m", "pip", "list", "--format=json", env=env)
    return {package["name"]: package["version"] for package in json.loads(listed)}


def copy_checkout(target: Path) -> None:
    """Make `target` a git repository with one commit: what git tracks here or would track, as it is now."""
    for name in run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    identity = ("-c", "user.name=course", "-c", "user.email=course@localhost", "-c", "commit.gpgsign=false")
    for command in (("init", "-q"), ("add", "-f", "."), (*identity, "commit", "-q", "-m", "The checkout as it is")):
        run("git", *command, cwd=target)


def imitate(python: str, torch: str | None, place: Path) -> dict[str, Any]:
    """Do all of it in the folder `place`, and return the record."""
    seconds: dict[str, int] = {}
    clock = time.perf_counter()

    def done(what: str) -> None:
        nonlocal clock
        seconds[what], clock = round(time.perf_counter() - clock), time.perf_counter()
        print(f"{what}: {seconds[what]} s", flush=True)

    def tested(name: str, *arguments: str, env: dict[str, str], cwd: Path) -> dict[str, int]:
        report = place / f"{name}.xml"
        options = ("-q", "-p", "no:cacheprovider", "--disable-warnings", f"--junitxml={report}")
        said = run(PYTHON, "-m", "pytest", *options, *arguments, env=env, cwd=cwd)
        print(f"  {name}: {said.strip().splitlines()[-1]}", flush=True)
        return counted(report)

    pins = (ROOT / "tests" / "colab" / "requirements.txt").read_text("utf-8")
    (place / "pins.txt").write_text(re.sub(r"^torch==.*", f"torch=={torch}", pins, flags=re.M) if torch else pins)
    run(python, "-m", "venv", "--clear", VENV)
    plain = environment(place / "home")
    run(PYTHON, "-m", "pip", "install", "-q", "-r", place / "pins.txt", env=plain)
    preinstalled = packages(plain)
    run(PYTHON, "-m", "pip", "install", "-q", *TOOLS, env=plain)
    with_tools = packages(plain)
    added(preinstalled, with_tools)
    done("installing Colab's versions")

    copy, lessons = place / "copy", place / "lessons"
    copy_checkout(copy)
    shutil.rmtree(copy / "course_lib")  # its last commit has it; from the folder nothing can be imported
    lessons.mkdir()
    nbformat.write(set_up_alone(copy.as_uri()), lessons / "set_up.ipynb")
    hook = copy / "tests" / "offline" / "sitecustomize.py"
    notebooks = sorted((copy / "notebooks").glob("*.ipynb"))
    for path in notebooks:
        nbformat.write(for_colab(nbformat.read(path, as_version=4), copy.as_uri(), hook), lessons / path.name)
    nbval = ("--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600")
    colab = plain | {"PYTHONPATH": str(copy / "tests" / "colab")}
    tested("set_up", *nbval, "set_up.ipynb", env=colab, cwd=lessons)
    new = added(with_tools, packages(plain))
    done("the set-up cell")
    cells = {}
    for path in notebooks:
        cells[path.name] = tested(path.stem, *nbval, path.name, env=colab, cwd=lessons)["passed"] - 1  # less the guard
    done("notebooks")
    tests = tested("unit", *NOT_HERE, "tests", env=plain, cwd=copy)
    if (now := added(with_tools, packages(plain))) != new:
        raise ValueError(
            f"the notebooks or tests changed what is installed: new is {now}, after the first set-up {new}"
        )
    done("unit tests")
    return {
        "date": date.today().isoformat(),
        "python": run(PYTHON, "-c", "import platform; print(platform.python_version())").strip(),
        "versions": {name: preinstalled[name].split("+")[0] for name in REPORTED},
        "preinstalled": len(preinstalled),
        "added": [f"{name} {version}" for name, version in sorted(new.items())],
        "notebooks": cells,
        "unit_tests": tests,
        "left_out": {argument.partition("=")[2]: reason for argument, reason in NOT_HERE.items()},
        "seconds": seconds,
    }


def main() -> None:
    """Read the command line, run, and write the record and the sentence of README."""
    parser = argparse.ArgumentParser(description="Try the course in an imitation of a Google Colab runtime.")
    parser.add_argument("--python", default=sys.executable, help="Python of the environment; Colab has 3.13")
    parser.add_argument("--torch", metavar="VERSION", help="where Colab's torch cannot be installed: another version")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="course-colab-") as folder:
        try:
            record = imitate(options.python, options.torch, Path(folder).resolve())
        except ValueError as error:
            raise SystemExit(f"test-colab failed: {error}") from error
    readme = ROOT / "README.md"
    texts = {
        readme: with_sentence(readme.read_text("utf-8"), record),
        RECORD: json.dumps(record, indent=1, ensure_ascii=False) + "\n",
    }
    for path, text in texts.items():
        with whole_or_nothing(path) as temporary:
            temporary.write_text(text, "utf-8", newline="\n")
    print(sentence(record))


if __name__ == "__main__":
    main()
