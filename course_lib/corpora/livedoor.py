"""Livedoor News: Japanese news articles of nine categories."""

import re
import tarfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from course_lib.corpora import hashed, hub
from course_lib.corpora.download import read_archive

if TYPE_CHECKING:
    from datasets import Dataset

LIVEDOOR_CLASSES = (
    "dokujo-tsushin", "it-life-hack", "kaden-channel", "livedoor-homme", "movie-enter",
    "peachy", "smax", "sports-watch", "topic-news",
)  # fmt: skip
# LICENSE.txt, which lies in each folder, is no article.
_ARTICLE = re.compile(rf"(?:\./)?text/({'|'.join(LIVEDOOR_CLASSES)})/\1-\d+\.txt")


def _articles(path: Path) -> Iterator[dict[str, Any]]:
    """Articles in the archive's order; it is read in place, so that no member is ever written to the disk."""
    with tarfile.open(path, "r:gz") as tar:
        for member in tar:
            found = _ARTICLE.fullmatch(member.name)
            if not found or not member.isfile():
                continue
            content = cast(IO[bytes], tar.extractfile(member)).read().decode("utf-8")
            url, date, title, body = (part.strip() for part in (content + "\n\n\n").split("\n", 3))
            if not url.startswith("http"):
                raise ValueError(f"{member.name} does not start with its address, but with {url[:40]!r}")
            yield {"name": title, "text": body, "label": found[1], "url": url, "date": date}


def _read(path: Path, about: hub.ArchiveSet) -> list[dict[str, Any]]:
    """All articles, counted. Raises ValueError, which says what to do, for a damaged or another archive."""
    try:
        rows = list(_articles(path))
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(
            f"the archive from {about.url} cannot be read ({error}): delete {path} if it is still there, and try again"
        ) from error
    if len(rows) != about.documents:
        raise ValueError(
            f"the archive from {about.url} has {len(rows):,} articles, not {about.documents:,}: it was published anew; "
            "correct its row in course_lib/corpora/hub.py"
        )
    return rows


def _split(row: dict[str, Any]) -> str:
    position = hashed.position(row["text"])
    return "test" if position < 0.1 else "validation" if position < 0.2 else "train"


def livedoor_news(split: str = "train", *, full: bool = False) -> "Dataset":
    """Japanese news articles: columns name (title), text (body), label (LIVEDOOR_CLASSES), url and date (as printed).

    The archive has 7,367 articles and no split: about 10 % are "test" here, 10 % "validation", the rest "train",
    chosen by an article's text (`hashed.position`). It may not be passed on in changed form (CC BY-ND 2.1 JP), so it
    is not shipped: raises ValueError unless `full=True` permits the download, for another split, or for an archive
    that is not the known one; ConnectionError, which says what to do, when the download fails.
    Source: RONDHUIT Co., Ltd., livedoor ニュースコーパス, 2014.
    """
    import datasets

    about = hub.LIVEDOOR
    hub.check_request(about, split, ("train", "validation", "test"), full)
    rows = [row for row in read_archive(about, partial(_read, about=about)) if _split(row) == split]
    text = datasets.Value("string")
    label = datasets.ClassLabel(names=list(LIVEDOOR_CLASSES))
    features = datasets.Features({"name": text, "text": text, "label": label, "url": text, "date": text})
    return datasets.Dataset.from_list(rows, features=features, split=datasets.NamedSplit(split))
