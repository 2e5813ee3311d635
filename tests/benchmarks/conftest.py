"""Where a benchmark of the tests writes."""

import pytest

from benchmarks import flops, timing
from course_lib.experiments import record


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty results folder, turns of one call, and a peak measured at one size."""
    monkeypatch.setattr(record, "shipped", lambda name: tmp_path)
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(flops, "LARGEST", 256)
    return tmp_path
