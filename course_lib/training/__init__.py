"""Training: one loop with exact resume, schedules, losses, and the recipe of the course's language models."""

from course_lib.training.history import History
from course_lib.training.loop import train
from course_lib.training.losses import LossFn, classification_loss, next_token_loss
from course_lib.training.recipes import by_recipe, no_decay, optimise, windows
from course_lib.training.schedules import Schedule, constant, cosine, linear

__all__ = [
    "History",
    "LossFn",
    "Schedule",
    "by_recipe",
    "classification_loss",
    "constant",
    "cosine",
    "linear",
    "next_token_loss",
    "no_decay",
    "optimise",
    "train",
    "windows",
]
