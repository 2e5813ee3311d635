"""The cases at a small size."""

from dataclasses import replace
from importlib import import_module

SMALL = {
    "norms": {"shape": [2, 5, 12]},
    "training_step": {"d_model": 8, "d_ff": 12, "n_layers": 3, "batch": 6},
    "gpt2_step": {"vocab_size": 11, "d_model": 8, "n_heads": 2, "n_layers": 2, "batch": 3, "length": 5},
    "pythia_step": {"vocab_size": 11, "d_model": 16, "n_heads": 2, "n_layers": 2, "batch": 3, "length": 5},
    "modernbert_step": {"vocab_size": 11, "d_model": 16, "n_heads": 2, "n_layers": 2, "batch": 3, "length": 150},
    "decoding": {"d_model": 64, "batch": 2, "length": 7},
    "local": {"length": 96, "radius": 6, "head_dim": 4},
    "bpe": {"bytes": 20_000, "merges": 60},
}


def small(name):
    """The case with all its settings at a small size."""
    case = import_module(f"benchmarks.cases.{name}").CASE  # also one that has no record yet
    return replace(case, settings=[setting | SMALL[name] for setting in case.settings])
