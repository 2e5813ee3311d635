"""Text while its ids arrive: what the next id adds to it, with its space, and a character when its bytes are there."""

import codecs
from collections.abc import Iterable, Iterator

import sentencepiece


def streamed(processor: sentencepiece.SentencePieceProcessor, ids: Iterable[int]) -> Iterator[str]:
    """Parts of a text, none of them empty, that put together are `processor.decode` of all ids."""
    before: list[int] = []  # the ids since the last one that shows more than spaces: no space is lost after them
    for group in _characters(processor, ids):
        text = processor.decode(before + group)[len(processor.decode(before)) :]
        if text:
            yield text
        before = group if processor.decode(group).strip(" ") else before + group


def _characters(processor: sentencepiece.SentencePieceProcessor, ids: Iterable[int]) -> Iterator[list[int]]:
    """Ids that are shown together: a piece, the bytes of one character, or a byte that belongs to none."""
    waiting: list[int] = []  # the first bytes of a character
    for i in ids:
        if not processor.is_byte(i):
            yield from ([byte] for byte in waiting)
            waiting = []
            yield [i]
            continue
        waiting.append(i)
        while waiting and (count := _decided([processor.id_to_piece(byte) for byte in waiting])):
            yield waiting[:count]
            waiting = waiting[count:]
    yield from ([byte] for byte in waiting)


def _decided(pieces: list[str]) -> int:
    """How many of these bytes, such as "<0xE3>", are the first character: 1 where there can be none, 0: not yet."""
    raw = bytes(int(piece[1:-1], 16) for piece in pieces)
    try:
        return len(raw) if codecs.getincrementaldecoder("utf-8")().decode(raw) else 0
    except UnicodeDecodeError:
        return 1
