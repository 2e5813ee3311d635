"""Lesson LESSON_NUMBER, LESSON_TITLE: its pictures, its widget, the checks of its exercises."""
