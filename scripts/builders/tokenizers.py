"""The course's vocabularies, trained on the shipped texts: build those first."""

from pathlib import Path

from course_lib.paths import shipped
from course_lib.tokenization import RECIPES, recipe_texts, train


def tokenizers(folder: Path) -> list[Path]:
    """One SentencePiece model for each recipe."""
    written = []
    for name, r in RECIPES.items():
        model = train(recipe_texts(name), r.vocab_size, coverage=r.coverage, add_dummy_prefix=r.add_dummy_prefix)
        written.append(model.save(shipped("data") / "tokenizers" / f"{name}.model"))
    return written
