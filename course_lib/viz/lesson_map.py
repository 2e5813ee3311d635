"""The map of lessons, drawn."""

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib.lessons import LESSONS, PARTS, Lesson
from course_lib.viz.boxes import canvas, draw_arrow, draw_box
from course_lib.viz.plots import GREY, OKABE_ITO

WIDTH, HEIGHT, ROW = 2.2, 0.86, 1.06  # of a box, and from one row to the next, in inches


def plot_lesson_map() -> Figure:
    """Lessons as boxes, one column a part of the course: full colour is there to take, a dashed border is planned."""
    columns = {part: [lesson for lesson in LESSONS if lesson.part == part] for part in PARTS}
    top = ROW * max(map(len, columns.values())) - 0.12
    figure, ax = canvas(10.0, top + 0.4)
    for column, ((part, lessons), color) in enumerate(zip(columns.items(), OKABE_ITO, strict=False)):
        left = 0.1 + column * 2.55
        ax.text(left, top + 0.18, part, fontweight="bold", color=color, fontsize="medium", va="center")
        if column:
            draw_arrow(ax, (left - 0.32, top + 0.18), (left - 0.06, top + 0.18))
        for row, lesson in enumerate(lessons):
            _draw_lesson(ax, lesson, left, top - ROW * row - HEIGHT, color)
    return figure


def _draw_lesson(ax: Axes, lesson: Lesson, left: float, bottom: float, color: str) -> None:
    draw_box(ax, (left, bottom), (WIDTH, HEIGHT), color, filled=lesson.ready)
    top = bottom + HEIGHT
    ink = "black" if lesson.ready else GREY
    title = f"{lesson.number:02d}  {lesson.title}"
    ax.text(left + 0.09, top - 0.16, title, fontsize=8.5, fontweight="bold", va="center", color=ink)
    ax.text(left + 0.09, top - 0.31, "\n".join(textwrap.wrap(lesson.question, 33)), fontsize=7.5, va="top", color=ink)
    after = "after " + ", ".join(f"{n:02d}" for n in lesson.after) if lesson.after else ""
    ready = f"{lesson.minutes} minutes" if lesson.ready else "planned"
    ax.text(left + 0.09, bottom + 0.1, " · ".join(filter(None, (ready, after))), fontsize=7, va="center", color=GREY)
