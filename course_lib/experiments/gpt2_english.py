"""The small GPT-2 that ships with the course: how it was trained, and how good it is on held-out documents."""

from course_lib.experiments.english import arm, run
from course_lib.experiments.study import Study

STUDY = Study(
    name="gpt2_english",
    question=(
        "How well does a GPT-2 of 4.2 million parameters predict held-out English after an hour and a half "
        "on two cores, and what do its heads do?"
    ),
    prediction=(
        "(1) Its perplexity on held-out windows of all five sources is below 66, 0.6 of that of the Kneser-Ney bigram "
        "table counted on all training text (4.70 nats). (2) At least one head puts more than half of its weight on "
        "the previous token. (3) At least one head puts more than half on the first token, which is <s> in every "
        "window. (4) At least one head has an induction score above 0.3: one window of eight repeats a span of its own "
        "text. (5) Most heads can be removed at a cost below 0.02 nats each. Written after the first arms of the "
        "study `recipe`. The run was planned for 4,000 steps and stopped at 3,600, when the machine turned out slower: "
        "the same line down, which ends at 4/39 of the rate."
    ),
    arms={"GPT-2": arm(steps=3600, floor=4 / 39, warmup=100, max_positions=256, repeats=0.125)},
    run=run,
    seeds=1,
    threads=2,
)
