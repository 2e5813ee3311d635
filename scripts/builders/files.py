"""Writing the course's text files: JSON lines, xz-compressed, the same bytes each time."""

import hashlib
import json
import lzma
import re
import unicodedata
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from course_lib.corpora.documents import shingles
from course_lib.paths import shipped, whole_or_nothing

K = TypeVar("K", bound=Hashable)
# Matched in case-folded text: whole words of English, substrings of Japanese. Whoever meets these words here knows why.
_CRUDE_EN = (
    "fuck", "fucking", "fucked", "fucker", "shit", "shitty", "bullshit", "bitch", "bitches", "whore", "whores", "slut",
    "sluts", "cunt", "dick", "cock", "pussy", "asshole", "assholes", "bastard", "bastards", "faggot", "nigger", "rape",
    "raped", "rapist", "porn", "penis", "vagina", "masturbate", "masturbating", "masturbation", "orgasm", "blowjob",
    "piss", "pissed", "tits", "boobs", "horny", "prostitute", "prostitutes", "erection", "naked", "sex", "sexual",
    "sexy",
)  # fmt: skip
_CRUDE_JA = (
    "くそったれ", "クソ", "畜生", "ちくしょう", "売春", "淫", "強姦", "レイプ", "ポルノ", "ちんこ", "ちんちん",
    "チンコ", "まんこ", "おっぱい", "セックス", "オナニー", "勃起", "射精", "ペニス", "膣", "娼婦", "風俗嬢", "痴漢",
    "変態", "売女", "裸", "エッチ", "性交",
)  # fmt: skip
_CRUDE = re.compile(rf"\b(?:{'|'.join(_CRUDE_EN)})\b|{'|'.join(_CRUDE_JA)}")


def crude(text: str) -> bool:
    """Whether `text` has a word that does not belong in a course."""
    return bool(_CRUDE.search(text.casefold()))


def clean(text: str) -> str:
    """NFKC, typographic quotes as ASCII, no invisible characters, runs of spaces as one; line breaks stay."""
    text = re.sub(r"[\x00-\x08\x0e-\x1f\x7f\u00ad\u200b-\u200f\u2060\ufeff]", "", unicodedata.normalize("NFKC", text))
    text = text.translate(str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "‐": "-", "‑": "-", "–": "-"}))
    return re.sub(r"[^\S\n]+", " ", text).strip()


def rank(key: object) -> str:
    """A fixed pseudo-random rank of `key`, to draw a sample that other keys do not change."""
    return hashlib.sha256(str(key).encode()).hexdigest()


def without_repeats(documents: dict[K, list[str]], shortest: int = 1_000) -> Iterator[tuple[K, str]]:
    """Key and text of the documents, one paragraph a line, without paragraphs that share a run of 13 words with an
    earlier document; what is then shorter than `shortest` characters is left out."""
    seen: set[tuple[str, ...]] = set()
    for key, paragraphs in documents.items():
        kept = [text for text in dict.fromkeys(paragraphs) if seen.isdisjoint(shingles(text))]
        if len(text := "\n".join(kept)) >= shortest:
            seen.update(shingles(text))
            yield key, text


def write_jsonl(name: str, rows: Iterable[dict]) -> Path:
    """Write `rows` as data/NAME, one JSON object a line, xz-compressed."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    target = shipped("data") / name
    with whole_or_nothing(target) as path:
        path.write_bytes(lzma.compress(lines.encode("utf-8"), preset=9 | lzma.PRESET_EXTREME))
    return target
