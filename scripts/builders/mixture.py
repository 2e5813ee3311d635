"""The parts of the mixture that nothing else ships: Python code and dictionary glosses, about 1 MB each."""

import re
from collections.abc import Iterator
from pathlib import Path

from builders.files import clean, crude, rank, write_jsonl
from builders.packages import debian
from course_lib.corpora.documents import fold, shared_shingles

SIZE = 1_000_000  # characters, which are bytes here: both parts are ASCII
_SLUR = re.compile(  # WordNet says itself which terms are slurs
    r"(?:offensive|disparaging)\W+(?:\w+\W+){0,2}(?:term|slang)|sometimes offensive|ethnic slur|masturbat|\banus\b"
    r"|incest|bed-hop|ball-buster"
)
_GENERATED = {"test", "pydoc_data", "lib2to3", "idlelib", "encodings"}  # tests and tables, not code that one would read


def sample(rows: list[dict], size: int) -> list[dict]:
    """Rows in a fixed random order by name until `size` characters are full; returned sorted by name."""
    kept, total = [], 0
    for row in sorted(rows, key=lambda row: rank(row["name"])):
        if total + len(row["text"]) <= size:
            kept.append(row)
            total += len(row["text"])
    return sorted(kept, key=lambda row: row["name"])


def modules(library: Path) -> Iterator[dict]:
    """Source files of 2 to 40 kB in ASCII; those with a copyright or licence line of their own are left out."""
    for path in sorted(p for p in library.rglob("*.py") if p.is_file()):  # one is a link to another package
        name, raw = path.relative_to(library).as_posix(), path.read_bytes()
        if (
            2_000 <= len(raw) <= 40_000
            and raw.isascii()
            and not re.search(rb"copyright|licen[cs]e", raw, re.IGNORECASE)
            and not _GENERATED & set(Path(name).parts)
            and not crude(raw.decode())
        ):
            yield {"name": name, "text": raw.decode().expandtabs(8).strip() + "\n"}


def distinct(rows: list[dict], limit: float = 0.05) -> list[dict]:
    """Rows without those that share more than `limit` of their 13-word runs with one taken before: copied code."""
    kept: list[dict] = []
    for row in sorted(rows, key=lambda row: rank(row["name"])):
        if all(shared_shingles([other["text"]], [row["text"]]) <= limit for other in kept):
            kept.append(row)
    return kept


def python_code(folder: Path) -> list[Path]:
    """Modules of CPython's standard library, one document each."""
    root = debian(
        "libpython3.11-stdlib",
        "3.11.2-6+deb12u9",
        "10f13e000ee757f5f2d2d3569f9e30546214a0c850acd78695feae373bfa3e53",
        folder,
    )
    return [write_jsonl("mixture/python.jsonl.xz", sample(distinct(list(modules(root / "usr/lib/python3.11"))), SIZE))]


def entries(data: Path, kind: str) -> Iterator[dict]:
    """One entry for each synset in a WordNet data file: its first word, the part of speech, the gloss."""
    for line in data.read_text("ascii").splitlines():
        if line.startswith(" "):  # the licence, at the head of each file
            continue
        fields, gloss = line.split(" | ", 1)
        word = re.sub(r"\(\w+\)$", "", fields.split(" ")[4]).replace("_", " ")
        yield {"name": f"{word} ({kind})", "text": f"{word} ({kind}): {clean(gloss)}"}


def _improper(text: str) -> bool:
    return crude(text) or bool(_SLUR.search(text))


def glosses(folder: Path) -> list[Path]:
    """Dictionary entries of WordNet 3.0, one document each, no word and no gloss twice."""
    root = (
        debian("wordnet-base", "1:3.0-37", "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752", folder)
        / "usr/share/wordnet"
    )
    rows: dict[str, dict] = {}
    seen: set[str] = set()
    for kind in ("noun", "verb", "adj", "adv"):
        for row in entries(root / f"data.{kind}", kind):
            word, gloss = row["name"].rsplit(" (", 1)[0].casefold(), fold(row["text"].split(": ", 1)[1])
            if word not in rows and gloss not in seen and len(row["text"]) > 30 and not _improper(row["text"]):
                rows[word] = row
                seen.add(gloss)
    return [write_jsonl("mixture/glosses.jsonl.xz", sample(list(rows.values()), SIZE))]
