"""The course's data sets, each a function that returns a Hugging Face `datasets.Dataset`.

`python -m course_lib.corpora` prints a card for each; origins and licences are in data/SOURCES.md.
"""

from course_lib.corpora.batches import shuffled_batches
from course_lib.corpora.cloze import cloze
from course_lib.corpora.documents import SPLITS, token_windows
from course_lib.corpora.images import FASHION_CLASSES, fashion_mnist, fashion_tensors
from course_lib.corpora.text import capitals, glosses, neko, python_code, sentence_pairs, speeches

__all__ = [
    "FASHION_CLASSES",
    "SPLITS",
    "capitals",
    "cloze",
    "fashion_mnist",
    "fashion_tensors",
    "glosses",
    "neko",
    "python_code",
    "sentence_pairs",
    "shuffled_batches",
    "speeches",
    "token_windows",
]
