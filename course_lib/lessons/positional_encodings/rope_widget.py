"""The widget of RoPE: a query and a key under sliders, and one slider that moves both."""

from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
import numpy as np
from numpy.typing import ArrayLike

from course_lib.lessons.positional_encodings.rope_frame import (
    SPAN,
    RopeFrame,
    example_vectors,
    plot_rope_frame,
    rope_frame,
)
from course_lib.viz.widgets import ControlPanel

THETAS = (10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0)


def rope_panel(
    q: ArrayLike | None = None, k: ArrayLike | None = None, thetas: Sequence[float] = THETAS
) -> ControlPanel:
    """Explore `rope_frame`: sliders for the positions of query and key, one that moves both, the pair, and theta.

    q and k (head_dim,) are a query and a key before the turn; None is `example_vectors`. Raises ValueError for only
    one of them, other shapes, and thetas that are empty or not above 1.
    """
    if (q is None) != (k is None):
        raise ValueError("q and k: one of them is None; give both, or none")
    query, key = example_vectors() if q is None or k is None else (np.asarray(q, float), np.asarray(k, float))
    if not thetas or min(thetas) <= 1:
        raise ValueError(f"thetas={tuple(thetas)}; needed is at least one, all above 1")
    start = 10_000.0 if 10_000.0 in thetas else thetas[0]
    rope_frame(0, 0, 0, start, q=query, k=key)  # refuses what cannot be, before there is a widget
    style, layout = {"description_width": "initial"}, widgets.Layout(width="300px")

    def slider(description: str, value: int, high: int) -> widgets.IntSlider:
        return widgets.IntSlider(value=value, min=0, max=high, description=description, style=style, layout=layout)

    controls: dict[str, Any] = {
        "q_pos": slider("query at m", 12, SPAN),
        "k_pos": slider("key at n", 7, SPAN),
        "shift": slider("move both by", 0, SPAN),
        "pair": slider("pair", 1 if len(query) > 2 else 0, len(query) // 2 - 1),
        "theta": widgets.SelectionSlider(
            options=[(f"{theta:,.0f}", theta) for theta in thetas], value=start, description="theta", style=style,
            layout=layout,
        ),
    }  # fmt: skip

    def compute(q_pos: int, k_pos: int, shift: int, pair: int, theta: float) -> RopeFrame:
        return rope_frame(q_pos + shift, k_pos + shift, pair, theta, q=query, k=key)

    return ControlPanel(compute, plot_rope_frame, controls)
