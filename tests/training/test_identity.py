"""Which runs may go on with a checkpoint: the same call in another process, and none that differs in a number."""

import copy
from dataclasses import dataclass
from functools import partial
from types import FunctionType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.corpora import shuffled_batches
from course_lib.training import classification_loss, cosine, linear, loop
from course_lib.training.checkpoint import CHECKPOINT
from course_lib.training.identity import differences, fingerprint, in_words, settings_of
from tests.training.toy import data, fit, network, same


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
    with pytest.raises(ValueError, match=r"\(groups\.0\.weight_decay was 0\.01, is 0\.5\)"):
        fit(model, checkpoint_dir=tmp_path, optimizer=heavier)
    with pytest.raises(ValueError, match="another model"):
        fit(nn.Sequential(nn.Linear(6, 3)), checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"4 weights differ; 0\.bias is \(16,\) torch.float32 there, .*float64 here"):
        fit(network().double(), checkpoint_dir=tmp_path)
    part = network()  # its first moments would go to another weight
    with pytest.raises(
        ValueError, match=r"params\.0 was 0\.weight, is 3\.weight"
    ):  # its moments would go to another weight
        fit(part, checkpoint_dir=tmp_path, optimizer=torch.optim.AdamW(part[3].parameters(), lr=0.01))
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged"):
        fit(network(), checkpoint_dir=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]  # no temporary file is left


def test_a_checkpoint_knows_the_whole_schedule(tmp_path):
    fit(network(), stop_at=3, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="schedule was"):
        fit(network(), checkpoint_dir=tmp_path, schedule=linear(30, 5))  # equal to cosine during warm-up
    assert len(fit(network(), steps=3, schedule=None, stop_at=9).records) == 3


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
    with pytest.raises(ValueError, match=r"groups\.0\.lr was 0\.02, is 0\.02000001"):
        fit(resumed, optimizer=sgd(resumed, other), checkpoint_dir=tmp_path)


class Heads(nn.Module):
    """A model whose settings are no weights: as many of these in each case."""

    def __init__(self, n_heads=2, config=None, act=torch.relu):
        super().__init__()
        torch.manual_seed(1)
        self.n_heads, self.config, self.act = n_heads, config, act
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.1), nn.Linear(8, 3))
        self.calls = 0  # changes while it trains, and is no setting

    def forward(self, x):
        self.calls += 1
        return self.layers[2](self.layers[1](self.act(self.layers[0](x))).unflatten(-1, (self.n_heads, -1)).flatten(-2))


@dataclass(frozen=True)
class Sizes:
    width: int = 8
    banned: frozenset = frozenset({"a", "b"})


def weighted_loss(model, batch, weight=1.0):
    loss, metrics = classification_loss(model, batch)
    return weight * loss, metrics


def with_dropout(p):
    model = Heads()
    model.layers[1].p = p
    return model


def partly_frozen():
    model = Heads()
    model.layers[0].bias.requires_grad_(False)
    return model


def reordered(model):
    return torch.optim.AdamW(list(model.parameters())[::-1], lr=0.01)


def other_batches(batch_size=16, seed=3, shift=0.0):
    x, y = data()
    return shuffled_batches((x + shift, y), batch_size, seed)


CHANGES = {
    r"model\.n_heads was 2, is 4": {"model": lambda: Heads(4)},
    r"model\.layers\.1\.p was 0\.1, is 0\.2": {"model": lambda: with_dropout(0.2)},
    r"model\.config\.width was 8, is 9": {"model": lambda: Heads(config=Sizes(9))},
    r"model\.config was None, is \{'n_heads': 4\}": {"model": lambda: Heads(config=SimpleNamespace(n_heads=4))},
    r"model\.act was torch.*relu, is torch.*tanh": {"model": lambda: Heads(act=torch.tanh)},
    r"params\.1 was layers\.0\.bias, is layers\.0\.bias \(frozen\)": {"model": partly_frozen},
    r"params\.0 was layers\.0\.weight, is layers\.2\.bias": {"optimizer": reordered},
    r"groups\.0\.betas was \(0\.9, 0\.999\), is \(0\.9, 0\.95\)": {
        "optimizer": lambda model: torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.9, 0.95))
    },
    r"optimizer was AdamW, is Adam\b": {"optimizer": lambda model: torch.optim.Adam(model.parameters(), lr=0.01)},
    r"loss_fn was .*classification_loss, is tests.*weighted_loss\)": {"loss_fn": weighted_loss},
    r"loss_fn was .*, is tests.*weighted_loss\(\)\{'weight': 0\.5\}": {"loss_fn": partial(weighted_loss, weight=0.5)},
    r"batches\(4\) gave another batch then.*delete it": {"batches": other_batches(batch_size=8)},
    r"batches\(4\) gave another batch": {"batches": other_batches(seed=4)},
    r"another batch": {"batches": other_batches(shift=1e-6)},
}


