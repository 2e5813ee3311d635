"""Checks of the exercises on whole vocabularies: bits a character, and a vocabulary of the learner's own."""

import math
import unicodedata
from collections.abc import Callable, Sequence

from course_lib import corpora
from course_lib.exercises import Wrong, call, checker
from course_lib.exercises.mistakes import Mistakes
from course_lib.lessons.tokenizer_training.exercises.answers import judge
from course_lib.tokenization import Tokenizer
from course_lib.tokenization.alphabet import train_small


def _bits(nats: float, tokens: int, characters: int) -> float:
    return nats / math.log(2) * tokens / characters


BITS: Mistakes = {
    "These are nats a character. A bit is log 2 nats: divide by it.": lambda n, t, c: n * t / c,
    "You multiply by log 2. A nat is more than a bit: divide.": lambda n, t, c: n * math.log(2) * t / c,
    "These are bits a token. A text of fewer tokens would look worse: times tokens, divided by characters.":
        lambda n, t, c: n / math.log(2),
    "Tokens and characters are swapped: the whole text costs nats · tokens.": lambda n, t, c: n / math.log(2) * c / t,
    "That is a perplexity, the exponential of the loss. Bits are the loss itself, in another unit.":
        lambda n, t, c: math.exp(n),
}  # fmt: skip


@checker
def bits(fn: Callable[[float, int, int], float]) -> str:
    """Check `fn(nats, tokens, characters)`: bits a character of a text."""
    cases = []
    for args in ((2.0, 300, 1000), (3.5, 80, 90)):
        got = call(fn, *args)
        got = float(got) if isinstance(got, int) else got
        cases.append((args, got, f"nats, tokens, characters = {args}"))
    judge(cases, _bits, BITS)
    return "Right: a number that vocabularies of any size can be compared by."


PROBES = ("ﾃﾞｰﾀ①", " Two  spaces\n", "🦊👩🏽‍🚀 שלום", "\0")


@checker
def vocabulary(fn: Callable[[Sequence[str]], Tokenizer], most: int = 2000, reference: str = "unigram") -> str:
    """Check `fn(texts)`: a Tokenizer of at most `most` pieces for Japanese; say how short held-out sentences become."""
    texts, held_out = (list(corpora.sentence_pairs(split)["ja"]) for split in ("train", "validation"))
    made = call(fn, texts[:20_000])
    if not isinstance(made, Tokenizer):
        raise Wrong(f"You return a {type(made).__name__}; needed is a Tokenizer, such as `tokenization.train` gives.")
    if made.vocab_size > most:
        raise Wrong(f"It has {made.vocab_size:,} pieces; at most {most:,} are allowed.")
    for probe in PROBES:
        back = made.decode(made.encode(probe))
        if back not in (probe, unicodedata.normalize("NFKC", probe)):
            raise Wrong(f"{probe!r} comes back as {back!r}: that is not its normal form either.")
    mine, theirs = (
        sum(len(t.encode(text)) for text in held_out)
        for t in (made, train_small(texts[:20_000], most, add_dummy_prefix=False, model_type=reference))
    )
    change = mine / theirs - 1
    if change > 0.02:
        raise Wrong(f"Held-out sentences become {mine:,} tokens, {change:.1%} more than with our {theirs:,}.")
    return f"Held-out sentences become {mine:,} tokens, {change:+.1%} against our {theirs:,}. Texts come back."
