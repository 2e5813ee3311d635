"""Fixtures for all tests."""

import importlib.util
from pathlib import Path
from types import ModuleType

import matplotlib
import pytest
import torch
from torch import nn

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def root() -> Path:
    """The checkout."""
    return ROOT


def randomise(module: nn.Module) -> nn.Module:
    """Give every parameter, gains and biases too, random values: ones and zeros hide mapping errors."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5 + 0.3)
    return module


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    """Largest difference, relative to the largest entry."""
    return ((got.double() - want.double()).abs().max() / want.double().abs().max().clamp(min=1e-30)).item()


def load_file(path: Path) -> ModuleType:
    """Import a Python file whose name is no identifier."""
    spec = importlib.util.spec_from_file_location(path.stem.replace("-", "_"), path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