def heads_run(folder, model=lambda: Heads(config=Sizes()), optimizer=None, **options):
    model = model()
    optimizer = optimizer(model) if optimizer else torch.optim.AdamW(model.parameters(), lr=0.01)
    return model, fit(model, optimizer=optimizer, checkpoint_dir=folder, **options)


@pytest.mark.parametrize("words", CHANGES)
def test_what_changes_the_numbers_is_refused(tmp_path, words):
    heads_run(tmp_path, stop_at=5)
    with pytest.raises(ValueError, match=words):
        heads_run(tmp_path, **CHANGES[words])


def test_another_number_of_processes_is_refused(tmp_path, monkeypatch):
    heads_run(tmp_path, stop_at=5)
    own = loop.identity
    monkeypatch.setattr(loop, "identity", lambda *known, **settings: own(*known, **settings | {"processes": 2}))
    with pytest.raises(ValueError, match="processes was 1, is 2"):
        heads_run(tmp_path)


def test_the_same_call_goes_on(tmp_path):
    """With batches that torch draws, a loss that writes into its batch, and a model that was used meanwhile."""

    def drawn(step):
        return torch.randn(4, 6), torch.randint(3, (4,))

    def careless(model, batch):
        batch[0].mul_(2)
        return weighted_loss(model, batch, 0.5)

    whole, history = heads_run(None, batches=drawn, loss_fn=careless)
    part, _ = heads_run(tmp_path, batches=drawn, loss_fn=careless, stop_at=7)
    part.requires_grad_(True)(data()[0])  # counts its calls
    again, resumed = heads_run(tmp_path, model=lambda: part, batches=drawn, loss_fn=careless)
    assert again.calls > 30
    assert resumed.records == history.records
    assert same(whole, again)


def test_tied_weights_have_one_name_and_untied_ones_two(tmp_path):
    class Tied(nn.Module):
        def __init__(self, tied):
            super().__init__()
            self.one, self.two, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
            if tied:
                self.two.weight = self.one.weight

        def forward(self, x):
            return self.head(self.two(self.one(x)))

    heads_run(tmp_path, model=lambda: Tied(True), stop_at=5)
    heads_run(tmp_path, model=lambda: Tied(True), stop_at=6)
    with pytest.raises(ValueError, match=r"params\.2 was two\.bias, is two\.weight"):
        heads_run(tmp_path, model=lambda: Tied(False))


def test_words_are_the_same_in_each_process():
    """No address, no order of hashes; and a function of the script that runs is the one that a worker of it sees."""
    words = in_words([object(), {"b", "a"}, lambda: 0, weighted_loss, partial(weighted_loss, weight=[0.5]), Sizes()])
    assert "0x" not in words
    assert "{'a', 'b'}" in words
    assert f"{__name__}.weighted_loss" in words
    for module in ("__main__", "__mp_main__"):
        of_the_script = FunctionType(weighted_loss.__code__, {"__name__": module})
        assert in_words(of_the_script) == "weighted_loss"
    assert in_words(torch.tensor(0.5)) == in_words(np.float64(0.5)) == in_words(0.5) == "0.5"
    assert in_words(torch.zeros(3)) != in_words(torch.ones(3)) != in_words(torch.ones(1, 3))
    sets = [np.array(["a", entry], dtype=object) for entry in ({"x", "y"}, {"y", "x"}, {"z"})]
    assert in_words(sets[0]) == in_words(sets[1]) != in_words(sets[2])


def test_a_module_whose_constructor_names_nothing_is_asked():
    one, two = (settings_of(nn.LSTM(3, 4, 2, dropout=p)) for p in (0.0, 0.5))
    assert differences(one, two) == "settings was 3, 4, num_layers=2, is 3, 4, num_layers=2, dropout=0.5"


def test_a_fingerprint_sees_each_bit_and_the_form():
    x = torch.randn(3, 4)
    batches = [
        x, x.numpy(), x.double(), x.bfloat16(), x.T, x.flatten(), -x, (x,), [x, x], {"x": x}, {"y": x}, x > 0, x * 1j,
        x.to_sparse(), x[:0], "x", None, (None, x), torch.nextafter(x, x + 1),
    ]  # fmt: skip
    prints = [fingerprint(batch) for batch in batches]
    assert len(set(prints)) == len(prints) - 1  # sparse and dense hold the same
    assert prints == [fingerprint(copy.deepcopy(batch)) for batch in batches]
    assert fingerprint(x.T) == fingerprint(x.T.contiguous())
    assert fingerprint([x]) == fingerprint((x,))
