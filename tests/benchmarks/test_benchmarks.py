"""Benchmarks: the arithmetic of the reports, on fake clocks, and that every case compares like with like."""

import json
import math
import os
import re
import subprocess
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import __main__ as cli
from benchmarks import flops, measure, report, timing
from benchmarks.case import AGAIN, CASES, Case, Race, get_case
from benchmarks.cases import decoding, norms, training_step
from benchmarks.flops import Product, count_flops, fastest_product, share_of_peak
from benchmarks.measure import PEAK, Disagreement, check_agreement, race_rows
from benchmarks.timing import Ratio, difference, ratio, take_turns
from course_lib.experiments import load, record
from course_lib.norms import LayerNorm, RMSNorm
from tests.conftest import ROOT, randomise, relative_error

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


class FakeMachine:
    """A clock that only runs move on; `order` is what was called."""

    def __init__(self, **cost):
        self.now, self.slowdown, self.order = 0.0, 1.0, []
        self.runs = {name: lambda name=name: self._run(name, cost[name]) for name in cost}

    def _run(self, name, cost):
        self.order.append(name)
        self.now += cost * self.slowdown

    def clock(self):
        return self.now


def test_runs_take_turns_and_none_always_follows_the_same_one():
    machine = FakeMachine(a=1.0, b=2.0, c=4.0)
    seconds = take_turns(machine.runs, 60, CPU, machine.clock)
    assert seconds == {"a": [1.0] * 60, "b": [2.0] * 60, "c": [4.0] * 60}
    order = "".join(machine.order)
    assert order[:6] == "aabbcc"  # the warm-up
    rounds = [order[i : i + 3] for i in range(6, len(order), 3)]
    assert {"".join(sorted(r)) for r in rounds} == {"abc"}
    assert min(rounds.count(r) for r in ("abc", "acb", "bac", "bca", "cab", "cba")) >= 5
    again = FakeMachine(a=1.0, b=2.0, c=4.0)
    take_turns(again.runs, 60, CPU, again.clock)
    assert again.order == machine.order


def test_a_short_run_is_repeated_until_its_turn_can_be_measured():
    machine = FakeMachine(short=timing.MIN_SECONDS / 3, long=timing.MIN_SECONDS)
    seconds = take_turns(machine.runs, 5, CPU, machine.clock)
    warm_up = ["short"] * (1 + 1 + 2 + 4) + ["long"] * (1 + 1)
    assert machine.order[: len(warm_up)] == warm_up
    assert machine.order[len(warm_up) :].count("short") == 5 * 4
    assert machine.order[len(warm_up) :].count("long") == 5
    assert seconds["short"] == pytest.approx([timing.MIN_SECONDS / 3] * 5)


def test_a_slow_first_call_is_not_taken_for_the_rest():
    machine = FakeMachine(a=timing.MIN_SECONDS)
    once = iter([100.0])
    runs = {"a": lambda: machine.runs["a"]() or setattr(machine, "now", machine.now + next(once, 0.0))}
    assert take_turns(runs, 3, CPU, machine.clock)["a"] == pytest.approx([timing.MIN_SECONDS] * 3)


def test_a_machine_that_slows_down_changes_no_ratio():
    machine = FakeMachine(a=1.0, b=2.0)

    def slowing():  # called twice a turn, so four times a round
        if len(machine.order) % 2 == 0:
            machine.slowdown = 1.5 ** (len(machine.order) // 2)
        return machine.now

    seconds = take_turns(machine.runs, 7, CPU, slowing)
    assert seconds["a"][-1] > 10 * seconds["a"][0]
    assert ratio(seconds["a"], seconds["b"]) == pytest.approx((0.5, 0.5, 0.5))


def test_the_device_is_waited_for_before_the_clock_is_read(monkeypatch):
    machine = FakeMachine(a=1.0)
    waits = []
    monkeypatch.setattr("course_lib.measure.synchronise", lambda device: waits.append(len(machine.order)))
    take_turns(machine.runs, 3, CPU, machine.clock)
    assert waits == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]


