"""A card for each data set: what it is, its splits, its licence, whether splits leak, and a sample."""

import inspect
from dataclasses import dataclass
from typing import Any

from course_lib import corpora
from course_lib.corpora.documents import SPLITS, shared_shingles
from course_lib.corpora.hub import HUB, LIVEDOOR
from course_lib.paths import shipped

_GENERATED = "MIT, as the course"


@dataclass(frozen=True)
class Shipped:
    """A set that needs no network: its file below data/ (none where it is generated), licence and splits."""

    licence: str
    file: str = ""
    splits: tuple[str, ...] = SPLITS


SHIPPED = {
    "speeches": Shipped("CC0 1.0", "en_sotu.jsonl.xz"),
    "books": Shipped("public domain", "en_books.jsonl.xz"),
    "manuals": Shipped("PostgreSQL, public domain, PSF-2.0 and MIT", "en_manuals.jsonl.xz"),
    "factbook": Shipped("public domain", "en_factbook.jsonl.xz"),
    "neko": Shipped("public domain", "ja_neko.jsonl.xz"),
    "sentence_pairs": Shipped("CC BY 2.0 FR", "tatoeba_ja_en.jsonl.xz"),
    "python_code": Shipped("PSF-2.0", "mixture/python.jsonl.xz"),
    "glosses": Shipped("WordNet 3.0", "mixture/glosses.jsonl.xz"),
    "mixture": Shipped("those of its parts"),
    "arithmetic": Shipped(_GENERATED),
    "logic": Shipped(_GENERATED),
    "cloze": Shipped("CC0 1.0, as the speeches"),
    "capitals": Shipped("MIT", "capitals.csv", ()),
    "fashion_mnist": Shipped("MIT", "fashion_mnist.npz", ("train", "test")),
    "emoji": Shipped("Apache-2.0, MIT and CC-BY-4.0", "emoji10.parquet"),
}
FULL = HUB | {LIVEDOOR.name: LIVEDOOR}


def _short(value: Any) -> str:
    """A value on one line, cut after 160 characters."""
    if hasattr(value, "shape"):
        return f"array {tuple(value.shape)}" if value.ndim else str(value.item())
    text = " ⏎ ".join(str(value).splitlines())
    return text if len(text) <= 160 else text[:160] + " …"


def _named(rows: Any, column: str, value: Any) -> str:
    """A value, and the name of its class where it is a label."""
    names = getattr(rows.features[column], "names", None)
    return f"{_short(value)} ({names[int(value)]})" if names else _short(value)


def _thousands(number: int) -> str:
    return f"{number:,}" if number else "-"


def _texts(rows: Any) -> list[str]:
    return [text for column in ("text", "ja", "en") if column in rows.column_names for text in rows[column]]


def _about(name: str) -> str:
    """The first sentence of the function's docstring."""
    return (inspect.getdoc(getattr(corpora, name)) or "").split("\n")[0]


def card(name: str) -> str:
    """The card of a set, in Markdown. Raises ValueError for a name without a card."""
    if name in SHIPPED:
        return _shipped_card(name)
    if name in FULL:
        return _full_card(name)
    raise ValueError(f"name={name!r}; there are cards for {', '.join(dict.fromkeys([*SHIPPED, *FULL]))}")


def _shipped_card(name: str) -> str:
    about = SHIPPED[name]
    function = getattr(corpora, name)
    parts = {split: function(split) for split in about.splits} or {"all": function()}
    texts = {split: _texts(rows) for split, rows in parts.items()}
    size = f"`data/{about.file}`, {(shipped('data') / about.file).stat().st_size / 1000:,.0f} kB" if about.file else ""
    lines = [f"## {name}", "", _about(name), "", "| split | rows | characters of text |", "|---|---|---|"]
    for split, rows in parts.items():
        lines += [f"| {split} | {len(rows):,} | {_thousands(sum(map(len, texts[split])))} |"]
    lines += ["", f"Licence: {about.licence}. " + (f"File: {size}." if size else "Made when asked for: no file.")]
    if about.file and any(texts.get("validation", [])):
        shares = [f"{100 * shared_shingles(texts['train'], texts[s]):.2f} % of {s}" for s in ("validation", "test")]
        lines += [f"13-word runs that are in train too: {', '.join(shares)}."]
    if name in FULL:
        lines += [f"`full=True` downloads all of it ({FULL[name].size})."]
    rows = next(iter(parts.values()))
    sample = [f"- `{column}`: {_named(rows, column, value)}" for column, value in rows[0].items()]
    return "\n".join([*lines, "", *sample, ""])


def _full_card(name: str) -> str:
    about = FULL[name]
    lines = [f"## {name}", "", _about(name), "", f"Not shipped; `full=True` downloads it: {about.size}."]
    return "\n".join([*lines, f"Licence: {about.licence}. Home: <{about.home}>.", ""])


def readme() -> str:
    """All cards, as data/README.md has them."""
    head = (
        "# The data sets\n\nWritten by `make data` from `python -m course_lib.corpora`. Origins and licences in full: "
        "[SOURCES.md](SOURCES.md).\n\n"
        '    from course_lib import corpora\n\n    corpora.speeches("train")["text"][0]\n'
        "    corpora.cifar10(full=True)  # a full-size set: downloaded once\n\n"
        "Below, ⏎ is a line break. The share of held-out 13-word runs that are in train too tells whether splits\n"
        "leak; a Japanese character counts as a word.\n\n"
    )
    names = dict.fromkeys([*SHIPPED, *FULL])
    return head + "\n".join(map(card, names))
