"""Local attention in blocks, beside all pairs with a mask and, as a layer, beside the sparse layer of Longformer.

How time and memory grow with the length, and the times of attention without any mask, are in `benchmarks.scaling`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.case import Case, Race, Setting
from benchmarks.flops import count_flops
from course_lib.attention import GlobalLocalAttention, MultiHeadAttention, Places, local_attention
from course_lib.interop import longformer_masks, oracle

HEADS, RADIUS, TOLERANCE = 8, 64, 1e-4


class Pass:
    """A function of `leaves`, forward alone or with the gradients of all of them; `module` is what it belongs to."""

    def __init__(
        self, fn: Callable[..., Tensor], leaves: Sequence[Tensor], backward: bool, module: nn.Module | None = None
    ) -> None:
        self.leaves = [leaf.detach().clone().requires_grad_(backward) for leaf in leaves]
        self.fn, self.backward, self.module = fn, backward, module

    def __call__(self) -> Mapping[str, Tensor]:
        with torch.set_grad_enabled(self.backward):
            y = self.fn(*self.leaves)
        if not self.backward:
            return {"output": y}
        y.square().mean().backward()
        gradients = {f"gradient {i}": leaf.grad for i, leaf in enumerate(self.leaves) if leaf.grad is not None}
        for tensor in (*self.leaves, *(self.module.parameters() if self.module else ())):
            tensor.grad = None  # the next call adds to nothing
        return {"output": y.detach()} | gradients


def kernels(setting: Setting, device: torch.device) -> Race:
    """`local_attention` alone, on random queries, keys and values."""
    leaves = list(torch.randn(3, 1, HEADS, setting["length"], setting["head_dim"], device=device))
    backward = setting["passes"] == "both"
    fn = partial(local_attention, radius=setting["radius"])
    ours = Pass(fn, leaves, backward)
    return Race(
        ours={"in blocks": ours},
        rivals={"all pairs, with a mask": Pass(partial(fn, impl="dense"), leaves, backward)},
        dtype=torch.float32,
        tolerance=TOLERANCE,
        model_flops=count_flops(ours),
    )


def layers(setting: Setting, device: torch.device) -> Race:
    """Attention with its projections of queries, keys and values, without the output's, which Longformer has later."""
    length, n_global, radius = setting["length"], setting["n_global"], setting["radius"]
    backward = setting["passes"] == "both"
    d_model = HEADS * setting["head_dim"]
    sparse = GlobalLocalAttention(d_model, HEADS, radius, separate_global=True).to(device)
    theirs: Any = oracle(sparse)
    global_mask = (torch.arange(length, device=device) < n_global)[None]
    arguments = longformer_masks(global_mask)
    if n_global:
        module: nn.Module = sparse
        fn = partial(sparse, places=Places(global_mask=global_mask))
    else:
        module = MultiHeadAttention(d_model, HEADS, attention_fn=partial(local_attention, radius=radius)).to(device)
        module.load_state_dict({name: w for name, w in sparse.state_dict().items() if "global" not in name})
        fn = partial(module)
    module.out_proj = nn.Identity()
    x = [torch.randn(1, length, d_model, device=device)]
    ours = Pass(fn, x, backward, module)
    rival = Pass(lambda leaf: theirs(leaf, **arguments)[0], x, backward, theirs)
    return Race(
        ours={"ours, with projections": ours},
        rivals={"transformers' Longformer": rival},
        dtype=torch.float32,
        tolerance=TOLERANCE,
        model_flops=count_flops(ours),
    )


def race(setting: Setting, device: torch.device) -> Race:
    """`setting`: part ("kernel" or "layer"), passes ("forward" or "both"), length, radius, head_dim, n_global."""
    torch.manual_seed(0)
    return (kernels if setting["part"] == "kernel" else layers)(setting, device)


def _setting(part: str, passes: str, length: int, n_global: int = 0) -> Setting:
    sizes = {"length": length, "radius": RADIUS, "head_dim": 64, "n_global": n_global}
    return {"part": part, "passes": passes} | sizes


CASE = Case(
    name="local",
    question="What does local attention in blocks cost against all pairs, and against another team's sparse attention?",
    settings=[
        *(_setting("kernel", passes, length) for passes in ("forward", "both") for length in (1024, 8192)),
        *(_setting("layer", passes, 8192, n) for passes in ("forward", "both") for n in (0, 16)),
    ],
    race=race,
)
