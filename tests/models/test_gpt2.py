"""GPT2: its size, its config, its recorded first weights, masks that leak. What all decoders do: test_decoders."""

import math
import re

import pytest
import torch

from course_lib.attention import Pattern, WindowKVCache, causal, window
from course_lib.evaluation import future_leak
from course_lib.init import init_weights
from course_lib.models.gpt2 import GPT2, GPT2Config
from tests.conftest import relative_error
from tests.models.cases import decoded, ids_of, make, small


def test_parameters_of_the_default_model():
    model, c, v = GPT2(GPT2Config()), 192, 4000
    a_block = 4 * (c * c + c) + 8 * c * c + 5 * c + 4 * c
    assert sum(p.numel() for p in model.parameters()) == (v + 256) * c + 6 * a_block + 2 * c
    assert {block.attention.head_dim for block in model.blocks} == {32}


def test_the_config_reaches_the_blocks_and_stays():
    model = make("gpt2 gqa")
    assert len(model.blocks) == 3
    assert {part.attention.n_kv_heads for part in model.blocks} == {2}
    assert {part.attention.n_kv_heads for part in make("gpt2").blocks} == {4}
    assert model.new_caches()[0].update(*torch.zeros(2, 1, 2, 3, 4).unbind(), torch.arange(3))[0].shape == (1, 2, 3, 4)
    with pytest.raises(AttributeError):
        model.config.n_layers = 5


FIRST = {"embedding": -0.02681426890194416, "out_proj": 0.06491244584321976}


def test_first_weights_are_recorded_numbers():
    """Training runs depend on them: by seed and name, whatever else is in the model."""
    model, other, deeper = (make("gpt2", d_model=8, **fields) for fields in ({}, {"seed": 1}, {"n_layers": 4}))
    assert torch.equal(model.embedding.weight, deeper.embedding.weight)
    assert torch.equal(model.blocks[1].mlp.up.weight, deeper.blocks[1].mlp.up.weight)
    factor = math.sqrt(6 / 8)
    assert torch.allclose(model.blocks[1].mlp.down.weight * factor, deeper.blocks[1].mlp.down.weight)
    assert not torch.equal(model.embedding.weight, other.embedding.weight)
    state = torch.random.get_rng_state()
    init_weights(other, 0)
    assert torch.equal(other.embedding.weight, model.embedding.weight)
    assert torch.equal(torch.random.get_rng_state(), state)  # no draw but from the generators of their own
    assert model.embedding.weight[0, 0].item() == pytest.approx(FIRST["embedding"], rel=1e-5)
    assert model.blocks[2].attention.out_proj.weight[0, 0].item() == pytest.approx(FIRST["out_proj"], rel=1e-5)


BROKEN = {
    "no mask": None,
    "one ahead": Pattern("one ahead", lambda q_pos, k_pos: k_pos <= q_pos + 1),
    "turned": Pattern("turned", lambda q_pos, k_pos: k_pos >= q_pos),
    "both sides": window(2),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_mask_leaks(name):
    model = small("gpt2")
    model.blocks[1].attention.mask = BROKEN[name]
    leak = future_leak(model, ids_of()[0])
    assert leak[0] == 0
    assert (leak[1:] > 0).all()


def test_window_caches_where_every_block_has_the_window():
    model, ids = small("gpt2").double(), ids_of(rows=3)
    for part in model.blocks:
        part.attention.mask = causal & window(2)
    caches = [WindowKVCache(2) for _ in model.blocks]
    with torch.no_grad():
        assert relative_error(decoded(model, ids, [5, *[1] * 7], caches), model(ids)) < 1e-12


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"vocab_size": 0}, "vocab_size=0; it must be 1 or more, a whole number"),
        ({"vocab_size": 50.0}, "vocab_size=50.0; it must be 1 or more, a whole number"),
        ({"vocab_size": None}, "vocab_size=None; it must be 1 or more, a whole number"),
        ({"max_positions": 0}, "max_positions=0"),
        ({"n_layers": 0}, "n_layers=0"),
        ({"n_layers": True}, "n_layers=True; it must be 1 or more, a whole number"),
        ({"d_ff": 0}, "d_ff=0; it must be 1 or more"),
        ({"d_model": 0}, "d_model=0"),
        ({"d_model": 192.0}, "d_model=192.0; it must be 1 or more, a whole number"),
        ({"n_heads": 0}, "n_heads=0"),
        ({"n_kv_heads": 0}, "n_kv_heads=0"),
        ({"n_heads": 7}, "n_heads=7 does not divide d_model=192"),
        ({"n_kv_heads": 4}, "n_kv_heads=4 does not divide n_heads=6"),
        ({"dropout": 1.0}, "dropout=1.0; allowed is 0 to below 1"),
        ({"dropout": -0.1}, "dropout=-0.1"),
        ({"dropout": float("nan")}, "dropout=nan"),
        ({"placement": "mid"}, "placement='mid'; allowed are 'pre', 'post', 'parallel'"),
    ],
)
def test_a_config_refuses_what_cannot_be(fields, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        GPT2Config(**fields)
