"""Lesson 01's question again, in a transformer: where the norm stands, and what learning rate it bears."""

from course_lib.experiments.language import arm, run
from course_lib.experiments.study import Study

LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2)

STUDY = Study(
    name="gpt2_norm_placement",
    question=(
        "In an 8-layer GPT-2 on English speeches, which learning rates can be used with the norm before each part, and "
        "which with the norm after the addition?"
    ),
    prediction=(
        "From lesson 01, where post-norm bore a thirtieth of pre-norm's rate: (1) the best learning rate of post-norm "
        "is at least three times smaller than pre-norm's; (2) at 0.01 post-norm does not get below a unigram table "
        "(6.3 nats), pre-norm does; (3) at each one's best rate pre-norm has the lower validation loss, by less than "
        "0.2 nats."
    ),
    arms={
        f"{placement}-norm lr={lr:g}": arm(
            lr=lr, warmup=30, steps=250, batch_size=8, placement=placement, n_layers=8, d_model=96, n_heads=6,
            max_positions=96, dropout=0.0,
        )
        for placement in ("pre", "post")
        for lr in LEARNING_RATES
    },
    run=run,
)  # fmt: skip
