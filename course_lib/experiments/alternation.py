"""What layers that see all tokens are for, when the others look near: retrieval beyond the window, and loss."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from course_lib.attention import local_attention, with_attention
from course_lib.corpora.needles import needles
from course_lib.experiments import masked_english, retrieval
from course_lib.experiments.masked_english import StepTimes
from course_lib.experiments.study import Outcome, ending, outcome_of
from course_lib.models.modernbert import ModernBertForMaskedLM
from course_lib.training import optimise

LAYERS, RADIUS = 6, 8  # of the search; what goes from neighbour to neighbour gets 48 tokens far
EVERY = 4  # this part of the held-out windows of English is judged


@dataclass(frozen=True)
class Config(masked_english.Config):
    """One arm: which layers see all tokens, and what is learned: "needles", a search, or "english"."""

    task: str = "needles"
    n_questions: int = 8  # of a text of needles


def without_global(model: ModernBertForMaskedLM, layers: tuple[int, ...]) -> nn.Module:
    """A copy of a trained model in which these layers see as near as the local ones."""
    near = partial(local_attention, radius=model.config.radius)
    return with_attention(model, attention_fn=near, names=[f"encoder.blocks.{i}.attention" for i in layers])


def accuracies(model: nn.Module, config: Config) -> dict[str, float]:
    """Share of right answers, of all questions, by distance, and of those nearer and farther than windows carry."""
    distances, right = retrieval.answers(model, config)  # type: ignore[arg-type]
    far = distances > LAYERS * RADIUS
    parts = {"accuracy": right, "accuracy_near": right[~far], "accuracy_far": right[far]}
    means = {name: part.float().mean().item() for name, part in parts.items()}
    return means | retrieval.by_distance(distances, right)


def search(config: Config, seed: int, stop_at: int | None) -> Outcome:
    """Train one arm on needles; and its global layers, one by one and all, are made local in the trained model."""
    model, times = masked_english.model_of(config, seed), StepTimes()
    batches = needles("train", config.batch_size, config.length, config.n_questions, seed)
    history = optimise(
        model, batches, retrieval.retrieval_loss, config, seed, stop_at, progress=False, on_step=times,
        optimizer=config.optimizer, schedule=config.schedule, floor=config.floor,
    )  # fmt: skip
    metrics = ending(history) | times.metric()
    if stop_at is None and not history.diverged:
        metrics |= accuracies(model, config)
        known = tuple(i for i in range(config.n_layers) if model.config.is_global(i))
        for removed in [(i,) for i in known] + [known] if 1 < len(known) < config.n_layers else []:
            name = "_".join(map(str, removed))
            metrics[f"far_without_{name}"] = accuracies(without_global(model, removed), config)["accuracy_far"]
    return outcome_of(model, history, metrics)


def run(config: dict[str, Any], seed: int, stop_at: int | None) -> Outcome:
    """Train one arm, and judge it by its task."""
    arm = Config(**config)
    if arm.task == "needles":
        return search(arm, seed, stop_at)
    return masked_english.train_arm(config, seed, stop_at, EVERY, Config)[1]


def arm(**changes: Any) -> dict[str, Any]:
    """An arm's whole config as JSON values."""
    return masked_english.as_json(Config(**changes))
