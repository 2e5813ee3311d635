"""Whole models, one file each, each with one frozen config."""
