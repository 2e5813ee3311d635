"""The recipe of the course's language models: windows of text, which weights decay, optimizer and schedule."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from course_lib import corpora, tokenization
from course_lib.checks import check_choice
from course_lib.init import seed_of
from course_lib.optim import Joined, Muon, split_params
from course_lib.runtime import processes
from course_lib.training.history import History
from course_lib.training.loop import train
from course_lib.training.losses import Batch, LossFn
from course_lib.training.schedules import Schedule, cosine, linear

TOKENIZER = "english-4k"
SOURCES = {  # function of corpora -> its column of English
    "speeches": "text",
    "books": "text",
    "manuals": "text",
    "factbook": "text",
    "sentence_pairs": "en",
}
SHORTEST_SPAN = 8  # tokens that `with_repeats` repeats, at least


@dataclass(frozen=True)
class Recipe:
    """How the course trains a language model on two cores; the search behind each number is in docs/recipe.md.

    What stands beside a number is what another one cost, in nats of held-out loss after equal seconds.
    """

    steps: int
    lr: float = 6e-3  # of Muon and AdamW alike: 0.003 cost 0.02 to 0.05
    warmup: int = 50  # not searched
    batch_size: int = 16  # of 128 tokens: 8 cost 0.02, 32 cost 0.07
    optimizer: str = "muon"  # AdamW at its best of three rates cost 0.29, though its step takes 0.7 of the time
    schedule: str = "linear"  # a cosine to 5 % is as good
    floor: float = 0.0  # of the rate at the end, a share of lr
    weight_decay: float = 0.1  # not searched
    write_scale: float = 0.01  # what blocks write begins small beside the embeddings: 1 cost 0.07 to 0.11


def windows(data: tuple[str, ...], split: str, length: int, tokenizer: str = TOKENIZER, start: bool = False) -> Tensor:
    """Token windows (N, length + 1) of the documents of `split`: inputs are [:, :-1], targets [:, 1:].

    Splits are made by document. The sentences of `sentence_pairs` follow each other as they stand in the file, each a
    document of its own. With `start` a window begins with <s>, and `length` tokens of text follow. Raises ValueError
    for a name that is not in SOURCES.
    """
    if unknown := sorted(set(data) - set(SOURCES)):
        raise ValueError(f"data: {', '.join(unknown)} unknown; there are {', '.join(SOURCES)}")
    cut = _windows(tuple(data), split, length + (not start), tokenizer)
    if start:
        return torch.cat([torch.full((len(cut), 1), tokenization.START), cut], 1)
    return cut.clone()  # who writes into it must not change the next call's


@cache
def _windows(data: tuple[str, ...], split: str, length: int, tokenizer: str) -> Tensor:
    vocabulary = tokenization.load(tokenizer)
    texts = [text for name in data for text in getattr(corpora, name)(split)[SOURCES[name]]]
    return corpora.token_windows(map(vocabulary.encode, texts), length, tokenization.END)


def with_repeats(batches: Callable[[int], Batch], share: float, seed: int) -> Callable[[int], Batch]:
    """`batches` of windows (B, T + 1) with `share` of each batch's rows repeating one span of their own text.

    In such a row a span of random place and length, 8 to T / 2 tokens, stands again and again after the first token.
    What comes next can then be looked up in the row itself: what induction heads are for. It is a pure function of
    (seed, step) and of the process's rank. Raises ValueError for a share outside 0..1, and at the first batch of which
    it is no whole number of rows, or whose rows have no room for a span twice.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}; allowed is 0 to 1")

    def repeated(step: int) -> Batch:
        (ids,) = batches(step)
        generator = torch.Generator().manual_seed(seed_of(seed, "spans", step, processes().process_index))
        ids, room, count = ids.clone(), ids.shape[1] - 1, share * len(ids)
        if abs(count - round(count)) > 1e-6:  # 3 * 0.1 is not 0.3
            raise ValueError(
                f"share={share} of a batch of {len(ids)} rows is {count:g} rows; it must be a whole number"
            )
        if count and room < 2 * SHORTEST_SPAN:
            raise ValueError(
                f"windows have {room} tokens after the first; needed are {2 * SHORTEST_SPAN}, a span twice"
            )
        for row in ids[: round(count)]:
            span = int(torch.randint(SHORTEST_SPAN, room // 2 + 1, (), generator=generator))
            begin = int(torch.randint(1, room - span + 2, (), generator=generator))
            row[1:] = row[begin : begin + span].repeat(room // span + 1)[:room]
        return (ids,)

    return repeated


def no_decay(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: matrices decay; gains, biases and embeddings (tied ones too) do not."""
    matrices, embeddings = (
        {id(m.weight) for m in model.modules() if isinstance(m, kind)} for kind in (nn.Linear, nn.Embedding)
    )
    parts: list[list[nn.Parameter]] = [[], []]
    for parameter in model.parameters():
        parts[id(parameter) not in matrices - embeddings].append(parameter)
    return [{"params": parts[0], "weight_decay": weight_decay}, {"params": parts[1], "weight_decay": 0.0}]


def adamw(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW on all parameters, in the groups of `no_decay`."""
    return torch.optim.AdamW(no_decay(model, weight_decay), lr=lr, betas=(0.9, 0.95))


def muon(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Muon on the hidden matrices, AdamW without decay on the rest; one learning rate fits both."""
    hidden, rest = split_params(model)
    others = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
    return Joined(Muon(hidden, lr=lr, weight_decay=weight_decay), others)


OPTIMIZERS = {"adamw": adamw, "muon": muon}
SCHEDULES: dict[str, Callable[[int, int, float], Schedule]] = {"cosine": cosine, "linear": linear}


def optimise(
    model: nn.Module, batches: Callable[[int], Batch], loss_fn: LossFn, recipe: Any, seed: int,
    stop_at: int | None = None, *, optimizer: str = "adamw", schedule: str = "cosine", floor: float = 0.05,
    **options: Any,
) -> History:  # fmt: skip
    """Train with an optimizer and a schedule from warm-up to `floor`, by name, and gradients clipped to norm 1.

    `recipe` has the fields lr, warmup, steps, weight_decay, as `Recipe` has. Raises ValueError for a name that is not
    in OPTIMIZERS or SCHEDULES.
    """
    check_choice("optimizer", optimizer, OPTIMIZERS)
    check_choice("schedule", schedule, SCHEDULES)
    made = OPTIMIZERS[optimizer](model, recipe.lr, recipe.weight_decay)
    factor = SCHEDULES[schedule](recipe.steps, recipe.warmup, floor)
    return train(
        model, batches, loss_fn, made, steps=recipe.steps, schedule=factor, seed=seed, stop_at=stop_at, **options
    )


def by_recipe(
    model: nn.Module, batches: Callable[[int], Batch], loss_fn: LossFn, recipe: Recipe, seed: int,
    stop_at: int | None = None, **options: Any,
) -> History:  # fmt: skip
    """`optimise` with all that a `Recipe` says: its optimizer, schedule and floor too."""
    chosen: dict[str, Any] = {"optimizer": recipe.optimizer, "schedule": recipe.schedule, "floor": recipe.floor}
    return optimise(model, batches, loss_fn, recipe, seed, stop_at, **chosen, **options)
