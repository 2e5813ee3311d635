"""Lesson 08, ModernBERT MLM: its pictures, its widget, the checks of its exercises."""
