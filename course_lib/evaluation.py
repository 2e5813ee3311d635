"""How good a language model is: loss of each token, and perplexity."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@torch.no_grad()
def next_token_losses(model: nn.Module, windows: Tensor, batch_size: int = 8) -> Tensor:
    """Loss -log p(token | those before it), in nats, of each token but a window's first.

    windows (N, T) of token ids -> (N, T - 1) float32, on the windows' device. `model` maps ids (B, T) to logits
    (B, T, V) and is used as it is: put it in eval mode. Raises ValueError for other shapes, or windows of one token.
    """
    if windows.ndim != 2 or windows.shape[1] < 2:
        raise ValueError(f"windows has shape {tuple(windows.shape)}; needed is (N, T) with T of 2 or more")
    losses = []
    for batch in windows.split(batch_size):
        logits = model(batch[:, :-1]).float()  # (B, T - 1, V)
        losses.append(F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none"))
    return torch.cat(losses).view(len(windows), -1)


def perplexity(losses: Tensor) -> float:
    """exp of the mean loss in nats: between how many equally likely tokens the model hesitates, on average."""
    return losses.double().mean().exp().item()
