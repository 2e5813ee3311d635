"""Lesson 04: what its prose says is in the records and in the saved outputs."""

import re
import statistics
from itertools import product

import nbformat
import pytest
import torch

from course_lib import pretrained
from course_lib.experiments import load
from course_lib.experiments.long_documents import LENGTHS
from course_lib.experiments.masked_language import speech_windows
from course_lib.heads import attention_maps
from course_lib.lessons.local_and_global_attention.complexity import exponent, recorded_complexity
from tests.conftest import ROOT

NOTEBOOK = nbformat.read(ROOT / "notebooks/04_local_and_global_attention.ipynb", 4)
PROSE = " ".join(cell.source for cell in NOTEBOOK.cells if cell.cell_type == "markdown").replace("\n", " ")
OUTPUT = "\n".join(o.get("text", "") for cell in NOTEBOOK.cells for o in cell.get("outputs", ()))
BIGRAM = 4.68


def runs(study, arm):
    found = [run["metrics"] | {"curve": run["curve"]} for run in load(study)["arms"] if run["name"] == arm]
    assert len(found) == 3
    return found


def test_retrieval_by_distance():
    near = ("1_16", "17_32", "33_48")
    far = ("49_64", "65_96", "97_128", "129_192", "193_256")
    for run in runs("retrieval", "local"):
        assert min(run[f"accuracy_{bin_}"] for bin_ in near) > 0.998
        assert max(run[f"accuracy_{bin_}"] for bin_ in far) < 0.05
    for arm, bin_ in product(("full", "local + global", "local + random", "BigBird"), near + far):
        assert min(run[f"accuracy_{bin_}"] for run in runs("retrieval", arm)) > 0.998


def test_full_attention_learns_retrieval_first():
    """Step at which the training loss falls below half of a guess's, ln 32 / 2."""
    steps = {
        arm: [
            next(s for s, loss in zip(r["curve"]["step"], r["curve"]["loss"], strict=True) if loss < 1.733)
            for r in runs("retrieval", arm)
        ]
        for arm in ("full", "local + global", "local + random", "BigBird")
    }
    assert 150 <= min(steps["full"]) <= max(steps["full"]) <= 190
    others = steps["local + global"] + steps["local + random"] + steps["BigBird"]
    assert 200 < min(others) <= max(others) <= 250
    assert "after about 170 steps" in PROSE
    assert "after 210 to 250" in PROSE


def seconds(arm, length):
    return statistics.mean(run["seconds_per_step"] for run in runs("long_documents", f"{arm} T={length}"))


def after(arm, length):
    return [run["validation_100"] for run in runs("long_documents", f"{arm} T={length}")]


def test_seconds_of_a_wide_view():
    ratios = [seconds("full", length) / seconds("local", length) for length in LENGTHS]
    assert [round(ratio, 1) for ratio in ratios] == [1.5, 2.5, 4.4]
    assert "1.5 times as long as one of radius 64 at 1,024 tokens, 2.5 times at 2,048 and 4.4 times at 4,096" in PROSE
    cost = [seconds("hybrid", length) / seconds("local", length) - 1 for length in LENGTHS]
    assert 0.005 < min(cost) < max(cost) < 0.115
    per_token = [seconds("local", length) / length for length in LENGTHS]
    assert max(per_token) / min(per_token) < 1.15


def test_losses_of_a_wide_view():
    for length in LENGTHS:
        means = {arm: statistics.mean(after(arm, length)) for arm in ("radius 4", "radius 4 + global", "local", "full")}
        assert 4.375 < means["radius 4"] < 4.405
        assert abs(means["radius 4 + global"] - means["radius 4"]) < 0.0035
        assert 5.62 < means["local"] < 5.67
        assert 5.795 < means["full"] < 5.845
        assert abs(statistics.mean(after("hybrid", length)) - means["local"]) < 0.02
        assert max(after("radius 4", length) + after("radius 4 + global", length)) < BIGRAM
        assert min(after("local", length) + after("hybrid", length) + after("full", length)) > BIGRAM


def test_the_base_model_beats_one_bigram_and_loses_to_the_other():
    found = dict(re.findall(r"^(how frequent|bigram|SparseBert tiny|two-sided).*perplexity +(\d+)", OUTPUT, re.M))
    assert found == {"how frequent": "564", "bigram": "107", "SparseBert tiny": "73", "two-sided": "30"}


@pytest.mark.parametrize("backward", [False, True])
def test_costs(backward):
    rows = recorded_complexity(backward)

    def line(name, what):
        return [[getattr(row, field) for row in rows if row.name == name] for field in ("length", what)]

    assert exponent(*line("window, blocked", "seconds")) < 1.15
    assert exponent(*line("window, blocked", "bytes")) == pytest.approx(1, abs=0.05)
    assert exponent(*line("full, fused", "seconds")) == pytest.approx(2, abs=0.15)
    assert exponent(*line("full, fused", "bytes")) == pytest.approx(1, abs=0.15)
    assert exponent(*line("full, weights stored", "bytes")) == pytest.approx(2, abs=0.1)
    at = {(row.name, row.length): row.seconds for row in rows}
    assert at["full, fused", 8192] / at["window, blocked", 8192] > 14


def test_your_own_training():
    beyond = {name: int(share) for name, share in re.findall(r"^(local.*?) +\d+ s; .*beyond (\d+)%", OUTPUT, re.M)}
    assert beyond["local"] < 10
    assert beyond["local + global"] > 95


def test_no_head_looks_mostly_at_one_neighbour():
    maps = attention_maps(pretrained.load("sparse-bert-tiny"), speech_windows("validation", 128)[:20])
    middle = torch.arange(4, 124)
    strongest = max(
        maps[..., middle, middle + d].mean((1, 3)).max().item()  # mean over texts and tokens, of each layer and head
        for d in (-4, -3, -2, -1, 1, 2, 3, 4)
    )
    assert 0.15 < strongest < 0.5
    assert "more than half of their weight on one neighbour; none does" in PROSE
