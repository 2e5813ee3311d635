"""SentencePiece: train a vocabulary, encode, decode; and the course's own vocabularies."""

from course_lib.tokenization.shipped import RECIPES, Recipe, load, recipe_texts, train_recipe
from course_lib.tokenization.tokenizer import END, MASK, PAD, SPECIAL, START, UNK, Tokenizer
from course_lib.tokenization.training import train

__all__ = [
    "END",
    "MASK",
    "PAD",
    "RECIPES",
    "SPECIAL",
    "START",
    "UNK",
    "Recipe",
    "Tokenizer",
    "load",
    "recipe_texts",
    "train",
    "train_recipe",
]
