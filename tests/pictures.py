"""Is a saved picture the one that the code draws today?"""

import io
from importlib.metadata import version

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT

PINNED = f"matplotlib=={version('matplotlib')}" in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
with_the_pinned_matplotlib = pytest.mark.skipif(not PINNED, reason="another matplotlib puts the ink elsewhere")


def same_picture(drawn: bytes, saved: bytes) -> bool:
    """Whether two PNG files show the same; rounding, on another processor, may change a few pixels."""
    one, other = (np.asarray(Image.open(io.BytesIO(data)).convert("L"), int) for data in (drawn, saved))
    return one.shape == other.shape and bool((np.abs(one - other) > 40).sum() < 10)
