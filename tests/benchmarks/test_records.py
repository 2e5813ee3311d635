"""Every case at a small size: its copies, its record, its table, the command."""

import json
import os
import subprocess

import pytest
import torch

from benchmarks import __main__ as cli
from benchmarks import report
from benchmarks.case import AGAIN, CASES, get_case
from benchmarks.measure import check_agreement
from benchmarks.timing import Ratio, difference
from course_lib.experiments import load
from tests.benchmarks.small import small
from tests.conftest import ROOT

pytestmark = pytest.mark.slow  # every case is run

CPU = torch.device("cpu")
ROW_FIELDS = {
    "setting",
    "dtype",
    "name",
    "rival",
    "ratio",
    "interval",
    "flops",
    "seconds",
    "difference",
    "rival_seconds",
    "matmul_peak",
    "peak_share",
    "rival_peak_share",
}
FIELDS = {"case", "question", "repeats", "hardware", "versions", "date", "rows"}
STEPS = ("training_step", "gpt2_step", "pythia_step", "modernbert_step")


@pytest.mark.parametrize("name", CASES)
def test_a_rivals_copy_is_its_own(name):
    case = small(name)
    for setting in case.settings:
        race = case.race(setting, CPU)
        assert list(race.runs) == [*race.rivals, *(AGAIN + rival for rival in race.rivals), *race.ours]
        assert race.runs is race.runs  # copied once: what was checked is what is timed
        for rival in race.rivals:
            before = race.rivals[rival]()
            for _ in range(3):
                moved = race.runs[AGAIN + rival]()
            assert all(torch.equal(moved[key], before[key]) for key in before) == (name not in STEPS)  # a step trains
        check_agreement(case.race(setting, CPU))
        model = {run: race.runs[run].model for run in race.runs} if name in STEPS else {}
        storages = [{p.data_ptr() for p in m.parameters()} for m in model.values()]
        assert len(set().union(*storages)) == sum(map(len, storages))
        for rival in race.rivals if model else ():
            copy = race.runs[AGAIN + rival]
            parameters = dict(copy.model.named_parameters())
            assert copy.optimizer.param_groups[0]["params"][0] is next(iter(parameters.values()))
            assert all(tensor is parameters[key] for key, tensor in copy.compared.items())


@pytest.mark.parametrize("name", CASES)
def test_every_case_runs_and_leaves_a_complete_record(name, folder, monkeypatch, capsys):
    monkeypatch.setattr(cli, "get_case", small)
    cli.main([name, "--repeats", "6"])
    printed = capsys.readouterr().out
    saved = load(f"bench/{name}")
    assert set(saved) == FIELDS
    assert (saved["case"], saved["repeats"], saved["question"]) == (name, 6, get_case(name).question)
    assert saved["hardware"]["threads"] == torch.get_num_threads()
    assert {json.dumps(row["setting"]) for row in saved["rows"]} == {json.dumps(s) for s in small(name).settings}
    for row in saved["rows"]:
        assert set(row) == ROW_FIELDS
        assert row["interval"][0] <= row["ratio"] <= row["interval"][1]
        assert min(row["seconds"], row["rival_seconds"], row["interval"][0]) > 0
        for field in ("flops", "matmul_peak", "peak_share", "rival_peak_share"):
            assert (row[field] is None) == (name in ("norms", "bpe"))
        assert f"| {row['name']} " in printed
    assert f"written: results/bench/{name}.json" in printed
    assert [path.name for path in (folder / "bench").iterdir()] == [f"{name}.json"]


def test_the_table_says_what_was_compared():
    saved = {
        "case": "toy", "question": "Which?", "repeats": 5,
        "hardware": {"name": "A processor", "threads": 2}, "versions": {"torch": "2.0"},
    }  # fmt: skip
    row = {"setting": {"T": 64, "shape": [2, 3], "dtype": "float32"}, "name": "mine", "rival": "theirs"}
    row |= {"ratio": 0.5, "interval": [0.4, 0.625], "seconds": 0.0012, "rival_seconds": 0.0024}
    shares = ("matmul_peak", "peak_share", "rival_peak_share")
    rows = [row | {"difference": "faster"} | dict(zip(shares, (1234.0, 0.25, 0.125), strict=True))]
    rows += [row | {"difference": None} | dict.fromkeys(shares)]
    question, hardware, about, about_peak, _, *lines = report.table(saved | {"rows": rows}).splitlines()
    assert question == "toy: Which?"
    assert hardware == "A processor · threads: 2 · torch 2.0"
    assert about.startswith("ours / rival: below 1 ours is faster; median of 5 rounds")
    assert "model FLOPs utilisation (MFU)" in about_peak
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == [*report.HEADER, *report.PEAK_HEADER]
    label = "T=64 [2, 3] float32"
    assert cells[2] == [
        label,
        "mine",
        "theirs",
        "0.500",
        "0.400–0.625",
        "faster",
        "1.2",
        "2.4",
        "1,234",
        "25.0%",
        "12.5%",
    ]
    assert (cells[3][5], cells[3][-3:]) == ("", ["", "", ""])
    assert len({len(line) for line in lines}) == 1
    assert "MFU" not in report.table(saved | {"rows": rows[1:]})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "case='nothing'; cases are norms, training_step"),
        (["norms", "nothing"], "case='nothing'"),
        (["norms", "--repeats", "5"], "--repeats 5: it must be at least 6"),
    ],
)
def test_bad_arguments_end_in_one_line(arguments, words, folder, monkeypatch):
    monkeypatch.setattr(cli, "measure", None)  # nothing is measured first
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_list_names_the_cases_and_measures_nothing(folder, monkeypatch, capsys):
    monkeypatch.setattr(cli, "measure", None)
    cli.main(["--list"])
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == list(CASES)


def test_without_names_all_cases_run(monkeypatch, folder, capsys):
    seen = []

    def fake(case, repeats, device):
        seen.append((case.name, repeats))
        return {"case": case.name, "question": "", "repeats": repeats, "rows": []}

    monkeypatch.setattr(cli, "measure", fake)
    cli.main([])
    assert seen == [(name, 11) for name in CASES]


@pytest.mark.parametrize("name", CASES)
def test_the_committed_record_is_of_todays_settings(name):
    saved, case = load(f"bench/{name}"), get_case(name)
    assert set(saved) == FIELDS
    assert saved["question"] == case.question
    assert saved["repeats"] >= 11
    assert {json.dumps(row["setting"]) for row in saved["rows"]} == {json.dumps(s) for s in case.settings}
    for row in saved["rows"]:
        assert set(row) == ROW_FIELDS
        if row["flops"] is not None:
            shares = (row["peak_share"], row["rival_peak_share"])
            assert 0 < min(shares) <= max(shares) < 1
        control = next(c for c in saved["rows"] if (c["setting"], c["name"]) == (row["setting"], AGAIN + row["rival"]))
        intervals = (Ratio(r["ratio"], *r["interval"]) for r in (row, control))
        assert row["difference"] == (None if row is control else difference(*intervals))


def test_make_bench_passes_arguments_on():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "-n", "--no-print-directory", "bench", "ARGS=norms --repeats 9"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].endswith("python -m benchmarks norms --repeats 9")
