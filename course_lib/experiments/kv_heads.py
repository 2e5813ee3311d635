"""How many key and value heads a GPT-2 needs, at equal parameters."""

from typing import Any

import torch

from course_lib.experiments.english import arm, train_arm
from course_lib.experiments.study import Outcome, Study
from course_lib.models.gpt2 import GPT2

# d_ff takes up what the smaller key and value projections leave: parameters equal to less than 0.1 %.
KV_HEADS = {"MHA, 8 key heads": (8, 768), "GQA, 2 key heads": (2, 912), "MQA, 1 key head": (1, 936)}


@torch.no_grad()
def cache_bytes(model: GPT2) -> int:
    """Bytes of all layers' caches for one text of max_positions tokens, measured from their tensors."""
    caches = model.new_caches()
    device = next(model.parameters()).device
    model.eval()(torch.zeros(1, model.config.max_positions, dtype=torch.long, device=device), caches)
    return sum(cache.bytes() for cache in caches)


def run(config: dict[str, Any], seed: int, stop_at: int | None) -> Outcome:
    """Train one arm, and measure its cache."""
    model, outcome = train_arm(config, seed, stop_at, every=2)
    assert isinstance(model, GPT2)
    outcome.metrics = dict(outcome.metrics) | {"cache_bytes": float(cache_bytes(model))}
    return outcome


STUDY = Study(
    name="kv_heads",
    question=(
        "What do fewer key and value heads cost in loss, and save in cache, when the MLP is widened until all networks "
        "have the same number of parameters?"
    ),
    prediction=(
        "After Shazeer 2019 and Ainslie et al. 2023: (1) all nine networks end below the Kneser-Ney bigram table "
        "counted on the same text, 4.70 nats; (2) validation loss is ordered MHA < GQA < MQA, but with the parameters "
        "given back to the MLP the gap of MQA to MHA is below 0.05 nats; (3) GQA with 2 of 8 heads lies within 0.02 "
        "nats of MHA; (4) the intervals of both gaps over three seeds are at most 0.03 nats to each side; (5) the "
        "cache shrinks exactly as the number of key heads: to 1/4 and 1/8."
    ),
    arms={
        name: arm(steps=900, d_model=192, n_heads=8, n_kv_heads=n_kv_heads, d_ff=d_ff)
        for name, (n_kv_heads, d_ff) in KV_HEADS.items()
    },
    run=run,
)
