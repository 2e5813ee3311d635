"""The training loop: exact resume after SIGKILL, several processes, schedules, what it refuses."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from course_lib import checkpoint
from course_lib.corpora import shuffled_batches
from course_lib.training import CHECKPOINT, History, classification_loss, constant, cosine, linear, train

WORKER = Path(__file__).parent / "training_worker.py"


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(64, 6, generator=generator)
    return x, (x[:, :3] + x[:, 3:]).argmax(-1)


def fit(model, **options):
    options = {"steps": 30, "schedule": cosine(30, 5), "progress": False, "seed": 4} | options
    optimizer = options.pop("optimizer", None) or torch.optim.AdamW(model.parameters(), lr=0.01)
    return train(model, shuffled_batches(data(), 16, 3), classification_loss, optimizer, **options)


def same(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_it_learns_and_records():
    model = network()
    history = fit(model, steps=150, schedule=cosine(150, 10))
    assert history.records[0].keys() == {"step", "loss", "accuracy", "grad_norm", "lr"}
    assert history.column("step") == list(range(150))
    assert sum(history.column("loss")[-20:]) / 20 < 0.6 * history.column("loss")[0]
    assert not history.diverged
    assert not model.training
    with pytest.raises(ValueError, match="name='perplexity'"):
        history.column("perplexity")


def test_stopped_and_resumed_equals_unbroken(tmp_path):
    unbroken, broken = network(), network()
    whole = fit(unbroken)
    fit(broken, stop_at=13, checkpoint_dir=tmp_path, checkpoint_every=5)
    fresh = network()
    with torch.no_grad():
        fresh[0].weight.zero_()  # whatever the new process starts from, the checkpoint decides
    resumed = fit(fresh, checkpoint_dir=tmp_path, checkpoint_every=5)
    assert same(unbroken, fresh)
    assert whole.records == resumed.records
    assert fit(network(), checkpoint_dir=tmp_path).records == whole.records  # finished: nothing left to do


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["step", "write"])
def test_killed_and_resumed_equals_unbroken(tmp_path, moment):
    """SIGKILL between steps, and in the middle of writing a checkpoint."""
    unbroken = network()
    whole = fit(unbroken)
    command = [sys.executable, str(WORKER), str(tmp_path)]
    killed = subprocess.run([*command, moment], env=_environment(), capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / CHECKPOINT).exists()
    for left in tmp_path.glob(".*.partial"):  # an hour later, the next write cleans up
        os.utime(left, (0, 0))
    subprocess.run([*command, "never"], env=_environment(), check=True)
    model = network()
    again = fit(model, checkpoint_dir=tmp_path)  # nothing left to do: it loads what the killed run became
    assert same(unbroken, model)
    assert again.records == whole.records
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]  # nothing half-written is left behind


def _environment():
    root = str(WORKER.parents[1])
    return os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": str(torch.get_num_threads())}


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """The same call under torchrun with gloo: each process takes half of every batch."""
    single = network().double()
    single[2].p = 0.0  # dropout draws per process
    x, y = data()
    optimizer = torch.optim.AdamW(single.parameters(), lr=0.01)
    batches = shuffled_batches((x.double(), y), 16, 3)
    whole = train(single, batches, classification_loss, optimizer, steps=12, seed=4, progress=False)
    environment = _environment() | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*command, str(WORKER), str(tmp_path), "two"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    weights = load_file(tmp_path / "weights.safetensors")
    for name, tensor in single.state_dict().items():
        assert torch.allclose(weights[name], tensor, atol=1e-6), name  # the loss is computed in float32
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["processes"] == 2
    assert facts["losses"] == pytest.approx(whole.column("loss"), abs=1e-6)


def test_training_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(5)
    want = torch.rand(3)
    model = network()
    torch.manual_seed(5)
    fit(model, steps=3, schedule=None)
    assert torch.equal(torch.rand(3), want)


def test_schedules():
    assert [constant(3)(s) for s in (0, 1, 2, 3, 99)] == [0.25, 0.5, 0.75, 1, 1]
    assert constant()(0) == 1
    for make in (cosine, linear):
        curve = [make(20, 4)(s) for s in range(20)]
        assert curve[4] == 1 == max(curve)
        assert curve[:5] == sorted(curve[:5])
        assert curve[4:] == sorted(curve[4:], reverse=True)
        assert curve[12] == pytest.approx(0.5)  # half-way down
        assert make(20, 4, floor=0.1)(20) == pytest.approx(0.1) == make(20, 4, floor=0.1)(40)
        with pytest.raises(ValueError, match="warmup=20, steps=20"):
            make(20, 20)
    with pytest.raises(ValueError, match="warmup=-1"):
        constant(-1)


def test_the_schedule_is_used_and_the_optimizer_given_back_as_it_was():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    history = fit(model, optimizer=optimizer)
    assert history.column("lr") == pytest.approx([0.02 * cosine(30, 5)(s) for s in range(30)])
    assert optimizer.param_groups[0]["lr"] == 0.02


def test_clipping_bounds_the_step():
    """SGD's step is lr times the clipped gradient; the recorded norm is the one before clipping."""
    model = network()
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    history = fit(model, optimizer=torch.optim.SGD(model.parameters(), lr=1.0), steps=1, schedule=None, clip_norm=0.01)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)
    assert history.records[0]["grad_norm"] > 0.05


