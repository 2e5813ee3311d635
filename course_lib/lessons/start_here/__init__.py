"""Notebook 00, from text to loss: its pictures, its widget, the check of its exercise."""
