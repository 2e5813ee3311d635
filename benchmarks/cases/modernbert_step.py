"""One training step of our ModernBERT against `transformers`' with the same weights, on short texts and long ones."""

from functools import partial

import torch

from benchmarks.case import Case, Race, Setting
from benchmarks.language_step import SIZES, step_race
from course_lib.interop import modernbert_from_transformers
from course_lib.models.modernbert import ModernBertConfig, ModernBertForMaskedLM


def race(setting: Setting, device: torch.device) -> Race:
    """`setting`: vocab_size, d_model, n_heads, n_layers, batch, length, dtype ("float32", "bfloat16": autocast).

    The loss is of all tokens, though an encoder sees them: which are asked for changes no time. Theirs has its fused
    attention alone: the eager one stores all pairs of a text, in each layer.
    """
    config = ModernBertConfig(**{name: setting[name] for name in SIZES})
    from_theirs = partial(modernbert_from_transformers, n_layers=config.n_layers)
    return step_race(ModernBertForMaskedLM(config), from_theirs, setting, device, attentions=("sdpa",))


CASE = Case(
    name="modernbert_step",
    question="What does a training step of our ModernBERT cost against transformers', on short texts and on long ones?",
    settings=[
        {"vocab_size": 4000, "d_model": 192, "n_heads": 6, "n_layers": 6}
        | {"batch": batch, "length": length, "dtype": dtype}
        for batch, length in ((16, 256), (1, 4096))
        for dtype in ("float32", "bfloat16")
    ],
    race=race,
)
