"""Pythia: how its config reaches the schemes, size, seeds, what order is. What all decoders do: test_decoders."""

import re

import pytest
import torch

from course_lib.attention import Places
from course_lib.models.pythia import Pythia, PythiaConfig
from course_lib.positions import AlibiPosition, Position, RotaryPosition, ShawPosition, T5Position
from tests.conftest import relative_error
from tests.models.cases import SCHEMES, ids_of, make, small


def test_the_config_reaches_the_schemes():
    def positions(name, **fields):
        return [part.attention.position for part in make(name, **fields).blocks]

    for name, cls, own in (("rope", RotaryPosition, 1), ("alibi", AlibiPosition, 1), ("t5", T5Position, 1),
                           ("shaw", ShawPosition, 3), ("none", Position, 1)):  # fmt: skip
        found = positions(name)
        assert {type(p) for p in found} == {cls}
        assert len({id(p) for p in found}) == own  # Shaw's vectors are each block's own
    rope = positions("rope", rotary_pct=0.5, rope_theta=50.0, rope_extension="ntk", rope_factor=3.0)[0]
    assert (rope.rotary_dim, rope.theta, rope.extension, rope.factor, rope.layout) == (4, 50, "ntk", 3, "half_split")
    assert positions("rope", rotary_pct=0.25)[0].rotary_dim == 2
    assert Pythia(PythiaConfig(n_layers=1)).blocks[0].attention.position.rotary_dim == 8
    assert positions("alibi")[0].slopes().tolist() == [1 / 16, 1 / 256]
    assert positions("alibi uniform")[0].slopes().tolist() == [1 / 16]
    t5, shaw = positions("t5")[0], positions("shaw")[0]
    assert (t5.n_buckets, t5.max_distance, t5.bidirectional, t5.embedding.weight.shape) == (6, 5, False, (6, 2))
    assert (shaw.max_distance, shaw.bidirectional, shaw.embedding.weight.shape) == (5, False, (6, 8))
    assert positions("learned") == positions("sinusoidal") == [None] * 3
    assert type(make("rope").position) is Position
    assert make("learned").position.embedding.weight.shape == (12, 16)


def test_parameters_and_the_waves_at_the_start():
    model, c, v = Pythia(PythiaConfig()), 128, 4000
    a_block = 4 * (c * c + c) + 8 * c * c + 5 * c + 4 * c
    assert sum(p.numel() for p in model.parameters()) == 2 * v * c + 4 * a_block + 2 * c
    counts = {name: sum(p.numel() for p in make(name).parameters()) for name in SCHEMES}
    more = {name: count - counts["none"] for name, count in counts.items() if count != counts["none"]}
    assert more == {"t5": 6 * 2, "shaw": 3 * 6 * 8, "learned": 12 * 16}
    position = Pythia(PythiaConfig(position="sinusoidal", n_layers=1)).position
    waves = position.embed(torch.zeros(1, 99, c), torch.arange(99))
    assert waves.square().mean().sqrt().item() == pytest.approx(0.02, rel=1e-4)  # as large as the embeddings


def test_the_seed_gives_the_weights_and_schemes_share_what_they_have():
    plain = make("none").state_dict()
    for name in SCHEMES:
        first, again, other = (make(name, seed=seed).state_dict() for seed in (0, 0, 1))
        assert all(torch.equal(first[key], again[key]) for key in first)
        assert not torch.equal(first["embedding.weight"], other["embedding.weight"])
        assert all(torch.equal(first[key], plain[key]) for key in plain)  # a comparison of schemes compares no seeds
    tables = [part.attention.position.embedding.weight for part in make("shaw").blocks]
    assert not torch.equal(tables[0], tables[1])
    assert make("rope").embedding.weight[0, 0].item() == pytest.approx(-0.02681426890194416, rel=1e-5)


@pytest.mark.parametrize("name", [n for n in SCHEMES if n not in ("none", "sinusoidal", "learned")])
def test_the_schemes_of_distance_do_not_care_where_a_text_begins(name):
    model, ids = small(name).double(), ids_of(5)
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
        model = small("none", n_layers=n_layers).double()
        error = relative_error(model(ids[:, order])[:, -1], model(ids)[:, -1])
        assert error < 1e-10 if n_layers == 1 else error > 1e-4
        assert relative_error(model(ids[:, order]), model(ids)[:, order]) > 1e-4


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"vocab_size": 0}, "vocab_size=0; it must be 1 or more, a whole number"),
        ({"max_positions": 0}, "max_positions=0"),
        ({"n_layers": 0}, "n_layers=0"),
        ({"d_ff": 0}, "d_ff=0"),
        ({"d_ff": 64.0}, "d_ff=64.0; it must be 1 or more, a whole number"),
        ({"d_model": 0}, "d_model=0"),
        ({"n_heads": 0}, "n_heads=0"),
        ({"n_heads": 7}, "n_heads=7 does not divide d_model=128"),
        ({"dropout": 1.0}, "dropout=1.0; allowed is 0 to below 1"),
        ({"dropout": float("nan")}, "dropout=nan"),
        ({"placement": "mid"}, "placement='mid'; allowed are 'pre', 'post', 'parallel'"),
        ({"position": "rotary"}, "position='rotary'; allowed are 'rope', 'alibi', 't5', 'shaw', 'sinus"),
        ({"position": "alibi", "alibi_slopes": "steep"}, "alibi_slopes='steep'; allowed are 'per_head', 'uniform'"),
        ({"rotary_pct": 0.0}, "rotary_pct=0.0; allowed is above 0 to 1"),
        ({"rotary_pct": 1.5}, "rotary_pct=1.5"),
        ({"rotary_pct": float("nan")}, "rotary_pct=nan"),
        ({"rotary_pct": 0.1}, "rotary_pct=0.1: of a head's 32 channels 3 would turn; the number must"),
        ({"rotary_pct": 0.01}, "rotary_pct=0.01: of a head's 32 channels 0 would turn"),
        ({"rope_theta": 0.5}, "theta=0.5; it must be above 1"),
        ({"rope_extension": "yarn"}, "extension='yarn'; allowed are 'none', 'interpolate', 'ntk'"),
        ({"rope_factor": 2.0}, "factor=2.0 with extension='none'"),
        ({"position": "shaw", "max_distance": 0}, "max_distance=0; it must be 1 or more"),
        ({"position": "shaw", "max_distance": 128.0}, "max_distance=128.0; it must be 1 or more, a whole number"),
        ({"position": "t5", "max_distance": 16}, "max_distance=16; it must be above 16"),
        ({"position": "t5", "n_buckets": 1}, "n_buckets=1"),
        ({"position": "sinusoidal", "d_model": 3, "n_heads": 1}, "d_model=3; it must be even"),
    ],
)
def test_a_config_refuses_what_cannot_be(fields, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        PythiaConfig(**fields)


def test_a_scheme_refuses_only_its_own():
    """Another scheme's fields may be anything: a study changes `position` alone."""
    assert PythiaConfig(position="none", rotary_pct=0.1, rope_factor=2.0, max_distance=0, n_buckets=1).rotary_dim == 3
