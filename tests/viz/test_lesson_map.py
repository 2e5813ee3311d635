"""The map shows the table of lessons."""

import pytest

from course_lib.lessons import LESSONS
from course_lib.viz import plots
from course_lib.viz.lesson_map import plot_lesson_map


@pytest.fixture(autouse=True)
def _style():
    plots.use_house_style()


def test_the_map_shows_every_lesson():
    texts = " ".join(t.get_text() for t in plot_lesson_map().axes[0].texts)
    assert all(lesson.title in texts for lesson in LESSONS)


def test_the_map_tells_ready_from_planned():
    ax = plot_lesson_map().axes[0]
    words = [t.get_text().split(" · ")[0] for t in ax.texts if t.get_text().startswith(("ready", "planned"))]
    assert words.count("ready") == sum(lesson.ready for lesson in LESSONS)
    filled = [p for p in ax.patches if hasattr(p, "get_boxstyle") and p.get_facecolor()[3] > 0]
    assert len(filled) == words.count("ready")
