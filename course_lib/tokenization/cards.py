"""A tokenizer's card: what a reader must know of a vocabulary before using it, most of it read from its own file."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from course_lib.tokenization.measures import WORDS
from course_lib.tokenization.tokenizer import Tokenizer, check_several

if TYPE_CHECKING:
    import pandas as pd

TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


@dataclass(frozen=True)
class Settings:
    """What a SentencePiece model's file says of its training."""

    model_type: str
    vocab_size: int
    coverage: float
    normalisation: str
    add_dummy_prefix: bool
    byte_fallback: bool


def settings_of(tokenizer: Tokenizer) -> Settings:
    """Read them in the model's bytes: a protocol buffer with TrainerSpec in field 2, NormalizerSpec in field 3."""
    parts = dict(_fields(tokenizer.model))  # of a field that comes again, such as a piece, the last
    trainer, normaliser = (dict(_fields(parts.get(number, b""))) for number in (2, 3))
    return Settings(
        model_type=TYPES[trainer.get(3, 1)],
        vocab_size=tokenizer.vocab_size,
        coverage=round(struct.unpack("<f", trainer[10])[0], 6) if 10 in trainer else 0.9995,
        normalisation=normaliser.get(1, b"").decode(),
        add_dummy_prefix=bool(normaliser.get(3, 1)),
        byte_fallback=bool(trainer.get(35, 0)),
    )


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protocol buffer: an integer, or bytes. There are four kinds of values."""
    at = 0
    while at < len(data):
        key, at = _integer(data, at)
        kind, size = key & 7, 0
        if kind == 0:
            value, at = _integer(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _integer(data, at)
        else:
            size = {1: 8, 5: 4}[kind]
        yield key >> 3, data[at : at + size]
        at += size


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """The integer at `at`, seven bits a byte, the lowest first, and the place after it."""
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


def card(tokenizer: Tokenizer, corpus: str, held_out: Sequence[str]) -> dict[str, str]:
    """The facts of one vocabulary, measured on `held_out`; `corpus` says what it was trained on, and is not checked.

    Raises ValueError where held_out has no characters.
    """
    check_several("held_out", held_out)
    characters = sum(map(len, held_out))
    if not characters:
        raise ValueError("held_out has no characters; needed is at least one")
    told = settings_of(tokenizer)
    cuts = [tokenizer.pieces(text) for text in held_out]
    tokens, words = sum(map(len, cuts)), sum(len(WORDS.findall(text)) for text in held_out)
    spelled = sum(piece.startswith("<0x") for cut in cuts for piece in cut)
    same = sum(tokenizer.decode(tokenizer.encode(text)) == text for text in held_out)
    return {
        "type": told.model_type,
        "pieces": f"{told.vocab_size:,}",
        "trained on": corpus,
        "normalisation": told.normalisation,
        "coverage of the alphabet": f"{told.coverage:.2%}",
        "space before the text": "yes" if told.add_dummy_prefix else "no",
        "unknown characters": "bytes" if told.byte_fallback else "<unk>, lost",
        "characters a token": f"{characters / tokens:.2f}",
        "tokens a word (fertility)": f"{tokens / max(1, words):.2f}",
        "tokens that are bytes": f"{spelled / tokens:.2%}",
        "texts that come back as they were": f"{same / len(held_out):.2%}",
    }


def card_table(cards: Mapping[str, Mapping[str, str]]) -> "pd.DataFrame":
    """Cards side by side, a column each."""
    import pandas as pd

    return pd.DataFrame(cards)
