"""Small trained models that ship with the course, so that a lesson has something trained to look at in a second."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from course_lib.checks import check_choice
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.models.modernbert import ModernBertConfig, ModernBertForMaskedLM
from course_lib.models.pythia import Pythia, PythiaConfig
from course_lib.models.residual_mlp import ResidualMLP, ResidualMLPConfig
from course_lib.models.sparse_bert import SparseBert, SparseBertConfig
from course_lib.paths import verified, whole_or_nothing


@dataclass(frozen=True)
class Origin:
    """Where weights come from: the model's class and config, and the run of a recorded study that made them."""

    model: Callable[[Any], nn.Module]
    config: Callable[..., Any]
    study: str
    arm: str
    seed: int


MODELS = {
    "residual-mlp": Origin(ResidualMLP, ResidualMLPConfig, "norm_dynamics", "pre-norm lr=0.001", 0),
    "gpt2-english": Origin(GPT2, GPT2Config, "gpt2_english", "GPT-2", 0),
    "modernbert-english": Origin(ModernBertForMaskedLM, ModernBertConfig, "modernbert_english", "ModernBERT", 0),
    "sparse-bert-tiny": Origin(SparseBert, SparseBertConfig, "sparse_bert_tiny", "SparseBert tiny", 0),
    "pythia-rope": Origin(Pythia, PythiaConfig, "positions", "rope", 0),
    "pythia-sinusoidal": Origin(Pythia, PythiaConfig, "positions", "sinusoidal", 0),
}


def origin(name: str) -> Origin:
    """How the weights `name` were made; ValueError names those there are."""
    check_choice("name", name, MODELS)
    return MODELS[name]


def load(name: str) -> nn.Module:
    """The trained model `name` on the CPU, in float32 (the file holds float16) and evaluation mode.

    Raises ValueError for an unknown name or a damaged file, FileNotFoundError for a missing one.
    """
    made = origin(name)
    with safe_open(verified(f"weights/{name}.safetensors"), "pt") as file:
        config = made.config(**json.loads(file.metadata()["config"]))
        weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (not a dict)
    model = made.model(config)
    model.load_state_dict(weights, strict=True)
    return model.eval()


def save(name: str, model: nn.Module, folder: Path) -> Path:
    """Write the weights of `model` in float16, with its config, to `folder`; return the file's path."""
    origin(name)
    path = folder / f"{name}.safetensors"
    weights = {key: tensor.detach().to("cpu", torch.float16).contiguous() for key, tensor in model.state_dict().items()}
    with whole_or_nothing(path) as temporary:
        save_file(weights, temporary, metadata={"config": json.dumps(asdict(model.config))})  # type: ignore[call-overload]
    return path
