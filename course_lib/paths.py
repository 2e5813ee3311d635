"""Where the shipped files lie: beside the package in a clone, inside it in a wheel."""

import glob
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(folder: str) -> Path:
    """Folder of the course: `data`, `results` or `solutions`.

    A clone or an editable install has it beside `course_lib`, a wheel carries a copy inside.
    Raises FileNotFoundError where neither is there.
    """
    beside, inside = _PACKAGE.parent / folder, _PACKAGE / "_bundled" / folder
    # A wheel's neighbours in site-packages may be called `data` as well: the copy inside comes first.
    for path in (inside, beside):
        if path.is_dir():
            return path
    raise FileNotFoundError(f"the course's folder {folder!r} is neither at {inside} nor at {beside}: install it again")


def sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums() -> dict[str, str]:
    """Recorded SHA-256 of every file in `data/`, by its name there (from `data/SHA256SUMS`).

    Raises ValueError where that list is damaged.
    """
    lines = (shipped("data") / "SHA256SUMS").read_text("utf-8").splitlines()
    found = [re.fullmatch(r"([0-9a-f]{64})  (\S+)", line) for line in lines]
    if not all(found):
        raise ValueError("data/SHA256SUMS is damaged: restore it with `git checkout -- data/SHA256SUMS`")
    return {match[2]: match[1] for match in found if match}


def verified(name: str) -> Path:
    """Path of the data file `name`, after its SHA-256 was compared with the recorded one.

    Raises FileNotFoundError when it is missing, ValueError when its bytes are not those that were shipped.
    """
    listed = checksums()
    if name not in listed:
        raise ValueError(f"name={name!r} is not listed in data/SHA256SUMS; listed are {sorted(listed)}")
    path, expected = shipped("data") / name, listed[name]
    target = "weights" if name.startswith("weights/") else "data"
    repair = f"restore it with `git checkout -- data/{name}`, or make it again with `make {target}`"
    if not path.is_file():
        raise FileNotFoundError(f"data/{name} is missing: {repair}")
    if sha256(path) != expected:
        raise ValueError(f"data/{name} is damaged: its SHA-256 is not the recorded {expected[:12]}…; {repair}")
    return path


@contextmanager
def whole_or_nothing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path` at once, on an error it is removed.

    Several processes may write the same `path`: each has a temporary file of its own, and the last rename stands.
    What a killed process left is removed by the first write an hour later.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > 3600:
                left.unlink()
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # a rename may outlive a power cut that the bytes do not
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
