"""FLOPs counted against their formulas, and the share of the fastest product."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import flops
from benchmarks.flops import count_flops, fastest_product, share_of_peak

CPU = torch.device("cpu")


@pytest.mark.parametrize(("needs_gradient", "passes"), [(False, 2), (True, 3)])
def test_flops_of_a_linear_layer(needs_gradient, passes):
    m, k, n = 3, 7, 5
    layer, x = nn.Linear(k, n), torch.randn(m, k, requires_grad=needs_gradient)
    assert count_flops(lambda: layer(x)) == 2 * m * k * n
    assert count_flops(lambda: layer(x).sum().backward()) == passes * 2 * m * k * n


def test_flops_of_attention_are_seen_through_the_fused_call():
    b, h, t, d = 2, 3, 16, 8
    q, k, v = (torch.randn(b, h, t, d, requires_grad=True) for _ in range(3))
    for causal in (False, True):
        count = count_flops(lambda causal=causal: F.scaled_dot_product_attention(q, k, v, is_causal=causal))
        assert count == 2 * (2 * b * h * t * t * d)
    assert count_flops(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward()) == 3 * 2 * (
        2 * b * h * t * t * d
    )


def test_nothing_to_count_is_said():
    with pytest.raises(ValueError, match="there are no FLOPs to count"):
        count_flops(lambda: nn.LayerNorm(4)(torch.randn(2, 4)))


def test_the_share_of_the_peak_is_made_round_by_round():
    assert share_of_peak(600, seconds=[2.0, 4.0, 1.0], peak=[1000.0, 500.0, 6000.0]) == 0.3
    assert share_of_peak(600, seconds=[2.0, 20.0, 1.0], peak=[1000.0, 300.0, 1000.0]) == 0.3
    with pytest.raises(ValueError, match="zip"):
        share_of_peak(600, [1.0, 1.0], [1000.0])


def test_the_fastest_product_is_that_of_the_best_turn(monkeypatch):
    sizes = []

    def fake(runs, repeats, device):
        (product,) = runs.values()
        size = product.args[0].shape[0]
        assert torch.equal(product(), product.args[0] @ product.args[1])
        sizes.append(size)
        assert count_flops(product) == 2 * size**3
        speed = {256: 1e9, 512: 4e9, 1024: 2e9}[size]
        return {name: [2 * size**3 / speed * late for late in (3, 1, 2)] for name in runs}

    monkeypatch.setattr(flops, "take_turns", fake)
    product = fastest_product(CPU, torch.float32)
    assert (product.run.args[0].shape[0], product.flops) == (512, 2 * 512**3)
    assert sizes == [256, 512]  # 0.067 s: a size of 1024 is not tried
    monkeypatch.setattr(flops, "LONG_SECONDS", 0.5)
    monkeypatch.setattr(flops, "LARGEST", 1024)
    product = fastest_product(CPU, torch.float32)
    assert (product.run.args[0].shape[0], product.flops) == (512, 2 * 512**3)
    assert sizes[2:] == [256, 512, 1024]
