"""Lesson 03: what its prose says is in the records and in the saved outputs."""

import re

import nbformat
import pytest

from course_lib.experiments import load
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def saved():
    """What the saved notebook printed, and its prose as one line."""
    notebook = nbformat.read(ROOT / "notebooks" / "03_multi_head_attention.ipynb", as_version=4)
    printed = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    prose = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return printed, re.sub(r"\s+", " ", prose)


@pytest.fixture(scope="module")
def shipped():
    """The recorded run of the GPT-2 that ships."""
    (run,) = load("gpt2_english")["arms"]
    return run


def test_one_head_deals_out_one_look_and_two_heads_have_two(saved):
    together = {
        name: float(share) for name, share in re.findall(r"^(one head|two heads): .*together ([\d.]+)$", saved[0], re.M)
    }
    assert 0.9 < together["one head"] < 1.1  # "stay near 1"
    assert together["two heads"] > 1.97  # "name every token"


def test_claims_about_the_birth(saved):
    right = {
        name.strip(): int(share) for name, share in re.findall(r"^(.+?) +(\d+)% of the repeats right$", saved[0], re.M)
    }
    assert right["two layers"] >= 98
    assert right["one layer, two heads"] < 25  # "near a guess among the tokens of the text"
    assert right["layer 0 silent"] < 15  # "finds nothing"
    assert right["k_proj of layer 1 without the note"] < 15  # "it is the keys that carry the note"
    assert min(right[f"{name} of layer 1 without the note"] for name in ("q_proj", "v_proj")) > 90
    assert "41,856 parameters" in saved[1]


def test_claims_about_training(saved, shipped):
    score = {name.strip(): float(value) for name, value in re.findall(r"^(.+?) +perplexity +(\d+)$", saved[0], re.M)}
    assert score["shipped"] < 0.7 * score["bigram, Kneser–Ney"] < score["yours"] < 0.5 * score["unigram"]
    config = shipped["config"]
    assert config["repeats"] == 1 / 8  # "In one window of eight"
    tokens = config["steps"] * config["batch_size"] * config["max_positions"]
    assert tokens / 4.6e6 == pytest.approx(3, abs=0.35)  # "five million tokens, three times over"
    assert 3600 < shipped["metrics"]["train_seconds"] < 7200  # "more than an hour"


def test_the_shipped_model_has_the_heads_that_it_must_have(saved, shipped):
    metrics = shipped["metrics"]
    assert metrics["previous_token"] > 0.5
    assert metrics["first_token"] > 0.5
    assert metrics["induction"] > 0.3
    best = {
        name: [float(x) for x in values]
        for name, *values in re.findall(
            r"^(\S.*?) +\d+ heads; strongest.*?: ([\d.]+) \(untrained ([\d.]+), shuffled ([\d.]+)\)", saved[0], re.M
        )
    }
    for name, limit in (("previous", 0.5), ("first", 0.5), ("induction", 0.3)):
        trained, untrained, shuffled = best[name]
        assert trained > limit
        assert untrained < 0.15
        if name == "induction":
            assert shuffled < 0.1


def test_claims_about_places(saved):
    found = re.findall(r"^token +\d+ to +\d+: +\{'shipped': (\d+), 'bigram, Kneser–Ney': (\d+)\}", saved[0], re.M)
    model, table = ([int(row[i]) for row in found] for i in (0, 1))
    assert len(found) == 7
    assert all(ours < theirs for ours, theirs in list(zip(model, table, strict=True))[2:])


def test_claims_of_the_pitfalls(saved):
    printed, _ = saved
    reshaped, whole = re.search(r"merged by a reshape: perplexity ([\d,]+) instead of (\d+)", printed).groups()
    assert int(reshaped.replace(",", "")) > 1.5 * int(whole)
    right, restarted = (
        int(re.search(rf"places {name} *: perplexity (\d+) step by step", printed)[1])
        for name in ("right", "restarted")
    )
    assert restarted > 1.5 * right
    wrong = [float(x) for x in re.findall(r"share of weight in the wrong place ([\d.]+)", printed)]
    assert wrong[0] == 0  # "repairs the first layer alone"
    assert min(wrong[1:]) > 0.1
    times = [float(t) for t in re.findall(r"at 2048 tokens: ([\d.]+) ms", printed)]
    assert times[0] > 1.4 * times[2]  # MHA against MQA
