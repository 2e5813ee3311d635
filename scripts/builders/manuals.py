"""Modern prose: the pages of four manuals whose licences permit it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builders.files import without_repeats, write_jsonl
from builders.packages import debian
from builders.pages import paragraphs


@dataclass(frozen=True)
class _Manual:
    """A manual in a Debian package: where it is, pages without prose, the folders read, where the text is on a page."""

    package: str
    version: str
    digest: str
    root: str
    left_out: str
    parts: tuple[str, ...] = ("",)
    inside: tuple[str, str] | None = None


# Left out are lists rather than prose: release notes, tables of a catalogue, calls of a library, indexes; pages about
# people and business; and other editions of a book, or all of it on one page.
_MANUALS = {
    "PostgreSQL": _Manual(
        "postgresql-doc-15",
        "15.20-0+deb12u1",
        "4c44bf2c599f208b3f46454a6cf7a72e25ec46ff74d37b59dd31ad76b00eebb7",
        "usr/share/doc/postgresql-doc-15/html",
        "release|infoschema-|catalog-|biblio|bookindex|acknowledgments|legalnotice|features|contrib-prog",
    ),
    "SQLite": _Manual(
        "sqlite3-doc",
        "3.40.1-2+deb12u2",
        "466e30d7066e2641fa13e56bc662a2ad521b8cc9c17dde9c9dac3d4f105e32f2",
        "usr/share/doc/sqlite3",
        "c3ref/|session/|releaselog/|syntax/|capi3ref|changes|news|oldnews|chronology|code|consortium|crew|prosupport"
        "|support|custombuild|copyright|press|famous|books|docs|faq|.*_crossref|.*index",
    ),
    "Python": _Manual(
        "python3.11-doc",
        "3.11.2-6+deb12u9",
        "5b3594189d6ef9a6963ce0347fd307a1cc67620ad697e144db366070e2e146be",
        "usr/share/doc/python3.11/html",
        ".*/index$",
        ("tutorial", "howto", "faq", "reference", "using", "extending"),
        inside=("role", "main"),
    ),
    "Rust": _Manual(
        "rust-doc",
        "1.63.0+dfsg1-2",
        "96ef96fe6df87d939ca713bd7df3d15c2b778ccb892eca025c4ee504146f697b",
        "usr/share/doc/rust-doc/html",
        "book/(?:first|second|2018)-edition|.*/print$",
        ("book", "nomicon", "reference", "edition-guide"),
    ),
}


def pages(root: Path, manual: _Manual) -> Iterator[tuple[str, list[str]]]:
    """Name and paragraphs of each page of an unpacked manual, by name."""
    files = (path for part in manual.parts for path in (root / part).rglob("*.html"))
    names = {path.relative_to(root).with_suffix("").as_posix() for path in files}
    for name in sorted(names):
        if not re.match(manual.left_out, name):
            yield name, paragraphs(root / f"{name}.html", manual.inside)


def group(name: str) -> str:
    """What a page shares with its siblings: "book/ch12" for book/ch12-03-modules, "libpq" for libpq-connect."""
    return re.match(r"(?:[^/]+/)?[^/_-]+", name)[0]


def manuals(folder: Path) -> list[Path]:
    """Pages with their running text, one paragraph a line."""
    documents: dict[tuple[str, str], list[str]] = {}
    for title, manual in _MANUALS.items():
        members = (f"{manual.root}/{part}".rstrip("/") for part in manual.parts)
        root = debian(manual.package, manual.version, manual.digest, folder, *members) / manual.root
        documents |= {(title, name): texts for name, texts in pages(root, manual)}
    rows = [
        {"name": f"{title}: {name}", "manual": title, "group": f"{title}: {group(name)}", "text": text}
        for (title, name), text in without_repeats(documents)
    ]
    return [write_jsonl("en_manuals.jsonl.xz", rows)]
