"""LayerNorm and RMSNorm against torch's, on random inputs, gains and biases: outputs and all gradients."""

import pytest
import torch
from torch import nn

from course_lib import norms
from tests.conftest import randomise, relative_error
from tests.parity.compare import assert_same_gradients, gradients

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
PAIRS = {
    "layer_norm": (lambda c, eps: norms.LayerNorm(c, eps), lambda c, eps: nn.LayerNorm(c, eps)),
    "layer_norm without bias": (
        lambda c, eps: norms.LayerNorm(c, eps, bias=False),
        lambda c, eps: nn.LayerNorm(c, eps, bias=False),
    ),
    "rms_norm": (lambda c, eps: norms.RMSNorm(c, eps), lambda c, eps: nn.RMSNorm(c, eps)),
    "fused layer_norm": (
        lambda c, eps: norms.LayerNorm(c, eps, norm_fn=norms.fused_layer_norm),
        lambda c, eps: nn.LayerNorm(c, eps),
    ),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(7,), (5, 8), (2, 3, 17), (1, 2), (0, 4)])
@pytest.mark.parametrize("pair", PAIRS)
def test_outputs_and_gradients(pair, shape, dtype):
    eps = 0.03  # large enough that a wrong place of eps shows
    ours, theirs = (randomise(make(shape[-1], eps)).to(dtype) for make in PAIRS[pair])
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = (torch.randn(shape, dtype=dtype) * 3 + 2).requires_grad_()
    x2 = x.detach().clone().requires_grad_()
    upstream = torch.randn(shape, dtype=dtype)
    got, want = ours(x), theirs(x2)
    got.backward(upstream)
    want.backward(upstream)
    assert got.shape == want.shape
    assert got.dtype == dtype
    if x.numel() == 0:
        return
    assert relative_error(got, want) < TOLERANCE[dtype]
    got_gradients, want_gradients = gradients(ours) | {"x": x.grad}, gradients(theirs) | {"x": x2.grad}
    assert_same_gradients(got_gradients, want_gradients, TOLERANCE[dtype])


@pytest.mark.parametrize("ours", [norms.LayerNorm, norms.RMSNorm])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_as_exact_as_torch(ours, dtype):
    x = torch.randn(64, 32) * 3
    reference = {norms.LayerNorm: nn.LayerNorm, norms.RMSNorm: nn.RMSNorm}[ours]
    exact = randomise(ours(32)).double()
    theirs = reference(32, eps=1e-5)
    theirs.load_state_dict(exact.state_dict())
    mine = ours(32)
    mine.load_state_dict(exact.state_dict())
    x = x.to(dtype)
    want = exact(x.double())
    got, other = mine.to(dtype)(x), theirs.to(dtype)(x)
    assert got.dtype == dtype
    # Both round gain and bias to the half type; ours may err at most twice as much, and by one unit in the last place.
    unit = torch.finfo(dtype).eps * want.abs().max()
    assert (got.double() - want).abs().max() <= 2 * (other.double() - want).abs().max() + unit
