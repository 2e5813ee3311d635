"""Batches are a pure function of seed, step and rank."""

import re
from types import SimpleNamespace

import pytest
import torch

from course_lib import corpora
from course_lib.corpora import batches as module


def test_batches_are_pure_and_cover_an_epoch():
    x = torch.arange(23)
    batches = corpora.shuffled_batches((x, x * 2), 5, seed=1)
    again = corpora.shuffled_batches((x, x * 2), 5, seed=1)
    assert all(torch.equal(batches(step)[0], again(step)[0]) for step in (7, 0, 3))
    epoch = torch.cat([batches(step)[0] for step in range(4)])
    assert len(set(epoch.tolist())) == 20  # nothing twice; the last three wait for another epoch
    second = torch.cat([batches(step)[0] for step in range(4, 8)])
    assert epoch.tolist() != second.tolist()
    assert torch.equal(batches(2)[1], batches(2)[0] * 2)
    assert not torch.equal(corpora.shuffled_batches((x,), 5, seed=2)(0)[0], batches(0)[0])


@pytest.mark.parametrize(
    ("tensors", "size", "words"),
    [
        ((torch.ones(4), torch.ones(3)), 2, "lengths [4, 3]"),
        ((), 2, "lengths []"),
        ((torch.ones(4),), 5, "batch_size=5"),
        (torch.ones(4, 3), 2, "tensors is one tensor of shape (4, 3); needed is a tuple"),
    ],
)
def test_bad_batches(tensors, size, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        corpora.shuffled_batches(tensors, size, 0)


def test_batches_are_full_and_epochs_differ_from_seeds():
    x = torch.arange(23)
    one, two = (corpora.shuffled_batches((x,), 5, seed) for seed in (1, 2))
    assert {len(one(step)[0]) for step in range(12)} == {5}
    assert not torch.equal(one(4)[0], two(0)[0])  # the second epoch of seed 1 is not the first of seed 2
    with pytest.raises(ValueError, match="batch_size=0"):
        corpora.shuffled_batches((x,), 0, 1)


def test_processes_share_a_batch(monkeypatch):
    x = torch.arange(23)
    whole = corpora.shuffled_batches((x,), 6, 1)(2)[0]
    parts = []
    for rank in range(2):
        monkeypatch.setattr(module, "processes", lambda rank=rank: SimpleNamespace(num_processes=2, process_index=rank))
        parts.append(corpora.shuffled_batches((x,), 6, 1)(2)[0])
    assert torch.equal(torch.cat(parts), whole)
    with pytest.raises(ValueError, match="batch_size=5 cannot be shared by 2"):
        corpora.shuffled_batches((x,), 5, 1)
