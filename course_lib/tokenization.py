"""SentencePiece: train a vocabulary, encode, decode; and the course's own vocabularies."""

import io
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from course_lib.paths import verified, whole_or_nothing

# The first ids of every vocabulary here. <s> opens a sequence (BERT's [CLS]), </s> closes it (GPT's end of text).
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
PAD, UNK, START, END, MASK = range(len(SPECIAL))


@dataclass(frozen=True)
class Recipe:
    """How a shipped vocabulary was made: its texts, from the training splits alone, and the arguments of `train`."""

    texts: tuple[str, ...]
    vocab_size: int
    coverage: float
    add_dummy_prefix: bool


RECIPES = {
    "english-4k": Recipe(("speeches", "sentence_pairs.en"), 4000, 1.0, True),
    "japanese-8k": Recipe(("neko", "sentence_pairs.ja"), 8000, 0.9995, False),
    "mixture-4k": Recipe(("mixture",), 4000, 0.9995, False),
}


def _check_text(text: str) -> None:
    if not isinstance(text, str):
        raise ValueError(f"text={text!r} is a {type(text).__name__}; one string is needed")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"text has a lone surrogate, half a character, at {error.start}") from None


class Tokenizer:
    """A trained SentencePiece model: text to ids and back.

    `decode(encode(text))` is `text` in SentencePiece's NFKC: a table in the model, of another version of Unicode than
    Python's, which does not sort several accents on a letter. Spaces and line breaks survive, a character without a
    piece of its own is spelled in bytes, so that <unk> never appears, and "▁", SentencePiece's own mark for a space,
    becomes a space. The special tokens of SPECIAL have the same ids in every vocabulary; their names
    inside a text are ordinary text. Raises ValueError for bytes that are not a model. Source: Kudo and Richardson 2018,
    "SentencePiece".
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
        _check_text(text)
        return [START] * start + self._processor.encode(text) + [END] * end

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens left out.

        Raises ValueError for an id outside the vocabulary, or what is not a sequence of integers.
        """
        try:
            ids = [operator.index(i) for i in ids]
        except TypeError as error:
            raise ValueError(f"ids={ids!r}; needed is a sequence of integers: {error}") from None
        if wrong := [i for i in ids if not 0 <= i < self.vocab_size]:
            raise ValueError(f"ids has {wrong[:3]}; allowed is 0 to {self.vocab_size - 1}")
        return self._processor.decode([i for i in ids if i >= len(SPECIAL)])

    def pieces(self, text: str) -> list[str]:
        """The pieces of `text` as they stand in the vocabulary: "▁" is a space, <0xE2> a byte."""
        return [self.piece(i) for i in self.encode(text)]

    def piece(self, index: int) -> str:
        """The piece with the id `index`. Raises ValueError for an id outside the vocabulary."""
        if not 0 <= index < self.vocab_size:
            raise ValueError(f"index={index}; allowed is 0 to {self.vocab_size - 1}")
        return self._processor.id_to_piece(operator.index(index))

    def save(self, path: str | Path) -> Path:
        """Write the model, whole or not at all, in SentencePiece's own format; return the path."""
        path = Path(path)
        with whole_or_nothing(path) as temporary:
            temporary.write_bytes(self.model)
        return path


def train(
    texts: Iterable[str],
    vocab_size: int,
    *,
    coverage: float = 0.9995,
    add_dummy_prefix: bool = True,
    model_type: str = "unigram",
) -> Tokenizer:
    """Train a vocabulary of `vocab_size` pieces on `texts`; equal texts give equal bytes (by one SentencePiece).

    `coverage` is the share of all characters that get a piece of their own. `add_dummy_prefix` puts a space before the
    text, so that a first word is the same piece as a later one; it has no use where words are not spaced.
    `model_type` is "unigram" (Kudo 2018) or "bpe" (Sennrich, Haddow and Birch 2016). Other than SentencePiece's
    defaults, spaces are kept, runs of them may be a piece (indented code), each digit and the line break stand alone,
    and bytes spell what the alphabet lacks. Raises ValueError for another type, a coverage outside 0.98..1, no text at
    all, one string in place of several, and for a size that these texts cannot fill.
    """
    if model_type not in ("unigram", "bpe"):
        raise ValueError(f"model_type={model_type!r}; allowed are 'unigram' and 'bpe'")
    if not 0.98 <= coverage <= 1:
        raise ValueError(f"coverage={coverage}; allowed is 0.98 to 1")
    if isinstance(texts, str):
        raise ValueError("texts is one string; needed are several, such as a list: each character would be a text")
    listed = [text for text in texts if text != ""]
    for text in listed:
        _check_text(text)
    if not listed:
        raise ValueError("texts is empty; at least one text with a character is needed")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(listed),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=model_type,
            character_coverage=coverage,
            add_dummy_prefix=add_dummy_prefix,
            normalization_rule_name="nfkc",  # the default, nmt_nfkc, turns line breaks into spaces
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            byte_fallback=True,
            user_defined_symbols=["\n"],
            control_symbols=[SPECIAL[MASK]],
            pad_id=PAD,
            unk_id=UNK,
            bos_id=START,
            eos_id=END,
            # Longer ones are skipped, quietly; less than 10 it refuses.
            max_sentence_length=max(10, *(len(text.encode()) + 1 for text in listed)),
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"vocab_size={vocab_size} does not fit the texts; SentencePiece says: {error}") from None
    return Tokenizer(model.getvalue())


def recipe_texts(name: str) -> list[str]:
    """The texts that the shipped vocabulary `name` was trained on, all from training splits."""
    from course_lib import corpora

    texts: list[str] = []
    for source in RECIPES[name].texts:
        function, _, column = source.partition(".")
        texts += getattr(corpora, function)("train")[column or "text"]
    return texts


def train_recipe(name: str) -> Tokenizer:
    """Train the shipped vocabulary `name` again."""
    recipe = RECIPES[name]
    return train(
        recipe_texts(name),
        recipe.vocab_size,
        coverage=recipe.coverage,
        add_dummy_prefix=recipe.add_dummy_prefix,
    )


def load(name: str) -> Tokenizer:
    """A shipped vocabulary, one of RECIPES. Raises ValueError for another name, and what `paths.verified` raises."""
    if name not in RECIPES:
        raise ValueError(f"name={name!r}; allowed are {', '.join(map(repr, RECIPES))}")
    return Tokenizer(verified(f"tokenizers/{name}.model").read_bytes())
