"""What the studies of masked English share: a ModernBERT on shipped text, judged on held-out documents."""

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from course_lib import tokenization
from course_lib.experiments.study import Outcome, ending, mean_losses, outcome_of, shared_fields
from course_lib.masking import hide, masked_batches, masked_loss, masked_losses
from course_lib.models.bigram import TwoSidedBigram, count_bigrams
from course_lib.models.modernbert import ModernBertConfig, ModernBertForMaskedLM
from course_lib.training import History, by_recipe, windows
from course_lib.training.recipes import SOURCES, Recipe

JUDGED_RATE = 0.15  # share of the tokens that is hidden when a model is judged, whatever it was trained with
SEED_OF_HELD_OUT = 0  # the same tokens are hidden for all arms and seeds


@dataclass(frozen=True)
class Config(Recipe):
    """One arm: a ModernBERT, its text, and the recipe."""

    data: tuple[str, ...] = tuple(SOURCES)
    tokenizer: str = "prose-4k"
    length: int = 128  # tokens a window, <s> included
    rate: float = 0.3  # share of the tokens that is hidden while training, as in ModernBERT; BERT's is 0.15
    d_model: int = 192
    n_heads: int = 6
    n_layers: int = 6
    d_ff: int | None = None
    global_every: int | None = 3
    local_attention: int = 128


def model_of(config: Config, seed: int) -> ModernBertForMaskedLM:
    """The network of an arm, with the weights of `seed`."""
    vocab_size = tokenization.load(config.tokenizer).vocab_size
    sizes = shared_fields(config, ModernBertConfig)
    return ModernBertForMaskedLM(ModernBertConfig(**sizes, vocab_size=vocab_size, seed=seed))


def text(config: Config) -> Tensor:
    """The windows (N, T) that an arm is trained on, each beginning with <s>."""
    return windows(tuple(config.data), "train", config.length - 1, config.tokenizer, start=True)


def fit(model: ModernBertForMaskedLM, config: Config, seed: int, stop_at: int | None = None, **options: Any) -> History:
    """Train on the windows of an arm, hidden anew at each step, as `by_recipe` says."""
    batches = masked_batches(text(config), config.batch_size, model.config.vocab_size, config.rate, seed)
    return by_recipe(model, batches, masked_loss, config, seed, stop_at, **options)


def held_out(name: str, config: Config) -> Tensor:
    """The windows (N, T) of one source that are not for training, each beginning with <s>."""
    return windows((name,), "validation", config.length - 1, config.tokenizer, start=True)


def losses_by_source(model: ModernBertForMaskedLM, config: Config) -> dict[str, Tensor]:
    """Loss in nats of each hidden token of the held-out windows of each source: BERT's 15 %, the same for all arms."""
    device, vocab_size = next(model.parameters()).device, model.config.vocab_size
    return {
        name: masked_losses(
            model, held_out(name, config).to(device), vocab_size, JUDGED_RATE, SEED_OF_HELD_OUT, 32
        ).cpu()
        for name in SOURCES
    }


def table_losses_by_source(config: Config) -> dict[str, Tensor]:
    """The same of `TwoSidedBigram`, counted on the text of the arm, a table that sees both neighbours.

    It is shown the true ones, even where the model finds a mask.
    """
    vocab_size = tokenization.load(config.tokenizer).vocab_size
    table = TwoSidedBigram(count_bigrams(text(config)[:, 1:].flatten(), vocab_size))
    losses = {}
    for name in SOURCES:
        shown = held_out(name, config)
        hidden = hide(shown, vocab_size, JUDGED_RATE, SEED_OF_HELD_OUT)
        rows = zip(shown.split(1), hidden.at.split(1), hidden.targets, strict=True)  # one at a time: (M, V) is small
        losses[name] = torch.stack(
            [nn.functional.cross_entropy(table(ids, at=at)[0], truth, reduction="none") for ids, at, truth in rows]
        )
    return losses


class StepTimes:
    """Called before each step: keeps the CPU seconds of this process's steps, so that what else runs counts little."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._begun: float | None = None

    def __call__(self, step: int, model: nn.Module) -> None:
        now = time.process_time()
        if self._begun is not None:
            self.seconds.append(now - self._begun)
        self._begun = now

    def metric(self) -> dict[str, float]:
        """The median as a metric; nothing where no step was measured."""
        return {"cpu_seconds_per_step": statistics.median(self.seconds)} if self.seconds else {}


def train_arm(
    config: dict[str, Any], seed: int, stop_at: int | None, **options: Any
) -> tuple[ModernBertForMaskedLM, Outcome]:
    """Train one arm: the model, and the outcome with its losses on held-out text, each source's too.

    A run that is stopped early is not judged.
    """
    arm, times = Config(**config), StepTimes()
    model = model_of(arm, seed)
    history = fit(model, arm, seed, stop_at, progress=False, on_step=times, **options)
    metrics = ending(history) | times.metric()
    if stop_at is None and not history.diverged:
        metrics |= mean_losses(losses_by_source(model, arm), "loss")
    return model, outcome_of(model, history, metrics)


def run(config: dict[str, Any], seed: int, stop_at: int | None) -> Outcome:
    """`train_arm`, without the model."""
    return train_arm(config, seed, stop_at)[1]


def arm(**changes: Any) -> dict[str, Any]:
    """An arm's whole config as JSON values."""
    return as_json(Config(**changes))


def as_json(config: Config) -> dict[str, Any]:
    """The fields as JSON values; without `write_scale`, which this model does not have."""
    values = asdict(config)
    del values["write_scale"]  # its stream is normalised from the start: a tenth changed no loss of a pilot by 0.01
    return values | {"data": list(values["data"])}
