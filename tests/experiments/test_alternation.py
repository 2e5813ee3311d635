"""The study of alternation: what its arms differ in, which layers are made local, and what is measured."""

from dataclasses import asdict, replace

import pytest
import torch

from course_lib.experiments import alternation, masked_english
from course_lib.experiments.alternation import STUDY, Config, without_global
from course_lib.features import record_attention

TINY = Config(
    steps=2, warmup=1, batch_size=2, tokenizer="english-4k", length=128, d_model=16, n_heads=2, n_layers=6,
    n_questions=2, local_attention=8,
)  # fmt: skip


def test_arms_differ_in_what_their_names_say():
    first = next(iter(STUDY.arms.values()))
    for config in STUDY.arms.values():
        assert {field for field in config if config[field] != first[field]} <= {"global_every"}
    assert [config["global_every"] for config in STUDY.arms.values()] == [1, 3, 6, None]
    assert (first["n_layers"], first["local_attention"]) == (alternation.LAYERS, 2 * alternation.RADIUS)


def test_layers_that_are_made_local_see_near_and_keep_their_weights():
    model = masked_english.model_of(TINY, 0).eval()
    ids = torch.randint(4000, (1, 100))
    near = (torch.arange(100)[:, None] - torch.arange(100)).abs() <= 4
    for removed in ((0,), (3,), (0, 3)):
        other = without_global(model, removed)
        with record_attention(other) as seen:
            other(ids)
        wide = [i for i, weights in enumerate(seen.values()) if (weights[..., ~near] > 0).any()]
        assert wide == [i for i in (0, 3) if i not in removed]
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))
        assert other.encoder.blocks[0].attention.position.theta == 160_000.0


@pytest.mark.slow
@pytest.mark.parametrize(("global_every", "removed"), [(3, {"0", "3", "0_3"}), (1, set()), (None, set()), (6, set())])
def test_a_search_is_judged_by_distance_and_without_its_global_layers(monkeypatch, global_every, removed):
    monkeypatch.setattr(alternation.retrieval, "HELD_OUT_BATCHES", 1)
    config = asdict(replace(TINY, global_every=global_every))
    metrics = alternation.run(config, 0, None).metrics
    names = {name for name in metrics if "without" in name}
    assert names == {f"far_without_{name}" for name in removed}
    assert {"accuracy", "accuracy_near", "accuracy_far", "accuracy_1_16", "cpu_seconds_per_step"} < set(metrics)
    assert set(alternation.run(config, 0, 1).metrics) == {"final_loss", "diverged", "cpu_seconds_per_step"}
