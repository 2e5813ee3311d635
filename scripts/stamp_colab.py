"""Write the repository's address into pyproject.toml and stamp notebooks and README from it: `make colab`.

Each notebook gets its Open-in-Colab badge and the guard of its set-up cell; README.md gets a list of badges between
`<!-- colab -->` and `<!-- /colab -->`. With no address there are no badges, and the guard installs from a wheel or a
clone beside the notebook. Stamping again changes nothing.

    python scripts/stamp_colab.py [owner/name] [--root DIR]        (default: the address that pyproject.toml has)
"""

import argparse
import re
import tomllib
from pathlib import Path
from urllib.parse import quote

import nbformat

from course_lib.paths import whole_or_nothing

GITHUB = "https://github.com/"
COLAB = "https://colab.research.google.com/"
REPO = r"[A-Za-z0-9][A-Za-z0-9_-]{0,38}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}(?<!\.git)"
BADGE_LINE = re.compile(rf"\n\[!\[[^\]]*\]\({re.escape(COLAB)}assets/colab-badge\.svg\)\]\(.*\)[ \t]*(?=\n|\Z)")
BLOCK = re.compile(r"(?<=<!-- colab -->).*?(?=<!-- /colab -->)", re.S)
NO_ADDRESS = "No address is set yet: `make colab REPO=owner/name` writes the badges."

SETUP = """\
import sys

if "google.colab" in sys.modules:
{guard}
from course_lib import setup

run = setup(seed=0)"""
FROM_ADDRESS = """\
    %pip install -q "course_lib @ git+{address}\""""
FROM_BESIDE = """\
    from pathlib import Path

    folders = [Path(".."), Path("."), *Path().iterdir()]
    found = [f.resolve() for f in folders if (f / "pyproject.toml").is_file() and (f / "course_lib").is_dir()]
    found += sorted(Path.cwd().glob("course_lib-*any.whl"))
    if not found:
        raise RuntimeError("Put the course's folder or its course_lib-….whl beside this notebook; run this cell again.")
    %pip install -q "{found[-1]}\""""


def badge(address: str, name: str) -> str:
    """The line of Markdown that opens `notebooks/NAME.ipynb` of the repository at `address` in Colab."""
    link = f"{COLAB}github/{address.removeprefix(GITHUB)}/blob/main/notebooks/{quote(name)}.ipynb"
    return f"[![Open in Colab]({COLAB}assets/colab-badge.svg)]({link})"


def setup_source(address: str | None) -> str:
    """The whole set-up cell; on Colab it installs the course from `address`, or (None) from beside the notebook."""
    return SETUP.format(guard=FROM_ADDRESS.format(address=address) if address else FROM_BESIDE)


def address_of(repo: str) -> str:
    """`owner/name` as an address. Raises ValueError for anything else."""
    if not re.fullmatch(REPO, repo):
        raise ValueError(
            f"REPO={repo!r}; allowed is owner/name as on GitHub (letters, digits, '-', '_', in the name also '.'), "
            "without https:// and without .git"
        )
    return GITHUB + repo


def read_address(pyproject: str) -> str | None:
    """`Repository` of [project.urls] in the text of a pyproject.toml, None if unset. ValueError if not on GitHub."""
    try:
        address = tomllib.loads(pyproject)["project"].get("urls", {}).get("Repository")
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"pyproject.toml, where [project.urls] should hold the address: {error}") from error
    return None if address is None else address_of(address.removeprefix(GITHUB))


def with_address(pyproject: str, address: str) -> str:
    """The text of pyproject.toml with `address` in [project.urls], every other line as it was."""
    header, line = "\n[project.urls]\n", f'Repository = "{address}"\n'
    changed = re.sub(r"^Repository *=.*\n", "", pyproject, flags=re.M)
    if header not in changed:  # the table goes below the comment about it, else to the end
        comment = re.search(r"^#.*\[project\.urls\].*(?=\n)", changed, re.M)
        place = comment.end() if comment else len(changed)
        changed = changed[:place] + header + changed[place + 1 :]
    return changed.replace(header, header + line, 1)


def stamped_notebook(path: Path, address: str | None) -> tuple[str, str]:
    """Text of the notebook with its badge and set-up cell stamped, and its title. Raises ValueError without either."""
    text = path.read_text("utf-8")
    notebook = nbformat.reads(text, as_version=4)
    first = next((c for c in notebook.cells if c.cell_type == "markdown"), None)
    if first is None or not first.source.startswith("# "):
        raise ValueError(f"{path.name}: its first markdown cell must begin with a title, `# ...`")
    setups = [c for c in notebook.cells if c.cell_type == "code" and "setup" in c.metadata.get("tags", [])]
    if len(setups) != 1:
        raise ValueError(f"{path.name}: {len(setups)} code cells are tagged 'setup'; exactly one must be")
    before = first.source, setups[0].source
    first.source = BADGE_LINE.sub("", first.source)
    title, _, rest = first.source.partition("\n")
    if address:  # a blank line after the badge keeps the text that follows out of its paragraph
        first.source = "\n".join([title, badge(address, path.stem), "", rest.lstrip("\n")]).rstrip("\n")
    setups[0].source = setup_source(address)
    if before != (first.source, setups[0].source):  # else it keeps its bytes, however it was written
        text = nbformat.writes(notebook).rstrip("\n") + "\n"
    return text, title.removeprefix("# ").strip()


def stamp(root: Path, repo: str | None = None) -> list[Path]:
    """Stamp the course in `root` and return the files that changed. On an error nothing is written."""
    pyproject, readme = root / "pyproject.toml", root / "README.md"
    texts = {pyproject: pyproject.read_text("utf-8")}
    if repo is not None:
        texts[pyproject] = with_address(texts[pyproject], address_of(repo))
    address = read_address(texts[pyproject])
    rows = []
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        texts[path], title = stamped_notebook(path, address)
        if address:
            rows.append(f"- [{title}](notebooks/{quote(path.name)}) {badge(address, path.stem)}\n")
    block = "".join(rows) if address else NO_ADDRESS + "\n"
    texts[readme] = BLOCK.sub(lambda _: f"\n{block}", readme.read_text("utf-8"))
    changed = [path for path, text in texts.items() if text != path.read_text("utf-8")]
    for path in changed:
        with whole_or_nothing(path) as temporary:
            temporary.write_text(texts[path], "utf-8", newline="\n")
    return changed


def main() -> None:
    """Read the command line, stamp, and say what changed."""
    parser = argparse.ArgumentParser(description="Stamp pyproject.toml, the notebooks and README.md for Colab.")
    parser.add_argument("repo", nargs="?", metavar="owner/name", help="default: the address that pyproject.toml has")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent, help="the course's folder")
    options = parser.parse_args()
    try:
        changed = stamp(options.root, options.repo)
    except ValueError as error:
        raise SystemExit(f"nothing was stamped: {error}") from error
    print("\n".join(f"stamped {path.relative_to(options.root)}" for path in changed) or "nothing had to change")


if __name__ == "__main__":
    main()
