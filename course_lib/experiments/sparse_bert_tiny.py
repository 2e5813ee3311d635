"""The small SparseBert that ships with the course: how it was trained, and how good it is on held-out speeches."""

from course_lib.experiments.masked_language import arm, run
from course_lib.experiments.study import Study

STUDY = Study(
    name="sparse_bert_tiny",
    question=(
        "How well does a local encoder of 1.3 million parameters, each token of which sees four neighbours on either "
        "side, fill gaps in held-out speeches after 8,000 steps?"
    ),
    prediction=(
        "Pilots of 600 steps with one seed: full attention and a radius of 8 stayed near the loss of word frequencies "
        "(6.3), a radius of 2 reached 5.5. (1) With 15 % of the tokens hidden the perplexity on the validation "
        "speeches is below 108, that of a Kneser-Ney bigram which sees the true token before. (2) It stays above that "
        "of a two-sided bigram, P(token | before) P(after | token), which sees both true neighbours. (3) At least a "
        "quarter of the heads put more than half of their weight on one neighbour, the token before or the token after."
    ),
    arms={
        "SparseBert tiny": arm(lr=2e-3, warmup=200, steps=8000, batch_size=8, pattern="local", radius=4),
    },
    run=run,
    seeds=1,
)
