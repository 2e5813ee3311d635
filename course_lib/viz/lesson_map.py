"""The map of lessons, drawn."""

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from course_lib.lessons import LESSONS, PARTS, Lesson
from course_lib.viz.plots import GREY, OKABE_ITO, new_figure

WIDTH, HEIGHT, ROW = 2.2, 0.86, 1.06  # of a box, and from one row to the next, in inches


def plot_lesson_map() -> Figure:
    """Lessons as boxes, one column a part of the course: full colour is there to take, a dashed border is planned."""
    rows = max(len(numbers) for numbers in PARTS.values())
    figure, axes = new_figure(size=(10.0, ROW * rows + 0.6))
    ax = axes[0, 0]
    ax.set(xlim=(0, 10), ylim=(-ROW * rows, 0.55))
    ax.axis("off")
    lessons = {lesson.number: lesson for lesson in LESSONS}
    for column, ((part, numbers), color) in enumerate(zip(PARTS.items(), OKABE_ITO, strict=False)):
        left = 0.1 + column * 2.55
        ax.text(left, 0.18, part, fontweight="bold", color=color, fontsize="medium", va="center")
        if column:
            start, end = (left - 0.32, 0.18), (left - 0.06, 0.18)
            ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=GREY))
        for row, number in enumerate(numbers):
            _draw_box(ax, lessons[number], left, -ROW * row - HEIGHT, color)
    return figure


def _draw_box(ax: Axes, lesson: Lesson, left: float, bottom: float, color: str) -> None:
    style = {"facecolor": color, "alpha": 0.18} if lesson.ready else {"facecolor": "none", "linestyle": "--"}
    box = FancyBboxPatch((left, bottom), WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.08", **style)
    box.set_edgecolor(color)
    ax.add_patch(box)
    top = bottom + HEIGHT
    ink = "black" if lesson.ready else GREY
    title = f"{lesson.number:02d}  {lesson.title}"
    ax.text(left + 0.09, top - 0.16, title, fontsize=8.5, fontweight="bold", va="center", color=ink)
    ax.text(left + 0.09, top - 0.31, "\n".join(textwrap.wrap(lesson.question, 33)), fontsize=7.5, va="top", color=ink)
    after = "after " + ", ".join(f"{n:02d}" for n in lesson.after) if lesson.after else ""
    ready = "ready" if lesson.ready else "planned"
    ax.text(left + 0.09, bottom + 0.1, " · ".join(filter(None, (ready, after))), fontsize=7, va="center", color=GREY)
