"""Studies of masked English: the network of an arm, its text and recipe, what it is judged by, and resuming."""

import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from course_lib.experiments import masked_english, modernbert_english
from course_lib.masking import hide
from course_lib.models.bigram import KneserNeyBigram, count_bigrams
from course_lib.models.modernbert import ModernBertForMaskedLM
from course_lib.tokenization import START
from course_lib.training import History, recipes
from course_lib.training.recipes import SOURCES

TINY = masked_english.Config(
    steps=4, warmup=1, batch_size=4, data=("factbook",), length=32, d_model=16, n_heads=2, n_layers=2, d_ff=16
)  # fmt: skip


def test_the_network_of_an_arm():
    made = masked_english.model_of(replace(TINY, global_every=None, local_attention=6), 7)
    assert isinstance(made, ModernBertForMaskedLM)
    config = made.config
    assert (config.global_every, config.local_attention, config.seed, config.d_ff) == (None, 6, 7, 16)
    assert config.vocab_size == 4000
    assert "write_scale" not in masked_english.arm(steps=1)
    assert masked_english.Config(**masked_english.arm(steps=1, length=9)).length == 9


def test_fit_reads_the_training_split_hidden_by_the_arms_rate_and_recipe(monkeypatch):
    asked = {}

    def train(model, batches, loss_fn, optimizer, **options):
        asked.update(options, batch=batches(0), optimizer=optimizer)
        return History([])

    monkeypatch.setattr(recipes, "train", train)
    config = replace(TINY, rate=0.25, lr=0.01)
    masked_english.fit(masked_english.model_of(config, 0), config, 5, stop_at=3)
    known = {tuple(row.tolist()) for row in recipes.windows(("factbook",), "train", 31, "prose-4k", start=True)}
    batch = asked["batch"]
    rows = batch.ids.scatter(1, batch.at, batch.targets)
    assert all(tuple(row.tolist()) in known for row in rows)
    assert batch.at.shape == (4, 8)
    assert (asked["seed"], asked["steps"], asked["stop_at"]) == (5, 4, 3)
    assert type(asked["optimizer"]).__name__ == "Joined"
    assert asked["schedule"](4) == 0


def held_out_in_part(monkeypatch, every):
    """All that is judged is every `every`-th window, so that a test does not take minutes."""
    real = masked_english.held_out
    monkeypatch.setattr(masked_english, "held_out", lambda name, config: real(name, config)[::every])


@pytest.mark.slow
def test_held_out_text_is_not_for_training_and_hidden_alike_for_all(monkeypatch):
    for name in ("speeches", "factbook"):
        seen = {tuple(row[1:].tolist()) for row in recipes.windows((name,), "train", 31, "prose-4k", start=True)}
        rows = masked_english.held_out(name, TINY)
        assert not any(tuple(row[1:].tolist()) in seen for row in rows)
        assert (rows[:, 0] == START).all()
    arms = (TINY, replace(TINY, rate=0.5))
    held_out_in_part(monkeypatch, 97)
    first, second = (masked_english.losses_by_source(Uniform(), config) for config in arms)
    assert list(first) == list(SOURCES)
    for name in first:
        assert first[name].shape == second[name].shape == (len(masked_english.held_out(name, TINY)), 5)
        assert first[name].mean().item() == pytest.approx(math.log(4000), rel=1e-5)


class Uniform(nn.Module):
    """Gives each of 4,000 tokens the same chance."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.config = masked_english.model_of(TINY, 0).config

    def forward(self, ids, *, at):
        return self.weight + torch.zeros(*at.shape, 4000)


@pytest.mark.slow
def test_the_table_by_hand(monkeypatch):
    monkeypatch.setattr(masked_english, "SOURCES", {"factbook": "text"})
    held_out_in_part(monkeypatch, 40)
    got = masked_english.table_losses_by_source(TINY)["factbook"]
    counted = KneserNeyBigram(count_bigrams(masked_english.text(TINY)[:, 1:].flatten(), 4000))
    follows = counted(torch.arange(4000)).exp()
    shown = masked_english.held_out("factbook", TINY)
    hidden, lasts = hide(shown, 4000, 0.15, 0), 0
    for row in range(len(shown)):
        for m, at in enumerate(hidden.at[row].tolist()):
            score = follows[shown[row, at - 1]].clone()
            if at < 31:
                score *= follows[:, shown[row, at + 1]]
            else:
                lasts += 1
            want = -math.log(score[hidden.targets[row, m]] / score.sum())
            assert got[row, m].item() == pytest.approx(want, rel=1e-3, abs=1e-5)
    assert lasts > 0


@pytest.mark.slow
def test_an_arm_learns_is_judged_and_goes_on_where_it_was_killed(monkeypatch, tmp_path):
    monkeypatch.setattr(masked_english, "SOURCES", {"factbook": "text"})
    config = asdict(replace(TINY, steps=6))
    model, outcome = modernbert_english.train_arm(config, 0, None)
    metrics = outcome.metrics
    assert 0 < metrics["factbook_loss"] == pytest.approx(metrics["validation_loss"])
    assert 0 < metrics["factbook_two_sided"] < metrics["factbook_loss"] < 9
    assert {"validation_two_sided", "cpu_seconds_per_step", "final_loss", "diverged"} < set(metrics)
    options = {"checkpoint_dir": tmp_path, "checkpoint_every": 2}
    stopped = modernbert_english.train_arm(config, 0, 3, **options)[1]
    assert set(stopped.metrics) == {"cpu_seconds_per_step", "final_loss", "diverged"}
    assert len(stopped.curve["loss"]) == 3
    again, resumed = modernbert_english.train_arm(config, 0, None, **options)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
    assert resumed.curve == outcome.curve
    assert resumed.metrics["factbook_loss"] == metrics["factbook_loss"]
