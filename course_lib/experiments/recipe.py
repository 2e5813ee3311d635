"""The search behind the course's recipe for language models: one change at a time, all arms for equal seconds."""

from typing import Any

from course_lib.experiments.english import arm, train_arm
from course_lib.experiments.record import Record
from course_lib.experiments.study import Outcome, Study

EVERY = 8  # this part of the held-out windows


def run(config: dict[str, Any], seed: int, stop_at: int | None) -> Outcome:
    """Train one arm, and judge it on an eighth of the held-out windows."""
    return train_arm(config, seed, stop_at, EVERY)[1]


# name -> how it differs from the first. Steps are what 300 s of one core, beside another arm, have room for. Speed was
# measured beforehand: with AVX2 a step of the first takes 1.16 s.
CHANGES: dict[str, dict[str, Any]] = {
    "base": {"steps": 259},
    "Muon, 2x rate": {"steps": 259, "lr": 6e-3},
    "Muon, 4x rate": {"steps": 259, "lr": 1.2e-2},
    "AdamW": {"steps": 368, "optimizer": "adamw"},
    "batch of 8": {"steps": 442, "batch_size": 8},
    "192 wide": {"steps": 456, "d_model": 192, "n_heads": 6},
    "small writes": {"steps": 259, "write_scale": 0.01},
    "small writes, 2x rate": {"steps": 259, "write_scale": 0.01, "lr": 6e-3},
    "AdamW, half rate": {"steps": 368, "optimizer": "adamw", "lr": 1.5e-3},
    "AdamW, 2x rate": {"steps": 368, "optimizer": "adamw", "lr": 6e-3},
    "batch of 32": {"steps": 145, "batch_size": 32},
    "windows of 256, 8 of them": {"steps": 250, "max_positions": 256, "batch_size": 8},
    "128 wide": {"steps": 877, "d_model": 128, "n_heads": 4},
    "96 wide": {"steps": 1150, "d_model": 96, "n_heads": 3},
    "2 layers": {"steps": 426, "n_layers": 2},
    "6 layers": {"steps": 172, "n_layers": 6},
    "untied": {"steps": 275, "tied": False, "position": "learned"},
    "untied, RoPE": {"steps": 263, "tied": False, "position": "rope"},
    "cosine to 5 %": {"steps": 259, "schedule": "cosine", "floor": 0.05},
    "vocabulary of speeches": {"steps": 259, "tokenizer": "english-4k"},
}

STUDY = Study(
    name="recipe",
    question=(
        "Which decoder, optimizer, batch and schedule give the lowest held-out loss after equal seconds on two cores, "
        "without a GPU?"
    ),
    prediction=(
        "After one pilot each of Muon (5.47 nats) and AdamW (5.92), both at 0.003 with batches of 32 for 150 s of one "
        "core: (1) Muon at its best rate is at least 0.2 nats below AdamW at its best, though its step takes 1.4 times "
        "as long. (2) Batches of 8 are better than of 16, of 32 worse. (3) 192 wide is better than 256 wide and than "
        "128 wide at 300 s; 256 wide is the choice for an hour. (4) RoPE is at least 0.05 nats below learned places. "
        "(5) Untied embeddings are worse than tied ones. (6) Windows of 256 are worse. (7) The vocabulary of all "
        "texts needs fewer bits a character than that of the speeches, by at least 3 %. (8) Cosine and linear differ "
        "by less than 0.03 nats; dropout costs at least 0.05. (9) 300 s are too few for induction heads in any arm, "
        "with repeated spans too. Added after the first four arms, of which Muon at 0.006 was the best, 4.89 nats: the "
        "writes of the blocks begin ten times as large as the embeddings (a pilot of two layers without MLPs formed "
        "induction heads in 200 steps with writes of a hundredth, in none of 500 without); (10) writes of a hundredth "
        "are at least 0.1 nats better at equal rates."
    ),
    arms={name: arm(**{"lr": 3e-3, "warmup": 20, "write_scale": 1.0} | changes) for name, changes in CHANGES.items()},
    run=run,
    seeds=1,
    more_seeds={"base": 3},
)


def table(record: Record) -> str:
    """The recorded search as a Markdown table, best first by bits a character: all vocabularies are equal there."""
    runs = [run for run in record["arms"] if run["seed"] == 0]
    runs.sort(key=lambda run: run["metrics"]["bits_per_character"])
    rows = ["| arm | steps | parameters | loss, nats a token | bits a character |", "|---|---|---|---|---|"]
    for run in runs:
        loss, bits = (run["metrics"][name] for name in ("validation_loss", "bits_per_character"))
        rows.append(f"| {run['name']} | {run['config']['steps']} | {run['params']:,} | {loss:.3f} | {bits:.3f} |")
    return "\n".join(rows) + "\n"
