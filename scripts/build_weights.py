"""Train the weights of `data/weights/` again, each by the recorded study that it belongs to: `make weights`.

    python scripts/build_weights.py [NAME ...]        (default: all)

The run is recorded in results/ as the study's own. One that was killed goes on from its last checkpoint.
"""

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

from build_data import record as list_file
from course_lib.corpora import fashion_tensors
from course_lib.experiments import (
    english,
    get_study,
    load,
    masked_language,
    modernbert_english,
    norm_placement,
    positions,
    record,
)
from course_lib.models.residual_mlp import ResidualMLP
from course_lib.paths import shipped
from course_lib.pretrained import MODELS, Origin, save

CHECKPOINTS = Path("checkpoints")
TRAINED_BY = {
    "gpt2_english": english, "modernbert_english": modernbert_english, "sparse_bert_tiny": masked_language,
    "positions": positions,
}  # fmt: skip


def residual_mlp(made: Origin, config: dict[str, Any]) -> torch.nn.Module:
    """Train as the study `norm_dynamics` did, and compare with its record (whose traces are not made again here)."""
    arm = norm_placement.Config(**config)
    model = norm_placement.build(arm, made.seed)
    norm_placement.fit(model, arm, made.seed)
    runs = load(made.study)["arms"]
    (recorded,) = (a["metrics"] for a in runs if (a["name"], a["seed"]) == (made.arm, made.seed))
    print("now", norm_placement.evaluate(model, *fashion_tensors("test")), "recorded", recorded)
    return model


def recorded_while_trained(made: Origin, config: dict[str, Any]) -> torch.nn.Module:
    """Train and record in one: it takes a quarter of an hour or more."""
    study, start, folder = get_study(made.study), time.perf_counter(), CHECKPOINTS / made.study
    train_arm = TRAINED_BY[made.study].train_arm
    model, outcome = train_arm(config, made.seed, None, checkpoint_dir=folder, checkpoint_every=100)
    record.add(study, made.study, made.arm, made.seed, config, outcome, time.perf_counter() - start)
    shutil.rmtree(folder)
    print(outcome.metrics)
    return model


def main(names: list[str]) -> None:
    """Train, record or compare, save."""
    if unknown := sorted(set(names) - set(MODELS)):
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are {', '.join(MODELS)}")
    for name in names or MODELS:
        made = MODELS[name]
        torch.set_num_threads(get_study(made.study).threads)  # as the recorded run
        train = residual_mlp if made.model is ResidualMLP else recorded_while_trained
        model = train(made, dict(get_study(made.study).arms[made.arm]))
        path = save(name, model, shipped("data") / "weights")
        list_file([path])
        print("wrote", path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
