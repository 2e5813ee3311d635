"""What the studies of language models share: a GPT-2 on shipped English, trained and judged on held-out documents."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from course_lib import corpora, tokenization
from course_lib.evaluation import next_token_losses
from course_lib.experiments.norm_placement import thinned
from course_lib.experiments.study import Outcome, shared_fields
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.training import History, LossFn, cosine, train

TOKENIZER = "english-4k"
SOURCES = {"speeches": "text", "sentence_pairs": "en"}  # function of corpora -> its column of English


@dataclass(frozen=True)
class Config:
    """One arm: a GPT2, its data, and how it is trained. T tokens a window are its `max_positions`."""

    lr: float
    warmup: int
    steps: int
    batch_size: int
    data: tuple[str, ...] = ("speeches",)
    weight_decay: float = 0.1
    vocab_size: int = 4000
    max_positions: int = 128
    d_model: int = 128
    n_heads: int = 8
    n_kv_heads: int | None = None
    n_layers: int = 4
    d_ff: int | None = None
    dropout: float = 0.1
    placement: str = "pre"


def model_config(config: Config, seed: int) -> GPT2Config:
    """The network of an arm, with the weights of `seed`."""
    return GPT2Config(**shared_fields(config, GPT2Config), seed=seed)


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


def next_token_loss(model: nn.Module, batch: tuple[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean loss in nats of each token of the windows (B, T + 1) but the first, given those before it."""
    (ids,) = batch
    logits = model(ids[:, :-1])  # (B, T, V)
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten()), {}


def no_decay(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: matrices decay; gains, biases and embeddings do not."""
    decayed = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    parts: list[list[nn.Parameter]] = [[], []]
    for parameter in model.parameters():
        parts[id(parameter) not in decayed].append(parameter)
    return [{"params": parts[0], "weight_decay": weight_decay}, {"params": parts[1], "weight_decay": 0.0}]


def optimise(
    model: nn.Module, batches: Callable[[int], Any], loss_fn: LossFn, recipe: Any, seed: int,
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


def fit(model: nn.Module, config: Config, seed: int, stop_at: int | None = None, **options: Any) -> History:
    """Train on the windows of an arm, as `optimise` says."""
    data = windows(tuple(config.data), "train", config.max_positions)
    batches = corpora.shuffled_batches((data,), config.batch_size, seed)
    return optimise(model, batches, next_token_loss, config, seed, stop_at, **options)


def validation_loss(model: nn.Module, length: int) -> float:
    """Mean loss in nats on the held-out speeches, in windows of `length`."""
    held_out = windows(("speeches",), "validation", length)
    return next_token_losses(model, held_out.to(next(model.parameters()).device)).mean().item()


def judged(model: nn.Module, history: History, validation: float) -> Outcome:
    """The outcome of a training: its validation loss, and the mean training loss of the last 20 steps.

    Both are None where training diverged or the validation loss is not finite.
    """
    last = history.column("loss")[-20:]
    metrics: dict[str, float | None] = {
        "diverged": float(history.diverged), "final_loss": sum(last) / len(last), "validation_loss": validation,
    }  # fmt: skip
    if history.diverged or not math.isfinite(validation or math.nan):
        metrics |= {"final_loss": None, "validation_loss": None}
    return Outcome(sum(p.numel() for p in model.parameters()), thinned(history), metrics)


def train_arm(config: dict[str, Any], seed: int, stop_at: int | None, **options: Any) -> tuple[GPT2, Outcome]:
    """Train one arm: the model, and the outcome with its validation loss and the mean training loss of the last 20."""
    arm = Config(**config)
    model = GPT2(model_config(arm, seed))
    history = fit(model, arm, seed, stop_at, progress=False, **options)
    return model, judged(model, history, validation_loss(model, arm.max_positions))


def run(config: dict[str, Any], seed: int, stop_at: int | None) -> Outcome:
    """`train_arm`, without the model."""
    return train_arm(config, seed, stop_at)[1]


def arm(**changes: Any) -> dict[str, Any]:
    """An arm's whole config as JSON values."""
    values = asdict(Config(**changes))
    return values | {"data": list(values["data"])}
