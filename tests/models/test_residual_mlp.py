"""ResidualMLP: where its norms stand, how it starts, what it refuses."""

import re

import pytest
import torch

from course_lib.init import init_weights, seed_of
from course_lib.models.residual_mlp import ResidualBlock, ResidualMLP, ResidualMLPConfig
from tests.conftest import randomise

SMALL = {"d_in": 10, "d_model": 8, "d_ff": 12, "n_layers": 3}


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm", "none"])
def test_blocks_follow_their_formulas(norm):
    x = torch.randn(5, 8)
    for scale in (1.0, 0.0, 3.0):
        for placement in ("pre", "post"):
            config = ResidualMLPConfig(**SMALL, norm=norm, placement=placement, skip_scale=scale)
            block = randomise(ResidualBlock(config))
            f, n = block.mlp, block.norm
            want = scale * x + f(n(x)) if placement == "pre" else n(scale * x + f(x))
            assert torch.equal(block(x), want)


def test_the_whole_is_its_parts():
    for placement in ("pre", "post"):
        model = randomise(ResidualMLP(ResidualMLPConfig(**SMALL, placement=placement)))
        x = torch.randn(4, 10)
        stream = model.embed(x)
        for block in model.blocks:
            stream = block(stream)
        if placement == "pre":
            stream = model.final_norm(stream)
        else:
            assert not list(model.final_norm.parameters())  # a post-norm stream is normalised already
        assert torch.equal(model(x), model.head(stream))


def test_weights_depend_on_seed_and_name_alone():
    one, same, other = (ResidualMLP(ResidualMLPConfig(**SMALL, seed=s)) for s in (3, 3, 4))
    torch.manual_seed(99)
    again = ResidualMLP(
        ResidualMLPConfig(**(SMALL | {"n_layers": 5}), seed=3)
    )  # two more layers change no other weight
    assert torch.equal(one.blocks[1].mlp.up.weight, same.blocks[1].mlp.up.weight)
    assert torch.equal(one.blocks[1].mlp.up.weight, again.blocks[1].mlp.up.weight)
    assert not torch.equal(one.blocks[1].mlp.up.weight, other.blocks[1].mlp.up.weight)
    assert not torch.equal(one.blocks[0].mlp.up.weight, one.blocks[1].mlp.up.weight)
    assert one.head.bias.abs().max() == 0
    assert seed_of(1, "a") == seed_of(1, "a") != seed_of(1, "b")


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: ResidualMLPConfig(placement="mid"), "placement='mid'"),
        (lambda: ResidualMLPConfig(skip_scale=-1.0), "skip_scale=-1"),
        (lambda: ResidualMLP(ResidualMLPConfig(norm="group")), "norm='group'"),
        (lambda: ResidualMLP(ResidualMLPConfig(**SMALL))(torch.randn(2, 9)), "(2, 9)"),
        (lambda: ResidualMLP(ResidualMLPConfig(**SMALL))(torch.randn(2, 10, 1)), "(2, 10, 1)"),
        (lambda: init_weights(torch.nn.Linear(2, 2), 0, gain=0.0), "gain=0"),
    ],
)
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()


def test_every_matrix_has_its_own_numbers_and_a_shared_one_is_drawn_once():
    model = ResidualMLP(ResidualMLPConfig(**(SMALL | {"d_ff": 8}), init_gain=3.0))
    block = model.blocks[1].mlp
    assert not torch.equal(block.up.weight, block.down.weight)
    gentle = ResidualMLP(ResidualMLPConfig(**(SMALL | {"d_ff": 8})))
    assert torch.allclose(model.head.weight, 3 * gentle.head.weight)
    assert ResidualMLP(ResidualMLPConfig(**SMALL)).blocks[0].mlp.up.out_features == SMALL["d_ff"]
    tied = torch.nn.Sequential(torch.nn.Embedding(500, 64), torch.nn.Linear(64, 500, bias=False))
    tied[1].weight = tied[0].weight
    assert init_weights(tied, 0)[0].weight.std().item() == pytest.approx(0.02, rel=0.02)
    with pytest.raises(ValueError, match="'0' is a Conv2d"):
        init_weights(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3)), 0)
