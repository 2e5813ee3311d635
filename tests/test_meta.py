"""No module makes a CPU tensor or asks the host in forward or backward: run on `meta`, with CPU operands refused."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from course_lib.mlp import MLP, GatedMLP
from course_lib.models.residual_mlp import ResidualMLP, ResidualMLPConfig
from course_lib.norms import LayerNorm, RMSNorm, fused_layer_norm


class NoCpu(TorchDispatchMode):
    """Refuse operands on the CPU with more than one element."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for leaf in tree_leaves((args, kwargs or {})):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu" and leaf.numel() > 1:
                raise AssertionError(f"{func} got a CPU tensor of shape {tuple(leaf.shape)}")
        return func(*args, **(kwargs or {}))


def small(**fields):
    return lambda: ResidualMLP(ResidualMLPConfig(d_in=8, d_model=8, d_ff=6, n_layers=2, n_classes=3, **fields))


MODULES = {
    "LayerNorm": lambda: LayerNorm(8),
    "LayerNorm fused": lambda: LayerNorm(8, norm_fn=fused_layer_norm),
    "RMSNorm": lambda: RMSNorm(8),
    "MLP": lambda: MLP(8, 12),
    "GatedMLP": lambda: GatedMLP(8, 12),
    "ResidualMLP pre": small(),
    "ResidualMLP post": small(placement="post", norm="rmsnorm"),
    "ResidualMLP plain": small(norm="none", skip_scale=0.0),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_and_backward_on_meta(name, dtype):
    module = MODULES[name]().to("meta", dtype)
    x = torch.empty(4, 8, device="meta", dtype=dtype, requires_grad=True)
    with NoCpu():
        y = module(x)
        y.sum().backward()
    assert y.device.type == "meta"
    assert y.dtype == dtype
    assert x.grad.shape == x.shape


def test_the_mode_catches_a_stray_cpu_tensor():
    with NoCpu(), pytest.raises(AssertionError, match="CPU tensor"):
        torch.empty(4, 8, device="meta") @ torch.ones(8, 2)
