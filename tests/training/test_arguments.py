"""What `train` refuses, in words, before it changes anything."""

import copy
import math

import pytest
import torch

from course_lib.training import classification_loss, train
from course_lib.training.checkpoint import CHECKPOINT
from course_lib.training.identity import in_words
from tests.training.toy import data, fit, network, same


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps=0"),
        ({"stop_at": -3}, "stop_at=-3"),
        ({"clip_norm": 0.0}, "clip_norm=0"),
        ({"clip_norm": "1"}, "clip_norm='1'; it must be a number above 0"),
        ({"checkpoint_every": 0}, "checkpoint_every=0"),
        ({"checkpoint_every": None}, "checkpoint_every=None"),
        ({"mixed_precision": "fp16"}, "mixed_precision='fp16'"),
        ({"seed": 1.5}, "seed=1.5; an integer"),
        ({"steps": 2.5}, "steps=2.5; it must be 1 or more, a whole number"),
    ],
)
def test_bad_input_names_itself(options, words):
    with pytest.raises(ValueError, match=words):
        fit(network(), **options)


def test_an_optimizer_of_another_model_is_refused():
    model, other = network(), network()
    for parameters, words in ((other.parameters(), "4 of its 4"), ([*model.parameters(), other[0].bias], "1 of its 5")):
        with pytest.raises(ValueError, match=f"optimizer: {words} parameters are not the model's"):
            fit(model, optimizer=torch.optim.SGD(parameters, lr=0.1))


class Sharp(torch.optim.SGD):
    """Looks at the loss at a second place, as sharpness-aware optimizers do."""

    def step(self, closure): ...


def frozen(model):
    return model.requires_grad_(False)


def without_rate(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["lr"] = None
    return optimizer


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda model: torch.optim.LBFGS(model.parameters()), r": LBFGS asks for the loss several times .*AdamW"),
        (lambda model: Sharp(model.parameters(), lr=0.1), r": Sharp asks for the loss several times"),
        (lambda model: torch.optim.AdamW, " is a type; needed is one of torch.optim"),
        (lambda model: model, " is a Sequential"),
        (lambda model: torch.optim.SGD(frozen(model).parameters(), lr=0.1), ": all of its 4 parameters are frozen"),
        (without_rate, ": lr=None of SGD; needed is a number"),
    ],
)
def test_an_optimizer_that_cannot_train_here_is_refused_in_words(make, words):
    model = network()
    with pytest.raises(ValueError, match=f"optimizer{words}"):
        fit(model, optimizer=make(model))
    assert same(model, network())


def test_a_model_that_is_none_is_refused_in_words():
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1)
    with pytest.raises(ValueError, match="model is a type; needed is a module"):
        fit(torch.nn.Linear, optimizer=optimizer)


@pytest.mark.parametrize("name", ["batches", "loss_fn", "schedule", "on_step"])
def test_what_is_no_function_is_refused_in_words(name):
    """A DataLoader for the batches is the usual case."""
    loader = torch.utils.data.DataLoader([1, 2])
    model = network()
    arguments = {"batches": lambda step: data(), "loss_fn": classification_loss} | {name: loader}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=rf"{name} is a DataLoader; needed is a function {name}\("):
        train(model, optimizer=optimizer, steps=1, **arguments)


def test_a_refused_call_changes_nothing(tmp_path):
    """Mode, weights, gradients, optimizer, random numbers, folder: as before, whatever is refused."""
    fit(network(), stop_at=3, checkpoint_dir=tmp_path)
    model = network().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    classification_loss(model, data())[0].backward()
    optimizer.step()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict(), [p.grad for p in model.parameters()]))
    file, numbers = (tmp_path / CHECKPOINT).read_bytes(), torch.get_rng_state()
    for words, refused in {
        "steps=0": {"steps": 0},
        "nan": {"schedule": lambda step: math.nan},
        "LBFGS": {"optimizer": torch.optim.LBFGS(model.parameters())},
        "seed was 4, is 5": {"checkpoint_dir": tmp_path, "seed": 5},
        "another batch": {"checkpoint_dir": tmp_path, "batches": lambda step: (torch.rand(2, 6), data()[1][:2])},
    }.items():
        with pytest.raises(ValueError, match=words):
            fit(model, **{"optimizer": optimizer} | refused)
    after = (model.state_dict(), optimizer.state_dict(), [p.grad for p in model.parameters()])
    assert in_words(after) == in_words(before)
    assert model.training
    assert torch.equal(torch.get_rng_state(), numbers)
    assert (tmp_path / CHECKPOINT).read_bytes() == file
    assert len(list(tmp_path.iterdir())) == 1
