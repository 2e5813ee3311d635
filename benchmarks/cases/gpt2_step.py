"""One training step of our GPT2 against `transformers`' GPT2LMHeadModel with the same weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.case import Case, Race, Setting
from benchmarks.cases.training_step import Step
from benchmarks.flops import count_flops
from course_lib.experiments.language import next_token_loss
from course_lib.interop import gpt2_from_transformers, oracle
from course_lib.models.gpt2 import GPT2, GPT2Config

TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}  # rounding differences grow from layer to layer and back
SIZES = ("vocab_size", "d_model", "n_heads", "n_layers")


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

    Compared are the loss and the gradients under our names, but for those of the keys' biases: softmax ignores a shift
    of all logits, so that they are zero, and what is there is rounding.
    """

    def __init__(self, model: nn.Module, ids: Tensor, dtype: torch.dtype) -> None:
        super().__init__(model, (ids, ids), dtype)
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
        if isinstance(self.model, Logits):
            theirs = {name.removeprefix("model."): gradient for name, gradient in gradients.items()}
            gradients = gpt2_from_transformers(theirs, self.model.model.config.n_layer)
        compared = {
            name: gradient
            for name, gradient in gradients.items()
            if gradient.ndim >= self.fewest_axes and not name.endswith("k_proj.bias")
        }
        return {"loss": loss} | compared


def race(setting: Setting, device: torch.device) -> Race:
    """`setting`: vocab_size, d_model, n_heads, n_layers, batch, length, dtype ("float32", "bfloat16": autocast)."""
    config = GPT2Config(**{name: setting[name] for name in SIZES}, max_positions=setting["length"])
    dtype = getattr(torch, setting["dtype"])
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (setting["batch"], setting["length"] + 1), generator=generator).to(device)
    model = GPT2(config).to(device)
    theirs = {}
    for attention in ("sdpa", "eager"):
        rival: Any = oracle(model)
        rival.set_attn_implementation(attention)
        theirs[f"transformers, {attention}"] = LanguageStep(Logits(rival), ids, dtype)
    ours = LanguageStep(model, ids, dtype)
    return Race(
        ours={"GPT2": ours},
        rivals=theirs,
        dtype=dtype,
        tolerance=TOLERANCE[setting["dtype"]],
        model_flops=count_flops(ours.forward_backward),  # the optimizer has no matrix product
    )


CASE = Case(
    name="gpt2_step",
    question="What does a training step of our GPT2 cost against transformers', and how busy is the machine?",
    settings=[
        {"vocab_size": 4000, "d_model": 192, "n_heads": 6, "n_layers": 6, "batch": 16, "length": 256, "dtype": dtype}
        for dtype in ("float32", "bfloat16")
    ],
    race=race,
)
