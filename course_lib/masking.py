"""Masked language modelling: hide some tokens, and ask for them."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from course_lib.checks import check_at_least, kind_of
from course_lib.corpora import shuffled_batches
from course_lib.init import seed_of
from course_lib.tokenization import MASK, SPECIAL


class Masked(NamedTuple):
    """Token windows with some tokens hidden: ids (B, T), where they were hidden, and what stood there, both (B, M)."""

    ids: Tensor
    at: Tensor
    targets: Tensor


def hide(windows: Tensor, vocab_size: int, rate: float, seed: int) -> Masked:
    """Choose round(rate T) tokens of each window (B, T); 80 % become <mask>, 10 % a random token, 10 % stay.

    As many in each window, so that shapes do not depend on data. Special tokens are chosen too where they are many;
    the first token of a window, <s>, never is. Everything follows from `seed`. Raises ValueError for a rate that
    hides no token or all, and windows that are not (B, T) int64.
    Source: Devlin et al. 2019, "BERT", section 3.1 and appendix A.1.
    """
    if not isinstance(windows, Tensor) or windows.ndim != 2 or windows.dtype != torch.int64:
        raise ValueError(f"windows is {kind_of(windows)}; needed is int64 (B, T)")
    check_at_least("vocab_size", vocab_size, len(SPECIAL) + 1)
    batch, length = windows.shape
    count = round(rate * length) if math.isfinite(rate) else 0
    if not 1 <= count < length:
        raise ValueError(f"rate={rate} hides {count} of {length} tokens; needed is at least one, and not all")
    generator = torch.Generator().manual_seed(seed)
    lots = torch.rand(batch, length - 1, generator=generator)
    at = 1 + lots.topk(count, -1).indices.sort(-1).values  # (B, M)
    fate = torch.rand(batch, count, generator=generator)
    other = torch.randint(len(SPECIAL), vocab_size, (batch, count), generator=generator)
    at, fate, other = (x.to(windows.device) for x in (at, fate, other))
    targets = windows.gather(1, at)
    shown = torch.where(fate < 0.8, MASK, torch.where(fate < 0.9, other, targets))
    return Masked(windows.scatter(1, at, shown), at, targets)


def masked_batches(
    windows: Tensor, batch_size: int, vocab_size: int, rate: float, seed: int
) -> Callable[[int], Masked]:
    """`batches(step)`: shuffled windows (N, T), hidden anew at each step; a pure function of seed, step and rank."""
    shuffled = shuffled_batches((windows,), batch_size, seed)
    return lambda step: hide(shuffled(step)[0], vocab_size, rate, seed_of(seed, step, "mask"))


def masked_loss(model: nn.Module, batch: Masked) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean cross entropy in nats of the hidden tokens, and how many were named right; only they are decoded."""
    logits = model(batch.ids, at=batch.at)  # (B, M, V)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten())
    return loss, {"accuracy": (logits.argmax(-1) == batch.targets).float().mean()}


@torch.no_grad()
def masked_losses(
    model: nn.Module, windows: Tensor, vocab_size: int, rate: float, seed: int, batch_size: int = 8
) -> Tensor:
    """Loss in nats of each token that `hide` hides in windows (N, T): (N, M). The model is used as it is."""
    check_at_least("batch_size", batch_size, 1)
    hidden = hide(windows, vocab_size, rate, seed)
    losses = []
    for ids, at, targets in zip(*(x.split(batch_size) for x in hidden), strict=True):
        logits = model(ids, at=at).float()
        losses.append(nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none"))
    return torch.cat(losses).view(hidden.targets.shape)
