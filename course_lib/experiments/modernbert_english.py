"""The small ModernBERT that ships with the course: how it was trained, and how good it is on held-out documents."""

from course_lib.experiments.masked_english import arm, run
from course_lib.experiments.study import Study

STUDY = Study(
    name="modernbert_english",
    question=(
        "How well does a ModernBERT of 2.7 million parameters fill gaps in held-out English after an hour and a "
        "quarter on one core: better than a table that sees both true neighbours?"
    ),
    prediction=(
        "Written on 30 November 2026, before the run. Pilots of 250 steps with 30 % hidden reached a training loss "
        "of 4.60 with a window of 8 tokens to either side and 4.66 with 16; 4.79 with twice the rate. The table, a "
        "two-sided bigram of Kneser-Ney's counts, has 3.38 nats on the speeches, a perplexity of 29, and from 2.9 "
        "to 3.5 on the other sources. With 15 % hidden: (1) the model's perplexity on the speeches is below 24, "
        "that is 3.18 nats. (2) Its loss is below the table's on each of the five sources. (3) It is lowest on "
        "everyday sentences. (4) It still falls in the last tenth of the training, and the training loss, with 30 % "
        "hidden, ends above that of the held-out speeches with 15 %. (5) Of 40 common-sense gaps written beforehand "
        "it fills at least 20 as a person would. (6) At least one head of a local layer puts more than half of its "
        "weight on one neighbour."
    ),
    arms={"ModernBERT": arm(steps=8000, warmup=100, local_attention=16)},
    run=run,
    seeds=1,
)
