"""What a loss function may give."""

import math

import numpy as np
import pytest
import torch

from course_lib.training import classification_loss, train
from tests.training.toy import data, network, same


@pytest.mark.parametrize("name", ["loss", "step", "lr", "grad_norm"])
def test_a_metric_cannot_hide_a_column(name):
    def loss(model, batch):
        return classification_loss(model, batch)[0], {name: torch.tensor(7.0)}

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=f"a metric is named {name}, a column"):
        train(model, lambda s: data(), loss, optimizer, steps=1, progress=False)


def once(loss_fn, model=None, optimizer=None):
    model = model or network()
    return train(
        model, lambda step: data(), loss_fn, optimizer or torch.optim.SGD(model.parameters(), lr=0.1), steps=1,
        progress=False,
    ).records[0]  # fmt: skip


def test_a_loss_may_come_alone_and_metrics_may_be_plain_numbers():
    with_metrics = once(classification_loss)
    alone = once(lambda model, batch: classification_loss(model, batch)[0])
    assert alone == {name: value for name, value in with_metrics.items() if name != "accuracy"}
    numbers = {"half": 0.1, "whole": 20_000_001, "yes": True, "numpy": np.float64(0.1), "count": torch.tensor(3)}
    one = lambda model, batch: [classification_loss(model, batch)[0].view(1), numbers]  # noqa: E731
    assert once(one) == alone | {"half": 0.1, "whole": 20_000_001, "yes": 1, "numpy": 0.1, "count": 3}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda loss: None, "gives NoneType for the loss"),
        (lambda loss: loss.item(), "gives float for the loss; needed is a float tensor of one number, alone or as"),
        (lambda loss: loss.expand(8), r"gives torch.float32 \(8,\) for the loss"),
        (lambda loss: loss.long(), r"gives torch.int64 \(\) for the loss"),
        (lambda loss: {"loss": loss}, "gives dict for the loss"),
        (lambda loss: (loss, {}, {}), "gives tuple for the loss"),
        (lambda loss: loss.detach(), "gives a loss without a gradient: nothing that it depends on trains"),
        (lambda loss: (loss, None), "gives NoneType for the metrics; needed is a dict"),
        (lambda loss: (loss, torch.ones(8, 3)), r"gives torch.float32 \(8, 3\) for the metrics"),
        (lambda loss: (loss, {3: loss}), "the name 3 of a metric is a int; needed is text"),
        (lambda loss: (loss, {"each": loss.expand(8)}), r"the metric each is torch.float32 \(8,\); needed is a number"),
        (lambda loss: (loss, {"said": "much"}), "the metric said is str"),
        (lambda loss: (loss, {"wave": loss * 1j}), r"the metric wave is torch.complex64 \(\)"),
        (lambda loss: torch.ones((), requires_grad=True) * 2, "depends on none of the optimizer's parameters"),
    ],
)
def test_anything_else_is_refused_in_words_and_trains_nothing(given, words):
    model = network()
    with pytest.raises(ValueError, match=f"loss_fn.*{words}"):
        once(lambda model, batch: given(classification_loss(model, batch)[0]), model)
    assert same(model, network())


@pytest.mark.filterwarnings("error")
def test_a_metric_may_be_part_of_the_graph():
    """An auxiliary loss that was added to the loss: a number for the history, without a warning."""
    record = once(lambda model, batch: (classification_loss(model, batch)[0], {"aux": model[0].weight.norm()}))
    assert record["aux"] == network()[0].weight.norm().item()


def test_a_metric_may_be_given_at_some_steps_only():
    seen = iter([{}, {"rare": 1.0}, {}])
    model = network()
    history = train(
        model, lambda step: data(), lambda model, batch: (classification_loss(model, batch)[0], next(seen)),
        torch.optim.SGD(model.parameters(), lr=0.1), steps=3, progress=False,
    )  # fmt: skip
    assert [math.isnan(value) for value in history.column("rare")] == [True, False, True]
    with pytest.raises(ValueError, match="name='common'; recorded are step, lr, grad_norm, loss, rare"):
        history.column("common")
