"""Word vectors by counting: words that come in the same sentences get similar vectors."""

import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.checks import check_at_least


def count_vectors(sentences: Sequence[str], n_words: int, dim: int) -> tuple[list[str], Tensor]:
    """The `n_words` most frequent words of English sentences, and a vector for each: (n_words, dim) float32.

    Pairs of words in one sentence are counted; the matrix max(0, log p(a, b) / (p(a) p(b))) is then replaced by its
    best positive semidefinite approximation of rank `dim` (no network is trained). The dot product of two vectors is
    about that number.
    Raises ValueError for sentences with fewer than n_words different words, or a dim outside 1..n_words.
    Source: Levy, Goldberg 2014, "Neural Word Embedding as Implicit Matrix Factorization", section 4.2.
    """
    check_at_least("n_words", n_words, 1)
    check_at_least("dim", dim, 1)
    found = [sorted(set(re.findall(r"[a-z]+(?:'[a-z]+)?", sentence.lower()))) for sentence in sentences]
    words = [word for word, _ in Counter(word for row in found for word in row).most_common(n_words)]
    if len(words) < n_words:
        raise ValueError(f"n_words={n_words}; the sentences have {len(words)} different words")
    if dim > n_words:
        raise ValueError(f"dim={dim}; allowed is 1 to n_words={n_words}")
    number = {word: i for i, word in enumerate(words)}
    rows = [[number[word] for word in row if word in number] for row in found]
    pairs = torch.tensor([a * n_words + b for row in rows for a in row for b in row if a != b], dtype=torch.long)
    joint = torch.bincount(pairs, minlength=n_words**2).view(n_words, n_words).double() / max(len(pairs), 1)
    single = joint.sum(1)
    chance = single[:, None] * single[None, :]
    # A pair that never came has log 0; it counts as 0, like all pairs that are rarer than by chance.
    above = torch.where(joint > chance, joint / chance.clamp(min=1e-30), 1.0).log()
    values, directions = torch.linalg.eigh(above)  # above is symmetric; the largest come last
    return words, (directions[:, -dim:] * values[-dim:].clamp(min=0).sqrt()).flip(1).float()
