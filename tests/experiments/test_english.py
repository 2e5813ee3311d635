"""Studies of English decoders: the network of an arm, its text and recipe, and what it is judged by."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from course_lib import corpora, heads, tokenization
from course_lib.experiments import english, get_study, load
from course_lib.experiments.recipe import STUDY as SEARCH
from course_lib.experiments.recipe import table
from course_lib.models.gpt2 import GPT2
from course_lib.models.pythia import Pythia
from course_lib.tokenization import START
from course_lib.training import History, recipes
from course_lib.training.recipes import SOURCES
from tests.conftest import ROOT

TINY = english.Config(
    steps=4, warmup=1, batch_size=4, data=("factbook",), max_positions=16, d_model=16, n_heads=4, n_layers=1, d_ff=16
)  # fmt: skip


def test_the_network_of_an_arm():
    made = english.model_of(replace(TINY, n_kv_heads=2, write_scale=0.5), 7)
    assert isinstance(made, GPT2)
    assert (made.config.n_kv_heads, made.config.write_scale, made.config.seed, made.config.d_ff) == (2, 0.5, 7, 16)
    other = english.model_of(replace(TINY, tied=False, position="rope"), 7)
    assert isinstance(other, Pythia)
    assert (other.config.position, other.config.rotary_pct, other.config.placement) == ("rope", 1.0, "pre")
    assert made.config.vocab_size == other.config.vocab_size == 4000
    with pytest.raises(ValueError, match="position='rope'"):
        english.model_of(replace(TINY, position="rope"), 7)


def test_fit_reads_the_training_split_with_repeats_by_the_arms_recipe(monkeypatch):
    asked = {}

    def train(model, batches, loss_fn, optimizer, **options):
        asked.update(options, batch=batches(0)[0], optimizer=optimizer)
        return History([])

    monkeypatch.setattr(recipes, "train", train)
    config = replace(TINY, repeats=0.25, lr=0.01)
    english.fit(english.model_of(config, 0), config, 5, stop_at=3)
    known = {tuple(row.tolist()) for row in recipes.windows(("factbook",), "train", 16, "prose-4k", start=True)}
    rows = [tuple(row.tolist()) for row in asked["batch"]]
    assert [row in known for row in rows] == [False, True, True, True]
    assert all(row[0] == START for row in rows)
    assert (asked["seed"], asked["steps"], asked["stop_at"]) == (5, 4, 3)
    assert type(asked["optimizer"]).__name__ == "Joined"
    assert asked["schedule"](4) == 0


class Uniform(nn.Module):
    """Gives each of 4,000 tokens the same chance."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, ids):
        return self.weight + torch.zeros(*ids.shape, 4000)


@pytest.mark.slow
def test_losses_are_of_each_source_and_bits_are_of_characters():
    losses = english.losses_by_source(Uniform(), TINY, every=97)
    assert list(losses) == list(SOURCES)
    assert all(part.mean().item() == pytest.approx(math.log(4000), rel=1e-5) for part in losses.values())
    few = {name: losses[name] for name in ("speeches", "factbook")}
    texts = [text for name in few for text in getattr(corpora, name)("validation")["text"]]
    tokens = sum(len(tokenization.load("prose-4k").encode(text)) + 1 for text in texts)  # each ends
    want = math.log2(4000) * tokens / sum(map(len, texts))
    assert english.bits_per_character(few, "prose-4k") == pytest.approx(want, rel=1e-5)


@pytest.mark.slow
def test_held_out_text_is_not_for_training():
    config = replace(TINY, max_positions=64)
    for name in ("speeches", "factbook"):
        seen = {tuple(row[1:].tolist()) for row in recipes.windows((name,), "train", 64, "prose-4k", start=True)}
        rows = english.held_out(name, config.max_positions, config.tokenizer)
        assert not any(tuple(row[1:].tolist()) in seen for row in rows)
        assert (rows[:, 0] == START).all()
        assert torch.equal(english.held_out(name, 64, "prose-4k", every=3), rows[::3])


@pytest.mark.slow
def test_an_arm_learns_and_is_judged(monkeypatch):
    asked = []
    real = english.losses_by_source
    monkeypatch.setattr(english, "SOURCES", {"factbook": "text"})
    monkeypatch.setattr(english, "losses_by_source", lambda *arguments: asked.append(arguments[2]) or real(*arguments))
    config = replace(TINY, max_positions=96)
    model, outcome = english.train_arm(asdict(config), 0, None, every=3)
    metrics = outcome.metrics
    assert asked == [3]
    assert 0 < metrics["factbook_loss"] < 8.4
    assert metrics["factbook_loss"] == pytest.approx(metrics["validation_loss"])
    assert 0 < metrics["bits_per_character"] < 4
    ids = heads.repeated(40, 32, range(260, 4000), 0, START)
    score = heads.induction(heads.attention_maps(model, ids), 40).max().item()
    assert metrics["induction"] == pytest.approx(score, abs=0.02)
    assert {"previous_token", "first_token", "train_seconds", "final_loss", "diverged"} < set(metrics)
    stopped = english.train_arm(asdict(config), 0, 2)[1]
    assert set(stopped.metrics) == {"train_seconds", "final_loss", "diverged"}
    assert len(stopped.curve["loss"]) == 2


