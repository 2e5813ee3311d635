"""Lesson 04, local and global attention: its pictures, its widgets, the checks of its exercises."""
