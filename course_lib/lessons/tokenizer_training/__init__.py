"""Lesson 06, Tokenizer training: its pictures, its widget, the checks of its exercises."""
