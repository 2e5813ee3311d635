"""Small language models by name: what they are made of, with random weights, and texts of their vocabulary."""

import torch

from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.models.pythia import Pythia, PythiaConfig
from course_lib.models.sparse_bert import SparseBert, SparseBertConfig
from course_lib.positions import POSITIONS
from course_lib.transformer_block import PLACEMENTS
from tests.conftest import randomise

DECODER = {"vocab_size": 13, "max_positions": 12, "d_model": 16, "n_layers": 3}
PYTHIA = DECODER | {"n_heads": 2, "max_distance": 5, "n_buckets": 6}
ENCODER = {"vocab_size": 23, "max_positions": 150, "d_model": 8, "n_heads": 2, "n_layers": 2, "radius": 3}

GPT2S = {
    "gpt2": {},
    "gpt2 gqa": {"n_kv_heads": 2},
    "gpt2 mqa": {"n_kv_heads": 1},
    "gpt2 one layer": {"n_layers": 1},
}
SCHEMES = {name: {"position": name} for name in POSITIONS} | {
    "alibi uniform": {"position": "alibi", "alibi_slopes": "uniform"},
    "rope ntk": {"rotary_pct": 1.0, "rope_extension": "ntk", "rope_factor": 4.0},
    "rope interpolated": {"rope_extension": "interpolate", "rope_factor": 4.0},
}
VARIANTS = {
    "full": {"pattern": "full"},
    "local": {"pattern": "local"},
    "local_global": {"pattern": "local_global", "n_global": 2},
    "separate": {"pattern": "local_global", "n_global": 2, "separate_global": True},
    "no global token": {"pattern": "local_global", "n_global": 0},
    "bigbird": {"pattern": "bigbird", "n_random": 2},
    "random alone": {"pattern": "bigbird", "n_global": 0, "random_per_layer": False},
}
ENCODERS = VARIANTS | {"local_global with rope": {"pattern": "local_global", "position": "rope"}}
DECODERS = [*GPT2S, *SCHEMES]
PLACED = [(name, placement) for name in DECODERS for placement in PLACEMENTS]
MODELS = [*DECODERS, *ENCODERS]


def make(name, **fields):
    """The model at its start; `fields` of its config replace those of the table."""
    if name in GPT2S:
        return GPT2(GPT2Config(**DECODER | {"n_heads": 4} | GPT2S[name] | fields))
    if name in SCHEMES:
        return Pythia(PythiaConfig(**PYTHIA | SCHEMES[name] | fields))
    return SparseBert(SparseBertConfig(**ENCODER | ENCODERS[name] | fields))


def small(name, **fields):
    """The model with random weights, in eval mode."""
    return randomise(make(name, **fields)).eval()


def ids_of(length=12, rows=2):
    """A text that every model can read."""
    return torch.randint(13, (rows, length))


def decoded(model, ids, sizes, caches):
    """The logits of the whole, read in pieces of these sizes."""
    return torch.cat([model(part, caches) for part in ids.split(sizes, 1)], 1)
