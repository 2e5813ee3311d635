"""The course's vocabularies, trained on the shipped texts: build those first."""

from pathlib import Path

from course_lib.paths import shipped
from course_lib.tokenization import RECIPES, train_recipe


def tokenizers(folder: Path) -> list[Path]:
    """One SentencePiece model for each recipe."""
    return [train_recipe(name).save(shipped("data") / "tokenizers" / f"{name}.model") for name in RECIPES]