def test_divergence_ends_training_before_the_weights_are_spoilt():
    model = network()

    def spoilt(model, batch):
        loss, metrics = classification_loss(model, batch)
        spoilt.calls += 1
        return loss * (float("nan") if spoilt.calls == 4 else 1.0), metrics

    spoilt.calls = 0
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    history = train(model, shuffled_batches(data(), 16, 3), spoilt, optimizer, steps=30, progress=False)
    assert history.diverged
    assert len(history.records) == 4
    assert math.isnan(history.records[-1]["loss"])
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_call_leaves_nothing_behind(error):
    """Stopped in the middle of warm-up and autocast, the next call starts as if there had been none."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def stop(step, model):
        if step == 5:
            raise error

    with pytest.raises(error):
        fit(model, optimizer=optimizer, schedule=constant(50), mixed_precision="bf16", on_step=stop)
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert model(data()[0]).dtype == torch.float32
    assert not model.training


def test_looking_changes_nothing():
    """An observer may draw random numbers and run the model: training goes on with the same bits."""

    def look(step, model):
        assert not model.training
        torch.rand(7)
        model(data()[0])

    alone, watched = network(), network()
    assert fit(alone).records == fit(watched, on_step=look).records
    assert same(alone, watched)


def test_on_step_sees_every_step_and_the_end():
    seen = []
    model = network()
    fit(model, steps=4, schedule=None, on_step=lambda step, m: seen.append((step, m is model)))
    assert seen == [(0, True), (1, True), (2, True), (3, True), (4, True)]
    seen.clear()
    fit(network(), stop_at=2, on_step=lambda step, m: seen.append(step))
    assert seen == [0, 1, 2]


def test_a_checkpoint_of_another_run_or_model_is_refused(tmp_path):
    fit(network(), stop_at=5, checkpoint_dir=tmp_path)
    for change, words in {
        "seed": ({"seed": 5}, "seed was 4, is 5"),
        "clip": ({"clip_norm": 0.5}, "clip_norm was 1.0, is 0.5"),
        "schedule": ({"schedule": cosine(30, 6)}, "schedule was"),
        "precision": ({"mixed_precision": "bf16"}, "mixed_precision was no, is bf16"),
        "steps": ({"steps": 31}, "steps was 30, is 31"),
    }.values():
        with pytest.raises(ValueError, match=words):
            fit(network(), checkpoint_dir=tmp_path, **change)
    model = network()
    heavier = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.5)
    with pytest.raises(ValueError, match=r"groups was .*is .*'weight_decay': '0\.5'"):
        fit(model, checkpoint_dir=tmp_path, optimizer=heavier)
    with pytest.raises(ValueError, match="another model"):
        fit(nn.Sequential(nn.Linear(6, 3)), checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"4 weights differ; 0\.bias is \(16,\) torch.float32 there, .*float64 here"):
        fit(network().double(), checkpoint_dir=tmp_path)
    part = network()
    with pytest.raises(ValueError, match="groups was"):  # the first of its moments would go to another weight
        fit(part, checkpoint_dir=tmp_path, optimizer=torch.optim.AdamW(part[3].parameters(), lr=0.01))
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged"):
        fit(network(), checkpoint_dir=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]  # no temporary file is left


def test_tied_weights_and_momentum_survive_a_checkpoint(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
            self.b.weight = self.a.weight
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.b(self.a(x).relu()))

    def sgd(model):
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    unbroken, broken, resumed = Tied(), Tied(), Tied()
    fit(unbroken, optimizer=sgd(unbroken))
    fit(broken, optimizer=sgd(broken), stop_at=10, checkpoint_dir=tmp_path)
    fit(resumed, optimizer=sgd(resumed), checkpoint_dir=tmp_path)
    assert same(unbroken, resumed)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps=0"),
        ({"stop_at": -3}, "stop_at=-3"),
        ({"clip_norm": 0.0}, "clip_norm=0"),
        ({"checkpoint_every": 0}, "checkpoint_every=0"),
        ({"mixed_precision": "fp16"}, "mixed_precision='fp16'"),
        ({"seed": 1.5}, "seed=1.5; an integer"),
        ({"steps": 2.5}, "steps=2.5; needed is an integer"),
    ],
)
def test_bad_input_names_itself(options, words):
    with pytest.raises(ValueError, match=words):
        fit(network(), **options)


def test_bfloat16_autocast_trains():
    history = fit(network(), mixed_precision="bf16", steps=60, schedule=None)
    assert history.column("loss")[-1] < history.column("loss")[0]


def test_the_schedule_moves_the_weights():
    """With factor 0 nothing moves, with half the factor SGD's first step is half as long."""
    moves = []
    for factor in (0.0, 0.5, 1.0):
        model, before = network(), network()
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        fit(model, optimizer=sgd, steps=1, schedule=lambda step, factor=factor: factor, clip_norm=None)
        moves.append(model[0].weight.detach() - before[0].weight.detach())
    assert moves[0].abs().max() == 0
    assert torch.allclose(2 * moves[1], moves[2], atol=1e-7)
    assert cosine(20, 4, floor=0.1)(4) == 1


