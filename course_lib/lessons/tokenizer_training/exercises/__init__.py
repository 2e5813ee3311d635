"""Checks for lesson 06, tokenizer training."""

from course_lib.lessons.tokenizer_training.exercises.lattice import VITERBI, WEIGHTS, cuts_like, viterbi, weights
from course_lib.lessons.tokenizer_training.exercises.merges import BEST_PAIR, ENCODE, best_pair, encode, encodes_like
from course_lib.lessons.tokenizer_training.exercises.whole import BITS, bits, vocabulary

__all__ = [
    "BEST_PAIR",
    "BITS",
    "ENCODE",
    "VITERBI",
    "WEIGHTS",
    "best_pair",
    "bits",
    "cuts_like",
    "encode",
    "encodes_like",
    "viterbi",
    "vocabulary",
    "weights",
]
