"""One training step of our Pythia against `transformers`' GPTNeoXForCausalLM with the same weights."""

from functools import partial

import torch

from benchmarks.case import Case, Race, Setting
from benchmarks.language_step import SETTINGS, SIZES, step_race
from course_lib.interop import pythia_from_transformers
from course_lib.models.pythia import Pythia, PythiaConfig


def race(setting: Setting, device: torch.device) -> Race:
    """`setting`: vocab_size, d_model, n_heads, n_layers, batch, length, dtype ("float32", "bfloat16": autocast)."""
    config = PythiaConfig(**{name: setting[name] for name in SIZES}, max_positions=setting["length"])
    from_theirs = partial(pythia_from_transformers, n_layers=config.n_layers, n_heads=config.n_heads)
    return step_race(Pythia(config), from_theirs, setting, device)


CASE = Case(
    name="pythia_step",
    question="What does a training step of our Pythia cost against transformers', and how busy is the machine?",
    settings=SETTINGS,
    race=race,
)
