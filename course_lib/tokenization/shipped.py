"""The vocabularies that ship with the course, and how each was made."""

from dataclasses import dataclass

from course_lib.checks import check_choice
from course_lib.paths import verified
from course_lib.tokenization.tokenizer import Tokenizer
from course_lib.tokenization.training import train


@dataclass(frozen=True)
class Recipe:
    """How a shipped vocabulary was made: its texts, from the training splits alone, and the arguments of `train`."""

    texts: tuple[str, ...]
    vocab_size: int
    coverage: float
    add_dummy_prefix: bool


RECIPES = {
    "english-4k": Recipe(("speeches", "sentence_pairs.en"), 4000, 1.0, True),
    "prose-4k": Recipe(("speeches", "books", "manuals", "factbook", "sentence_pairs.en"), 4000, 1.0, True),
    "japanese-8k": Recipe(("neko", "sentence_pairs.ja"), 8000, 0.9995, False),
    "mixture-4k": Recipe(("mixture",), 4000, 0.9995, False),
}


def recipe_texts(name: str) -> list[str]:
    """The texts that the shipped vocabulary `name` was trained on, all from training splits."""
    from course_lib import corpora

    texts: list[str] = []
    for source in RECIPES[name].texts:
        function, _, column = source.partition(".")
        texts += getattr(corpora, function)("train")[column or "text"]
    return texts


def train_recipe(name: str) -> Tokenizer:
    """Train the shipped vocabulary `name` again."""
    recipe = RECIPES[name]
    return train(
        recipe_texts(name),
        recipe.vocab_size,
        coverage=recipe.coverage,
        add_dummy_prefix=recipe.add_dummy_prefix,
    )


def load(name: str) -> Tokenizer:
    """A shipped vocabulary, one of RECIPES. Raises ValueError for another name, and what `paths.verified` raises."""
    check_choice("name", name, RECIPES)
    return Tokenizer(verified(f"tokenizers/{name}.model").read_bytes())
