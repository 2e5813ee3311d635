"""One training step of a language model against that of `transformers` with the same weights."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.case import Race, Setting
from benchmarks.cases.training_step import TOLERANCE, Step
from benchmarks.flops import count_flops
from course_lib.interop import oracle
from course_lib.training import next_token_loss

SIZES = ("vocab_size", "d_model", "n_heads", "n_layers")
SETTINGS: list[Setting] = [
    {"vocab_size": 4000, "d_model": 192, "n_heads": 6, "n_layers": 6, "batch": 16, "length": 256, "dtype": dtype}
    for dtype in ("float32", "bfloat16")
]
Renamed = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


class Logits(nn.Module):
    """A model of `transformers` that gives logits alone, as ours does."""

    model: Any

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(ids, use_cache=False).logits


class LanguageStep(Step):
    """A `Step` whose loss is that of the next token; ids (B, T + 1).

    Compared are the loss and the gradients, of `transformers` under our names by `renamed`; but not those of the keys'
    biases: softmax ignores a shift of all logits, so that without RoPE they are zero, and what is there is rounding.
    """

    def __init__(self, model: nn.Module, ids: Tensor, dtype: torch.dtype, renamed: Renamed = dict) -> None:
        super().__init__(model, (ids, ids), dtype)
        self.renamed = renamed
        self.fewest_axes = 2 if dtype == torch.bfloat16 else 1  # of what is compared: matrices alone, as in Step

    def forward_backward(self) -> Tensor:
        """Both passes: returns the loss, leaves its gradients in the parameters."""
        self.optimizer.zero_grad()
        with self.autocast():
            loss, _ = next_token_loss(self.model, self.batch[:1])
        loss.backward()
        return loss.detach()

    def __call__(self) -> Mapping[str, Tensor]:
        loss = super().__call__()["loss"]
        gradients = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        compared = {
            name: gradient
            for name, gradient in self.renamed(gradients).items()
            if gradient.ndim >= self.fewest_axes and not name.endswith("k_proj.bias")
        }
        return {"loss": loss} | compared


def step_race(
    model: nn.Module, from_theirs: Renamed, setting: Setting, device: torch.device,
    attentions: Sequence[str] = ("sdpa", "eager"),
) -> Race:  # fmt: skip
    """Ours against its oracle, with the fused and the eager attention of `transformers`, or those of `attentions`.

    `setting`: vocab_size, batch, length, dtype ("float32", "bfloat16": autocast); `from_theirs` gives a state dict of
    the oracle our names.
    """
    dtype = getattr(torch, setting["dtype"])
    generator = torch.Generator().manual_seed(0)
    shape = (setting["batch"], setting["length"] + 1)
    ids = torch.randint(setting["vocab_size"], shape, generator=generator).to(device)
    model = model.to(device)

    def renamed(gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return from_theirs({name.removeprefix("model."): gradient for name, gradient in gradients.items()})

    theirs = {}
    for attention in attentions:
        rival: Any = oracle(model)
        rival.set_attn_implementation(attention)
        theirs[f"transformers, {attention}"] = LanguageStep(Logits(rival), ids, dtype, renamed)
    ours = LanguageStep(model, ids, dtype)
    return Race(
        ours={type(model).__name__: ours},
        rivals=theirs,
        dtype=dtype,
        tolerance=TOLERANCE[setting["dtype"]],
        model_flops=count_flops(ours.forward_backward),  # the optimizer has no matrix product
    )
