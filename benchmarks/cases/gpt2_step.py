"""One training step of our GPT2 against `transformers`' GPT2LMHeadModel with the same weights."""

from functools import partial

import torch

from benchmarks.case import Case, Race, Setting
from benchmarks.language_step import SETTINGS, SIZES, step_race
from course_lib.interop import gpt2_from_transformers
from course_lib.models.gpt2 import GPT2, GPT2Config


def race(setting: Setting, device: torch.device) -> Race:
    """`setting`: vocab_size, d_model, n_heads, n_layers, batch, length, dtype ("float32", "bfloat16": autocast)."""
    config = GPT2Config(**{name: setting[name] for name in SIZES}, max_positions=setting["length"])
    return step_race(GPT2(config), partial(gpt2_from_transformers, n_layers=config.n_layers), setting, device)


CASE = Case(
    name="gpt2_step",
    question="What does a training step of our GPT2 cost against transformers', and how busy is the machine?",
    settings=SETTINGS,
    race=race,
)
