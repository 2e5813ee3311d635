"""The course's data sets, each a function that returns a Hugging Face `datasets.Dataset`.

`python -m course_lib.corpora` prints a card for each; origins and licences are in data/SOURCES.md.
"""

from course_lib.corpora.batches import shuffled_batches
from course_lib.corpora.images import FASHION_CLASSES, fashion_mnist, fashion_tensors

__all__ = ["FASHION_CLASSES", "fashion_mnist", "fashion_tensors", "shuffled_batches"]
