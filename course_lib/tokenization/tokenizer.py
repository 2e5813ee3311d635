"""A SentencePiece vocabulary: text to ids and back, all at once or while ids arrive."""

import operator
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import sentencepiece

from course_lib.checks import check_range
from course_lib.paths import whole_or_nothing
from course_lib.tokenization.streaming import streamed

# The first ids of every vocabulary here. <s> opens a sequence (BERT's [CLS]), </s> closes it (GPT's end of text).
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
PAD, UNK, START, END, MASK = range(len(SPECIAL))
SPACE = "▁"  # SentencePiece's mark for a space


def check_several(name: str, texts: Iterable[str]) -> None:
    """Raise ValueError for one string in place of several, which would be read as a text a character."""
    if isinstance(texts, str):
        raise ValueError(f"{name} is one string; needed are several, such as a list: each character would be a text")


def check_text(text: str) -> None:
    """Raise ValueError unless `text` is a string of whole characters."""
    if not isinstance(text, str):
        raise ValueError(f"text={text!r} is a {type(text).__name__}; one string is needed")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"text has a lone surrogate, half a character, at {error.start}") from None


class Tokenizer:
    """A trained SentencePiece model: text to ids and back.

    `decode(encode(text))` is `text` in SentencePiece's NFKC: a table in the model, of another version of Unicode than
    Python's, which does not sort several accents on a letter. Spaces, line breaks and control characters survive,
    whatever the texts of the training were. A character without a piece of its own is spelled in bytes, so that <unk>
    never appears, and "▁", SentencePiece's own mark for a space, becomes a space. (This holds for models of `train`.)
    The special tokens of SPECIAL have the same ids in every vocabulary; their names inside a text are ordinary text.
    Raises ValueError for bytes that are not a model. Source: Kudo and Richardson 2018, "SentencePiece".
    """

    def __init__(self, model: bytes) -> None:
        if not isinstance(model, bytes) or not model:  # of nothing SentencePiece makes a tokenizer without pieces
            raise ValueError(f"model={model!r}; needed are the bytes of a SentencePiece model")
        self.model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(f"model: its {len(model):,} bytes are not a SentencePiece model: {error}") from None

    @property
    def vocab_size(self) -> int:
        """Number of pieces, special tokens and bytes included; ids are 0 to vocab_size - 1."""
        return self._processor.get_piece_size()

    def encode(self, text: str, *, start: bool = False, end: bool = False) -> list[int]:
        """Ids of `text`, between <s> and </s> where asked for.

        Raises ValueError where `text` is not a string, or has half a character (a lone surrogate).
        """
        check_text(text)
        return [START] * start + self._processor.encode(text) + [END] * end

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens left out.

        A text has no space before its first word: decoded one by one, ids lose all spaces. For a text that is shown
        while it is made there is `stream`. Raises ValueError for an id outside the vocabulary, or what is not a
        sequence of integers.
        """
        return self._processor.decode([i for i in self._checked(ids) if i >= len(SPECIAL)])

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of `ids` as they arrive, in parts that put together are `decode` of all; none is empty.

        A character that is spelled in bytes comes with its last byte. Raises ValueError as `decode`, when it comes to
        the wrong id.
        """
        if not isinstance(ids, Iterable):
            raise ValueError(f"ids={ids!r}; needed are integers, one after the other")
        checked = (self._checked([i])[0] for i in ids)
        return streamed(self._processor, (i for i in checked if i >= len(SPECIAL)))

    def _checked(self, ids: Iterable[int]) -> list[int]:
        try:
            ids = [operator.index(i) for i in ids]
        except TypeError as error:
            raise ValueError(f"ids={ids!r}; needed is a sequence of integers: {error}") from None
        if wrong := [i for i in ids if not 0 <= i < self.vocab_size]:
            raise ValueError(f"ids has {wrong[:3]}; allowed is 0 to {self.vocab_size - 1}")
        return ids

    def pieces(self, text: str) -> list[str]:
        """The pieces of `text` as they stand in the vocabulary: "▁" is a space, <0xE2> a byte."""
        return [self.piece(i) for i in self.encode(text)]

    def piece(self, index: int) -> str:
        """The piece with the id `index`. Raises ValueError for what is no id of the vocabulary."""
        return self._processor.id_to_piece(check_range("index", index, 0, self.vocab_size - 1))

    def save(self, path: str | Path) -> Path:
        """Write the model, whole or not at all, in SentencePiece's own format; return the path."""
        path = Path(path)
        with whole_or_nothing(path) as temporary:
            temporary.write_bytes(self.model)
        return path
