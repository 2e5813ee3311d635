"""The first weights: their spread, the seeds they are drawn with, what is drawn once."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.init import init_weights, seed_of


def test_initial_spread_is_gain_over_root_fan_in():
    layer = torch.nn.Linear(400, 300)
    assert init_weights(layer, 0, gain=2.0).weight.std().item() == pytest.approx(2 / 20, rel=0.02)


def test_seeds_of_equal_numbers_are_equal_and_fixed():
    """The value is recorded: another one would change every number of the course."""
    assert seed_of(0, "embed.weight") == 6617066386769680757
    assert seed_of(3, "a") == seed_of(np.int64(3), np.str_("a")) == seed_of(torch.tensor(3), "a")
    assert seed_of(3) != seed_of("3")
    assert seed_of("猫", "\U0001fae8") == 8105125043768798232  # an emoji that Python 3.11 does not know and 3.13 does
    for part in (3.0, np.float32(3), None, (1, 2)):
        with pytest.raises(ValueError, match="allowed are integers and names"):
            seed_of(part)


def test_weights_begin_around_zero():
    for layer in (torch.nn.Linear(400, 300), torch.nn.Embedding(400, 300)):
        weight = init_weights(layer, 0).weight
        assert abs(weight.mean().item()) < 4 * weight.std().item() / 120_000**0.5


def test_gains_multiply_and_name_what_they_miss():
    def layers():
        return nn.ModuleDict({"up": nn.Linear(4, 400), "down": nn.Linear(400, 4), "table": nn.Embedding(4, 4)})

    plain = init_weights(layers(), 3)
    changed = init_weights(layers(), 3, gain=2.0, gains={"down": 0.25, "*": 3.0})
    assert torch.allclose(changed["up"].weight, 6 * plain["up"].weight)
    assert torch.allclose(changed["down"].weight, 1.5 * plain["down"].weight)
    assert torch.equal(changed["table"].weight, plain["table"].weight)
    for gains, words in (
        ({"middle": 1.0}, "gains: 'middle' fits no linear layer of the model"),
        ({"table": 2.0}, "gains: 'table' fits no linear layer"),
        ({"down": 0.0}, "gains['down']=0.0; it must be above 0"),
        ({"down": float("nan")}, "gains['down']=nan"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            init_weights(layers(), 0, gains=gains)