def test_each_step_draws_its_own_random_numbers():
    def losses(seed):
        model = network()
        frozen = torch.optim.SGD(model.parameters(), lr=0.0)
        batch = data()
        return train(model, lambda step: batch, classification_loss, frozen, steps=4, seed=seed, progress=False).column(
            "loss"
        )

    assert len(set(losses(1))) == 4  # same batch, same weights: only dropout differs
    assert losses(1) == losses(1) != losses(2)


def test_checkpoints_come_every_so_many_steps(tmp_path):
    def stop(step, model):
        if step == 8:
            raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        fit(network(), checkpoint_dir=tmp_path, checkpoint_every=5, on_step=stop)
    seen = []
    fit(network(), checkpoint_dir=tmp_path, on_step=lambda step, model: seen.append(step))
    assert seen[0] == 5
    assert seen[-1] == 30


def test_a_checkpoint_knows_the_whole_schedule(tmp_path):
    fit(network(), stop_at=3, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="schedule was"):
        fit(network(), checkpoint_dir=tmp_path, schedule=linear(30, 5))  # equal to cosine during warm-up
    assert len(fit(network(), steps=3, schedule=None, stop_at=9).records) == 3


def test_a_checkpoint_keeps_plain_numbers_and_wants_every_weight(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = next(model.parameters())
    optimizer.state[first] = {"calls": 3, "zero": 0, "none": None}
    checkpoint.save_checkpoint(tmp_path / "c", model, optimizer, checkpoint.Progress(1, [], {"a": 1}))
    fresh = torch.optim.SGD(model.parameters(), lr=0.1)
    checkpoint.load_checkpoint(tmp_path / "c", model, fresh, {"a": 1})
    assert fresh.state[first] == {"calls": 3, "zero": 0}
    with pytest.raises(ValueError, match="b was None, is 2"):
        checkpoint.load_checkpoint(tmp_path / "c", model, fresh, {"a": 1, "b": 2})
    with pytest.raises(ValueError, match="another model"):
        checkpoint.load_checkpoint(tmp_path / "c", nn.Sequential(*model, nn.Linear(3, 3)), fresh, {"a": 1})


def test_an_infinite_loss_is_divergence_too_and_nobody_looks_at_what_is_left():
    model, seen = network(), []

    def infinite(model, batch):
        loss, metrics = classification_loss(model, batch)
        return loss * math.inf, metrics

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    look = lambda step, model: seen.append(step)  # noqa: E731
    history = train(model, lambda s: data(), infinite, optimizer, steps=3, progress=False, on_step=look)
    assert history.diverged
    assert seen == [0]
    assert History().column("loss") == []


def test_half_precision_ends_with_training():
    model = network()
    fit(model, mixed_precision="bf16", steps=2, schedule=None)
    x = data()[0]
    assert torch.equal(model(x), nn.Sequential(*model)(x))  # the second one was never wrapped
    loss, _ = classification_loss(lambda inputs: inputs.bfloat16(), (torch.randn(4, 3), torch.tensor([0, 1, 2, 0])))
    assert loss.dtype == torch.float32


def test_an_optimizer_of_another_model_is_refused():
    model, other = network(), network()
    for parameters, words in ((other.parameters(), "4 of its 4"), ([*model.parameters(), other[0].bias], "1 of its 5")):
        with pytest.raises(ValueError, match=f"optimizer: {words} parameters are not the model's"):
            fit(model, optimizer=torch.optim.SGD(parameters, lr=0.1))


def test_a_gradient_that_is_not_finite_ends_training_before_the_step():
    """The loss is finite, its slope is not: the square root at 0."""
    for clip_norm in (None, 1.0):
        model = network()

        def steep(network, batch):
            loss, metrics = classification_loss(network, batch)
            steep.calls += 1
            return loss + (0 * loss).sqrt() if steep.calls == 3 else loss, metrics

        steep.calls = 0
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        history = train(
            model, lambda s: data(), steep, optimizer, steps=9, clip_norm=clip_norm, progress=False,
        )  # fmt: skip
        assert history.diverged
        assert len(history.records) == 3
        assert math.isfinite(history.records[-1]["loss"])
        assert not math.isfinite(history.records[-1]["grad_norm"])
        assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["loss", "step", "lr", "grad_norm"])
