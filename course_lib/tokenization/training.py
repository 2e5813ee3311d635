"""Train a vocabulary with SentencePiece, with settings that lose no character of any text."""

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import sentencepiece

from course_lib.checks import check_at_least, check_choice
from course_lib.tokenization.tokenizer import (
    END,
    MASK,
    PAD,
    SPACE,
    SPECIAL,
    START,
    UNK,
    Tokenizer,
    check_several,
    check_text,
)

RESERVED = "▅"  # SentencePiece skips a text with this character, quietly
NOTHING = ("sentences_.empty()", "seed_sentencepieces.empty()", "all_chars_count", "(sum) > (0)")  # it learns from
LONG = 4192  # what SentencePiece takes for the longest text, in bytes, unless it is told another length


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
    the space has a piece whatever the texts are, and bytes spell what else the alphabet lacks. Give texts in natural
    pieces, such as lines: where words are not spaced, SentencePiece cannot score one very long string.
    Raises ValueError for another type, a coverage outside 0.98..1, no text at all, one string in place of several, and
    for a size that these texts cannot fill.
    """
    check_choice("model_type", model_type, ("unigram", "bpe"))
    if not 0.98 <= coverage <= 1:
        raise ValueError(f"coverage={coverage}; allowed is 0.98 to 1")
    vocab_size = check_at_least("vocab_size", vocab_size, 1)
    listed = _listed(texts)
    settings: dict[str, Any] = {
        "character_coverage": coverage,
        "add_dummy_prefix": add_dummy_prefix,
        "normalization_rule_name": "nfkc",  # the default, nmt_nfkc, turns line breaks into spaces
        "remove_extra_whitespaces": False,
        "user_defined_symbols": ["\n"],
        # Longer ones are skipped, quietly; less than 10 it refuses.
        "max_sentence_length": max(10, *(len(text.encode()) + 1 for text in listed)),
    }
    try:
        if not _has_space(listed, settings):
            settings["required_chars"] = SPACE  # spelled in bytes, SentencePiece's mark would come back as itself
        model = _model(
            listed,
            settings,
            vocab_size=vocab_size,
            model_type=model_type,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            byte_fallback=True,
            control_symbols=[SPECIAL[MASK]],
            pad_id=PAD,
            unk_id=UNK,
            bos_id=START,
            eos_id=END,
        )
    except (RuntimeError, ValueError) as error:
        raise ValueError(_cause(str(error), vocab_size, listed)) from None
    return Tokenizer(model)


def _listed(texts: Iterable[str]) -> list[str]:
    """The texts that have characters, cut at the one that SentencePiece keeps for itself."""
    check_several("texts", texts)
    texts = list(texts)
    for text in texts:
        check_text(text)
    listed = [part for text in texts for part in text.split(RESERVED) if part]
    if not any(text.strip("\n") for text in listed):
        raise ValueError(f"texts is empty; needed is at least one character, line breaks and {RESERVED} apart")
    return listed


def _model(listed: Sequence[str], settings: dict[str, Any], **more: Any) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(listed), model_writer=model, num_threads=1, minloglevel=2, **settings, **more
    )
    return model.getvalue()


def _has_space(listed: Sequence[str], settings: dict[str, Any]) -> bool:
    """Whether spaces are frequent enough to get a piece, by SentencePiece's own count: a vocabulary of characters."""
    alphabet = _model(listed, settings, vocab_size=1_200_000, model_type="char", hard_vocab_limit=False)
    processor = sentencepiece.SentencePieceProcessor(model_proto=alphabet)
    return not processor.is_unknown(processor.piece_to_id(SPACE))


def _cause(said: str, vocab_size: int, listed: Sequence[str]) -> str:
    """An error of SentencePiece, and what to do about it."""
    longest = max(len(word) for text in listed for word in re.split(r"[^\S\n]", text))  # line breaks end no word there
    one = f"one has {longest:,} characters without a space, which SentencePiece takes for one word"
    split = "split it into several texts, such as lines"
    if "isfinite" in said:
        return f"texts: {one}, too long to be scored; {split}"
    if any(nothing in said for nothing in NOTHING):
        return f"texts: SentencePiece finds no characters to learn from in them; it says: {said}"
    hint = f" Of the texts {one}, and learns little from: {split}." if longest > LONG and "too high" in said else ""
    return f"vocab_size={vocab_size} does not fit the texts; SentencePiece says: {said}{hint}"
