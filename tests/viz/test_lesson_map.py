"""The map shows the table of lessons."""

from course_lib.lessons import LESSONS
from course_lib.viz.lesson_map import plot_lesson_map


def test_the_map_shows_every_lesson_and_tells_ready_from_planned():
    ax = plot_lesson_map().axes[0]
    texts = [text.get_text().replace("\n", " ") for text in ax.texts]
    for lesson in LESSONS:
        assert {f"{lesson.number:02d}  {lesson.title}", lesson.question} <= set(texts)
    ready = [lesson.ready for lesson in LESSONS]
    assert sum(" minutes" in text for text in texts) == sum(ready)
    assert sum(text.startswith("planned") for text in texts) == len(LESSONS) - sum(ready)
    boxes = [patch for patch in ax.patches if hasattr(patch, "get_boxstyle")]
    assert [box.get_facecolor()[3] > 0 for box in boxes] == ready
