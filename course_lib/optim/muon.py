"""Muon: momentum whose matrices are made orthogonal before each step."""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from course_lib.checks import check_above, check_at_least, check_not_negative

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan et al. 2024: the steepest that still end near 1


@torch.no_grad()
def newton_schulz(g: Tensor, steps: int = 5) -> Tensor:
    """A nearly orthogonal matrix for each matrix of g (..., M, N): its singular values become about 0.7 to 1.2.

    Those below some thousandths of the matrix's norm stay smaller: a step makes them 3.4 times as large. Each is an odd
    polynomial of the matrix, a X + b (X X^T) X + c (X X^T)^2 X, which acts on the singular values alone: products
    of matrices in place of a decomposition. It is computed in g's own dtype: bfloat16, which torch.optim.Muon takes, is
    slow on processors that have no instructions for it.
    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    """
    a, b, c = COEFFICIENTS
    tall = g.shape[-2] > g.shape[-1]
    x = g.mT if tall else g
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # no singular value is above 1
    for _ in range(steps):
        square = x @ x.mT  # (..., M, M), the smaller side
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


class Muon(Optimizer):
    """Momentum, made orthogonal by `newton_schulz`: each direction of a matrix moves by about the same.

    For the matrices of hidden layers, (M, N), or (E, M, N) for a stack of experts; embeddings, norms and biases go to
    AdamW (`split_params`). The step is lr * 0.2 * sqrt(max(M, N)), as large as AdamW's would be, so that both take one
    learning rate (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2); torch.optim.Muon calls that
    adjust_lr_fn="match_rms_adamw". Weight decay is AdamW's. Matrices of one shape are made orthogonal together.
    Raises ValueError for lr or weight_decay below 0, momentum outside 0 to 1, steps below 1, and parameters with fewer
    than two axes or more than three.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95, steps: int = 5
    ) -> None:
        check_above("lr", lr, 0)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum}; allowed is 0 to below 1")
        check_at_least("steps", steps, 1)
        check_not_negative("weight_decay", weight_decay)
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "steps": steps})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take over parameters. Raises ValueError for those with fewer than two axes or more than three."""
        super().add_param_group(param_group)
        for parameter in self.param_groups[-1]["params"]:
            if parameter.ndim not in (2, 3):
                raise ValueError(f"params: one has shape {tuple(parameter.shape)}; needed are matrices")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step for all parameters that have a gradient. Raises ValueError for a closure: it would not be called."""
        refuse_closure(closure)
        for group in self.param_groups:
            momentum, alike = group["momentum"], defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "mean" not in state:
                    state["mean"] = torch.zeros_like(parameter)
                mean = state["mean"]
                mean.lerp_(parameter.grad, 1 - momentum)
                update = parameter.grad.lerp(mean, momentum)  # Nesterov: one step ahead of the mean
                alike[(update.shape, update.dtype, update.device)].append((parameter, update))
            for (shape, *_), pairs in alike.items():
                directions = newton_schulz(torch.stack([update for _, update in pairs]), group["steps"])
                length = group["lr"] * 0.2 * math.sqrt(max(shape[-2:]))
                for (parameter, _), direction in zip(pairs, directions, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(direction, alpha=length)


def refuse_closure(closure: object) -> None:
    """Raise ValueError unless `closure` is None."""
    if closure is not None:
        raise ValueError(f"closure={closure!r}; allowed is None: call backward before step")


def split_params(model: nn.Module, output: str = "unembedding") -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters of `model` in two lists: hidden matrices, for Muon, and the rest, for AdamW.

    Hidden are the weights of linear layers, but for the layer called `output` and those that an embedding shares: the
    readout has one row a token, or a class, and each is a vector of its own.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    hidden = {
        id(m.weight) for name, m in model.named_modules() if isinstance(m, nn.Linear) and name.split(".")[-1] != output
    }
    lists: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for parameter in model.parameters():
        lists[id(parameter) not in hidden - embeddings].append(parameter)
    return lists
