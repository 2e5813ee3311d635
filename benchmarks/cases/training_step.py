"""One training step of a ResidualMLP against the same network of torch's modules."""

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.case import Case, Race, Setting
from benchmarks.flops import count_flops
from course_lib.models.residual_mlp import ResidualMLP, ResidualMLPConfig
from course_lib.norms import LayerNorm, fused_layer_norm
from course_lib.training import classification_loss

TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}  # rounding differences grow from layer to layer and back


class TorchBlock(nn.Module):
    """ResidualBlock, pre-norm, of torch's modules under the same names."""

    def __init__(self, config: ResidualMLPConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.d_model)
        up, down = nn.Linear(config.d_model, config.d_ff), nn.Linear(config.d_ff, config.d_model)
        self.mlp = nn.Sequential(OrderedDict(up=up, act=nn.GELU(), down=down))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


class TorchResidualMLP(nn.Sequential):
    """ResidualMLP, pre-norm, of torch's modules under the same names, so that its weights fit."""

    def __init__(self, config: ResidualMLPConfig) -> None:
        blocks = nn.Sequential(*(TorchBlock(config) for _ in range(config.n_layers)))
        embed, head = nn.Linear(config.d_in, config.d_model), nn.Linear(config.d_model, config.n_classes)
        super().__init__(OrderedDict(embed=embed, blocks=blocks, final_norm=nn.LayerNorm(config.d_model), head=head))


def with_fused_norms(model: ResidualMLP) -> ResidualMLP:
    """`model`, changed in place: its norms call torch's kernel."""
    for module in model.modules():
        if isinstance(module, LayerNorm):
            module.norm_fn = fused_layer_norm
    return model


class Step:
    """What `course_lib.training.train` does in a step, as bare calls: loss, gradients, clipping, AdamW.

    Calling it returns the loss and the clipped gradients. bfloat16 is autocast, as train's mixed_precision="bf16";
    then only the matrices' gradients are returned, for the reason given in `norms.forward_backward`.
    """

    def __init__(self, model: nn.Module, batch: tuple[Tensor, Tensor], dtype: torch.dtype) -> None:
        self.model, self.batch = model.train(), batch
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
        half = dtype == torch.bfloat16
        self.autocast = partial(torch.autocast, batch[0].device.type, dtype, enabled=half)
        self.compared = {name: p for name, p in model.named_parameters() if p.ndim > 1 or not half}

    def forward_backward(self) -> Tensor:
        """Both passes: returns the loss, leaves its gradients in the parameters."""
        self.optimizer.zero_grad()
        with self.autocast():
            loss, _ = classification_loss(self.model, self.batch)
        loss.backward()
        return loss.detach()

    def __call__(self) -> Mapping[str, Tensor]:
        loss = self.forward_backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return {"loss": loss} | {name: p.grad for name, p in self.compared.items() if p.grad is not None}


def race(setting: Setting, device: torch.device) -> Race:
    """`setting`: d_model, d_ff, n_layers, batch, dtype ("float32", or "bfloat16" for autocast)."""
    config = ResidualMLPConfig(**{name: setting[name] for name in ("d_model", "d_ff", "n_layers")})
    ours = {"ResidualMLP": ResidualMLP(config), "ResidualMLP, fused norms": with_fused_norms(ResidualMLP(config))}
    theirs = TorchResidualMLP(config)
    theirs.load_state_dict(ours["ResidualMLP"].state_dict())
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(setting["batch"], config.d_in, generator=generator)
    labels = torch.randint(config.n_classes, (setting["batch"],), generator=generator)
    batch, dtype = (images.to(device), labels.to(device)), getattr(torch, setting["dtype"])
    steps = {name: Step(model.to(device), batch, dtype) for name, model in ours.items()}
    return Race(
        ours=steps,
        rivals={"torch.nn modules": Step(theirs.to(device), batch, dtype)},
        dtype=dtype,
        tolerance=TOLERANCE[setting["dtype"]],
        model_flops=count_flops(steps["ResidualMLP"].forward_backward),  # the optimizer has no matrix product
    )


CASE = Case(
    name="training_step",
    question="What does a training step of ResidualMLP cost against torch's modules, and how busy is the machine?",
    settings=[
        {"d_model": d_model, "d_ff": d_ff, "n_layers": n_layers, "batch": batch, "dtype": dtype}
        for d_model, d_ff, n_layers, batch in ((128, 128, 24, 128), (512, 2048, 6, 512))  # lesson 01's, a transformer's
        for dtype in ("float32", "bfloat16")
    ],
    race=race,
)
