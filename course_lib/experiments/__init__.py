"""Recorded studies: one file a study, run by `python -m course_lib.experiments NAME`, read by the notebooks."""

from course_lib.experiments.record import as_frame, load, load_tensors
from course_lib.experiments.study import STUDIES, Outcome, Study, get_study

__all__ = ["STUDIES", "Outcome", "Study", "as_frame", "get_study", "load", "load_tensors"]
