"""The course as a wheel: in a fresh environment, away from the checkout and with no network, a lesson runs.

Also the hook that cuts the network off, `tests/offline/sitecustomize.py`.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.checkout import copy_checkout
from tests.conftest import ROOT

OFFLINE = ROOT / "tests" / "offline"
LESSON = "01_layernorm_dynamics.ipynb"


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Standard output of a command that has to succeed; else the test fails and shows the end of what it printed."""
    done = subprocess.run(list(map(str, command)), env=env, cwd=cwd, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        name = " ".join(map(str, command))[:200]
        said = re.sub(r"\x1b\[[0-9;]*m", "", f"{done.stdout[-3000:]}\n{done.stderr[-9000:]}")  # without colours
        pytest.fail(f"{name} ended with {done.returncode}:\n{said}", pytrace=False)
    return done.stdout


def clean_environment(**more: str) -> dict[str, str]:
    """This environment less what could lead a Python back to the checkout or to files of this user, and `more`."""
    foreign = ("PYTHON", "VIRTUAL_ENV", "JUPYTER", "IPYTHON", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "MPL")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | more


# --- the hook ---------------------------------------------------------------------------------------------------------

REFUSED = """
import asyncio, socket, sitecustomize, urllib.request

udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
attempts = {
    "connect": lambda: socket.socket().connect(("192.0.2.1", 80)),
    "connect_ex": lambda: socket.socket().connect_ex(("192.0.2.1", 80)),
    "sendto": lambda: udp.sendto(b"x", ("192.0.2.1", 53)),
    "sendmsg": lambda: udp.sendmsg([b"x"], [], 0, ("192.0.2.1", 53)),
    "getaddrinfo": lambda: socket.getaddrinfo("example.invalid", 80),
    "bytes": lambda: socket.getaddrinfo(b"example.invalid", 80),
    "look-alike": lambda: socket.getaddrinfo("localhost.example.invalid", 80),
    "gethostbyname": lambda: socket.gethostbyname("example.invalid"),
    "gethostbyname_ex": lambda: socket.gethostbyname_ex("example.invalid"),
    "gethostbyaddr": lambda: socket.gethostbyaddr("192.0.2.1"),
    "getnameinfo": lambda: socket.getnameinfo(("192.0.2.1", 80), 0),
    "create_connection": lambda: socket.create_connection(("192.0.2.1", 80), timeout=5),
    "asyncio": lambda: asyncio.run(asyncio.open_connection("192.0.2.1", 80)),
    "urllib": lambda: urllib.request.urlopen("http://example.invalid/", timeout=5),
}
try:
    six = socket.socket(socket.AF_INET6)
except OSError:  # a machine without IPv6
    pass
else:
    attempts["IPv6"] = lambda: six.connect(("2001:db8::1", 80))
    attempts["mapped"] = lambda: six.connect(("::ffff:192.0.2.1", 80))
for name, attempt in attempts.items():
    try:
        attempt()
    except OSError as error:  # urllib's has ours as its reason
        assert isinstance(getattr(error, "reason", error), sitecustomize.OfflineError), (name, error)
        assert "offline" in str(error) and "loopback" in str(error), error
    else:
        raise AssertionError(f"{name} passed")
"""
ALLOWED = """
import os, socket, tempfile

for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    try:
        server = socket.create_server((host, 0), family=family)
    except OSError:
        assert family == socket.AF_INET6  # a machine without IPv6
        continue
    socket.create_connection(server.getsockname()[:2]).close()
server = socket.create_server(("127.0.0.1", 0))
port = server.getsockname()[1]
for host in ("localhost", "LOCALHOST", b"localhost", "", "127.0.0.1"):
    socket.socket().connect((host, port))
assert socket.getaddrinfo("localhost", 80) and socket.getaddrinfo(None, 80) and socket.gethostbyname("localhost")
assert socket.getaddrinfo("::ffff:127.0.0.1", 80) and socket.getaddrinfo("127.1.2.3", 80)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.sendto(b"x", ("127.0.0.1", port))
udp.connect(("127.0.0.1", port))
udp.sendmsg([b"x"])  # to no named address: the socket is connected
if hasattr(socket, "AF_UNIX"):
    with tempfile.TemporaryDirectory() as folder:
        local = socket.socket(socket.AF_UNIX)
        local.bind(os.path.join(folder, "s"))
        local.listen()
        socket.socket(socket.AF_UNIX).connect(os.path.join(folder, "s"))
        left, right = socket.socketpair()
        left.sendmsg([b"x"])
"""


@pytest.mark.parametrize("code", [REFUSED, ALLOWED], ids=["refused", "allowed"])
def test_hook(code: str) -> None:
    proxies = {"http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}  # would hide who is asked for
    run(sys.executable, "-c", code, env=clean_environment(PYTHONPATH=str(OFFLINE), **proxies))


@pytest.mark.parametrize("hidden", [True, False])
def test_hook_runs_the_sitecustomize_that_it_hides(tmp_path: Path, hidden: bool) -> None:
    for name in ("before", "later", "last"):
        (tmp_path / name).mkdir()
    for name in ("later", "last") if hidden else ():
        (tmp_path / name / "sitecustomize.py").write_text(
            f"import sys\nsys.ran = [*getattr(sys, 'ran', []), '{name}']\n"
        )
    path = os.pathsep.join(map(str, [tmp_path / "before", OFFLINE, tmp_path / "later", tmp_path / "last"]))
    code = "import sitecustomize, sys; print(sitecustomize.OfflineError.__name__, getattr(sys, 'ran', []))"
    printed = run(sys.executable, "-c", code, env=clean_environment(PYTHONPATH=path))
    assert printed.split(maxsplit=1) == ["OfflineError", "['later']\n" if hidden else "[]\n"]


# --- the wheel --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder outside the checkout, with a name that careless code trips over; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="course-wheel-") as folder:
        path = Path(folder).resolve() / "コース 1"
        path.mkdir()
        assert not path.is_relative_to(ROOT)
        yield path


@pytest.fixture(scope="module")
def source(place: Path) -> Path:
    """A copy of what git tracks or would track: what a learner clones, without leftovers of a build."""
    return copy_checkout(place / "source")


@pytest.fixture(scope="module")
def python(place: Path) -> Path:
    """Python of a fresh virtual environment."""
    run(sys.executable, "-m", "venv", place / "venv", env=clean_environment())
    return place / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"


@pytest.fixture(scope="module")
def wheel(source: Path, python: Path, place: Path) -> Path:
    """The wheel, built from the copy."""
    run(
        python,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        place / "dist",
        source,
        env=clean_environment(),
        cwd=place,
    )
    (path,) = (place / "dist").glob("*.whl")
    return path


@pytest.mark.slow
def test_wheel_carries_the_shipped_files(wheel: Path, source: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {info.filename: info.file_size for info in archive.infolist()}
    shipped = {
        f"course_lib/_bundled/{path.relative_to(source).as_posix()}": path.stat().st_size
        for folder in ("data", "results", "solutions")
        for path in (source / folder).rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    assert {name: inside.get(name) for name in shipped} == shipped
    names = [name.removeprefix("course_lib/_bundled/") for name in shipped]
    for name in ("data/fashion_mnist.npz", "data/SHA256SUMS", "data/SOURCES.md", "results/norm_placement.json"):
        assert name in names
    assert any(name.startswith("solutions/") and name.endswith(".py") for name in names)
    widget = {path.relative_to(source).as_posix() for path in source.glob("course_lib/viz/explorer.*")}
    assert len(widget) == 6  # explorer.py, its four scripts and its style
    assert widget <= set(inside)
    assert not [name for name in inside if name.startswith(("tests/", "notebooks/", "scripts/", "benchmarks/"))]


RUN_NOTEBOOK = """
import sys, nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

notebook = nbformat.read(sys.argv[1], 4)
try:
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
except CellExecutionError as error:
    sys.exit(str(error))
nbformat.write(notebook, sys.argv[1])
"""
# Cells that are added to the lesson; {venv!r} and {checkout!r} are filled in.
CHECK_IMPORT = """
import sys
from pathlib import Path

import course_lib
from course_lib.paths import shipped, verified

home = Path(course_lib.__file__).resolve()
assert home.is_relative_to({venv!r}), home
assert Path(sys.prefix).resolve() == Path({venv!r}), sys.prefix
assert not [p for p in sys.path if Path(p).resolve().is_relative_to({checkout!r})], sys.path
assert all(shipped(name).is_relative_to(home.parent) for name in ("data", "results", "solutions"))
print("imported from", verified("fashion_mnist.npz"))
"""
CHECK_DATA = """
from course_lib import corpora, tokenization
from course_lib.corpora.cards import SHIPPED

read = [name for name, about in SHIPPED.items() if about.file]  # the others are made of these, or of nothing
assert all(len(getattr(corpora, name)()) for name in read)
assert all(tokenization.load(name).vocab_size for name in tokenization.RECIPES)
print("loaded", len(read), "sets")
"""
CHECK_HOOK = """
import os
import socket

import sitecustomize

assert "HF_HUB_OFFLINE" not in os.environ
for attempt in (socket.create_connection, socket.socket().connect):
    try:
        attempt(("192.0.2.1", 80))
    except sitecustomize.OfflineError as error:
        print("refused:", error)
    else:
        raise AssertionError("the kernel reached the network")
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
print("loopback works")
"""


@pytest.mark.slow
def test_every_set_loads_from_a_clone(source: Path) -> None:
    """Nothing installed but what the course needs: the package is found because Python starts in the clone."""
    code = f"{CHECK_DATA}\nimport course_lib; print(course_lib.__file__)"
    said = run(sys.executable, "-c", code, env=clean_environment(PYTHONPATH=str(OFFLINE)), cwd=source)
    assert Path(said.split("\n")[1]).is_relative_to(source)


def lend(site: Path, needed: list[str]) -> None:
    """Links in the folder `site` to the packages here that `needed` ask for, and to those that they need in turn.

    As if pip had installed them: of all that a developer has, only what the course declares can be imported.
    """
    asked, seen = [("", Requirement(text)) for text in needed], set()
    while asked:
        extra, requirement = asked.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in ("", *requirement.extras):
            if (name := (canonicalize_name(requirement.name), wanted)) in seen:
                continue
            seen.add(name)
            package = distribution(requirement.name)
            asked += [(wanted, Requirement(text)) for text in package.requires or []]
            tops = {file.parts[0] for file in package.files or []} - {"..", "__pycache__"}
            for top in (top for top in tops if not (site / top).exists()):
                (site / top).symlink_to(Path(str(package.locate_file(top))))


@pytest.mark.slow
def test_lesson_runs_from_the_wheel_offline(wheel: Path, python: Path, source: Path, place: Path) -> None:
    run(python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", wheel, env=clean_environment(), cwd=place)
    found = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", env=clean_environment())
    site = Path(found.strip())
    (installed,) = site.glob("course_lib-*.dist-info")
    lend(site, [*(Distribution.at(installed).requires or []), "ipykernel", "nbclient"])
    run(python, "-m", "pip", "check", env=clean_environment(), cwd=place)

    away = place / "a learner's folder"
    away.mkdir()
    shutil.copytree(OFFLINE, away / "offline", ignore=shutil.ignore_patterns("__pycache__"))
    notebook = nbformat.read(source / "notebooks" / LESSON, 4)
    lesson_cells = len(notebook.cells)
    where = {"venv": str(python.parent.parent), "checkout": str(ROOT)}
    notebook.cells += [
        nbformat.v4.new_code_cell(code) for code in (CHECK_IMPORT.format(**where), CHECK_DATA, CHECK_HOOK)
    ]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None  # nothing saved may pass for something run
    nbformat.write(notebook, away / LESSON)

    folders = ("HOME", "HF_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "IPYTHONDIR", "JUPYTER_DATA_DIR")
    folders += ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")
    private = {name: str(place / "home" / name.lower()) for name in folders}
    for folder in private.values():
        Path(folder).mkdir(parents=True)
    env = clean_environment(PYTHONPATH=str(away / "offline"), **private)
    run(python, "-c", RUN_NOTEBOOK, away / LESSON, env=env, cwd=away)

    cells = [cell for cell in nbformat.read(away / LESSON, 4).cells if cell.cell_type == "code"]
    for cell in cells:
        assert cell.execution_count or not cell.source.strip(), f"did not run: {cell.source}"
        errors = [output for output in cell.outputs if output.output_type == "error"]
        assert not errors or "raises-exception" in cell.metadata.get("tags", []), errors
    assert lesson_cells >= 2
    assert "imported from" in cells[-3].outputs[0].text
    assert "loaded" in cells[-2].outputs[-1].text
    assert "loopback works" in cells[-1].outputs[0].text
