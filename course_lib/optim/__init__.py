"""Optimizers that the course teaches or needs, beside those of torch."""

from course_lib.optim.joined import Joined
from course_lib.optim.muon import Muon, newton_schulz, split_params

__all__ = ["Joined", "Muon", "newton_schulz", "split_params"]
