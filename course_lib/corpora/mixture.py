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
# UTF-8 bytes of each kind in train, a tenth in validation and test: about 180,000 tokens each in `mixture-4k`.
_BYTES = {
    "code": 460_000, "glosses": 460_000, "english": 560_000, "japanese": 700_000,
    "arithmetic": 225_000, "logic": 520_000,
}  # fmt: skip
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

    All kinds have about as many tokens of the vocabulary `mixture-4k`, 180,000 each in train and a tenth of that in
    validation and in test: a loss and a router's load are means over tokens. A document is a module, an entry, a
    speech, a chapter, or a sheet of 50 problems of the levels 1 to 4; documents are shuffled, and their splits are
    those of the sets they come from. The last document of a kind is cut to fit. Raises ValueError for another split.
    """
    import datasets

    check_split(split)
    share = 1.0 if split == "train" else 0.1
    order = Random(seed_of("mixture", split))
    texts: dict[str, list[str]] = {}
    for kind, source in _SOURCES.items():
        whole = list(source(split)["text"])
        order.shuffle(whole)
        texts[kind] = _shortened(whole, int(share * _BYTES[kind]))
    for kind, problems in (("arithmetic", arithmetic), ("logic", logic)):
        texts[kind] = _sheets(problems, split, int(share * _BYTES[kind] / len(_LEVELS) / _BYTES_A_PROBLEM[kind]), order)
    rows = [(MIXTURE_KINDS.index(kind), text) for kind in MIXTURE_KINDS for text in texts[kind]]
    order.shuffle(rows)
    features = datasets.Features(
        {"kind": datasets.ClassLabel(names=list(MIXTURE_KINDS)), "text": datasets.Value("string")}
    )
    columns = {"kind": [kind for kind, _ in rows], "text": [text for _, text in rows]}
    return datasets.Dataset.from_dict(columns, features=features, split=split)
