"""How many key and value heads a GPT-2 needs, at equal parameters."""

from typing import Any

import torch

from course_lib.experiments.language import arm, train_arm
from course_lib.experiments.study import Outcome, Study
from course_lib.models.gpt2 import GPT2

# d_ff takes up what the smaller key and value projections leave: parameters equal to less than 0.1 %.
KV_HEADS = {"MHA, 8 key heads": (8, 512), "GQA, 2 key heads": (2, 608), "MQA, 1 key head": (1, 624)}


@torch.no_grad()
def cache_bytes(model: GPT2) -> int:
    """Bytes of all layers' caches for one text of max_positions tokens, measured from their tensors."""
    caches = model.new_caches()
    device = next(model.parameters()).device
    model.eval()(torch.zeros(1, model.config.max_positions, dtype=torch.long, device=device), caches)
    return sum(cache.bytes() for cache in caches)


def run(config: dict[str, Any], seed: int, stop_at: int | None) -> Outcome:
    """Train one arm, and measure its cache."""
    model, outcome = train_arm(config, seed, stop_at)
    outcome.metrics = dict(outcome.metrics) | {"cache_bytes": float(cache_bytes(model))}
    return outcome


STUDY = Study(
    name="kv_heads",
    question=(
        "What do fewer key and value heads cost in loss, and save in cache, when the MLP is widened until all networks "
        "have the same number of parameters?"
    ),
    prediction=(
        "After Shazeer 2019 and Ainslie et al. 2023: (1) validation loss is ordered MHA < GQA < MQA, but with the "
        "parameters given back to the MLP the gap of MQA is small: below 0.05 nats; (2) GQA with 2 of 8 heads lies "
        "within 0.02 nats of MHA; (3) the cache shrinks exactly as the number of key heads: to 1/4 and 1/8. (4) With "
        "three seeds the interval of GQA's gap includes 0."
    ),
    arms={
        name: arm(**RECIPE, n_kv_heads=n_kv_heads, d_ff=d_ff)
        for RECIPE in ({"lr": 3e-3, "warmup": 75, "steps": 600, "batch_size": 16},)
        for name, (n_kv_heads, d_ff) in KV_HEADS.items()
    },
    run=run,
)
