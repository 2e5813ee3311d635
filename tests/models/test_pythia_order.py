"""Pythia with every scheme: no future, what order is, caches, texts beyond the longest."""

import pytest
import torch

from course_lib.attention import Places
from course_lib.evaluation import future_leak, next_token_losses
from course_lib.generation import generate
from course_lib.transformer_block import PLACEMENTS
from tests.conftest import randomise, relative_error
from tests.models.test_pythia import SCHEMES, ids_of, small


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", SCHEMES)
def test_no_future_token_changes_an_earlier_output(name, placement):
    model = randomise(small(**SCHEMES[name], placement=placement, max_positions=20, dropout=0.3)).eval()
    for ids in (ids_of(20)[0], torch.zeros(20, dtype=torch.long)):
        assert future_leak(model, ids).tolist() == [0.0] * 20


@pytest.mark.parametrize("name", [n for n in SCHEMES if n not in ("none", "sinusoidal", "learned")])
def test_the_schemes_of_distance_do_not_care_where_a_text_begins(name):
    model, ids = randomise(small(**SCHEMES[name])).double(), ids_of(5)
    x = model.embedding(ids)
    for part in model.blocks:
        got, want = part(x, Places(pos=torch.arange(5) + 777)), part(x)
        assert relative_error(got, want) < 1e-4
        x = want


def test_causal_without_positions_is_no_bag():
    """The mask alone tells order: from the second layer on. One layer reads what came before as a bag."""
    ids = ids_of(9)
    order = torch.cat([torch.tensor([3, 1, 7, 0, 5, 2, 6, 4]), torch.tensor([8])])
    for n_layers in (1, 2):
        model = randomise(small(position="none", n_layers=n_layers)).double()
        error = relative_error(model(ids[:, order])[:, -1], model(ids)[:, -1])
        assert error < 1e-10 if n_layers == 1 else error > 1e-4
        assert relative_error(model(ids[:, order]), model(ids)[:, order]) > 1e-4


def decoded(model, ids, sizes, caches):
    return torch.cat([model(part, caches) for part in ids.split(sizes, 1)], 1)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_cached_decoding_equals_the_whole_text(name, placement):
    model, ids = randomise(small(**SCHEMES[name], placement=placement)).double().eval(), ids_of()
    with torch.no_grad():
        want = model(ids)
        for sizes in ([1] * 12, [5, *[1] * 7], [12], [3, 0, 4, 5]):
            caches = model.new_caches()
            assert relative_error(decoded(model, ids, sizes, caches), want) < 1e-12, sizes
            assert [(cache.length, cache.max_length) for cache in caches] == [(12, 12)] * 3
        with pytest.raises(ValueError, match=r"max_positions=12|max_length=12"):
            model(ids[:, :1], caches)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_cache_changes_nothing_but_time(name):
    model = randomise(small(**SCHEMES[name])).double().eval()
    for options in ({"temperature": 0.0}, {"seed": 3, "top_k": 5}):
        text = ids_of(3, rows=3)
        texts = [generate(model, text, 9, use_cache=use, **options) for use in (True, False)]
        assert torch.equal(*texts)


@pytest.mark.parametrize("name", SCHEMES)
def test_beyond_the_longest_text(name):
    model, ids = randomise(small(**SCHEMES[name])), ids_of(60)
    if name == "learned":
        with pytest.raises(ValueError, match="ids: a text of 60 tokens; max_positions=12 is the most"):
            model(ids)
    else:
        assert model(ids).isfinite().all()
        assert next_token_losses(model, ids).shape == (2, 59)
