"""Texts of several lengths in one batch: padding on the left and the right, with caches; places that are told."""

import pytest
import torch

from course_lib.attention import WindowKVCache, causal, window, with_attention
from tests.conftest import relative_error
from tests.models.cases import DECODERS, ENCODERS, MODELS, small

IDS = torch.randint(13, (2, 60), generator=torch.Generator().manual_seed(0))
DRAWN = ("bigbird", "random alone")  # their blocks begin where the text does


def made(name):
    return small(name, max_positions=64, n_layers=2)


def padded(length=60, missing=23):
    """Two rows: one whole, one whose first `missing` tokens are padding."""
    ids = IDS[:, :length].clone()
    key_mask = torch.ones(2, length, dtype=torch.bool)
    key_mask[1, :missing] = False
    return ids, key_mask


@pytest.mark.parametrize("name", [n for n in MODELS if n not in DRAWN])
def test_padding_on_the_left_moves_nothing(name):
    """Whatever stands in the padding; positions too count from the first token that does."""
    model = made(name).double()
    ids, key_mask = padded()
    alone = model(ids[1:, 23:])[0]
    for filler in (0, 7):
        ids[1, :23] = filler
        got = model(ids, key_mask=key_mask)
        assert relative_error(got[1, 23:], alone) < 1e-10
        assert relative_error(got[0], model(ids[:1])[0]) < 1e-10
    told = model(ids, key_mask=key_mask, pos=torch.stack([torch.arange(60), torch.arange(60) - 23]))
    assert torch.equal(told, got)


@pytest.mark.parametrize("name", ENCODERS)
def test_padding_on_the_right_moves_nothing(name):
    model = made(name).double()
    key_mask = torch.ones(2, 60, dtype=torch.bool)
    key_mask[1, 37:] = False
    assert relative_error(model(IDS, key_mask=key_mask)[1, :37], model(IDS[1:, :37])[0]) < 1e-10


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("sizes", [[60], [30, *[1] * 30], [10, 30, 20]])
def test_padding_on_the_left_with_a_cache(name, sizes):
    """Padding may reach over the first piece: a row then begins in the second."""
    model = made(name).double()
    ids, key_mask = padded()
    want, caches, outputs, end = model(ids, key_mask=key_mask), model.new_caches(), [], 0
    with torch.no_grad():
        for piece in ids.split(sizes, 1):
            end += piece.shape[1]
            outputs.append(model(piece, caches, key_mask=key_mask[:, :end]))
    assert relative_error(torch.cat(outputs, 1)[key_mask], want[key_mask]) < 1e-10


def test_padding_and_a_windows_cache():
    model = with_attention(made("rope"), mask=causal & window(5)).double()
    ids, key_mask = padded()
    caches, outputs = [WindowKVCache(5) for _ in model.blocks], []
    with torch.no_grad():
        for t in range(60):
            outputs.append(model(ids[:, t : t + 1], caches, key_mask=key_mask[:, : t + 1]))
    assert relative_error(torch.cat(outputs, 1)[key_mask], model(ids, key_mask=key_mask)[key_mask]) < 1e-10


def test_places_may_be_told():
    """With gaps, as where texts are packed; the schemes of distance see them, learned ones take that row."""
    pos = torch.cat([torch.arange(5), torch.arange(20, 25)])
    for name in ("gpt2", "rope", "alibi", "t5", "shaw", "sinusoidal"):
        model = made(name).double()
        assert not torch.allclose(model(IDS[:, :10], pos=pos), model(IDS[:, :10]))
        caches = model.new_caches()
        with torch.no_grad():
            steps = [model(IDS[:, t : t + 1], caches, pos=pos[t : t + 1]) for t in range(10)]
            assert relative_error(torch.cat(steps, 1), model(IDS[:, :10], pos=pos)) < 1e-10
