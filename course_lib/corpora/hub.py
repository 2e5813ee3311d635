"""Data sets that the course does not ship: where they are published, and one way to load them.

Nothing here downloads unless a caller said `full=True`. What `datasets` has loaded once it keeps, and loads without a
network from then on.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FullSet:
    """What a learner should know before a download: its size and licence, and what the course ships instead."""

    name: str
    home: str
    licence: str
    size: str
    shipped: str


@dataclass(frozen=True)
class HubSet(FullSet):
    """A set in a parquet repository on the Hugging Face hub (`datasets` 4 and later run no loading scripts)."""

    repo: str
    config: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class ArchiveSet(FullSet):
    """A set in its publisher's own archive, of which the number of documents is known but no checksum."""

    url: str
    documents: int


HUB = {
    row.name: row
    for row in (
        HubSet(
            "cifar10", "https://www.cs.toronto.edu/~kriz/cifar.html", "not stated by its publisher",
            "about 145 MB", "emoji(), the shipped colour pictures",
            "uoft-cs/cifar10", "plain_text", ("img", "label"),
        ),
        HubSet(
            "fashion_mnist", "https://github.com/zalandoresearch/fashion-mnist", "MIT",
            "about 36 MB", "fashion_mnist() without full=True, the shipped sixth of it",
            "zalando-datasets/fashion_mnist", "fashion_mnist", ("image", "label"),
        ),
        HubSet(
            "wikitext103", "https://huggingface.co/datasets/Salesforce/wikitext", "CC BY-SA 3.0 and GFDL",
            "about 315 MB", "speeches(), shipped English",
            "Salesforce/wikitext", "wikitext-103-raw-v1", ("text",),
        ),
        HubSet(
            "smollm_corpus", "https://huggingface.co/datasets/HuggingFaceTB/smollm-corpus", "ODC-By 1.0",
            "only what is read is streamed, of 39 million documents", "speeches(), shipped English",
            "HuggingFaceTB/smollm-corpus", "cosmopedia-v2", ("text",),
        ),
        HubSet(
            "fineweb_edu", "https://huggingface.co/datasets/HuggingFaceFW/fineweb-edu", "ODC-By 1.0",
            "only what is read is streamed, of 10 billion tokens", "speeches(), shipped English",
            "HuggingFaceFW/fineweb-edu", "sample-10BT", ("url", "text"),
        ),
    )
}  # fmt: skip

LIVEDOOR = ArchiveSet(
    "livedoor_news", "https://www.rondhuit.com/download.html#ldcc", "CC BY-ND 2.1 JP: do not pass on changed copies",
    "about 9 MB", "neko() and sentence_pairs(), shipped Japanese",
    "https://www.rondhuit.com/download/ldcc-20140209.tar.gz", 7367,
)  # fmt: skip


def check_request(about: FullSet, split: str, splits: tuple[str, ...], full: bool) -> None:
    """Raise ValueError for a split that the set lacks, or where the permission to download was not given."""
    if split not in splits:
        raise ValueError(f"split={split!r}; allowed are {', '.join(map(repr, splits))}")
    if not full:
        raise ValueError(
            f"full=False, but {about.name} is not shipped; full=True downloads it ({about.size}; licence: "
            f"{about.licence}; {about.home}). What needs no download: {about.shipped}."
        )


@contextmanager
def explained(about: FullSet, place: str) -> Iterator[None]:
    """Turn any error of the code inside, which loads `about` from `place`, into a ConnectionError that says what to do.

    The original error is its cause. Everything is caught on purpose: what can come up from below belongs to half a
    dozen libraries, and changes with their versions.
    """
    import datasets

    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        if datasets.config.HF_HUB_OFFLINE:
            advice = "HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set and forbids it: unset both and start Python again."
        else:
            advice = (
                "Is there a network, and room on the disk? Behind a proxy, set HTTPS_PROXY. Otherwise the server may "
                f"be down, or the set may have moved (look at {about.home}): try again later."
            )
        raise ConnectionError(
            f"{about.name} could not be loaded from {place} ({type(error).__name__}: {reason}). {advice} "
            f"What needs no network: {about.shipped}."
        ) from error


def check_columns(about: HubSet, found: Iterable[str]) -> None:
    """Raise ValueError, with what was found, where a column of the table above is missing."""
    missing = sorted(set(about.columns) - set(found))
    if missing:
        raise ValueError(
            f"{about.repo} ({about.config}) has columns {sorted(found)}, but {sorted(about.columns)} are wanted: "
            f"{missing} missing. It was published anew; correct its row in course_lib/corpora/hub.py."
        )


def load(about: HubSet, split: str, *, streaming: bool = False) -> Any:
    """The published rows of `split`: a `datasets.Dataset`, or an IterableDataset where `streaming`.

    Raises ConnectionError when the hub cannot be read, ValueError for other columns than wanted. (A parquet file says
    what columns it has in its footer, so that those of a stream are known before a row is read.)
    """
    import datasets

    with explained(about, f"{about.repo} ({about.config}) on the Hugging Face hub"):
        rows = datasets.load_dataset(about.repo, about.config, split=split, streaming=streaming)
    check_columns(about, rows.column_names)
    return rows
