"""The training loop: it learns, clips, stops before it spoils weights, and leaves the caller alone."""

import math

import pytest
import torch
from torch import nn

from course_lib.corpora import shuffled_batches
from course_lib.training import History, classification_loss, constant, cosine, train
from tests.training.toy import data, fit, network, same


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


def test_training_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(5)
    want = torch.rand(3)
    model = network()
    torch.manual_seed(5)
    fit(model, steps=3, schedule=None)
    assert torch.equal(torch.rand(3), want)


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


def test_bfloat16_autocast_trains():
    history = fit(network(), mixed_precision="bf16", steps=60, schedule=None)
    assert history.column("loss")[-1] < history.column("loss")[0]


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


def head_only(optimizer_alone, **options):
    """Only the last layer is trained: because the optimizer has no more, or because the rest is frozen."""
    model = network()
    if not optimizer_alone:
        model[0].requires_grad_(False)
    parameters = model[3].parameters() if optimizer_alone else model.parameters()
    return model, fit(model, optimizer=torch.optim.SGD(parameters, lr=0.1), clip_norm=0.01, **options)


def test_what_the_optimizer_has_not_neither_counts_nor_piles_up():
    """Clipped hard, the norm of the other gradients would shorten the steps, more from step to step."""
    (part, history), (frozen, same_history) = head_only(True), head_only(False)
    assert same(part, frozen)
    assert history.records == same_history.records
    assert torch.equal(part[0].weight, network()[0].weight)
    once, often = network().eval(), network().eval()
    for model, steps in ((once, 1), (often, 5)):
        still = torch.optim.SGD(model[3].parameters(), lr=0.0)
        model[2].p = 0.0
        fit(model, optimizer=still, batches=lambda step: data(), steps=steps, schedule=None)
    assert torch.equal(once[0].weight.grad, often[0].weight.grad)


def test_gradients_that_were_there_before_do_not_count():
    model = network()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e6)
    model[0].requires_grad_(False)  # an optimizer steps with a gradient that it finds
    history = fit(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), steps=2, schedule=None)
    assert max(history.column("grad_norm")) < 10
    assert torch.equal(model[0].weight, network()[0].weight)
