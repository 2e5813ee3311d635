"""The study of vocabulary sizes: its arms, equal seconds, its baseline, and that its first steps can be made again."""

import math
from dataclasses import asdict, replace

import pytest
import torch

from course_lib import corpora, tokenization
from course_lib.evaluation import next_token_losses
from course_lib.experiments import vocabulary_size as study
from course_lib.models.bigram import KneserNeyBigram

TINY = replace(
    study.Config(**study.arm("en", "bpe", 500)), sentences=600, steps=4, warmup=1, d_model=16, n_heads=2, n_layers=1,
    max_positions=16,
)  # fmt: skip


def test_arms_have_equal_seconds_and_no_other_difference():
    trained = {name: config for name, config in study.ARMS.items() if config["steps"]}
    assert len(trained) == 10
    for name, config in trained.items():
        seconds = config["steps"] * study.STEP_SECONDS[config["vocab_size"]]
        assert seconds == pytest.approx(study.SECONDS, rel=0.01)
        assert name == f"{config['language']} {config['model_type']} {config['vocab_size']}"
        assert config["share"] == 1
    varied = {"language", "model_type", "vocab_size", "steps", "share"}
    same = [{k: v for k, v in config.items() if k not in varied} for config in study.ARMS.values()]
    assert all(config == same[0] for config in same)
    assert all(c["share"] < 1 for c in study.ARMS.values() if not c["steps"])


def test_the_sparse_bigram_is_the_librarys():
    ids = torch.randint(0, 30, (40, 9), generator=torch.Generator().manual_seed(0))
    train, held_out = ids[:30] // 2, ids[30:]
    counts = torch.zeros(30 * 30).index_add(
        0, (train[:, :-1] * 30 + train[:, 1:]).flatten(), torch.ones(train[:, 1:].numel())
    )
    want = next_token_losses(KneserNeyBigram(counts.view(30, 30)), held_out).mean().item()
    assert study.kneser_ney_nats(train, held_out, 30) == pytest.approx(want, rel=1e-5)


def test_a_share_is_drawn_by_the_seed_and_the_whole_is_not():
    part = replace(TINY, share=0.5, steps=0)
    models = [study.vocabulary_of(part, seed).model for seed in (0, 1)]
    assert models[0] != models[1]
    assert study.vocabulary_of(TINY, 0) is study.vocabulary_of(TINY, 1)


def test_a_run_is_judged_in_bits_of_a_character(monkeypatch):
    texts = list(corpora.sentence_pairs("validation")["en"][:200])
    real = study.texts_of
    monkeypatch.setattr(study, "texts_of", lambda c, split: texts if split == "validation" else real(c, split))
    outcome = study.run(asdict(TINY), 0, None)
    metrics, tokenizer = outcome.metrics, study.vocabulary_of(TINY, 0)
    tokens = sum(len(tokenizer.encode(text)) + 1 for text in texts)
    bits = metrics["validation_loss"] / math.log(2) * tokens
    assert metrics["bits_per_character"] == pytest.approx(bits / sum(map(len, texts)))
    assert metrics["bits_per_sentence"] == pytest.approx(bits / len(texts))
    assert metrics["bigram_bits_per_character"] < metrics["bits_per_character"]  # four steps teach little
    assert metrics["bigram_bits_per_character"] < metrics["unigram_bits_per_character"]
    windows = study.windows(TINY, tokenizer, "validation")
    assert windows.shape[1] == TINY.max_positions + 1
    assert tokenization.END in windows
    assert len(outcome.curve["loss"]) == 4
    again = study.run(asdict(TINY), 0, 2)
    assert again.curve["loss"] == outcome.curve["loss"][:2]
    assert "bits_per_character" not in again.metrics


def test_an_arm_without_steps_is_a_vocabulary_alone():
    outcome = study.run(asdict(replace(TINY, steps=0, share=0.5)), 1, None)
    assert outcome.params == 0
    assert outcome.curve == {"step": [], "loss": []}
    assert set(outcome.metrics) == {"characters_per_token", "fertility", "single_share", "unigram_bits_per_character"}
