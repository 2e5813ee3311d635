"""Lesson 08: what its prose says is in the records and in the saved outputs."""

import re

import pytest

from course_lib.experiments import load
from tests.conftest import saved_notebook


@pytest.fixture(scope="module")
def saved():
    """What the saved notebook printed, and its prose as one line."""
    return saved_notebook("08_modernbert_mlm.ipynb")


@pytest.fixture(scope="module")
def shipped():
    """The recorded run of the ModernBERT that ships."""
    (run,) = load("modernbert_english")["arms"]
    return run


def test_the_shipped_model_knows_more_than_a_table(saved, shipped):
    metrics = shipped["metrics"]
    for name in ("speeches", "books", "manuals", "factbook", "sentence_pairs"):
        assert metrics[f"{name}_loss"] < metrics[f"{name}_two_sided"]
        assert f"{name:15s} ModernBERT {metrics[name + '_loss']:.2f}" in saved[0]
    found = dict(re.findall(r"^(\S.*): first guess right in \d+ of 40, one of five in (\d+)$", saved[0], re.M))
    assert int(found["ModernBERT"]) >= 20  # half of the forty
    assert int(found["ModernBERT"]) > int(found["two-sided bigram"])


def test_questions_get_harder_as_more_is_hidden(saved):
    nats = [float(x) for x in re.findall(r"% hidden: +\d+ questions a window, ([\d.]+) nats each", saved[0])]
    assert len(nats) == 5
    assert nats == sorted(nats)


def test_the_two_heads_are_most_of_the_reason(saved):
    nats = {name.strip(): float(x) for name, x in re.findall(r"^without (.+?) +([\d.]+) nats$", saved[0], re.M)}
    table = float(re.search(r"tables: frequencies ([\d.]+), two neighbours ([\d.]+)", saved[0])[1])
    gained = table - nats["nothing"]
    assert gained > 0.7
    lost = {name: (x - nats["nothing"]) / gained for name, x in nats.items()}
    assert lost["the two"] > 2 / 3  # "more than two thirds"
    assert lost["all others of layers 1 and 2"] < 0.35  # "a quarter"
    assert float(re.search(r"two neighbours ([\d.]+)", saved[0])[1]) < nats["nothing"]  # "is still ahead"


def test_the_oracles_agree(saved):
    assert float(re.search(r"largest difference to the model: (\S+)", saved[0])[1]) < 1e-3
    logits, gradient = re.search(r"logits (\S+), worst gradient (\S+), of", saved[0]).groups()
    assert max(float(logits), float(gradient)) < 1e-4


def test_heads_of_neighbours_stand_out(saved):
    rows = {
        role.strip(): (int(n), *map(float, values))
        for role, n, *values in re.findall(
            r"^(\S.*?) +(\d+) heads; strongest.*?: ([\d.]+) \(untrained ([\d.]+), shuffled ([\d.]+)\)", saved[0], re.M
        )
    }
    for role in ("before", "after"):
        count, trained, untrained, shuffled = rows[role]
        assert count >= 4
        assert trained > 0.7
        assert untrained < 0.1
        assert shuffled > 0.7  # a place needs no order of the tokens


def test_claims_about_alternation(saved):
    runs = load("alternation")["arms"]
    far = {
        name: [r["metrics"]["accuracy_far"] for r in runs if r["name"] == name] for name in {r["name"] for r in runs}
    }
    assert min(min(far[name]) for name in ("all global", "alternating", "first alone")) > 0.995
    assert max(far["all local"]) < 0.06
    near = sorted(r["metrics"]["accuracy_near"] for r in runs if r["name"] == "all local")
    assert [round(x, 2) for x in near] == [0.24, 0.84, 0.86]
    metrics = {r["seed"]: r["metrics"] for r in runs if r["name"] == "alternating"}
    assert round(metrics[0]["far_without_3"], 2) == 0.07
    assert round(metrics[2]["far_without_0"], 2) == 0.45
    assert round(min(metrics[1]["far_without_0"], metrics[1]["far_without_3"]), 2) == 0.60
    assert max(m["far_without_0_3"] for m in metrics.values()) < 0.06


def test_a_book_is_learned_and_other_text_suffers(saved):
    gain, error = map(float, re.search(r"gain on the last chapters ([\d.]+) ± ([\d.]+) nats", saved[0]).groups())
    assert gain > error
    rows = dict(re.findall(r"^(shipped|reader) +last chapters [\d.]+, speeches ([\d.]+) nats", saved[0], re.M))
    assert float(rows["reader"]) > float(rows["shipped"])  # "a small loss on what it does not read any more"
    names = dict(re.findall(r"^(shipped|reader) .* nats; (.*)$", saved[0], re.M))
    assert names["shipped"].startswith("Jane, Fanny, Emma")
    assert {"Henry", "John", "Catherine", "Isabella"} & set(names["reader"].split(", "))  # people of this book


def test_claims_of_the_pitfalls(saved):
    printed, _ = saved
    rows = {
        name.strip(): (float(a), float(b))
        for name, a, b in re.findall(
            r"^(\S.*?) +over all tokens +([\d.]+) nats, over the hidden ones +([\d.]+)$", printed, re.M
        )
    }
    assert rows["ModernBERT"][0] < 0.45 * rows["ModernBERT"][1]  # "falls to a third"
    assert rows["a copier"][1] > 8.29 > rows["a copier"][0]
    off = {
        name.strip(): (float(long), float(short))
        for name, long, short in re.findall(
            r"^(\S.*?) +off by +([\d.]+) from the oracle, by ([\d.]+) on 8", printed, re.M
        )
    }
    assert min(long for long, _ in off.values()) > 0.1
    assert off["radius 16"][1] < 0.01 > off["fast path"][1]  # "a short one without padding would pass"
    assert off["halves swapped"][1] > 0.1
    assert re.search(r"p < p \* 0\.8 +writes <mask> for 0% of", printed)
