"""English text in full size, as documents: columns name and text."""

import atexit
import gc
import re
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from course_lib.corpora import hashed, hub

if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset

VALIDATION_SHARE = 1 / 1000  # of a stream
_TITLE = re.compile(r" = (?!= )(.+) = \n?")


def _features() -> "Features":
    import datasets

    return datasets.Features({"name": datasets.Value("string"), "text": datasets.Value("string")})


def articles(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """Join WikiText's lines into articles, each with its title as `name` and its lines, the heading too, as `text`.

    A line " = Title = " between two empty lines starts an article. Sections are " = = Section = = "; a line of the
    first form without the empty lines is a piece of a formula. Text before the first title gets the name "".
    """
    collected: list[str] = []
    name = before = ""
    for line, after in pairwise(chain(lines, [""])):
        title = _TITLE.fullmatch(line)
        if title and not before.strip() and not after.strip():
            yield from _article(name, collected)
            name, collected = title[1], []
        collected.append(line.rstrip("\n") + "\n")
        before = line
    yield from _article(name, collected)


def _article(name: str, lines: list[str]) -> Iterator[dict[str, str]]:
    text = "".join(lines).strip("\n")
    if text.strip():
        yield {"name": name, "text": text}


def _lines(rows: "Dataset") -> Iterator[str]:
    for batch in rows.iter(10_000):
        yield from batch["text"]


def _published_articles(rows: "Dataset") -> Iterator[dict[str, str]]:
    yield from articles(_lines(rows))


def wikitext103(split: str = "train", *, full: bool = False) -> "Dataset":
    """Good and featured articles of the English Wikipedia: WikiText-103, raw, one article a row.

    Columns name (the title) and text (as published, with headings and " @-@ " for hyphens). Splits "train",
    "validation" and "test" are the published ones, by article; the paper counts 28,475, 60 and 60. The set is not
    shipped: raises ValueError unless `full=True` permits the download, or for another split; ConnectionError, which
    says what to do, when it fails. Source: Merity et al. 2016, "Pointer Sentinel Mixture Models", section 4.3.
    """
    import datasets

    about = hub.HUB["wikitext103"]
    hub.check_request(about, split, ("train", "validation", "test"), full)
    rows = hub.load(about, split)
    return datasets.Dataset.from_generator(
        _published_articles, features=_features(), gen_kwargs={"rows": rows}, split=datasets.NamedSplit(split)
    )


def _belongs(example: dict[str, Any], split: str) -> bool:
    return (hashed.position(example["text"]) < VALIDATION_SHARE) == (split == "validation")


def _document(example: dict[str, Any]) -> dict[str, str]:
    return {"name": example.get("url") or hashed.digest(example["text"]), "text": example["text"]}


def _streamed(about: hub.HubSet, split: str, full: bool) -> "IterableDataset":
    hub.check_request(about, split, ("train", "validation"), full)
    rows = hub.load(about, "train", streaming=True)
    # Arrow's threads, where a stream was left half-read, abort a Python that ends before them (apache/arrow#45214).
    atexit.register(gc.collect)
    return (
        rows.filter(partial(_belongs, split=split))
        .select_columns(list(about.columns))
        .map(_document, remove_columns=[c for c in about.columns if c != "text"], features=_features())
    )


def smollm_corpus(split: str = "train", *, full: bool = False) -> "IterableDataset":
    """Textbooks and stories written by a language model: the cosmopedia-v2 part of the SmolLM corpus, streamed.

    An IterableDataset with columns name (a digest of the text) and text, in the published order; only what is read is
    downloaded: `smollm_corpus(full=True).take(1000)`. Split "validation" has about every thousandth document, chosen
    by its text (`hashed.position`), "train" all others. Raises ValueError unless `full=True` permits the download, or
    for another split; ConnectionError, which says what to do, when the hub cannot be reached. A connection that is
    lost while reading is tried again, and reported, by `datasets`.
    Source: Ben Allal et al. 2024, "SmolLM-Corpus".
    """
    return _streamed(hub.HUB["smollm_corpus"], split, full)


def fineweb_edu(split: str = "train", *, full: bool = False) -> "IterableDataset":
    """Web pages chosen for what one can learn from them: the 10-billion-token sample of FineWeb-Edu, streamed.

    An IterableDataset with columns name (the page's address) and text, in the published order; only what is read is
    downloaded: `fineweb_edu(full=True).take(1000)`. Splits and errors are those of `smollm_corpus`.
    Source: Penedo et al. 2024, "The FineWeb Datasets", section 4.
    """
    return _streamed(hub.HUB["fineweb_edu"], split, full)