def test_a_metric_cannot_hide_a_column(name):
    def loss(model, batch):
        return classification_loss(model, batch)[0], {name: torch.tensor(7.0)}

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=f"a metric is named {name}, a column"):
        train(model, lambda s: data(), loss, optimizer, steps=1, progress=False)


def test_a_refused_checkpoint_changes_nothing(tmp_path):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    fit(model, optimizer=optimizer, steps=2, schedule=None)
    path = tmp_path / "c"
    checkpoint.save_checkpoint(path, model, optimizer, checkpoint.Progress(1, [], {"a": 1}))
    wider = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4))
    before = {name: tensor.clone() for name, tensor in wider.state_dict().items()}
    with pytest.raises(ValueError, match=r"2 weights differ; 3\.bias is \(3,\) torch.float32 there, \(4,\)"):
        checkpoint.load_checkpoint(path, wider, torch.optim.AdamW(wider.parameters()), {"a": 1})
    assert all(torch.equal(before[name], tensor) for name, tensor in wider.state_dict().items())
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for header in ('{"step": 1, "records": [], "run_id": {"a": 1}', '{"step": 1, "records": [], "scalars": {}}', "[]"):
        save_file(weights, path, metadata={"progress": header})
        fresh = network()
        with pytest.raises(ValueError, match="checkpoint c is damaged"):
            checkpoint.load_checkpoint(path, fresh, torch.optim.AdamW(fresh.parameters()), {"a": 1})
        assert same(fresh, network())


def test_a_folder_that_cannot_be_written_is_noticed_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    calls = []
    with pytest.raises(ValueError, match=r"checkpoint_dir='.*file' cannot be written"):
        fit(network(), checkpoint_dir=tmp_path / "file", on_step=lambda step, model: calls.append(step))
    assert calls == []
    folder = tmp_path / "new" / "folder"
    checkpoint.check_writable(folder)
    assert list(folder.iterdir()) == []


def test_numbers_of_numpy_and_torch_are_numbers(tmp_path):
    """A learning rate that is a tensor, a seed of NumPy: recorded, resumed, equal to plain ones."""

    def sgd(model, lr=0.02):
        return torch.optim.SGD(model.parameters(), lr=lr)

    unbroken, broken, resumed = network(), network(), network()
    whole = fit(unbroken, optimizer=sgd(unbroken))
    odd = {"seed": np.int64(4), "clip_norm": np.float32(1), "checkpoint_dir": tmp_path}
    odd["schedule"] = lambda step: np.float64(cosine(30, 5)(step))
    fit(broken, optimizer=sgd(broken, torch.tensor(0.02, dtype=torch.float64)), stop_at=9, **odd)
    assert fit(resumed, optimizer=sgd(resumed), checkpoint_dir=tmp_path).records == whole.records
    assert same(unbroken, resumed)
    other = torch.tensor(0.02000001, dtype=torch.float64)  # as torch prints them, the two are equal
    with pytest.raises(ValueError, match=r"'lr': '0\.02'.*'lr': '0\.02000001'"):
        fit(resumed, optimizer=sgd(resumed, other), checkpoint_dir=tmp_path)


def test_what_the_history_records():
    """The rate of the first group; the norm of the whole gradient before clipping; a loss that is a mean."""
    model, reference = network().eval(), network().eval()
    model[2].p = reference[2].p = 0.0
    groups = [{"params": model[0].parameters(), "lr": 0.3}, {"params": model[3].parameters(), "lr": 0.1}]
    history = fit(model, optimizer=torch.optim.SGD(groups), steps=2, schedule=lambda step: 0.5, clip_norm=0.01)
    assert history.column("lr") == [0.15, 0.15]
    x, y = shuffled_batches(data(), 16, 3)(0)
    logits = reference(x)
    by_hand = (logits.exp().sum(-1).log() - logits[range(16), y]).sum() / 16
    by_hand.backward()
    assert history.records[0]["loss"] == pytest.approx(by_hand.item(), rel=1e-5)
    squares = sum(p.grad.square().sum().item() for p in reference.parameters())
    assert history.records[0]["grad_norm"] == pytest.approx(squares**0.5, rel=1e-5)
