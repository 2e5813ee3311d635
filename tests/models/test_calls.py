"""What a model refuses to read: ids, masks, places, caches."""

import re

import pytest
import torch

from course_lib.attention import KVCache
from tests.models.cases import ids_of, small

IDS = torch.zeros(2, 3, dtype=torch.long)


def of_lengths(model, *lengths):
    layer = model.blocks[0].attention
    caches = [KVCache(12) for _ in lengths]
    for cache, n in zip(caches, lengths, strict=True):
        cache.update(*torch.zeros(2, 2, layer.n_kv_heads, n, layer.head_dim).unbind(), torch.arange(n))
    return caches


@pytest.mark.parametrize("name", ["gpt2", "rope", "learned", "local"])
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m(IDS[0]), "ids is torch.int64 (3,); needed is int64 or int32 (B, T)"),
        (lambda m: m(IDS.float()), "ids is torch.float32 (2, 3)"),
        (
            lambda m: m(torch.tensor([[3, m.config.vocab_size]])),
            "ids goes from 3 to {size}; with vocab_size={size} the last is {last}: do they",
        ),
        (
            lambda m: m(torch.tensor([[-1, 3]])),
            "ids goes from -1 to 3; with vocab_size={size}",
        ),
        (lambda m: m(IDS, key_mask=IDS[:, :2] == 0), "key_mask is torch.bool (2, 2); needed is"),
        (lambda m: m(IDS, key_mask=torch.ones(2, 3)), "key_mask is torch.float32 (2, 3); needed is bool (2, 3)"),
        (lambda m: m(IDS, pos=torch.arange(2)), "pos has shape (2,); needed is (3,) or (2, 3)"),
        (lambda m: m(IDS, pos=torch.arange(3.0)), "pos is torch.float32; needed is an int64 or int32 tensor"),
    ],
)
def test_a_text_that_does_not_fit(name, call, words):
    model = small(name)
    size = model.config.vocab_size
    with pytest.raises(ValueError, match=re.escape(words.format(size=size, last=size - 1))):
        call(model)


@pytest.mark.parametrize("name", ["gpt2", "gpt2 mqa", "rope", "learned"])
@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        ((), "caches: of lengths []; needed are 3 equally full ones, one for each block"),
        ((0, 0), "caches: of lengths [0, 0]"),
        ((0, 0, 0, 0), "caches: of lengths [0, 0, 0, 0]"),
        ((2, 0, 2), "caches: of lengths [2, 0, 2]"),
    ],
)
def test_caches_that_do_not_fit(name, lengths, words):
    model = small(name)
    with pytest.raises(ValueError, match=re.escape(words)):
        model(IDS, of_lengths(model, *lengths))


@pytest.mark.parametrize("name", ["gpt2", "rope"])
def test_one_cache_is_not_there_twice(name):
    model = small(name)
    for caches in (of_lengths(model, 0, 0, 0) * 2, of_lengths(model, 0) * 3):
        with pytest.raises(ValueError, match=re.escape(f"caches: of lengths {[0] * len(caches)}; needed are 3")):
            model(IDS, caches)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpt2", "ids: a text of 13 tokens; max_positions=12"),
        ("learned", "ids: a text of 13 tokens; max_positions=12"),
        ("rope", "k has 3 tokens after 10; the cache holds max_length=12"),
    ],
)
def test_caches_that_are_full(name, words):
    model = small(name)
    with pytest.raises(ValueError, match=re.escape(words)):
        model(IDS, of_lengths(model, 10, 10, 10))


def test_a_step_that_was_refused_leaves_the_caches_as_they_were():
    model, ids = small("gpt2"), ids_of()
    with torch.no_grad():
        caches, want = model.new_caches(), model(ids)[:, 5:6]
        model(ids[:, :5], caches)
        for bad in ({"key_mask": torch.ones(2, 1, dtype=torch.bool)}, {"pos": torch.arange(2)}):
            with pytest.raises(ValueError, match="needed is"):
                model(ids[:, 5:6], caches, **bad)
        assert [cache.length for cache in caches] == [5, 5, 5]
        assert torch.allclose(model(ids[:, 5:6], caches), want, atol=1e-4)
