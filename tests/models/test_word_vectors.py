"""Word vectors follow the counts that they are made of."""

import re

import numpy as np
import pytest
import torch

from course_lib.models.word_vectors import count_vectors


def test_word_vectors_follow_the_counts():
    sentences = ["The cat, the dog", "cat dog", "bus train", "Bus train!", "train bus cat"]
    words, vectors = count_vectors(sentences, 4, 4)
    assert set(words) == {"cat", "bus", "train", "dog"}
    n = {word: i for i, word in enumerate(words)}
    pairs = [
        (a, b)
        for s in sentences
        for a in set(re.findall("[a-z]+", s.lower()))
        for b in set(re.findall("[a-z]+", s.lower()))
    ]
    pairs = [(a, b) for a, b in pairs if a != b and a in n and b in n]
    p = np.zeros((4, 4))
    for a, b in pairs:
        p[n[a], n[b]] += 1 / len(pairs)
    with np.errstate(divide="ignore"):
        above = np.maximum(0, np.log(p / p.sum(1)[:, None] / p.sum(0)))
    values, directions = np.linalg.eigh(above)
    best = (directions * np.maximum(values, 0)) @ directions.T
    np.testing.assert_allclose(vectors @ vectors.T, best, atol=1e-5)
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(vectors[n["cat"]], vectors[n["dog"]], 0) > cosine(vectors[n["cat"]], vectors[n["bus"]], 0)
    for arguments, words in {(9, 2): "n_words=9", (4, 5): "dim=5", (4, 0): "dim=0"}.items():
        with pytest.raises(ValueError, match=words):
            count_vectors(sentences, *arguments)
