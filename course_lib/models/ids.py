"""What every model of tokens asks of its input."""

import torch
from torch import Tensor

from course_lib.checks import kind_of


def check_ids(ids: object) -> None:
    """Raise ValueError unless `ids` is a tensor (B, T) of int64 or int32."""
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"ids is {kind_of(ids)}; needed is int64 or int32 (B, T)")
