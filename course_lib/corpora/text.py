"""Text: speeches, a novel, sentence pairs, code, dictionary entries, capitals. Splits are made by document."""

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


def speeches(split: str = "train") -> "Dataset":
    """English: the 90 State of the Union addresses since 1934, one document each. Columns name, year, text.

    Not all were spoken: some, such as those of 1945, 1946 and 1981, are written messages to Congress. A text is one
    line: the source has no paragraphs. Split by address: 72 train, 9 validation, 9 test (`documents.members`). Raises
    ValueError for another split.
    """
    return _dataset(read_jsonl("en_sotu.jsonl.xz"), split)


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
