"""README, pyproject.toml, environment.yml, Makefile and the tree tell one truth."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml

from course_lib.viz.animate import png
from course_lib.viz.plots import use_house_style
from tests.conftest import ROOT, load_file
from tests.pictures import same_picture, with_the_pinned_matplotlib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
README = (ROOT / "README.md").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
PROSE = sorted([*ROOT.glob("*.md"), *ROOT.glob("data/*.md"), *ROOT.glob("docs/*.md")])
MODULES = sorted(p for folder in ("course_lib", "benchmarks") for p in (ROOT / folder).rglob("*.py"))


def test_environment_yml_is_thin_and_agrees():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    *conda, pip = environment["dependencies"]
    assert conda == [f"python{PROJECT['requires-python']}", "pip", "make"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[lab,test]"]}
    assert {"lab", "test"} <= set(PROJECT["optional-dependencies"])
    assert environment["name"] in README


def test_python_versions_agree():
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
    assert "3.11–3.13" in README
    assert "(3, 11) <= v <= (3, 13)" in MAKEFILE


def _name(requirement):
    return re.split(r"[<>=!~\[; ]", requirement)[0].lower().replace("_", "-")


def test_every_dependency_has_a_floor_no_cap_and_a_tested_version():
    constraints = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.lower().replace("_", "-").split("==") for line in constraints if line and not line.startswith("#"))
    assert pins["torch"] == "2.13.0"
    extras = PROJECT["optional-dependencies"]
    for requirement in [*PROJECT["dependencies"], *extras["lab"], *extras["test"]]:
        assert re.fullmatch(r"[\w-]+>=[\d.]+", requirement), f"{requirement}: a floor and nothing else"
        floor = requirement.split(">=")[1]
        tested = pins[_name(requirement)]
        assert _version(tested) >= _version(floor), requirement
    assert not [line for line in constraints if "://" in line or " @ " in line]


def _version(text):
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def test_packages_of_the_course_are_there():
    named = {_name(r) for r in PROJECT["dependencies"]}
    named |= {_name(r) for extra in ("lab", "test") for r in PROJECT["optional-dependencies"][extra]}
    wanted = {"torch", "jupyterlab", "ipywidgets", "matplotlib", "seaborn", "sentencepiece", "datasets", "nbval"}
    assert wanted <= named


def test_readme_names_only_commands_that_exist():
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    for path in PROSE:
        named = set(re.findall(r"(?:`|^    )make ([a-z-]+)\b", path.read_text("utf-8"), re.M))
        assert named <= targets, named - targets
    assert {"lab", "test", "colab", "test-colab"} <= set(re.findall(r"\bmake ([a-z-]+)\b", README))


def test_readme_quotes_the_last_run_on_colabs_versions():
    """Not run by `make test-colab` itself, which writes both."""
    report = load_file(ROOT / "scripts" / "colab_report.py")
    record = json.loads((ROOT / "tests" / "colab" / "last_run.json").read_text("utf-8"))
    assert report.with_sentence(README, record) == README


def test_make_lab_passes_arguments_on_and_opens_the_start():
    command = ["make", "-n", "--no-print-directory", "lab", "ARGS=--no-browser --port=8899"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    plan = done.stdout.splitlines()
    assert plan[-1].endswith("jupyter lab --no-browser --port=8899 notebooks/00_start_here.ipynb")


def test_make_refuses_a_python_that_is_too_old_or_too_new(tmp_path):
    """With no environment yet, the version is checked before anything is installed."""
    (tmp_path / "Makefile").write_text(MAKEFILE)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    old = tmp_path / "old"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 10, 1); $2"\n')
    old.chmod(0o755)
    command = ["make", "lab", f"PYTHON={old}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Python 3.10 is not supported" in done.stderr
    assert not (tmp_path / ".venv").exists()


def _links(path):
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text("utf-8"))["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    else:
        text = path.read_text("utf-8")
    return re.findall(r"\]\(([^)#\s]+)", text)


@pytest.mark.parametrize(
    "path", [*PROSE, *(ROOT / "notebooks").glob("*.ipynb")], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_local_links_lead_somewhere(path):
    for link in _links(path):
        if not link.startswith(("http", "mailto:")):
            assert (path.parent / link).exists(), link


architecture = load_file(ROOT / "scripts" / "draw_architecture.py")


def there(place):
    """Whether a file or folder is in course_lib or in the checkout; those of a lesson NAME are in its template."""
    if "NAME" in place:
        place = place.replace("NN", "LESSON_NUMBER").replace("NAME", "lesson_name").replace(".ipynb", ".md")
    homes = (ROOT / "course_lib", ROOT, ROOT / "scripts" / "lesson_template")
    return any(any(home.glob(place.rstrip("/"))) for home in homes)


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/*.md")), ids=lambda path: path.name)
def test_places_that_docs_name_are_there(path):
    named = re.findall(r"`([\w.*/-]+(?:/|\.(?:py|md|json|yml|ipynb)))`", path.read_text("utf-8"))
    assert len(named) > (1 if path.name == "recipe.md" else 10)  # a page that is mostly a table
    assert not [place for place in named if not there(place)]


def test_places_in_the_drawing_are_there():
    assert len(architecture.STEPS) > 20
    assert not [step for step in architecture.STEPS if not there(step.place)]


@with_the_pinned_matplotlib
def test_the_saved_drawing_is_todays():
    use_house_style()
    figure = architecture.plot_architecture()
    texts = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert all(step.name in texts and step.place in texts for step in architecture.STEPS)
    assert same_picture(png(figure), (ROOT / "images" / "architecture.png").read_bytes()), "run `make images`"


def test_hosted_ci_runs_what_every_machine_runs():
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    workflow = yaml.safe_load(text)
    assert set(workflow[True]) == {"push", "pull_request"}  # YAML reads the key `on` as true
    (job,) = workflow["jobs"].values()
    assert (job["runs-on"], job["timeout-minutes"]) == ("ubuntu-latest", 90)
    checkout, python, run = job["steps"]
    assert checkout["uses"].startswith("actions/checkout@")
    assert python["uses"].startswith("actions/setup-python@")
    assert python["with"] == {"python-version": "3.11"}
    assert run == {"run": "bash .ci/run"}
    assert ".github/workflows/ci.yml" in README.split("**Not tried yet**")[1].split("\n\n")[0]


@pytest.mark.parametrize("browser", ["chromium", "google-chrome", None])
def test_ci_installs_a_browser_only_where_none_is(tmp_path, browser):
    for name in ("bash", "dirname", "id"):
        (tmp_path / name).symlink_to(shutil.which(name))
    for name in filter(None, ("make", "apt-get", "sudo", browser)):
        (tmp_path / name).write_text(f'#!{shutil.which("sh")}\necho {name} "$@" CI=$CI\n')
        (tmp_path / name).chmod(0o755)
    command = ["bash", str(ROOT / ".ci" / "run")]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True)
    installed = [line for line in done.stdout.splitlines() if "apt-get install" in line]
    assert any(" chromium" in line for line in installed) == (browser is None)
    assert done.stdout.splitlines()[-1] == "make test CI=true"


def test_no_path_or_registry_of_a_machine_is_named():
    files = [
        *ROOT.glob("*.*"),
        *ROOT.glob("docs/*"),
        *(ROOT / "notebooks").glob("*"),
        *(ROOT / "results").rglob("*.json"),
    ]
    files += (ROOT / "tests" / "colab").glob("*.*")
    files += [
        p for folder in ("course_lib", "benchmarks", "scripts", "solutions") for p in (ROOT / folder).rglob("*.py")
    ]
    bad = re.compile(r"/home/\w|/root/|/Users/\w|site-packages/|index-url|find-links")
    for path in files:
        if path.is_file() and path.suffix in {".py", ".md", ".toml", ".txt", ".yml", ".ipynb", ".json"}:
            assert not bad.search(path.read_text("utf-8")), path.name


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_things_have_docstrings_and_files_are_short(path):
    source = path.read_text("utf-8")
    tree = ast.parse(source)
    assert ast.get_docstring(tree), "the module has no docstring"
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inner = {id(node) for function in functions for node in ast.walk(function) if node is not function}
    for node in ast.walk(tree):
        public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        if public and id(node) not in inner:
            assert ast.get_docstring(node) or _needs_none(node), f"{node.name} has no docstring"
    checks = {"exercises", "exercises.py"} & set(path.parts)  # a checker lists many mistakes
    assert len(source.splitlines()) <= (330 if checks else 230)


def _needs_none(node):
    """A small override, and a signature that `overload` adds to a function."""
    small = isinstance(node, ast.FunctionDef) and node.name in {"extra_repr", "forward", "backward", "text"}
    return small or any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list)
