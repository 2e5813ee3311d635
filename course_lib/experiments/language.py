"""What the studies of language models share: a GPT-2 on shipped English, trained and judged on held-out documents."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from course_lib import corpora
from course_lib.evaluation import next_token_losses
from course_lib.experiments.study import Outcome, ending, outcome_of, shared_fields
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.training import History, next_token_loss, optimise, windows


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


def fit(model: nn.Module, config: Config, seed: int, stop_at: int | None = None, **options: Any) -> History:
    """Train on the windows of an arm, as `optimise` says."""
    data = windows(tuple(config.data), "train", config.max_positions)
    batches = corpora.shuffled_batches((data,), config.batch_size, seed)
    return optimise(model, batches, next_token_loss, config, seed, stop_at, **options)


def validation_loss(model: nn.Module, length: int) -> float:
    """Mean loss in nats on the held-out speeches, in windows of `length`."""
    held_out = windows(("speeches",), "validation", length)
    return next_token_losses(model, held_out.to(next(model.parameters()).device)).mean().item()


def judged(model: nn.Module, history: History, validation: float | None) -> Outcome:
    """The outcome of a training with its validation loss, None where training diverged."""
    metrics = ending(history) | {"validation_loss": None if history.diverged else validation}
    return outcome_of(model, history, metrics)


def train_arm(config: dict[str, Any], seed: int, stop_at: int | None, **options: Any) -> tuple[GPT2, Outcome]:
    """Train one arm: the model, and the outcome with its validation loss."""
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
