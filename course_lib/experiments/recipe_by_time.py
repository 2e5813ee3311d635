"""The old recipe and the new one at equal time, on the same text: what the search was good for."""

from typing import Any

from course_lib.experiments.english import arm, train_arm
from course_lib.experiments.study import Outcome, Study

# The recipe of the course's first GPT-2.
OLD = {
    "optimizer": "adamw", "lr": 3e-3, "warmup": 200, "batch_size": 8, "schedule": "cosine", "floor": 0.05,
    "write_scale": 1.0, "dropout": 0.1, "d_model": 128, "n_heads": 4,
}  # fmt: skip
# name -> minutes of one core, and how the arm differs from `Recipe`. Steps are what that time has room for on one core
# of an AMD EPYC with AVX-512, measured beforehand: 0.123 s an old step, 0.48 s one 192 wide, 0.85 s one 256 wide.
TIMED: dict[str, tuple[int, dict[str, Any]]] = {
    "old, 20 minutes": (20, OLD | {"steps": 9760}),
    "new, 10 minutes": (10, {"steps": 1240, "d_model": 192, "n_heads": 6}),
    "new, 30 minutes": (30, {"steps": 2120}),
}


def run(config: dict[str, Any], seed: int, stop_at: int | None) -> Outcome:
    """Train one arm, and judge it on half of the held-out windows."""
    return train_arm(config, seed, stop_at, every=2)[1]


STUDY = Study(
    name="recipe_by_time",
    question="What does the new recipe reach in 10 and 30 minutes of one core, and what did the old one in 20?",
    prediction=(
        "(1) The new recipe after 10 minutes is at least 0.2 nats below the old one after 20. (2) After 30 minutes the "
        "new one lies between 3.7 and 3.9 nats; the shipped model, with 92 minutes of both cores, has 3.50. (3) No arm "
        "has an induction head (0.3): none of them sees repeated spans on purpose."
    ),
    arms={name: arm(**changes) for name, (_, changes) in TIMED.items()},
    run=run,
    seeds=1,
)
