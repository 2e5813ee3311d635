"""Lesson 02, attention scoring: its pictures, its widgets, the checks of its exercises."""
