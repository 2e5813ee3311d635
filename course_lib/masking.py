"""Masked language modelling: hide some tokens, and ask for them."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from course_lib.checks import check_at_least, check_token_ids, kind_of
from course_lib.corpora import shuffled_batches
from course_lib.init import seed_of
from course_lib.tokenization import END, MASK, PAD, SPECIAL

NOT_ASKED = -100  # a target that is no token: torch's own mark for what cross entropy leaves out


class Masked(NamedTuple):
    """Token windows with some tokens hidden: ids (B, T), where they were hidden, and what stood there, both (B, M).

    Where a window has fewer tokens to ask for than M, `at` is 0 and `targets` NOT_ASKED. key_mask (B, T), True for what
    is no padding, is what the model must be told; None where there is no padding.
    """

    ids: Tensor
    at: Tensor
    targets: Tensor
    key_mask: Tensor | None = None


def hide(windows: Tensor, vocab_size: int, rate: float, seed: int) -> Masked:
    """Choose `rate` of the tokens of each window (B, T); 80 % become <mask>, 10 % a random token, 10 % stay.

    BERT takes a rate of 0.15, ModernBERT of 0.3: what is hidden teaches, what is not explains.

    Of a window of n tokens, without its padding, round(rate n) are chosen, one at least; M is that of T tokens, so that
    shapes do not depend on data. Special tokens are never chosen, nor is the first token of a window; but </s> is, for
    where a document ends can be told. Everything follows from `seed`. Raises ValueError for a rate that hides no token
    or all, windows that are not (B, T) int64 with ids below vocab_size, and windows with nothing to ask for.
    Sources: Devlin et al. 2019, "BERT", section 3.1 and appendix A.1; Warner et al. 2024, "Smarter, Better, Faster,
    Longer", section 2.2.2 (the rate).
    """
    if not isinstance(windows, Tensor) or windows.ndim != 2 or windows.dtype != torch.int64:
        raise ValueError(f"windows is {kind_of(windows)}; needed is int64 (B, T)")
    check_at_least("vocab_size", vocab_size, len(SPECIAL) + 1)
    device, windows = windows.device, windows.cpu()  # drawn and chosen there: the same on every device
    check_token_ids("windows", windows, vocab_size)
    batch, length = windows.shape
    most = round(rate * length) if math.isfinite(rate) else 0
    if not 1 <= most < length:
        raise ValueError(f"rate={rate} hides {most} of {length} tokens; needed is at least one, and not all")
    generator = torch.Generator().manual_seed(seed)
    at = _places(windows, rate, most, generator)  # (B, M)
    fate = torch.rand(batch, most, generator=generator, dtype=torch.float32)
    other = torch.randint(len(SPECIAL), vocab_size, (batch, most), generator=generator)
    there, asked = windows.gather(1, at), at > 0
    if batch and not asked.any():
        raise ValueError("windows: no token that could be hidden; they are special tokens alone")
    shown = torch.where(fate < 0.8, MASK, torch.where(fate < 0.9, other, there)).where(asked, there)
    ids, targets = windows.scatter(1, at, shown), there.where(asked, NOT_ASKED)
    ids, at, targets = (x.to(device) for x in (ids, at, targets))
    counts = windows != PAD
    return Masked(ids, at, targets, None if counts.all() else counts.to(device))


def _places(windows: Tensor, rate: float, most: int, generator: torch.Generator) -> Tensor:
    """Which tokens of windows (B, T) to hide, in order: (B, most), 0 for none."""
    batch, length = windows.shape
    may = (windows >= len(SPECIAL)) | (windows == END)
    may[:, 0] = False
    lots = torch.rand(batch, length - 1, generator=generator, dtype=torch.float32)
    at = 1 + lots.where(may[:, 1:], -1).topk(most, -1).indices  # (B, M), the best lot first
    count = ((windows != PAD).sum(1).double() * rate).round().clamp(min=1).minimum(may.sum(1))  # (B,), as Python rounds
    return at.where(torch.arange(most) < count.unsqueeze(1), 0).sort(-1).values


def masked_batches(
    windows: Tensor, batch_size: int, vocab_size: int, rate: float, seed: int
) -> Callable[[int], Masked]:
    """`batches(step)`: shuffled windows (N, T), hidden anew at each step; a pure function of seed, step and rank."""
    shuffled = shuffled_batches((windows,), batch_size, seed)
    return lambda step: hide(shuffled(step)[0], vocab_size, rate, seed_of(seed, step, "mask"))


def masked_loss(model: nn.Module, batch: Masked) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean cross entropy in nats of the hidden tokens, and how many were named right; only they are decoded.

    Of a batch that asks for nothing both are 0: a mean of nothing would be NaN, and end the training.
    """
    logits = _logits(model, batch)  # (B, M, V)
    total = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), batch.targets.flatten(), ignore_index=NOT_ASKED, reduction="sum"
    )
    right, asked = logits.argmax(-1) == batch.targets, batch.targets != NOT_ASKED
    n_asked = asked.sum().clamp(min=1)
    return total / n_asked, {"accuracy": right.float().sum() / n_asked}


@torch.no_grad()
def masked_losses(
    model: nn.Module, windows: Tensor, vocab_size: int, rate: float, seed: int, batch_size: int = 8
) -> Tensor:
    """Loss in nats of each token that `hide` hides in windows (N, T): (N, M). The model is used as it is.

    NaN stands where a window with padding has fewer tokens to ask for: its mean is `nanmean()`.
    """
    check_at_least("batch_size", batch_size, 1)
    hidden = hide(windows, vocab_size, rate, seed)
    parts = [x.split(batch_size) for x in hidden if x is not None]
    losses = []
    for batch in (Masked(*part) for part in zip(*parts, strict=True)):
        logits = _logits(model, batch).float().flatten(0, 1)
        losses.append(
            nn.functional.cross_entropy(logits, batch.targets.flatten(), reduction="none", ignore_index=NOT_ASKED)
        )
    return torch.cat(losses).view(hidden.targets.shape).where(hidden.targets != NOT_ASKED, math.nan)


def _logits(model: nn.Module, batch: Masked) -> Tensor:
    """What the model says of the hidden tokens: (B, M, V). It hears of padding where there is some."""
    if batch.key_mask is None:
        return model(batch.ids, at=batch.at)
    return model(batch.ids, at=batch.at, key_mask=batch.key_mask)
