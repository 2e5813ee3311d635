"""A race: what differs is not timed; each of ours beside each rival, with its control."""

import re

import pytest
import torch

from benchmarks import measure
from benchmarks.case import Case, Race
from benchmarks.flops import Product
from benchmarks.measure import PEAK, Disagreement, check_agreement, race_rows

CPU = torch.device("cpu")


def same(**tensors):
    return lambda: tensors


def race_of(ours, rival, tolerance=0.1, model_flops=None):
    return Race({"ours": ours}, {"rival": rival}, torch.float32, tolerance, model_flops)


def test_what_differs_is_not_timed():
    one = torch.tensor([1.0, -10.0])
    check_agreement(race_of(same(y=one), same(y=one + 0.9)))
    for got, words in [
        (one + 1.2, "y: ours and rival differ by 1.2e-01, allowed is 0.1"),
        (one * torch.nan, "differ by nan"),
        (one[:1], "ours gives (1,) torch.float32, rival (2,) torch.float32"),
        (one.double(), "ours gives (2,) torch.float64"),
    ]:
        with pytest.raises(Disagreement, match=re.escape(words)):
            check_agreement(race_of(same(y=got), same(y=one)))
    with pytest.raises(Disagreement, match="ours returns y, rival returns y, gradient"):
        check_agreement(race_of(same(y=one), same(y=one, gradient=one)))
    with pytest.raises(Disagreement, match="second and first differ"):  # a rival is checked too
        check_agreement(
            Race(same_everywhere(one), {"first": same(y=one), "second": same(y=-one)}, one.dtype, 0.1, None)
        )


def same_everywhere(tensor):
    return {"ours": same(y=tensor)}


def test_a_race_has_two_sides():
    run = same(y=torch.ones(1))
    for ours, rivals, words in [
        ({}, {"a": run}, "ours is empty"),
        ({"a": run}, {}, "rivals is empty"),
        ({"a": run}, {"a": run}, "share the name 'a'"),
    ]:
        with pytest.raises(ValueError, match=words):
            Race(ours, rivals, torch.float32, 0.1, None)


def test_each_of_ours_is_compared_with_each_rival():
    run = same(y=torch.ones(1))
    race = Race({"a": run, "b": run}, {"c": run, "d": run}, torch.float32, 0.1, model_flops=1000)
    seconds = {"a": [1.0] * 6, "b": [2.0] * 5 + [4.0], "c": [4.0] * 6, "d": [8.0] * 6}
    seconds |= {"again: c": [4.0] * 6, "again: d": [8.0] * 6}
    rows = race_rows({"T": 5}, race, seconds, peak=[1e4] * 5 + [1e3])
    assert [(row["name"], row["rival"], row["ratio"]) for row in rows] == [
        ("again: c", "c", 1.0), ("again: d", "d", 1.0),
        ("a", "c", 0.25), ("a", "d", 0.125), ("b", "c", 0.5), ("b", "d", 0.25),
    ]  # fmt: skip
    assert [row["difference"] for row in rows] == [None, None, "faster", "faster", "none shown", "faster"]
    assert rows[4] == {
        "setting": {"T": 5}, "dtype": "float32", "name": "b", "rival": "c", "ratio": 0.5, "interval": [0.5, 1.0],
        "difference": "none shown", "flops": 1000, "seconds": 2.0, "rival_seconds": 4.0,
        "matmul_peak": 1e-5, "peak_share": 0.05, "rival_peak_share": 0.025,
    }  # fmt: skip
    seconds = dict.fromkeys(("ours", "rival", "again: rival"), [1.0] * 6)
    _, row = race_rows({}, race_of(run, run), seconds, None)
    assert {row[name] for name in ("flops", "matmul_peak", "peak_share", "rival_peak_share")} == {None}


def test_the_control_of_one_rival_is_not_that_of_another():
    run = same(y=torch.ones(1))
    race = Race({"a": run}, {"c": run, "d": run}, torch.float32, 0.1, None)
    seconds = {"a": [1.1] * 6, "c": [1.0] * 6, "again: c": [1.2] * 6, "d": [1.0] * 6, "again: d": [1.0] * 6}
    assert [row["difference"] for row in race_rows({}, race, seconds, None)[2:]] == ["none shown", "slower"]


def test_a_case_that_disagrees_is_not_timed(monkeypatch, folder):
    one = torch.ones(1)
    case = Case("toy", "", [{}], lambda setting, device: race_of(same(y=one), same(y=-one)))
    monkeypatch.setattr(measure, "take_turns", None)
    with pytest.raises(Disagreement):
        measure.measure(case, 6, CPU)


@pytest.mark.parametrize("model_flops", [None, 10**6])
def test_the_peak_takes_its_turn_where_flops_are_counted(model_flops, folder, monkeypatch):
    turns = []

    def fake(runs, repeats, device):
        turns.append(list(runs))
        return {name: [0.5, 0.25, 0.5, 1.0, 0.5, 0.5] if name == PEAK else [0.125] * 6 for name in runs}

    monkeypatch.setattr(measure, "take_turns", fake)
    monkeypatch.setattr(measure, "fastest_product", lambda device, dtype: Product(same(), 10**9))
    race = race_of(same(y=torch.ones(1)), same(y=torch.ones(1)), model_flops=model_flops)
    case = Case("toy", "", [{"i": 0}, {"i": 1}], lambda setting, device: race)
    rows = measure.measure(case, 6, CPU)["rows"]
    assert turns == [["rival", "again: rival", "ours"] + [PEAK] * (model_flops is not None)] * 2
    wanted = (None, None, None) if model_flops is None else (2.0, 0.004, 0.004)
    assert {(row["matmul_peak"], row["peak_share"], row["rival_peak_share"]) for row in rows} == {wanted}
