"""Positional schemes: how a model is told the order of its tokens. `Position` has the four hooks."""

from course_lib.positions.absolute import LearnedPosition, SinusoidalPosition
from course_lib.positions.base import Position

__all__ = ["LearnedPosition", "Position", "SinusoidalPosition"]
