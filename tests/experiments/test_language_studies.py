"""Studies of language models: data without leaks, the optimizer's groups, what is measured, and claims of lesson 03."""

from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from course_lib import pretrained
from course_lib.evaluation import next_token_losses
from course_lib.experiments import kv_heads, language, load
from course_lib.models.gpt2 import GPT2
from course_lib.training import History, recipes, windows

TINY = language.Config(
    lr=1e-3, warmup=1, steps=4, batch_size=4, max_positions=16, d_model=16, n_heads=4, n_layers=1, d_ff=16
)


def test_the_model_of_an_arm_has_its_fields_and_seed():
    made = language.model_config(replace(TINY, placement="post", dropout=0.3, n_kv_heads=2), 7)
    assert (made.placement, made.dropout, made.n_kv_heads, made.d_ff, made.seed) == ("post", 0.3, 2, 16, 7)


def test_fit_sees_the_training_split_and_its_settings(monkeypatch):
    asked = {}

    def train(model, batches, loss_fn, optimizer, **options):
        asked.update(options, batch=batches(0)[0], groups=optimizer.param_groups)
        return History([])

    monkeypatch.setattr(recipes, "train", train)
    model, batches = GPT2(language.model_config(TINY, 0)), []
    for seed in (5, 6):
        language.fit(model, TINY, seed, stop_at=3)
        batches.append(asked["batch"])
    known = {tuple(row.tolist()) for row in windows(("speeches",), "train", 16)}
    assert all(tuple(row.tolist()) in known for row in batches[0])
    assert not torch.equal(*batches)
    assert (asked["seed"], asked["steps"], asked["stop_at"]) == (6, 4, 3)
    assert [asked["schedule"](step) for step in (0, 1, 4)] == [0.5, 1.0, pytest.approx(0.05)]
    first, second = asked["groups"]
    assert (first["lr"], first["betas"], first["weight_decay"]) == (1e-3, (0.9, 0.95), 0.1)
    assert (second["lr"], second["weight_decay"]) == (1e-3, 0.0)


def test_the_final_loss_is_the_mean_of_the_last_twenty(monkeypatch):
    losses = [100.0] * 5 + [float(i) for i in range(20)]
    recorded = History([{"step": i, "loss": loss, "grad_norm": 1.0} for i, loss in enumerate(losses)])
    monkeypatch.setattr(language, "fit", lambda *arguments, **options: recorded)
    monkeypatch.setattr(language, "validation_loss", lambda model, length: 2.0)
    metrics = language.run(asdict(TINY), 0, None).metrics
    assert metrics == {"diverged": 0.0, "final_loss": pytest.approx(9.5), "validation_loss": 2.0}


@pytest.fixture
def few_windows(monkeypatch):
    """Validation on 20 windows: enough to see that something was learned."""

    def loss(model, length):
        return next_token_losses(model, windows(("speeches",), "validation", length)[:20]).mean().item()

    monkeypatch.setattr(language, "validation_loss", loss)


def test_validation_is_on_all_held_out_speeches(monkeypatch):
    asked = []
    monkeypatch.setattr(language, "next_token_losses", lambda model, ids: asked.append(ids) or torch.ones(3))
    assert language.validation_loss(nn.Linear(1, 1), 128) == 1
    assert torch.equal(asked[0], windows(("speeches",), "validation", 128))


@pytest.mark.usefixtures("few_windows")
def test_a_run_learns_and_measures_its_cache():
    outcome = kv_heads.run(asdict(TINY) | {"data": ["speeches"], "n_kv_heads": 2}, seed=0, stop_at=2)
    assert len(outcome.curve["loss"]) == 2
    assert outcome.metrics["cache_bytes"] == 2 * 2 * 4 * 16 * 4  # k and v, 2 heads of 4, 16 places, 4 bytes, one layer
    assert 0 < outcome.metrics["validation_loss"] < 8.4
    assert outcome.params == sum(p.numel() for p in GPT2(language.model_config(TINY, 0)).parameters()) - 2 * 8 * 17


@pytest.mark.usefixtures("few_windows")
def test_a_run_that_diverged_has_no_losses(monkeypatch):
    def spoilt(model, batch):
        return nn.functional.cross_entropy(model(batch[0][:, :-1]).flatten(0, 1), batch[0][:, 1:].flatten()) / 0, {}

    monkeypatch.setattr(language, "next_token_loss", spoilt)
    metrics = language.run(asdict(TINY), 0, None).metrics
    assert metrics["diverged"] == 1
    assert metrics["validation_loss"] is None
    assert metrics["final_loss"] is None


def test_arms_of_kv_heads_differ_only_in_heads_and_have_equal_parameters():
    params = {run["params"] for run in load("kv_heads")["arms"]}
    assert max(params) / min(params) < 1.001
    configs = [
        {k: v for k, v in arm.items() if k not in ("n_kv_heads", "d_ff")} for arm in kv_heads.STUDY.arms.values()
    ]
    assert all(config == configs[0] for config in configs)


@pytest.mark.slow
def test_the_shipped_gpt2_is_the_recorded_one_and_beats_the_bigram():
    model, made = pretrained.load("gpt2-tiny"), pretrained.origin("gpt2-tiny")
    (run,) = load(made.study)["arms"]
    held_out = windows(("speeches",), "validation", 128)
    assert sum(p.numel() for p in model.parameters()) == run["params"]
    few = next_token_losses(model, held_out[::5]).mean().item()
    assert few == pytest.approx(run["metrics"]["validation_loss"], abs=0.06)  # a fifth of the windows, float16 weights
    assert few < 4.685 - 0.2  # ln 108.3, the Kneser-Ney bigram of notebook 00
