"""Checkpoints: a run that was broken off ends as one that was not, and what does not fit is refused."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from course_lib.training import checkpoint
from course_lib.training.checkpoint import CHECKPOINT, Progress, check_writable, read_checkpoint, save_checkpoint
from course_lib.training.identity import in_words
from tests.training.toy import fit, network, same


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


def test_a_checkpoint_keeps_plain_numbers_and_wants_every_weight(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = next(model.parameters())
    optimizer.state[first] = {"calls": 3, "zero": 0, "none": None}
    save_checkpoint(tmp_path / "c", model, optimizer, Progress(1, [], {"a": 1}, ""))
    fresh = torch.optim.SGD(model.parameters(), lr=0.1)
    read_checkpoint(tmp_path / "c", model, {"a": 1}).restore(model, fresh)
    assert fresh.state[first] == {"calls": 3, "zero": 0, "none": None}
    with pytest.raises(ValueError, match="b was None, is 2"):
        read_checkpoint(tmp_path / "c", model, {"a": 1, "b": 2})
    with pytest.raises(ValueError, match="another model"):
        read_checkpoint(tmp_path / "c", nn.Sequential(*model, nn.Linear(3, 3)), {"a": 1})


def test_a_refused_checkpoint_changes_nothing(tmp_path):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    fit(model, optimizer=optimizer, steps=2, schedule=None)
    path = tmp_path / "c"
    save_checkpoint(path, model, optimizer, Progress(1, [], {"a": 1}, ""))
    wider = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4))
    before = {name: tensor.clone() for name, tensor in wider.state_dict().items()}
    with pytest.raises(ValueError, match=r"2 weights differ; 3\.bias is \(3,\) torch.float32 there, \(4,\)"):
        read_checkpoint(path, wider, {"a": 1})
    assert all(torch.equal(before[name], tensor) for name, tensor in wider.state_dict().items())
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for header in ('{"step": 1, "records": [], "run_id": {"a": 1}', '{"step": 1, "records": [], "scalars": {}}', "[]"):
        save_file(weights, path, metadata={"progress": header})
        fresh = network()
        with pytest.raises(ValueError, match="checkpoint c is damaged"):
            read_checkpoint(path, fresh, {"a": 1})
        assert same(fresh, network())


def test_a_folder_that_cannot_be_written_is_noticed_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    calls = []
    with pytest.raises(ValueError, match=r"checkpoint_dir='.*file' cannot be written"):
        fit(network(), checkpoint_dir=tmp_path / "file", on_step=lambda step, model: calls.append(step))
    assert calls == []
    folder = tmp_path / "new" / "folder"
    check_writable(folder)
    assert list(folder.iterdir()) == []


def test_an_interrupt_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    unbroken, resumed = network(), network()
    whole = fit(unbroken)

    def interrupted(tensors, path, metadata):
        save_file(tensors, path, metadata=metadata)
        if json.loads(metadata["progress"])["step"] == 10:
            path.write_bytes(path.read_bytes()[:100])
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(network(), checkpoint_dir=tmp_path, checkpoint_every=5)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]
    again = fit(resumed, checkpoint_dir=tmp_path)
    assert again.records == whole.records
    assert same(resumed, unbroken)


class Odd(torch.optim.Optimizer):
    """Steps that depend on numbers, text, lists and wide tensors in its state, and on a number in its group."""

    def __init__(self, parameters, more=None):
        super().__init__(parameters, {"lr": 0.01, "trust": 1.0})
        self.more = more

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["trust"] *= 0.9
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    wide = torch.zeros(parameter.shape, dtype=torch.float64)
                    state |= {"wide": wide, "count": torch.tensor(0), "calls": 0, "sign": "+", "none": None}
                    state |= {
                        "past": [wide.clone(), [1.0, 2]],
                        "both": {1: torch.zeros(()), "1": torch.tensor(3.0), "t": (3,)},
                    }
                    state |= {} if self.more is None else {"more": self.more}
                state["calls"] += 1
                state["count"] += 1
                state["sign"] = {"+": "-", "-": "+"}[state["sign"]]
                state["wide"].add_(parameter.grad.double() / 3)
                state["past"] = [state["wide"] + state["past"][0] / 7, [state["past"][1][1], state["calls"]]]
                state["both"][1] += state["both"]["1"]
                factor = {"+": 1.0, "-": 0.5}[state["sign"]] * group["trust"] / (1 + state["count"].item())
                moved = (state["past"][0] * sum(state["past"][1]) + (state["wide"] * 1e6).frac()).float()
                parameter.add_(moved + state["both"][1], alpha=-group["lr"] * factor)


def test_the_state_of_any_optimizer_is_taken_up(tmp_path):
    unbroken, resumed, broken = network(), network(), network()
    whole, taken = Odd(unbroken.parameters()), Odd(resumed.parameters())
    history = fit(unbroken, optimizer=whole)
    fit(broken, optimizer=Odd(broken.parameters()), stop_at=11, checkpoint_dir=tmp_path)
    assert fit(resumed, optimizer=taken, checkpoint_dir=tmp_path).records == history.records
    assert same(unbroken, resumed)
    assert in_words(taken.state_dict()) == in_words(whole.state_dict())
    assert taken.state[resumed[0].weight]["wide"].dtype == torch.float64
    assert type(taken.state[resumed[0].weight]["both"]["t"]) is tuple


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (object(), "optimizer.state.0.more is object; a checkpoint holds dense tensors, numbers, text"),
        (torch.eye(2).to_sparse(), "optimizer.state.0.more is torch.float32 (2, 2); a checkpoint holds dense"),
        ([{"deep": {1, 2}}], "optimizer.state.0.more.0.deep is set;"),
    ],
)
def test_a_state_that_cannot_be_saved_is_noticed_after_one_step(tmp_path, more, words):
    model, seen = network(), []
    optimizer = Odd(model.parameters(), more)
    with pytest.raises(ValueError, match=re.escape(words)):
        fit(model, optimizer=optimizer, checkpoint_dir=tmp_path, on_step=lambda step, model: seen.append(step))
    assert seen == [0]
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_saved_is_noticed_before_training(tmp_path):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"calls": 3}

    model, seen = Extra(6, 3), []
    with pytest.raises(ValueError, match="model: _extra_state of its state is a dict; a checkpoint holds tensors"):
        fit(model, checkpoint_dir=tmp_path, on_step=lambda *at: seen.append(at))
    assert seen == []


def test_who_asks_for_less_than_there_is_gets_what_there_is(tmp_path):
    fit(network(), stop_at=9, checkpoint_dir=tmp_path)
    seen = []
    history = fit(network(), stop_at=5, checkpoint_dir=tmp_path, on_step=lambda step, model: seen.append(step))
    assert len(history.records) == 9
    assert seen == [9]  # the step that the model has reached


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fit(network(), stop_at=1, checkpoint_dir="~/runs")
    assert (tmp_path / "runs" / CHECKPOINT).exists()
