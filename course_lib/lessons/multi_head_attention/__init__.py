"""Lesson 03, multi-head attention: its pictures, its widget, the checks of its exercises."""