def test_ratio_is_made_round_by_round():
    assert ratio([1, 2, 30, 4, 5, 3], [1, 1, 10, 1, 1, 1]) == (3, 1, 5)
    with pytest.raises(ValueError, match="ours has 3 rounds, rival 4"):
        ratio([1, 2, 3], [1, 2, 3, 4])
    with pytest.raises(ValueError, match="ours has 5 rounds; an interval needs at least 6"):
        ratio([1] * 5, [1] * 5)


@pytest.mark.parametrize(("rounds", "rank"), [(6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (21, 6), (25, 8)])
def test_the_interval_is_that_of_the_sign_test(rounds, rank):
    """The ranks that tables of the median's 95 % interval give."""
    values = list(range(1, rounds + 1))
    assert ratio(values[::-1], [1] * rounds)[1:] == (rank, rounds + 1 - rank)


@pytest.mark.parametrize("rounds", [6, 11, 21])
def test_the_interval_encloses_the_median_as_often_as_it_says(rounds):
    generator = torch.Generator().manual_seed(0)
    draws = torch.empty(4000, rounds, dtype=torch.float64).exponential_(generator=generator)  # its median is log 2
    intervals = [ratio(row, [1.0] * rounds) for row in draws.tolist()]
    inside = sum(low < math.log(2) < high for _, low, high in intervals) / len(intervals)
    assert 0.945 < inside < 0.995


@pytest.mark.parametrize(
    ("low", "high", "control", "wanted"),
    [
        (1.03, 1.05, (0.99, 1.02), "slower"),
        (1.01, 1.05, (0.99, 1.02), "none shown"),  # not beyond the control
        (0.99, 1.05, (0.99, 1.01), "none shown"),  # holds 1
        (0.90, 0.95, (0.98, 1.02), "faster"),
        (0.90, 0.99, (0.98, 1.02), "none shown"),
        (1.03, 1.05, (0.94, 0.97), "none shown"),  # equals differed by as much, the other way
        (1.07, 1.09, (0.94, 0.97), "slower"),
        (0.95, 0.96, (1.02, 1.06), "none shown"),
        (0.92, 0.94, (1.02, 1.06), "faster"),
    ],
)
def test_a_difference_lies_beyond_the_control(low, high, control, wanted):
    assert difference(Ratio((low + high) / 2, low, high), Ratio(1.0, *control)) == wanted


@pytest.mark.parametrize(("needs_gradient", "passes"), [(False, 2), (True, 3)])
def test_flops_of_a_linear_layer(needs_gradient, passes):
    m, k, n = 3, 7, 5
    layer, x = nn.Linear(k, n), torch.randn(m, k, requires_grad=needs_gradient)
    assert count_flops(lambda: layer(x)) == 2 * m * k * n
    assert count_flops(lambda: layer(x).sum().backward()) == passes * 2 * m * k * n


def test_flops_of_attention_are_seen_through_the_fused_call():
    b, h, t, d = 2, 3, 16, 8
    q, k, v = (torch.randn(b, h, t, d, requires_grad=True) for _ in range(3))
    for causal in (False, True):
        count = count_flops(lambda causal=causal: F.scaled_dot_product_attention(q, k, v, is_causal=causal))
        assert count == 2 * (2 * b * h * t * t * d)
    assert count_flops(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward()) == 3 * 2 * (
        2 * b * h * t * t * d
    )


def test_nothing_to_count_is_said():
    with pytest.raises(ValueError, match="there are no FLOPs to count"):
        count_flops(lambda: nn.LayerNorm(4)(torch.randn(2, 4)))


def test_the_share_of_the_peak_is_made_round_by_round():
    assert share_of_peak(600, seconds=[2.0, 4.0, 1.0], peak=[1000.0, 500.0, 6000.0]) == 0.3
    assert share_of_peak(600, seconds=[2.0, 20.0, 1.0], peak=[1000.0, 300.0, 1000.0]) == 0.3
    with pytest.raises(ValueError, match="zip"):
        share_of_peak(600, [1.0, 1.0], [1000.0])


def test_the_fastest_product_is_that_of_the_best_turn(monkeypatch):
    sizes = []

    def fake(runs, repeats, device):
        (product,) = runs.values()
        size = product.args[0].shape[0]
        assert torch.equal(product(), product.args[0] @ product.args[1])
        sizes.append(size)
        assert count_flops(product) == 2 * size**3
        speed = {256: 1e9, 512: 4e9, 1024: 2e9}[size]
        return {name: [2 * size**3 / speed * late for late in (3, 1, 2)] for name in runs}

    monkeypatch.setattr(flops, "take_turns", fake)
    product = fastest_product(CPU, torch.float32)
    assert (product.run.args[0].shape[0], product.flops) == (512, 2 * 512**3)
    assert sizes == [256, 512]  # 0.067 s: a size of 1024 is not tried
    monkeypatch.setattr(flops, "LONG_SECONDS", 0.5)
    monkeypatch.setattr(flops, "LARGEST", 1024)
    product = fastest_product(CPU, torch.float32)
    assert (product.run.args[0].shape[0], product.flops) == (512, 2 * 512**3)
    assert sizes[2:] == [256, 512, 1024]


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


STEPS = ("training_step", "gpt2_step", "pythia_step")
SMALL = {
    "norms": {"shape": [2, 5, 12]},
    "training_step": {"d_model": 8, "d_ff": 12, "n_layers": 3, "batch": 6},
    "gpt2_step": {"vocab_size": 11, "d_model": 8, "n_heads": 2, "n_layers": 2, "batch": 3, "length": 5},
    "pythia_step": {"vocab_size": 11, "d_model": 16, "n_heads": 2, "n_layers": 2, "batch": 3, "length": 5},
    "decoding": {"d_model": 64, "batch": 2, "length": 7},
    "local": {"length": 96, "radius": 6, "head_dim": 4},
}


def small(name):
    """The case with all its settings at a small size."""
    case = get_case(name)
    return replace(case, settings=[setting | SMALL[name] for setting in case.settings])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty results folder, turns of one call, and a peak measured at one size."""
    monkeypatch.setattr(record, "shipped", lambda name: tmp_path)
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(flops, "LARGEST", 256)
    return tmp_path


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
            assert (row[field] is None) == (name == "norms")
        assert f"| {row['name']} " in printed
    assert f"written: results/bench/{name}.json" in printed
    assert [path.name for path in (folder / "bench").iterdir()] == [f"{name}.json"]


class Forgetful(LayerNorm):
    """A LayerNorm that uses neither gain nor bias, but has gradients for them."""

    def forward(self, x):
        return self.norm_fn(x, None, None, self.eps) + 0 * (self.weight + self.bias)


class WrongNorm(LayerNorm):
    """A LayerNorm that puts eps in the wrong place."""

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        return (centred / (centred.square().mean(-1, keepdim=True).sqrt() + 0.1)).to(x.dtype) * self.weight + self.bias


class GainOnly(RMSNorm):
    """An RMSNorm with the right output and a wrong gradient: the root is taken for a constant."""

    def forward(self, x):
        return x * torch.rsqrt(x.detach().square().mean(-1, keepdim=True) + self.eps) * self.weight


@pytest.mark.parametrize("setting", small("norms").settings, ids=lambda s: f"{s['norm']} {s['dtype']} {s['pass']}")
def test_a_wrong_norm_is_refused(setting, monkeypatch):
    monkeypatch.setattr(norms, "LayerNorm", WrongNorm)
    monkeypatch.setattr(norms, "RMSNorm", GainOnly)
    race = norms.race(setting, CPU)
    if setting["norm"] == "RMSNorm" and setting["pass"] == "forward":
        check_agreement(race)  # only the gradients tell
    else:
        with pytest.raises(Disagreement):
            check_agreement(race)


@pytest.mark.parametrize("setting", small("norms").settings, ids=lambda s: f"{s['norm']} {s['dtype']} {s['pass']}")
def test_what_the_norms_are_compared_in(setting, monkeypatch):
    race = norms.race(setting, CPU)
    for name, run in {**race.ours, **race.rivals}.items():
        tensors = run()
        assert {tensor.dtype for tensor in tensors.values()} == {race.dtype} == {run.args[0].weight.dtype}
        assert list(tensors)[:2] == ["output", "input"][: 1 + (setting["pass"] != "forward")]
        if setting["pass"] != "forward" and race.dtype == torch.float32:
            assert set(tensors) == {"output", "input", *dict(run.args[0].named_parameters())}
        if name in race.ours:
            assert run.args[0].norm_fn.__name__ == name
    monkeypatch.setattr(norms, "LayerNorm", Forgetful)
    if setting["norm"] == "LayerNorm":
        with pytest.raises(Disagreement, match="output"):
            check_agreement(norms.race(setting, CPU))


@pytest.mark.parametrize("norm", [LayerNorm, RMSNorm])
def test_gradients_that_the_case_leaves_out_are_exact(norm):
    """In bfloat16 the gradients of gain and bias are not compared with torch's; with exact ones they are."""
    ours = randomise(norm(24)).bfloat16()
    exact = norm(24).double()
    exact.load_state_dict(ours.state_dict())
    x, upstream = (torch.randn(3000, 24).bfloat16() + 1 for _ in range(2))
    ours(x).backward(upstream)
    exact(x.double()).backward(upstream.double())
    for name, parameter in ours.named_parameters():
        assert relative_error(parameter.grad, exact.get_parameter(name).grad) < 2**-7, name


def grad_norm(model):
    return sum(p.grad.double().square().sum() for p in model.parameters()).sqrt()


@pytest.mark.parametrize("setting", small("training_step").settings, ids=lambda s: s["dtype"])
def test_the_training_step_counts_its_products_and_moves(setting):
    race = training_step.race(setting, CPU)
    c, f, n, b, classes, d_in = 8, 12, 3, 6, 10, 784
    inner = 3 * 2 * b * (n * 2 * c * f + c * classes)
    first = 2 * 2 * b * d_in * c  # nobody needs the gradient of the pictures
    assert race.model_flops == inner + first
    for run in [*race.ours.values(), *race.rivals.values()]:
        assert count_flops(run.forward_backward) == race.model_flops
        norm = grad_norm(run.model)
        run.forward_backward()
        assert grad_norm(run.model) == norm > 1  # a second pass starts from zero
        dtypes = []
        with run.model.head.register_forward_hook(lambda *a, dtypes=dtypes: dtypes.append(a[-1].dtype)):
            compared = set(run())
        assert dtypes == [race.dtype]
        named = dict(run.model.named_parameters())
        assert compared == {"loss", *(n for n in named if race.dtype == torch.float32 or named[n].ndim > 1)}
        before = [p.detach().clone() for p in run.model.parameters()]
        losses = [run()["loss"].item() for _ in range(5)]
        assert losses[-1] < losses[0]
        assert grad_norm(run.model) <= 1.001  # clipped
        assert not any(torch.equal(p, q) for p, q in zip(run.model.parameters(), before, strict=True))
    fused = [m.norm_fn.__name__ for m in race.ours["ResidualMLP, fused norms"].model.modules() if hasattr(m, "norm_fn")]
    assert fused == ["fused_layer_norm"] * 4


@pytest.mark.parametrize("setting", small("training_step").settings, ids=lambda s: s["dtype"])
def test_another_network_is_refused(setting, monkeypatch):
    monkeypatch.setattr(training_step.TorchBlock, "forward", lambda self, x: x + self.norm(self.mlp(x)))
    with pytest.raises(Disagreement):
        check_agreement(training_step.race(setting, CPU))


LANGUAGE_STEPS = [
    pytest.param(name, setting, id=f"{name} {setting['dtype']}")
    for name in ("gpt2_step", "pythia_step")
    for setting in small(name).settings
]


@pytest.mark.parametrize(("name", "setting"), LANGUAGE_STEPS)
def test_a_step_of_a_language_model_counts_its_products_and_moves(name, setting):
    race = get_case(name).race(setting, CPU)
    (ours,) = race.ours.values()
    c, n, b, t, v = setting["d_model"], 2, 3, 5, 11
    assert race.model_flops == 3 * 2 * (b * t * (n * 12 * c * c + c * v) + n * 2 * b * t * t * c)
    for run in [*race.rivals.values(), ours]:
        assert run.model.training
        assert [m.p for m in run.model.modules() if isinstance(m, nn.Dropout) and m.p > 0] == []
        run.forward_backward()
        norm = grad_norm(run.model)
        run.forward_backward()
        assert grad_norm(run.model) == norm > 0  # a second pass starts from zero
        compared = set(run())
        wanted = {key for key, p in ours.model.named_parameters() if race.dtype == torch.float32 or p.ndim > 1}
        assert compared == {"loss"} | {key for key in wanted if not key.endswith("k_proj.bias")}
        losses = [run()["loss"].item() for _ in range(5)]
        assert losses[-1] < losses[0]
    implementations = [race.rivals[rival].model.model.config._attn_implementation for rival in race.rivals]
    assert implementations == ["sdpa", "eager"]
    assert list(race.rivals) == ["transformers, sdpa", "transformers, eager"]


@pytest.mark.parametrize(("name", "setting"), LANGUAGE_STEPS)
@pytest.mark.parametrize("wrong", ["no mask", "another activation", "no position", "another placement"])
def test_another_language_model_is_refused(wrong, name, setting):
    race = get_case(name).race(setting | {"length": 30}, CPU)
    model = next(iter(race.ours.values())).model
    for block in model.blocks:
        if wrong == "no mask":
            block.attention.mask = None
        if wrong == "another activation":
            block.mlp.act = torch.relu
        if wrong == "no position":
            block.attention.position = None
        if wrong == "another placement":
            block.placement = {"pre": "parallel", "parallel": "pre"}[block.placement]
    if wrong == "no position" and name == "gpt2_step":
        model.position.embedding.weight.data.zero_()
    with pytest.raises(Disagreement):
        check_agreement(race)


@pytest.mark.parametrize("setting", small("decoding").settings, ids=lambda s: f"{s['n_kv_heads']} {s['dtype']}")
def test_a_decoding_step_is_the_last_token_of_the_text(setting):
    race = decoding.race(setting, CPU)
    step = race.ours["MultiHeadAttention"]
    module, length = step.module, setting["length"]
    for run in race.runs.values():
        assert torch.equal(run()["output"], run()["output"])  # no call is a token further than the one before
    assert step.cache.length == length
    assert step.cache.bytes() == 2 * 2 * setting["n_kv_heads"] * length * 4 * race.dtype.itemsize
    # The cache is as if the tokens before had gone through the module; nothing of its mask is left out.
    k, v, _ = (x[:, :, :-1] if x.ndim > 1 else x for x in (step.cache._k, step.cache._v, torch.arange(length)))
    projected = [p(step.last).unflatten(-1, (-1, 4)).transpose(1, 2) for p in (module.k_proj, module.v_proj)]
    keys, values = (torch.cat([old, new], 2) for old, new in zip((k, v), projected, strict=True))
    query = module.q_proj(step.last).unflatten(-1, (16, 4)).transpose(1, 2)
    y = F.scaled_dot_product_attention(query, keys, values, enable_gqa=True)
    assert relative_error(step()["output"], module.out_proj(y.transpose(1, 2).flatten(2))) < 0.02
    heads = {name: run.module.n_kv_heads for name, run in race.rivals.items() if hasattr(run, "module")}
    assert heads == ({} if setting["n_kv_heads"] == 16 else {"MultiHeadAttention, all key heads": 16})
    # All positions but the last are seen, too: a key that is changed changes the output.
    before = step()["output"].clone()
    step.cache._v[:, :, 0] += 100
    assert not torch.allclose(step()["output"], before)


def test_copied_heads_in_another_order_are_refused(monkeypatch):
    setting = next(s for s in small("decoding").settings if (s["n_kv_heads"], s["dtype"]) == (4, "float32"))
    monkeypatch.setattr(decoding, "repeat_heads", lambda x, n: x.repeat(1, n // x.shape[1], 1, 1))
    with pytest.raises(Disagreement, match="all key heads"):
        check_agreement(decoding.race(setting, CPU))


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
