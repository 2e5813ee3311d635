"""One download of one file, whole or not at all."""

import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tqdm.auto import tqdm

from course_lib.corpora import hub
from course_lib.paths import whole_or_nothing

Content = TypeVar("Content")
_TIMEOUT = 30  # seconds without a byte
_BLOCK = 1 << 16


def _fetch(url: str, path: Path, name: str) -> None:
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as response, open(path, "wb") as file:
        length = int(response.headers.get("Content-Length", -1))
        with tqdm(total=max(length, 0) or None, unit="B", unit_scale=True, desc=f"Downloading {name}") as bar:
            while block := response.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
        # http.client ends quietly where a server hangs up early.
        if length not in (-1, file.tell()):
            raise ConnectionError(f"the connection ended after {file.tell():,} of {length:,} bytes")


def read_archive(about: hub.ArchiveSet, read: Callable[[Path], Content]) -> Content:
    """What `read` makes of the set's archive, kept in the cache of `datasets` (below HF_HOME), downloaded if need be.

    A download gets its name there only after `read` accepted it: no half or foreign file is ever found in the cache.
    Raises ConnectionError, which says what to do, when the download fails, and whatever `read` raises.
    """
    import datasets

    path = Path(datasets.config.DOWNLOADED_DATASETS_PATH) / "course_lib" / about.url.rpartition("/")[2]
    if path.is_file():
        return read(path)
    with whole_or_nothing(path) as partial:
        with hub.explained(about, about.url):
            if datasets.config.HF_HUB_OFFLINE:
                raise ConnectionError("offline mode")
            _fetch(about.url, partial, about.name)
        return read(partial)
