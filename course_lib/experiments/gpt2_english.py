"""The small GPT-2 that ships with the course: how it was trained, and how good it is on held-out documents."""

from course_lib.experiments.english import arm, run
from course_lib.experiments.study import Study

STUDY = Study(
    name="gpt2_english",
    question=(
        "How well does a GPT-2 of 4.2 million parameters predict held-out English after about 75 minutes on "
        "two cores, and what do its heads do?"
    ),
    prediction=(
        "(1) Its perplexity on held-out windows of all five sources is below 66, 0.6 of that of the Kneser-Ney bigram "
        "table counted on all training text (4.70 nats). (2) At least one head puts more than half of its weight on "
        "the previous token. (3) At least one head puts more than half on the first token, which is <s> in every "
        "window. (4) At least one head has an induction score above 0.3: one window of eight repeats a span of its own "
        "text. (5) Most heads can be removed at a cost below 0.02 nats each. Written after the first arms of the "
        "study `recipe`."
    ),
    arms={
        "GPT-2": arm(lr=6e-3, warmup=100, steps=4000, batch_size=16, max_positions=256, repeats=0.125, write_scale=0.01)
    },
    run=run,
    seeds=1,
    threads=2,
)
