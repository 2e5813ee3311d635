"""Fixtures for all tests, in which order files are run, and what a test may cost."""

import gc
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import matplotlib
import nbformat
import pytest
import torch
from torch import nn

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[1]
# Seconds of processor time. Marked "slow" is what took more than half a second on the machine that this was written on;
# another machine, and what runs beside, may make it ten times as much.
MOST_UNMARKED = 5.0


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module", autouse=True)
def _tidied() -> Iterator[None]:
    """What a file leaves in memory, such as data sets, is not searched by every later collection of garbage."""
    yield
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: begun last, they would keep one process busy when the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that makes `make unit` slow fails, unless it is marked."""
    before = _processor_seconds()
    yield
    spent = _processor_seconds() - before
    marked = any(item.get_closest_marker(name) for name in ("slow", "browser"))
    assert marked or spent < MOST_UNMARKED, f"{spent:.1f} s of processor time: mark it with pytest.mark.slow"


def _processor_seconds() -> float:
    """Of this process and of those that it has waited for."""
    return sum(os.times()[:4])


@pytest.fixture
def root() -> Path:
    """The checkout."""
    return ROOT


def randomise(module: nn.Module) -> nn.Module:
    """Give every parameter, gains and biases too, random values: ones and zeros hide mapping errors.

    Matrices keep the scale of what they are applied to, about, so that logits are of order 1: in a softmax that chooses
    one key, or between keys that are all alike, the gradients of queries and keys are nothing, and no error is seen.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            numbers = torch.randn_like(parameter)
            if parameter.ndim > 1:
                parameter.copy_(1.5 * numbers / parameter.shape[-1] ** 0.5)
            else:
                parameter.copy_(0.3 * numbers + name.endswith("weight"))  # a gain is near 1, a bias near 0
    return module


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    """Largest difference, relative to the largest entry of `want`: no measure of what is zero in theory."""
    largest = want.double().abs().max()
    assert largest > 0, "nothing that an error could be relative to"
    return ((got.double() - want.double()).abs().max() / largest).item()


def saved_notebook(name: str) -> tuple[str, str]:
    """What a saved notebook printed, and its prose as one line: two strings."""
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    printed = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    prose = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return printed, re.sub(r"\s+", " ", prose)


def load_file(path: Path) -> ModuleType:
    """Import a Python file whose name is no identifier."""
    spec = importlib.util.spec_from_file_location(path.stem.replace("-", "_"), path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
