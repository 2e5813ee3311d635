"""Positional schemes: how a model is told the order of its tokens. `Position` has the four hooks."""

from course_lib.positions.absolute import LearnedPosition, SinusoidalPosition
from course_lib.positions.alibi import AlibiPosition
from course_lib.positions.base import Position
from course_lib.positions.make import POSITIONS, make, spread
from course_lib.positions.relative import ShawPosition, T5Position
from course_lib.positions.rope import RotaryPosition

__all__ = [
    "POSITIONS", "AlibiPosition", "LearnedPosition", "Position", "RotaryPosition", "ShawPosition",
    "SinusoidalPosition", "T5Position", "make", "spread",
]  # fmt: skip
