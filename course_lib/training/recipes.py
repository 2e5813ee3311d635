"""The recipe of the course's language models: windows of text, which weights decay, optimizer and schedule."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from course_lib import corpora, tokenization
from course_lib.training.history import History
from course_lib.training.loop import train
from course_lib.training.losses import Batch, LossFn
from course_lib.training.schedules import cosine

TOKENIZER = "english-4k"
SOURCES = {"speeches": "text", "sentence_pairs": "en"}  # function of corpora -> its column of English


def windows(data: tuple[str, ...], split: str, length: int) -> Tensor:
    """Token windows (N, length + 1) of the documents of `split`: inputs are [:, :-1], targets [:, 1:].

    Splits are made by document. The sentences of `sentence_pairs` follow each other as they stand in the file, each a
    document of its own. Raises ValueError for a name that is not in SOURCES.
    """
    if unknown := sorted(set(data) - set(SOURCES)):
        raise ValueError(f"data: {', '.join(unknown)} unknown; there are {', '.join(SOURCES)}")
    return _windows(tuple(data), split, length).clone()  # who writes into it must not change the next call's


@cache
def _windows(data: tuple[str, ...], split: str, length: int) -> Tensor:
    tokenizer = tokenization.load(TOKENIZER)
    texts = [text for name in data for text in getattr(corpora, name)(split)[SOURCES[name]]]
    return corpora.token_windows(map(tokenizer.encode, texts), length + 1, tokenization.END)


def no_decay(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: matrices decay; gains, biases and embeddings (tied ones too) do not."""
    matrices, embeddings = (
        {id(m.weight) for m in model.modules() if isinstance(m, kind)} for kind in (nn.Linear, nn.Embedding)
    )
    parts: list[list[nn.Parameter]] = [[], []]
    for parameter in model.parameters():
        parts[id(parameter) not in matrices - embeddings].append(parameter)
    return [{"params": parts[0], "weight_decay": weight_decay}, {"params": parts[1], "weight_decay": 0.0}]


def optimise(
    model: nn.Module, batches: Callable[[int], Batch], loss_fn: LossFn, recipe: Any, seed: int,
    stop_at: int | None = None, **options: Any,
) -> History:  # fmt: skip
    """Train with AdamW, a cosine schedule with warm-up, and gradients clipped to norm 1.

    `recipe` has the fields lr, warmup, steps, weight_decay.
    """
    optimizer = torch.optim.AdamW(no_decay(model, recipe.weight_decay), lr=recipe.lr, betas=(0.9, 0.95))
    schedule = cosine(recipe.steps, recipe.warmup, floor=0.05)
    return train(
        model, batches, loss_fn, optimizer, steps=recipe.steps, schedule=schedule, seed=seed, stop_at=stop_at,
        **options,
    )  # fmt: skip
