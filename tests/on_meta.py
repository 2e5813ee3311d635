"""To run modules on torch's `meta` device, with operands on the CPU refused."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class NoCpu(TorchDispatchMode):
    """Refuse operands on the CPU with more than one element."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for leaf in tree_leaves((args, kwargs or {})):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu" and leaf.numel() > 1:
                raise AssertionError(f"{func} got a CPU tensor of shape {tuple(leaf.shape)}")
        return func(*args, **(kwargs or {}))


class OneSequence(torch.nn.Sequential):
    """The module on x (T, C) as one sequence (1, T, C)."""

    def forward(self, x):
        return self[0](x.unsqueeze(0)).squeeze(0)
