"""The course's data sets, each a function that returns a Hugging Face `datasets.Dataset`.

`python -m course_lib.corpora` prints a card for each; origins and licences are in data/SOURCES.md.
"""

from course_lib.corpora.batches import shuffled_batches
from course_lib.corpora.cloze import cloze
from course_lib.corpora.documents import SPLITS, token_windows
from course_lib.corpora.emoji import EMOJI_CLASSES, EMOJI_CLASSES_JA, EMOJI_VENDORS, emoji, emoji_tensors
from course_lib.corpora.expressions import arithmetic
from course_lib.corpora.formulas import logic
from course_lib.corpora.full_images import CIFAR_CLASSES, cifar10
from course_lib.corpora.full_text import fineweb_edu, smollm_corpus, wikitext103
from course_lib.corpora.images import FASHION_CLASSES, fashion_mnist, fashion_tensors
from course_lib.corpora.livedoor import LIVEDOOR_CLASSES, livedoor_news
from course_lib.corpora.mixture import MIXTURE_KINDS, mixture
from course_lib.corpora.text import (
    books,
    capitals,
    factbook,
    glosses,
    manuals,
    neko,
    python_code,
    sentence_pairs,
    speeches,
)

__all__ = [
    "CIFAR_CLASSES",
    "EMOJI_CLASSES",
    "EMOJI_CLASSES_JA",
    "EMOJI_VENDORS",
    "FASHION_CLASSES",
    "LIVEDOOR_CLASSES",
    "MIXTURE_KINDS",
    "SPLITS",
    "arithmetic",
    "books",
    "capitals",
    "cifar10",
    "cloze",
    "emoji",
    "emoji_tensors",
    "factbook",
    "fashion_mnist",
    "fashion_tensors",
    "fineweb_edu",
    "glosses",
    "livedoor_news",
    "logic",
    "manuals",
    "mixture",
    "neko",
    "python_code",
    "sentence_pairs",
    "shuffled_batches",
    "smollm_corpus",
    "speeches",
    "token_windows",
    "wikitext103",
]
