"""LayerNorm and RMSNorm, written out and fused, against torch's modules."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.case import Case, Race, Setting
from course_lib.norms import LayerNorm, RMSNorm, fused_layer_norm

TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}  # both sides round to the half type, at other places


def forward(norm: nn.Module, x: Tensor) -> Mapping[str, Tensor]:
    """The output alone, without a graph, as in inference."""
    with torch.no_grad():
        return {"output": norm(x)}


def forward_backward(norm: nn.Module, x: Tensor, upstream: Tensor) -> Mapping[str, Tensor]:
    """The output and the gradients of the input, the gain and the bias.

    In bfloat16 those of gain and bias are computed but not returned, so not compared: on a CPU torch's LayerNorm sums
    them over the rows in bfloat16 and is off by 8 to 68 % of the largest entry here (torch 2.13); ours sums in float32.
    """
    inputs = {"input": x, **dict(norm.named_parameters())}
    output = norm(x)
    gradients = dict(zip(inputs, torch.autograd.grad(output, list(inputs.values()), upstream), strict=True))
    return {"output": output.detach()} | ({"input": gradients["input"]} if x.dtype == torch.bfloat16 else gradients)


def race(setting: Setting, device: torch.device) -> Race:
    """`setting`: norm ("LayerNorm", "RMSNorm"), shape (..., C), dtype, pass ("forward", "forward+backward")."""
    width, dtype = setting["shape"][-1], getattr(torch, setting["dtype"])
    ours: dict[str, nn.Module]
    rivals: dict[str, nn.Module]
    if setting["norm"] == "LayerNorm":
        ours = {"layer_norm": LayerNorm(width), "fused_layer_norm": LayerNorm(width, norm_fn=fused_layer_norm)}
        rivals = {"torch.nn.LayerNorm": nn.LayerNorm(width)}
    else:
        ours = {"rms_norm": RMSNorm(width)}
        rivals = {"torch.nn.RMSNorm": nn.RMSNorm(width, eps=1e-5)}
    generator = torch.Generator().manual_seed(0)
    x, upstream = (torch.randn(setting["shape"], generator=generator) * 3 + 1 for _ in range(2))
    x, upstream = (tensor.to(device, dtype) for tensor in (x, upstream))
    # A gain of 1 and a bias of 0 would agree with one that is forgotten.
    (rival,) = rivals.values()
    state = {name: torch.randn(width, generator=generator) for name in rival.state_dict()}
    for norm in (*ours.values(), rival):
        norm.load_state_dict(state)
        norm.to(device, dtype)
    run = partial(forward, x=x)
    if setting["pass"] == "forward+backward":
        run = partial(forward_backward, x=x.requires_grad_(), upstream=upstream)
    return Race(
        ours={name: partial(run, norm) for name, norm in ours.items()},
        rivals={name: partial(run, norm) for name, norm in rivals.items()},
        dtype=dtype,
        tolerance=TOLERANCE[setting["dtype"]],
        model_flops=None,
    )


CASE = Case(
    name="norms",
    question="What do the norms that can be read cost against torch's own?",
    settings=[
        {"norm": norm, "shape": shape, "dtype": dtype, "pass": passes}
        for norm in ("LayerNorm", "RMSNorm")
        for shape in ([16, 256, 192], [8, 1024, 768])
        for dtype in ("float32", "bfloat16")
        for passes in ("forward", "forward+backward")
    ],
    race=race,
)
