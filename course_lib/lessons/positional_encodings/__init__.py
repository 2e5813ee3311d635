"""Lesson 05, positional encodings: its pictures, its widget, the checks of its exercises."""
