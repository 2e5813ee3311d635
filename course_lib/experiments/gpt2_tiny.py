"""The small GPT-2 that ships with the course: how it was trained, and how good it is on held-out speeches."""

from course_lib.experiments.language import arm, run
from course_lib.experiments.study import Study

STUDY = Study(
    name="gpt2_tiny",
    question=(
        "How well does a GPT-2 of 1.3 million parameters predict held-out speeches after 8,000 steps, and what do its "
        "heads do?"
    ),
    prediction=(
        "(1) Its perplexity on the validation speeches is below 90; a Kneser-Ney bigram counted on the training "
        "speeches has 108. (2) At least one head puts more than half of its weight on the previous token. (3) At least "
        "a quarter of the heads put more than half on the first token. (4) No head has an induction score above 0.3: "
        "eight million tokens are too few. (5) Most heads can be removed at a cost below 0.02 nats each. Written after "
        "a first, larger network (192 wide, 6 layers, windows of 256, half of its text everyday sentences) was stopped "
        "at step 1,700 with a perplexity of 120; by then none of its heads looked at the previous token (0.09 at most)."
    ),
    arms={
        "GPT-2 tiny": arm(
            lr=3e-3, warmup=200, steps=8000, batch_size=8, max_positions=128, d_model=128, n_heads=4, n_layers=4
        )
    },
    run=run,
    seeds=1,
)  # fmt: skip
