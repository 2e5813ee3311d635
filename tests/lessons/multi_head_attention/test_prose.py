"""Lesson 03: what its prose says is in the records and in the saved outputs."""

import re

import pytest

from course_lib.experiments import load
from course_lib.experiments.seeds import gaps
from course_lib.training import windows
from tests.conftest import saved_notebook


@pytest.fixture(scope="module")
def saved():
    """What the saved notebook printed, and its prose as one line."""
    return saved_notebook("03_multi_head_attention.ipynb")


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
    table = score["bigram, Kneser–Ney"]
    assert score["shipped"] < 0.55 * table  # "halves the table's perplexity"
    assert table < score["yours"] < 0.5 * score["unigram"]
    config = shipped["config"]
    assert config["repeats"] == 1 / 8  # "In one window of eight"
    text = windows(tuple(config["data"]), "train", config["max_positions"], config["tokenizer"], start=True)
    there = text.numel() - len(text)
    assert there == pytest.approx(6e6, rel=0.02)  # "six million tokens, two and a half times over"
    assert config["steps"] * config["batch_size"] * config["max_positions"] / there == pytest.approx(2.5, abs=0.05)
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
    assert all(ours < theirs for ours, theirs in list(zip(model, table, strict=True))[2:])  # "from the third token"
    assert table[1] < model[1]  # "at the second token the table is better"


def test_claims_about_what_heads_do(saved):
    printed, _ = saved
    count = {role: int(n) for role, n in re.findall(r"^(\S.*?) +(\d+) heads; strongest", printed, re.M)}
    assert (count["previous"], count["first"], count["induction"], count["local"]) == (2, 3, 3, 15)
    assert count["same"] == count["sentence end"] == count["earlier copy"] == 0  # "the three things that are left"
    assert "none of these: 14 of 32 heads" in printed
    costs = [float(x) for x in re.findall(r"^layer \d head \d: ([+-][\d.]+) ±", printed, re.M)]
    assert costs[0] == pytest.approx(0.7, abs=0.05)  # "by 0.7 nats"
    assert max(costs[1:]) < 0.05
    found = re.findall(r"^without (.+?) *: prose ([\d.]+), first copy +([\d.]+), second copy +([\d.]+)$", printed, re.M)
    second = {name: float(last) for name, _, _, last in found}
    assert all(float(first) > 8.3 for _, _, first, _ in found)  # "more than a uniform guess"
    assert second["nothing"] == pytest.approx(2.2, abs=0.05)
    assert min(second["0.0"], second["all induction heads"]) > 12  # "nothing of that is left"
    assert second["as many others"] < second["nothing"] + 1


def test_claims_about_shared_keys():
    record = load("kv_heads")
    found = gaps(record, "validation_loss", "MHA, 8 key heads")
    assert found["MQA, 1 key head"] == pytest.approx((0.046, 0.038, 0.053), abs=6e-4)
    assert found["GQA, 2 key heads"][0] == pytest.approx(0.029, abs=6e-4)
    assert found["GQA, 2 key heads"][1] < 0  # "still touches 0"
    halves = {name: mean - low for name, (mean, low, _) in found.items()}
    assert halves == pytest.approx({"GQA, 2 key heads": 0.030, "MQA, 1 key head": 0.008}, abs=6e-4)
    losses = [run["metrics"]["validation_loss"] for run in record["arms"]]
    assert (min(losses), max(losses)) == pytest.approx((4.29, 4.34), abs=0.005)
    assert max(run["metrics"]["induction"] for run in record["arms"]) < 0.025
    cache = {run["name"]: run["metrics"]["cache_bytes"] for run in record["arms"]}
    assert [value / max(cache.values()) for value in cache.values()].count(1 / 8) == 1


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
