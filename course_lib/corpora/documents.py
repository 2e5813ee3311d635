"""Documents: read from disk, dealt out to splits whole, and only then cut into token windows."""

import hashlib
import json
import lzma
import re
import unicodedata
from collections.abc import Hashable, Iterable, Iterator, Sequence
from operator import index
from typing import Any, TypeVar

import torch
from torch import Tensor

from course_lib.checks import check_at_least, check_choice
from course_lib.paths import verified

K = TypeVar("K", bound=Hashable)
SPLITS = ("train", "validation", "test")
_HELD_OUT = 0.1  # share of the documents in validation, and again in test


def read_jsonl(name: str) -> list[dict[str, Any]]:
    """Rows of the shipped file data/`name`, JSON lines compressed with xz. Raises what `paths.verified` raises."""
    with lzma.open(verified(name), "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def check_split(split: str) -> None:
    """Raise ValueError unless `split` is one of SPLITS."""
    check_choice("split", split, SPLITS)


def members(keys: Iterable[K], split: str, seed: int = 0) -> set[K]:
    """The keys (names of documents) that belong to `split`: a tenth each to validation and test, the rest to train.

    Keys are ordered by SHA-256 of (seed, key), which shuffles them in the same way on every machine, and cut. Rounded,
    but at least one document is in each split. Raises ValueError for an unknown split, for fewer than three keys, and
    for a key that comes twice: its document would be in two splits.
    """
    check_split(split)
    listed = list(keys)
    if len(listed) < 3 or len(set(listed)) < len(listed):
        raise ValueError(
            f"keys: {len(listed)}, of which {len(set(listed))} differ; needed are 3 or more, all different"
        )
    order = sorted(listed, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
    held_out = max(1, round(_HELD_OUT * len(order)))
    parts = {"validation": order[:held_out], "test": order[held_out : 2 * held_out], "train": order[2 * held_out :]}
    return set(parts[split])


def token_windows(documents: Iterable[Sequence[int]], length: int, end: int) -> Tensor:
    """Token windows (N, length) int64 cut without overlap from the stream of all `documents`.

    Each document, a sequence of token ids, is followed by the id `end`; the last, shorter window is left out. Split by
    document first: windows of one document in two splits make a perplexity that is too good. For next-token prediction
    ask for T + 1 tokens: inputs are [:, :-1], targets [:, 1:]. Raises ValueError where the stream is shorter than
    one window, for ids that are no integers (a text that was not encoded yet) or below 0, or for a length below 1.
    """
    check_at_least("length", length, 1)
    try:
        stream = [index(token) for document in documents for token in (*document, end)]
    except TypeError as error:
        raise ValueError(f"documents must be sequences of token ids, and end={end!r} an id: {error}") from None
    if stream and min(stream) < 0:
        raise ValueError(f"documents or end have the id {min(stream)}; token ids are 0 or more")
    count = len(stream) // length
    if count == 0:
        raise ValueError(f"length={length}; the documents have {len(stream)} tokens, ends included: not one window")
    return torch.tensor(stream[: count * length]).view(count, length)


def fold(text: str) -> str:
    """What two texts share that differ only in case, width, spaces and punctuation: NFKC, case-folded, letters only."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())


def shingles(text: str, n: int = 13) -> Iterator[tuple[str, ...]]:
    """The runs of `n` words in `text`: words are case-folded; a Chinese or Japanese character counts as one, as these
    languages write no spaces."""
    words = re.findall(r"[\u3040-\u30ff\u4e00-\u9fff]|[^\W\u3040-\u30ff\u4e00-\u9fff]+", text.casefold())
    return zip(*(words[i:] for i in range(n)), strict=False)


def shared_shingles(train: Iterable[str], held_out: Iterable[str], n: int = 13) -> float:
    """Share of the held-out texts' runs of `n` words, counted with repetition, that are in the training texts too.

    Words are as `shingles` has them. Texts shorter than `n` words have no run; without any the share is 0. A test for
    leaks between splits, after Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C, who flag whole
    examples that share a run. Raises ValueError for n below 1, or one text instead of several.
    """
    check_at_least("n", n, 1)
    if isinstance(train, str) or isinstance(held_out, str):
        raise ValueError("train and held_out must be several texts, such as a list; one of them is a single string")
    held = [run for text in held_out for run in shingles(text, n)]
    wanted = set(held)  # the training texts' own runs, ten times as many, need not be kept
    seen = {run for text in train for run in shingles(text, n) if run in wanted}
    return sum(run in seen for run in held) / len(held) if held else 0.0
