"""Recorded studies: the frame, the files, and that a record can be made again."""

import json
import math
from dataclasses import replace

import pytest
import torch

from course_lib.experiments import STUDIES, Outcome, as_frame, get_study, load, load_tensors, record, runner
from course_lib.experiments.study import Study, changed
from tests.conftest import ROOT

RUN_FIELDS = {"name", "seed", "config", "params", "curve", "metrics", "seconds"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty results folder."""
    monkeypatch.setattr(record, "shipped", lambda name: tmp_path)
    monkeypatch.setattr(runner, "shipped", lambda name: tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", STUDIES)
def test_the_record_is_complete_and_valid(name):
    study, saved = get_study(name), load(name)
    assert saved["question"] == study.question
    assert saved["prediction"] == study.prediction
    assert {"study", "question", "prediction", "arms", "hardware", "versions", "date"} == set(saved)
    assert study.seeds >= 3
    wanted = {(arm, seed): config for arm, config in study.arms.items() for seed in range(study.seeds)}
    assert {(a["name"], a["seed"]): a["config"] for a in saved["arms"]} == wanted
    for run in saved["arms"]:
        assert set(run) == RUN_FIELDS
        assert run["seconds"] > 0
        assert len({len(column) for column in run["curve"].values()}) == 1
        assert all(v is None or math.isfinite(v) for v in run["metrics"].values())


@pytest.mark.parametrize("name", STUDIES)
def test_the_first_steps_can_be_made_again(name):
    """20 steps of one arm, on one thread as in the record, match the recorded curve."""
    study, saved = get_study(name), load(name)
    run = saved["arms"][len(saved["arms"]) // 2]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        again = study.run(run["config"], run["seed"], 20)
    finally:
        torch.set_num_threads(threads)
    assert again.params == run["params"]
    assert again.curve["step"] == run["curve"]["step"][:20] == list(range(20))
    # Another processor sums in another order, and 20 steps of training amplify that.
    assert again.curve["loss"] == pytest.approx(run["curve"]["loss"][:20], rel=0.02)
    assert again.curve["loss"][:3] == pytest.approx(run["curve"]["loss"][:3], rel=1e-3)


def test_no_claim_from_an_arm_that_only_guesses():
    """The best arm of each network beats the majority class (10 %) by far."""
    frame = as_frame(load("norm_placement"))
    best = frame.groupby(["norm", "placement"])["test_accuracy"].max()
    assert (best > 0.7).all()


def toy(monkeypatch):
    calls = []

    def run(config, seed, stop_at):
        calls.append((config["x"], seed))
        return Outcome(3, {"step": [0], "loss": [1.0]}, {"score": config["x"] + seed}, {"t": torch.ones(2)})

    study = Study("toy", "Why?", "Because.", {"a": {"x": 1}, "b c": {"x": 5}}, run, seeds=2)
    monkeypatch.setattr(runner, "get_study", lambda name: study)
    monkeypatch.setattr(runner, "STUDIES", ("toy",))
    return calls


class Inline:
    """A pool that runs in this process: monkeypatches reach it."""

    def __init__(self, *args, **kwargs): ...

    def __enter__(self):
        from concurrent.futures import ThreadPoolExecutor

        self.pool = ThreadPoolExecutor(1)
        return self.pool

    def __exit__(self, *args):
        self.pool.shutdown()


def test_runs_are_saved_resumed_and_kept_apart(folder, monkeypatch, capsys):
    calls = toy(monkeypatch)
    monkeypatch.setattr(runner, "ProcessPoolExecutor", Inline)
    threads = torch.get_num_threads()
    runner.main(["toy", "--arms", "b c", "--seeds", "1"])
    assert calls == [(5, 0)]
    runner.main(["toy"])
    assert sorted(calls) == [(1, 0), (1, 1), (5, 0), (5, 1)]  # b c seed 0 was not run again
    runner.main(["toy"])
    assert len(calls) == 4
    saved = json.loads((folder / "toy.json").read_text())
    assert [(a["name"], a["seed"]) for a in saved["arms"]] == [("a", 0), ("a", 1), ("b c", 0), ("b c", 1)]
    assert saved["prediction"] == "Because."
    assert (folder / "toy" / "b-c-seed1.safetensors").exists()
    runner.main(["toy", "--set", "x=9", "--seeds", "1"])  # goes into a file of its own
    assert json.loads((folder / "toy.json").read_text()) == saved
    assert json.loads((folder / "toy,x=9.json").read_text())["arms"][0]["metrics"] == {"score": 9}
    torch.set_num_threads(threads)


def test_a_changed_config_is_run_again(folder):
    study = Study("toy", "", "", {"a": {"x": 1}}, lambda *a: None, seeds=1)
    done = record.with_run(record.empty(study), "a", 0, {"x": 1}, Outcome(1, {}, {}), 0.1)
    assert runner.missing_runs(study, done, None, 1, {}) == []
    assert runner.missing_runs(study, done, None, 1, {"x": 2}) == [("a", 0, {"x": 2})]
    assert runner.missing_runs(study, done, None, 2, {}) == [("a", 1, {"x": 1})]
    again = record.with_run(done, "a", 0, {"x": 2}, Outcome(1, {}, {}), 0.1)
    assert [a["config"] for a in again["arms"]] == [{"x": 2}]


def test_bad_input_names_itself(folder, monkeypatch):
    toy(monkeypatch)
    with pytest.raises(ValueError, match="name='nothing'; studies are norm_placement"):
        get_study("nothing")
    with pytest.raises(ValueError, match="no field y; there are x"):
        changed({"x": 1}, {"y": 2})
    with pytest.raises(ValueError, match="'x' is not of the form"):
        runner.overrides(["x"])
    with pytest.raises(ValueError, match="arms: z unknown; there are a, b c"):
        runner.main(["toy", "--arms", "z"])
    with pytest.raises(ValueError, match="seeds=0"):
        runner.main(["toy", "--seeds", "0"])
    with pytest.raises(FileNotFoundError, match=r"results/toy\.json is missing: run `python -m"):
        load("toy")
    with pytest.raises(FileNotFoundError, match="is missing: run"):
        load_tensors("toy", "a")
    assert runner.overrides(["steps=50", "norm=none", "lr=1e-3"]) == {"steps": 50, "norm": "none", "lr": 1e-3}


def test_json_has_no_nan(folder):
    study = Study("toy", "", "", {"a": {}}, lambda *a: None)
    bad = record.with_run(record.empty(study), "a", 0, {}, Outcome(1, {}, {"loss": math.nan}), 0.1)
    with pytest.raises(ValueError, match="JSON"):
        record.save(folder / "toy.json", bad)
    assert not list(folder.iterdir())


def test_the_records_fit_in_the_wheel():
    assert sum(p.stat().st_size for p in (ROOT / "results").rglob("*.*")) < 5e6


def test_a_prediction_may_be_added_to_but_not_changed(folder, monkeypatch):
    toy(monkeypatch)
    monkeypatch.setattr(runner, "ProcessPoolExecutor", Inline)
    runner.main(["toy", "--seeds", "1"])
    old = runner.get_study("toy")
    for prediction, allowed in (("Because. And more.", True), ("Because not.", False)):
        monkeypatch.setattr(runner, "get_study", lambda name, p=prediction: replace(old, prediction=p))
        if allowed:
            runner.main(["toy", "--seeds", "1"])
        else:
            with pytest.raises(ValueError, match="the prediction was changed after runs were recorded"):
                runner.main(["toy", "--seeds", "1"])


def test_a_record_as_a_table():
    saved = load("norm_dynamics")
    frame = as_frame(saved)
    first = saved["arms"][0]
    row = frame.iloc[0]
    names = ("name", "seed", "params", "seconds")
    assert (row.arm, row.seed, row.params, row.seconds) == tuple(first[name] for name in names)
    assert row.lr == first["config"]["lr"]
    assert row.test_accuracy == first["metrics"]["test_accuracy"]
