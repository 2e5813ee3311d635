"""Lesson 01, LayerNorm dynamics: its pictures, its widget, the checks of its exercises."""
