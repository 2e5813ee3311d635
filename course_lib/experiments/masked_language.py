"""What the studies of masked language models share: a SparseBert on the speeches, judged on held-out ones."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from course_lib.experiments.study import Outcome, judged, shared_fields
from course_lib.masking import masked_batches, masked_loss, masked_losses
from course_lib.models.sparse_bert import SparseBert, SparseBertConfig
from course_lib.training import History, optimise, windows

SEED_OF_HELD_OUT = 0  # the same tokens are hidden for all arms and seeds


@dataclass(frozen=True)
class Config:
    """One arm: a SparseBert, and how it is trained, from the start or from trained weights."""

    lr: float
    warmup: int
    steps: int
    batch_size: int
    length: int = 128  # tokens a window, <s> included
    rate: float = 0.3  # share of the tokens that is hidden while training
    weight_decay: float = 0.1
    start: str | None = None  # name of the weights to begin with, see `pretrained`
    vocab_size: int = 4000
    max_positions: int = 4096
    d_model: int = 128
    n_heads: int = 4
    n_layers: int = 4
    pattern: str = "full"
    radius: int = 64
    n_global: int = 1
    n_random: int = 2
    dropout: float = 0.1


def model_of(config: Config, seed: int) -> SparseBert:
    """The network of an arm: with the weights of `seed`, or those that it begins with."""
    changes = shared_fields(config, SparseBertConfig)
    if config.start is None:
        return SparseBert(SparseBertConfig(**changes, seed=seed))
    from course_lib import pretrained

    return pretrained.load(config.start).with_pattern(**changes, seed=seed)  # type: ignore[operator]


def speech_windows(split: str, length: int) -> Tensor:
    """Windows (N, length) of the speeches of `split`, each beginning with <s>, which is the global token."""
    return windows(("speeches",), split, length - 1, start=True)


def fit(model: SparseBert, config: Config, seed: int, stop_at: int | None = None, **options: Any) -> History:
    """Train on masked windows of the speeches."""
    data = speech_windows("train", config.length)
    batches = masked_batches(data, config.batch_size, config.vocab_size, config.rate, seed)
    return optimise(model, batches, masked_loss, config, seed, stop_at, **options)


def validation_loss(model: SparseBert, length: int, tokens: int | None = None, batch_size: int = 8) -> float:
    """Mean loss in nats of hidden tokens of the held-out speeches, BERT's 15 % of them, in windows of `length`.

    `tokens` takes the first windows only, so many tokens of them; None takes all.
    """
    text = speech_windows("validation", length)[: None if tokens is None else tokens // length]
    text = text.to(model.embedding.weight.device)
    return masked_losses(model, text, model.config.vocab_size, 0.15, SEED_OF_HELD_OUT, batch_size).mean().item()


def train_arm(config: dict[str, Any], seed: int, stop_at: int | None, **options: Any) -> tuple[SparseBert, Outcome]:
    """Train one arm: the model, and the outcome with its validation loss."""
    arm = Config(**config)
    model = model_of(arm, seed)
    history = fit(model, arm, seed, stop_at, progress=False, **options)
    return model, judged(model, history, validation_loss(model, arm.length))


def run(config: dict[str, Any], seed: int, stop_at: int | None) -> Outcome:
    """`train_arm`, without the model."""
    return train_arm(config, seed, stop_at)[1]


def arm(**changes: Any) -> dict[str, Any]:
    """An arm's whole config as JSON values."""
    return asdict(Config(**changes))
