"""What a study is: a question, a prediction written before the run, and arms that differ in one config."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.training import History

Config = dict[str, Any]
STUDIES = (
    "norm_placement",
    "norm_dynamics",
    "recipe",
    "recipe_by_time",
    "gpt2_english",
    "kv_heads",
    "vocabulary_size",
    "attention_scores",
    "sparse_bert_tiny",
    "modernbert_english",
    "alternation",
    "retrieval",
    "long_documents",
    "positions",
)


@dataclass
class Outcome:
    """What one run gives: parameter count, curve (columns of equal length with "step" and "loss"), metrics.

    A metric that could not be measured is None; one that is not finite is recorded as None. `tensors` are kept in a
    safetensors file beside the JSON.
    """

    params: int
    curve: dict[str, list[float]]
    metrics: Mapping[str, float | None]
    tensors: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A recorded experiment. `run(config, seed, stop_at)` runs one arm with one seed.

    `arms` maps a name to its whole config (JSON values only). `stop_at` ends a run after so many steps of the same
    schedule: the test that re-runs the beginning of a record uses it.
    """

    name: str
    question: str
    prediction: str
    arms: Mapping[str, Config]
    run: Callable[[Config, int, int | None], Outcome]
    seeds: int = 3
    more_seeds: Mapping[str, int] = field(default_factory=dict)  # of a search, the arm whose spread says what counts
    threads: int = 1  # of a run: with one, runs side by side do not wait for each other

    def __post_init__(self) -> None:
        """Raise ValueError for arms whose files of tensors would be one: spaces become hyphens there."""
        files = [name.replace(" ", "-") for name in self.arms]
        if twice := sorted({name for name in files if files.count(name) > 1}):
            raise ValueError(f"arms: more than one has the file name {', '.join(twice)}")

    def seeds_of(self, arm: str) -> int:
        """How many seeds an arm runs with."""
        return self.more_seeds.get(arm, self.seeds)


def thinned(history: History) -> dict[str, list[float]]:
    """The loss of the first 20 steps and of every tenth after: enough for a picture and for the re-run test."""
    kept = [r for r in history.records if (r["step"] < 20 or r["step"] % 10 == 9) and math.isfinite(r["loss"])]
    return {"step": [r["step"] for r in kept], "loss": [round(r["loss"], 5) for r in kept]}


def ending(history: History) -> dict[str, float | None]:
    """How a training ended: `diverged`, and `final_loss`, the mean of the last 20 steps, None where it diverged."""
    last = history.column("loss")[-20:]
    return {"diverged": float(history.diverged), "final_loss": None if history.diverged else sum(last) / len(last)}


def outcome_of(
    model: nn.Module, history: History, metrics: Mapping[str, float | None], tensors: dict[str, Tensor] | None = None
) -> Outcome:
    """The outcome of a training: the model's parameters, the history's curve, and what was measured."""
    return Outcome(sum(p.numel() for p in model.parameters()), thinned(history), metrics, tensors or {})


def mean_losses(losses: Mapping[str, Tensor], suffix: str) -> dict[str, float]:
    """Means of each source's losses: of all tokens as validation_`suffix`, and each source's own."""
    whole = torch.cat([part.flatten() for part in losses.values()]).mean().item()
    return {f"validation_{suffix}": whole} | {f"{name}_{suffix}": part.mean().item() for name, part in losses.items()}


def judged(model: nn.Module, history: History, validation: float | None) -> Outcome:
    """The outcome of a training with its validation loss, None where training diverged."""
    metrics = ending(history) | {"validation_loss": None if history.diverged else validation}
    return outcome_of(model, history, metrics)


def get_study(name: str) -> Study:
    """The study called `name`; ValueError names those there are."""
    if name not in STUDIES:
        raise ValueError(f"name={name!r}; studies are {', '.join(STUDIES)}")
    return import_module(f"course_lib.experiments.{name}").STUDY


def shared_fields(config: Any, of: type[Any]) -> dict[str, Any]:
    """Those values of an arm's dataclass that the config of its network, the dataclass `of`, has too."""
    names = {field.name for field in fields(of)}
    return {field.name: getattr(config, field.name) for field in fields(config) if field.name in names}


def changed(config: Config, overrides: Config) -> Config:
    """`config` with some fields replaced; ValueError for a field that it does not have."""
    unknown = sorted(set(overrides) - set(config))
    if unknown:
        raise ValueError(f"set: no field {', '.join(unknown)}; there are {', '.join(config)}")
    return config | overrides
