"""Six kinds of text in equal amounts, for models whose parts may specialise."""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from course_lib.corpora.documents import check_split
from course_lib.corpora.expressions import arithmetic
from course_lib.corpora.formulas import logic
from course_lib.corpora.text import glosses, neko, python_code, speeches
from course_lib.init import seed_of

if TYPE_CHECKING:
    from datasets import Dataset

MIXTURE_KINDS = ("code", "glosses", "english", "japanese", "arithmetic", "logic")
_SOURCES = {"code": python_code, "glosses": glosses, "english": speeches, "japanese": neko}
_BYTES = {"train": 700_000, "validation": 80_000, "test": 80_000}  # of each kind, about, in UTF-8
_LEVELS = (1, 2, 3, 4)
_BYTES_A_PROBLEM = {"arithmetic": 20.5, "logic": 130}  # measured, on average over these levels
_SHEET = 50  # problems in a document, a line each


def _shortened(texts: list[str], size: int) -> list[str]:
    """Texts from the start until `size` bytes are full; the last one ends at a line or sentence."""
    kept: list[str] = []
    for text in texts:
        raw = text.encode()
        if len(raw) <= size:
            kept.append(text)
            size -= len(raw)
            continue
        head = raw[:size].decode(errors="ignore")
        end = max(head.rfind(mark) + len(mark) for mark in ("\n", ". ", "。"))
        return [*kept, head[:end].strip()] if end > 2 else kept
    return kept


def _sheets(problems: Callable[..., "Dataset"], split: str, count: int, order: Random) -> list[str]:
    """Problems of all levels, `count` of each, shuffled and written on sheets."""
    lines = [line for level in _LEVELS for line in problems(split, level=level, count=count)["text"]]
    order.shuffle(lines)
    return ["\n".join(lines[i : i + _SHEET]) for i in range(0, len(lines), _SHEET)]


def mixture(split: str = "train") -> "Dataset":
    """Code, dictionary entries, English and Japanese prose, arithmetic and logic. Columns kind (MIXTURE_KINDS), text.

    Each kind has about 700 kB in train, 80 kB in validation and in test, so that none dominates; only the code of test
    is all there is, 49 kB. A document is a
    module, an entry, a speech, a chapter, or a sheet of 50 problems of the levels 1 to 4; documents are shuffled, and
    their splits are those of the sets they come from. The last document of a kind is cut to fit. Raises ValueError for
    another split.
    """
    import datasets

    check_split(split)
    order = Random(seed_of("mixture", split))
    texts: dict[str, list[str]] = {}
    for kind, source in _SOURCES.items():
        whole = list(source(split)["text"])
        order.shuffle(whole)
        texts[kind] = _shortened(whole, _BYTES[split])
    for kind, problems in (("arithmetic", arithmetic), ("logic", logic)):
        texts[kind] = _sheets(problems, split, int(_BYTES[split] / len(_LEVELS) / _BYTES_A_PROBLEM[kind]), order)
    rows = [(MIXTURE_KINDS.index(kind), text) for kind in MIXTURE_KINDS for text in texts[kind]]
    order.shuffle(rows)
    features = datasets.Features(
        {"kind": datasets.ClassLabel(names=list(MIXTURE_KINDS)), "text": datasets.Value("string")}
    )
    columns = {"kind": [kind for kind, _ in rows], "text": [text for _, text in rows]}
    return datasets.Dataset.from_dict(columns, features=features, split=split)
