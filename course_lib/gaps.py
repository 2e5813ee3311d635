"""Gaps in a sentence of one's own, filled by a masked language model: what it thinks of, and how likely."""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from course_lib.checks import check_range
from course_lib.corpora.cloze import GAP
from course_lib.paths import verified
from course_lib.tokenization import END, MASK, SPECIAL, START, Tokenizer
from course_lib.tokenization.tokenizer import SPACE

_BREAK = "\n"  # stands alone in every vocabulary: what is around it is cut as it would be around a word


class Filling(NamedTuple):
    """The likeliest pieces for one gap, best first, "-ness" for one that ends a word; and their probabilities."""

    pieces: list[str]
    probabilities: list[float]


class Question(NamedTuple):
    """A sentence with one gap, and the words that a person would put there."""

    text: str
    answers: list[str]


def common_sense() -> list[Question]:
    """Forty sentences, written before the model was trained that is asked. Raises ValueError for a damaged file."""
    return [Question(**row) for row in json.loads(verified("common_sense_gaps.json").read_text("utf-8"))]


def with_gaps(text: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of `text` between <s> and </s>, with <mask> for each gap, "____": one piece is asked for, its space included.

    More than four low lines are one gap too. Line breaks count as spaces. Raises ValueError where `text` has no gap,
    and as `Tokenizer.encode` does.
    """
    if not isinstance(text, str) or GAP not in text:
        raise ValueError(f"text={text!r} has no gap; write {GAP} for the word that is asked for")
    pieces = tokenizer.encode(re.sub(f"{GAP}_*", _BREAK, text.replace(_BREAK, " ")))
    gap, space = (tokenizer.encode(_BREAK)[-1], tokenizer.encode(_BREAK)[0])
    kept = [i for i, then in zip(pieces, [*pieces[1:], END], strict=True) if (i, then) != (space, gap)]
    return [START, *(MASK if i == gap else i for i in kept), END]


def fill_gaps(model: nn.Module, tokenizer: Tokenizer, text: str, count: int = 5) -> list[Filling]:
    """The `count` likeliest pieces for each gap of `text`, in order: `fill` for the ids of `with_gaps`.

    Raises ValueError as both do.
    """
    return fill(model, tokenizer, with_gaps(text, tokenizer), count)


@torch.no_grad()
def fill(model: nn.Module, tokenizer: Tokenizer, ids: Sequence[int], count: int = 5) -> list[Filling]:
    """The `count` likeliest pieces for each <mask> of `ids`, in order; special tokens are left out of the list.

    `model` maps ids (1, T) and places `at` (1, M) to logits (1, M, V), in eval mode; it is not told what stands in the
    other gaps. Probabilities are those among all tokens. Raises ValueError for ids without <mask>, a count outside
    1 to the number of pieces, and a model of another vocabulary, or that says NaN.
    """
    check_range("count", count, 1, tokenizer.vocab_size - len(SPECIAL))
    rows = torch.tensor([list(ids)])  # (1, T)
    at = (rows == MASK).nonzero()[:, 1].unsqueeze(0)  # (1, M)
    if not at.numel():
        raise ValueError(f"ids: none of the {len(ids)} is <mask>")
    device = next((x.device for x in (*model.parameters(), *model.buffers())), None)
    shares = model(rows.to(device), at=at.to(device))[0].float().softmax(-1).cpu()  # (M, V)
    if shares.shape[-1] != tokenizer.vocab_size:
        raise ValueError(f"model names {shares.shape[-1]} tokens; the tokenizer has {tokenizer.vocab_size}")
    if shares.isnan().any():
        raise ValueError("model: its logits are NaN or infinite")
    best = shares[:, len(SPECIAL) :].topk(count)
    return [
        Filling([_readable(tokenizer.piece(i + len(SPECIAL))) for i in row], values)
        for row, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _readable(piece: str) -> str:
    """A piece as a reader knows it: "door" for "▁door", "-ness" for an end of a word, "," for itself."""
    if piece[:1].isalnum():
        return f"-{piece}"
    return piece.removeprefix(SPACE) or SPACE