@pytest.mark.slow
def test_the_table_of_pairs_counts_training_text_and_is_beaten():
    """The baseline of `kv_heads`, `gpt2_english` and the page of the recipe: 4.70 nats."""
    shipped = english.Config(**get_study("gpt2_english").arms["GPT-2"])
    losses = english.losses_by_source(english.table_of_pairs(shipped), shipped, every=2)
    table = torch.cat([part.flatten() for part in losses.values()]).mean().item()
    assert table == pytest.approx(4.70, abs=0.01)
    for name in ("kv_heads", "gpt2_english", "recipe_by_time"):
        assert all(run["metrics"]["validation_loss"] < table - 0.1 for run in load(name)["arms"])


def test_arms_of_the_search_change_what_their_names_say():
    base = SEARCH.arms["base"]
    changed = {
        name: {field for field, value in arm.items() if value != base[field] and field != "steps"}
        for name, arm in SEARCH.arms.items()
    }
    assert changed["base"] == set()
    assert changed["AdamW"] == {"optimizer"}
    assert changed["cosine to 5 %"] == {"schedule", "floor"}
    two = (",", "wide", "cosine")  # names that say two things
    assert all(len(fields) <= 1 + sum(map(name.count, two)) for name, fields in changed.items())


def test_the_page_of_the_recipe_has_todays_table():
    page = (ROOT / "docs" / "recipe.md").read_text("utf-8")
    assert table(load("recipe")) in page, "run `make lessons`"


@pytest.mark.slow
def test_the_vocabulary_of_all_texts_is_shorter():
    texts = [text for name, column in SOURCES.items() for text in getattr(corpora, name)("validation")[column]]
    ours, older = (
        sum(len(tokenization.load(name).encode(text)) for text in texts) for name in ("prose-4k", "english-4k")
    )
    assert 1 - ours / older == pytest.approx(0.09, abs=0.005)  # "9 % fewer"


def test_the_page_says_what_was_recorded():
    page = " ".join((ROOT / "docs" / "recipe.md").read_text("utf-8").split())
    loss = {run["name"]: run["metrics"]["validation_loss"] for run in load("recipe_by_time")["arms"]}
    assert f"it is at {loss['old, 20 minutes']:.2f} nats" in page
    assert f"The new one is at {loss['new, 10 minutes']:.2f} after **10 minutes**" in page
    assert f"at {loss['new, 30 minutes']:.2f} after **30**" in page
    assert loss["new, 10 minutes"] < loss["old, 20 minutes"]
    rows = json.loads((ROOT / "results" / "bench" / "gpt2_step.json").read_text("utf-8"))["rows"]
    speed = {row["dtype"]: (16 * 256 / row["seconds"], row["peak_share"]) for row in rows if row["name"] == "GPT2"}
    assert speed["float32"] == pytest.approx((5400, 0.64), rel=0.01)
    assert speed["bfloat16"] == pytest.approx((7800, 0.44), rel=0.01)
    metrics = load("gpt2_english")["arms"][0]["metrics"]
    assert f"{metrics['validation_loss']:.2f} nats a token over all sources" in page
    assert f"{metrics['bits_per_character']:.2f} bits a character" in page


def test_the_search_says_what_the_recipe_says():
    """Numbers beside `Recipe`'s fields and in its prose."""
    runs = load("recipe")["arms"]
    loss = {run["name"]: run["metrics"]["validation_loss"] for run in runs if run["seed"] == 0}
    adamw, ours = (min(loss[name] for name in loss if kind in name) for kind in ("AdamW", "Muon"))
    assert adamw - ours == pytest.approx(0.29, abs=0.005)
    assert loss["batch of 32"] - loss["base"] == pytest.approx(0.07, abs=0.005)
    assert loss["untied"] - loss["untied, RoPE"] == pytest.approx(0.14, abs=0.005)
    assert loss["base"] - loss["untied"] == pytest.approx(0.03, abs=0.005)
    assert loss["base"] - loss["128 wide"] == pytest.approx(0.42, abs=0.005)
    assert loss["base"] - loss["2 layers"] == pytest.approx(0.22, abs=0.005)
    seeds = [run["metrics"]["validation_loss"] for run in runs if run["name"] == "base"]
    assert max(seeds) - min(seeds) < 0.01  # "a difference of 0.02 counts"
    assert loss["batch of 8"] - loss["base"] == pytest.approx(0.02, abs=0.005)
    assert loss["base"] - loss["small writes"] == pytest.approx(0.11, abs=0.005)
    assert loss["Muon, 2x rate"] - loss["small writes, 2x rate"] == pytest.approx(0.07, abs=0.005)
    assert loss["base"] - loss["Muon, 2x rate"] == pytest.approx(0.05, abs=0.005)
    assert loss["small writes"] - loss["small writes, 2x rate"] == pytest.approx(0.02, abs=0.005)
