"""Text: speeches, books, manuals, sentence pairs, code, dictionary entries and more. Splits are made by document."""

import csv
from typing import TYPE_CHECKING, Any

from course_lib.corpora.documents import members, read_jsonl
from course_lib.paths import verified

if TYPE_CHECKING:
    from datasets import Dataset


def _dataset(rows: list[dict[str, Any]], split: str, key: str = "name") -> "Dataset":
    """The rows whose `key` belongs to `split`, in the order of the file."""
    import datasets  # takes about a second to import: only who asks for data pays

    chosen = members((row[key] for row in rows), split)
    return datasets.Dataset.from_list([row for row in rows if row[key] in chosen], split=split)


def _grouped(rows: list[dict[str, Any]], split: str, part: str) -> "Dataset":
    """The rows whose column `group` belongs to `split`, in the order of the file; each `part` is dealt out by itself.

    With the seed 0 the two longest novels, and a fourth of PostgreSQL's manual, would not be for training.
    """
    import datasets

    chosen: set[str] = set()
    for name in dict.fromkeys(row[part] for row in rows):
        chosen |= members(dict.fromkeys(row["group"] for row in rows if row[part] == name), split, seed=1)
    return datasets.Dataset.from_list([row for row in rows if row["group"] in chosen], split=split)


def speeches(split: str = "train") -> "Dataset":
    """English: the 90 State of the Union addresses since 1934, one document each. Columns name, year, text.

    Not all were spoken: some, such as those of 1945, 1946 and 1981, are written messages to Congress. A text is one
    line: the source has no paragraphs. Split by address: 72 train, 9 validation, 9 test (`documents.members`). Raises
    ValueError for another split.
    """
    return _dataset(read_jsonl("en_sotu.jsonl.xz"), split)


def books(split: str = "train") -> "Dataset":
    """English: eight novels, one document a chapter, and 36 plays. Columns name, kind, author, group, text.

    The novels are Jane Austen's six, Moby-Dick, and Alice's Adventures in Wonderland, one paragraph a line; the plays
    are Shakespeare's, verse by verse, with an empty line between speeches. Split by `group`, a novel or the plays that
    share persons, so that nobody is known from training: validation has Persuasion and three plays, test Northanger
    Abbey and three plays. Documents stay whole, coarse words too. Raises ValueError for another split.
    """
    return _grouped(read_jsonl("en_books.jsonl.xz"), split, part="kind")


def manuals(split: str = "train") -> "Dataset":
    """English: pages of the manuals of PostgreSQL, SQLite, Python and Rust. Columns name, manual, group, text.

    Modern prose about technical things: the running text, one paragraph a line, without code, tables and headings, so
    that a paragraph may speak of an example that is not there. No paragraph shares a run of 13 words with one of an
    earlier page. Split by `group`, the pages with the same beginning of their name, such as the chapter book/ch12.
    Raises ValueError for another split.
    """
    return _grouped(read_jsonl("en_manuals.jsonl.xz"), split, part="manual")


def factbook(split: str = "train") -> "Dataset":
    """English: profiles of 249 countries and territories from the World Factbook, as of 2015. Columns name, text.

    One field a line, such as "Climate: ...": what its publisher, the CIA, thought then. A field that shares a run of 13
    words with one of another profile is left out. Split by country. Raises ValueError for another split.
    """
    return _dataset(read_jsonl("en_factbook.jsonl.xz"), split)


def neko(split: str = "train") -> "Dataset":
    """Japanese: the eleven chapters of Natsume Sōseki's 吾輩は猫である (I am a cat). Columns name, text.

    One paragraph a line, ruby stripped. Split by chapter: 9 train, 1 validation, 1 test. Raises ValueError for another
    split.
    """
    return _dataset(read_jsonl("ja_neko.jsonl.xz"), split)


def sentence_pairs(split: str = "train") -> "Dataset":
    """60,000 everyday Japanese sentences with their English translation, from Tatoeba. Columns id, ja, en.

    No sentence comes twice, in either language, not even in another case or punctuation; so a pair is a group of its
    own, and the split is by pair: 48,000 train, 6,000 validation, 6,000 test. But such sentences come in families: of
    the held-out pairs with five English words or more, 6 % differ from a training sentence in one English word, 0.6 %
    in at most two Japanese characters as well. So validation and test are a little easier than new text. Raises
    ValueError for another split.
    """
    return _dataset(read_jsonl("tatoeba_ja_en.jsonl.xz"), split, key="id")


def python_code(split: str = "train") -> "Dataset":
    """Python: 80 modules of CPython 3.11's standard library. Columns name, text.

    Split by package, so that siblings such as json/encoder.py and json/decoder.py stay together; a module at the top
    is its own package. Raises ValueError for another split.
    """
    rows = read_jsonl("mixture/python.jsonl.xz")
    packages = members(dict.fromkeys(row["name"].split("/")[0] for row in rows), split)
    import datasets

    return datasets.Dataset.from_list([row for row in rows if row["name"].split("/")[0] in packages], split=split)


def glosses(split: str = "train") -> "Dataset":
    """English: 10,687 entries of the dictionary WordNet 3.0. Columns name, text, such as "elm (noun): any of ...".

    No word and no definition comes twice. Split by entry. Raises ValueError for another split.
    """
    return _dataset(read_jsonl("mixture/glosses.jsonl.xz"), split)


def capitals() -> "Dataset":
    """Countries, territories too, and their capitals: columns country and capital. It has no splits.

    No name contains the other, no capital comes twice, and none is contested.
    """
    import datasets

    with open(verified("capitals.csv"), encoding="utf-8", newline="") as file:
        return datasets.Dataset.from_list(list(csv.DictReader(file)))
