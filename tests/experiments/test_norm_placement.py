"""The study of norm placement: what its runs measure, on a network and data small enough to check by hand."""

import math
from dataclasses import asdict

import pytest
import torch

from course_lib.corpora import fashion_tensors
from course_lib.experiments import norm_dynamics, norm_placement
from course_lib.experiments.study import thinned
from course_lib.training import History

TINY = norm_placement.Config("layernorm", "pre", lr=1e-3, warmup=3, steps=45, batch_size=8, n_layers=1)


def history(losses, grad_norm=1.0):
    return History([{"step": step, "loss": loss, "grad_norm": grad_norm} for step, loss in enumerate(losses)])


def run_with(monkeypatch, recorded):
    """A run whose training does nothing and gives this history."""
    monkeypatch.setattr(norm_placement, "fit", lambda *args, **options: recorded)
    return norm_placement.run(asdict(TINY), 0, None)


def test_thinned_keeps_the_beginning_every_tenth_and_no_infinity():
    losses = [1.0 + step / 1e6 for step in range(45)]
    losses[7] = math.nan
    curve = thinned(history(losses))
    assert curve["step"] == [s for s in range(20) if s != 7] + [29, 39]
    assert curve["loss"] == [round(losses[s], 5) for s in curve["step"]]


def test_the_final_loss_is_the_mean_of_the_last_twenty(monkeypatch):
    metrics = run_with(monkeypatch, history([100.0] * 25 + list(range(20)))).metrics
    assert metrics["final_loss"] == pytest.approx(9.5)
    assert metrics["diverged"] == 0
    images, labels = fashion_tensors("test")
    untrained = norm_placement.build(TINY, 0)
    want = torch.nn.functional.cross_entropy(untrained(images), labels).item()
    assert metrics["test_loss"] == pytest.approx(want, rel=1e-5)  # of the test split, all of it
    assert metrics["test_accuracy"] == (untrained(images).argmax(-1) == labels).float().mean().item()


def test_a_run_that_diverged_says_so_and_nothing_more(monkeypatch):
    for recorded in (history([1.0, math.nan]), history([1.0, 2.0], grad_norm=math.inf)):
        metrics = run_with(monkeypatch, recorded).metrics
        assert metrics["diverged"] == 1
        assert metrics["final_loss"] is None
        assert metrics["test_loss"] is None


@pytest.mark.slow
def test_the_optimizer_is_adam_without_decay_or_clipping(monkeypatch):
    seen = {}

    def train(model, batches, loss_fn, optimizer, **options):
        seen.update(options, optimizer=optimizer, batch=batches(0))

    monkeypatch.setattr(norm_placement, "train", train)
    norm_placement.fit(norm_placement.build(TINY, 2), TINY, 2, stop_at=4, progress=False)
    (group,) = seen["optimizer"].param_groups
    assert type(seen["optimizer"]) is torch.optim.AdamW
    assert (group["weight_decay"], group["lr"]) == (0.0, 1e-3)
    assert [seen[name] for name in ("clip_norm", "steps", "seed", "stop_at", "progress")] == [None, 45, 2, 4, False]
    assert [seen["schedule"](step) for step in (0, 3)] == [0.25, 1.0]
    images, _ = fashion_tensors("train")
    assert seen["batch"][0].shape == (8, 784)
    assert (seen["batch"][0][0] == images).all(-1).any()


def test_evaluation_is_without_dropout():
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(4, 3)).train()
    x, y = torch.randn(50, 4), torch.randint(3, (50,))
    want = torch.nn.functional.cross_entropy(model[1](x), y).item()
    assert norm_placement.evaluate(model, x, y)["test_loss"] == pytest.approx(want, rel=1e-6)


@pytest.mark.slow
def test_what_enters_a_norm_is_kept_wide_enough(monkeypatch):
    """float16 ends at 65,504; the stream of a network that explodes does not."""

    def build(config, seed):
        model = norm_placement.build(config, seed)
        with torch.no_grad():
            model.embed.weight.mul_(1e6)
        return model

    splits = []
    monkeypatch.setattr(norm_dynamics, "build", build)
    monkeypatch.setattr(norm_dynamics, "fashion_tensors", lambda split: splits.append(split) or fashion_tensors(split))
    tensors = norm_dynamics.run(asdict(TINY), 0, 1).tensors
    assert tensors["input_std"].isfinite().all()
    assert tensors["input_std"].max() > 65504
    assert tensors["gain"].dtype == torch.float16
    assert norm_dynamics.run(asdict(TINY), 1, 1).tensors == {}
    assert set(splits) == {"test"}  # networks are looked at with pictures that they do not learn
