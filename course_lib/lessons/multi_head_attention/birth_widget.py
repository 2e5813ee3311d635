"""The birth of an induction head on the page: drawn while it trains, and under a slider afterwards."""

from collections.abc import Callable

import ipywidgets as widgets

from course_lib.lessons.multi_head_attention.induction_birth import Film, birth_frame, plot_birth
from course_lib.viz.widgets import ControlPanel, live_image


def live_picture(every: int = 2) -> tuple[widgets.Image, Callable[[Film], None]]:
    """A picture to display, and the function that draws every `every`-th frame of a film into it: `Film(show=...)`."""
    picture, put = live_image()

    def show(film: Film) -> None:
        if len(film.frames) % every == 1 % every:
            put(plot_birth(birth_frame(film, film.steps[-1])))

    return picture, show


def birth_panel(film: Film) -> ControlPanel:
    """A slider over the training steps of a film; it opens on the last step before half of the repeats are right.

    Raises ValueError for a film without frames.
    """
    birth_frame(film, film.steps[0] if film.steps else 0)
    right = film.column("right")
    before = max(0, next((i for i, share in enumerate(right) if share > 0.5), len(right)) - 1)
    step = widgets.SelectionSlider(
        options=film.steps, value=film.steps[before], description="step", continuous_update=True,
        layout=widgets.Layout(width="60%"),
    )  # fmt: skip
    return ControlPanel(lambda step: birth_frame(film, step), plot_birth, {"step": step})
