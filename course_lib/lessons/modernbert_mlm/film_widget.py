"""The film of the first steps on the page: drawn while the model trains, and under a slider afterwards."""

from collections.abc import Callable

import ipywidgets as widgets

from course_lib.checks import check_at_least
from course_lib.lessons.modernbert_mlm.film import Film, film_frame, plot_film
from course_lib.viz.widgets import ControlPanel, live_image


def live_picture(every: int = 2) -> tuple[widgets.Image, Callable[[Film], None]]:
    """A picture to display, and the function that draws every `every`-th frame of a film into it: `Film(show=...)`."""
    check_at_least("every", every, 1)
    picture, put = live_image()

    def show(film: Film) -> None:
        if len(film.steps) % every == 1 % every:
            put(plot_film(film_frame(film, film.steps[-1])))

    return picture, show


def film_panel(film: Film) -> ControlPanel:
    """A slider over the training steps; it opens where the loss first falls below that of single tokens' frequencies.

    Raises ValueError for a film without frames.
    """
    film_frame(film, film.steps[0] if film.steps else 0)
    at = next((i for i, loss in enumerate(film.losses) if loss < film.tables.unigram), len(film.steps) - 1)
    step = widgets.SelectionSlider(
        options=film.steps, value=film.steps[at], description="step", layout=widgets.Layout(width="60%")
    )
    return ControlPanel(lambda step: film_frame(film, step), plot_film, {"step": step})
