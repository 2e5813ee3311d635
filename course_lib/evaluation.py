"""How good a language model is: loss of each token, and perplexity."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import check_at_least, check_token_ids, kind_of


@torch.no_grad()
def next_token_losses(model: nn.Module, windows: Tensor, batch_size: int = 8) -> Tensor:
    """Loss -log p(token | those before it), in nats, of each token but a window's first.

    windows (N, T) of token ids -> (N, T - 1) float32, on the windows' device. All tokens count, padding too: cut
    windows that have none, as `corpora.token_windows` does. `model` maps ids (B, T) to logits (B, T, V) and is used as
    it is: put it in eval mode. Raises ValueError for other shapes, windows of one token, ids that are not int64 or
    int32, or (on a CPU) not in the vocabulary, and a batch_size below 1.
    """
    check_token_ids("windows", windows)
    if windows.ndim != 2 or windows.shape[1] < 2:
        raise ValueError(f"windows has shape {tuple(windows.shape)}; needed is (N, T) with T of 2 or more")
    check_at_least("batch_size", batch_size, 1)
    losses = []
    for batch in windows.split(batch_size):
        logits, targets = model(batch[:, :-1]), batch[:, 1:]  # (B, T - 1, V), (B, T - 1)
        if not isinstance(logits, Tensor) or logits.shape[:-1] != targets.shape:
            raise ValueError(f"model gives {kind_of(logits)}; needed are logits {(*targets.shape, 'V')}")
        check_token_ids("windows", targets, logits.shape[-1])  # -100 would be left out, as a loss of 0
        losses.append(F.cross_entropy(logits.float().flatten(0, 1), targets.flatten().long(), reduction="none"))
    return torch.cat(losses).view(len(windows), windows.shape[1] - 1)


def perplexity(losses: Tensor) -> float:
    """exp of the mean loss in nats: between how many equally likely tokens the model hesitates, on average.

    losses of any shape but an empty one, which raises ValueError.
    """
    if not isinstance(losses, Tensor) or losses.numel() == 0:
        raise ValueError(f"losses is {kind_of(losses)}; needed is a tensor of one or more")
    return losses.double().mean().exp().item()


@torch.no_grad()
def future_leak(model: nn.Module, ids: Tensor) -> Tensor:
    """Causality probe: how much each token changes the outputs *before* it; all zeros for a causal model.

    ids (T,) of int64 or int32 -> (T,): entry t is the largest difference of any output before t when token t is
    replaced by another one. `model` maps ids (B, T) to (B, T, ...), in eval mode. Both sides have the same shapes, so a
    causal model gives the same bits, and exactly 0. Raises ValueError for ids of another shape or type, and a model
    in training mode, whose dropout would look like a leak.
    """
    modules = model.modules() if isinstance(model, nn.Module) else ()  # a function will do as well
    if any(isinstance(m, nn.Dropout) and m.training and m.p > 0 for m in modules):
        raise ValueError("model is in training mode: its dropout would look like a leak; call eval() first")
    check_token_ids("ids", ids)
    if ids.ndim != 1 or len(ids) < 2:
        raise ValueError(f"ids has shape {tuple(ids.shape)}; needed is (T,) with T of 2 or more")
    rows = ids.expand(len(ids), -1)  # (T, T): one copy for each token that is changed
    changed = rows.clone()
    # The neighbour's id, or where both are equal a smaller or larger one: always a token of the vocabulary.
    other = torch.where(ids.roll(1) != ids, ids.roll(1), torch.where(ids > 0, ids - 1, ids + 1))
    changed.diagonal().copy_(other)
    difference = (model(changed) - model(rows.contiguous())).abs().reshape(*rows.shape, -1).amax(-1)  # (T, T)
    return difference.tril(-1).amax(1)
