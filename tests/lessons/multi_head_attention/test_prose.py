"""Lesson 03: what its prose says is in the records and in the saved outputs."""

import re

import nbformat
import numpy as np
import pytest

from course_lib.experiments import as_frame, load
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def saved():
    """What the saved notebook printed, and its prose as one line."""
    notebook = nbformat.read(ROOT / "notebooks" / "03_multi_head_attention.ipynb", as_version=4)
    printed = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    prose = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return printed, re.sub(r"\s+", " ", prose)


def test_claims_about_training(saved):
    printed, prose = saved

    def score(name):
        return float(re.search(rf"{name} +perplexity +(\d+)", printed)[1])

    assert "Its perplexity on" in load("gpt2_tiny")["prediction"]
    shipped, bigram = score("shipped, after 20 minutes"), score("bigram, Kneser–Ney")
    live, unigram = score("yours, after 40 seconds"), score("unigram")
    assert shipped == 66
    assert shipped < 0.7 * bigram < bigram < live < 0.6 * unigram
    assert "A perplexity of 66" in prose
    (run,) = load("gpt2_tiny")["arms"]
    assert round(np.exp(run["metrics"]["validation_loss"])) == 67
    assert 1000 < run["seconds"] < 1300  # "20 minutes"
    assert round(run["config"]["steps"] * 1024 / 581_888) == 14  # "14 passes"


def test_claims_about_heads(saved):
    printed, prose = saved
    rows = dict(re.findall(r"^(\S.*?) +(\d+) heads; strongest", printed, re.M))
    assert rows == {
        "previous": "0", "same": "3", "first": "0", "sentence end": "0", "earlier copy": "0", "induction": "0",
        "local": "12",
    }  # fmt: skip
    found = re.findall(r"^(\S.*?) +\d+ heads; strongest.*?: ([\d.]+) \(unt", printed, re.M)
    best = {name: float(value) for name, value in found}
    assert (best["previous"], best["same"], best["earlier copy"]) == (0.24, 0.80, 0.22)
    assert best["induction"] == 0.02
    assert best["first"] < 0.1
    assert "none of these: 4 of 16 heads" in printed
    assert "**Four of the 16 heads have none of our roles**" in prose
    assert "5 of 16 heads cost less than 0.02 nats" in printed
    costs = [float(c) for c in re.findall(r"^layer \d head \d: \+([\d.]+) ±", printed, re.M)]
    total = float(re.search(r"one by one: ([\d.]+) nats", printed)[1])
    assert costs[0] > total - costs[0]  # "more than all the others together"
    assert re.search(r"layer 0 head 0: .* same, local", printed)
    assert re.search(r"^earlier copy .*: 0.22 \(untrained 0.02, shuffled 0.00\)", printed, re.M)
    assert re.search(r"visible keys that count: \[0.88, 0.5,", printed)
    assert re.search(r"reach by layer: \[7, 22, 6, 10\]", printed)


def test_claims_about_diagonals(saved):
    found = re.findall(r"head (\d): set to zero \+([\d.]+), a pure diagonal ([+-][\d.]+)", saved[0])
    zero, diagonal = ([float(row[i]) for row in found] for i in (1, 2))
    assert abs(diagonal[0]) < 0.005  # "Nothing."
    assert diagonal[3] < 0.1 * zero[3]  # "nearly true of head 0.3"
    assert all(diagonal[i] > zero[i] for i in (1, 2, 4))  # "as much as zero, or more"


def test_claims_about_places(saved):
    found = re.findall(r"tokens seen: +\{'GPT-2': (\d+), 'Kneser–Ney': (\d+)\}", saved[0])
    gpt2, table = ([int(row[i]) for row in found] for i in (0, 1))
    assert gpt2[0] > table[0]
    assert all(ours < theirs for ours, theirs in list(zip(gpt2, table, strict=True))[1:])
    assert gpt2[4] < 70 < gpt2[2]  # "after eight most of the gain is made"
    assert all(95 < theirs < 120 for theirs in table)
    assert float(re.search(r"without any head: (\d+)", saved[0])[1]) > 4000


def test_claims_about_key_heads(saved):
    frame = as_frame(load("kv_heads")).pivot(index="seed", columns="arm", values="validation_loss")
    gap = frame["MQA, 1 key head"] - frame["MHA, 8 key heads"]
    assert (gap < 0).all()
    assert (gap.mean().round(3), (4.303 * gap.std() / 3**0.5).round(3)) == (-0.030, 0.027)
    gqa = frame["GQA, 2 key heads"] - frame["MHA, 8 key heads"]
    assert (abs(gqa.mean()) < 0.02, (4.303 * gqa.std() / 3**0.5).round(2)) == (True, 0.10)
    held = as_frame(load("kv_heads")).groupby("arm").cache_bytes.mean()
    assert held["MHA, 8 key heads"] == 4 * held["GQA, 2 key heads"] == 8 * held["MQA, 1 key head"]
    assert "0.030 *lower* in three of three seeds" in saved[1]
    both = 2.776 * (((gap.var() + gqa.var()) / 2) / 3) ** 0.5  # t, 4 degrees of freedom
    assert both.round(2) == 0.05
    assert f"± {both:.3f}" in saved[0]
    assert frame.map(np.exp).stack().between(150, 162).all()  # "near a perplexity of 155"


def test_claims_about_norm_placement(saved):
    frame = as_frame(load("gpt2_norm_placement"))
    medians = frame.groupby(["placement", "lr"]).validation_loss.median()
    assert medians["post"].idxmin() == 3e-4
    assert medians["pre"].idxmin() in (3e-3, 1e-2)
    assert medians["post"].min() - medians["pre"].min() == pytest.approx(0.45, abs=5e-3)
    assert medians["post"].between(6.3, 6.4).all()
    assert "0.45 nats" in saved[1]


def test_claims_of_the_pitfalls(saved):
    printed, _ = saved
    assert float(re.search(r"perplexity ([\d,]+) instead of 66", printed)[1].replace(",", "")) > 1000
    assert re.search(r"right +perplexity at once (\d+), step by step \1; equal logits: True", printed)
    restarted = re.search(r"restarted perplexity at once (\d+), step by step (\d+); equal logits: False", printed)
    assert int(restarted[2]) > 1.5 * int(restarted[1])
    times = [float(t) for t in re.findall(r"key heads|at 2048 tokens: ([\d.]+) ms", printed) if t]
    assert times[0] > 1.4 * times[2]  # MHA against MQA
