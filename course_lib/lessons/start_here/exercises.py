"""The check for the exercise of notebook 00, from text to loss."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.evaluation import next_token_losses
from course_lib.exercises import Wrong, call, checker, expect_gradients
from course_lib.exercises.mistakes import Mistakes, expect_by

TOKENS, VOCABULARY = 6, 5
Loss = Callable[[Tensor, Tensor], Tensor]


def _right(logits: Tensor, ids: Tensor) -> Tensor:
    return F.cross_entropy(logits[:-1], ids[1:])


def _of_next(values: Tensor, ids: Tensor) -> Tensor:
    """The entry of each row but the last, in the column of the next token: (T, V) -> (T - 1,)."""
    return values[range(len(ids) - 1), ids[1:]]


NEXT_TOKEN_LOSS: Mistakes = {
    "You compare the logits of a token with that same token. They are a guess at the *next* one: shift by one.":
        lambda logits, ids: F.cross_entropy(logits, ids),
    "You shift the wrong way: the logits at t guess ids[t + 1], not ids[t - 1].":
        lambda logits, ids: F.cross_entropy(logits[1:], ids[:-1]),
    "The last logits have no next token: yours are compared with the first one. Leave them out.":
        lambda logits, ids: F.cross_entropy(logits, ids.roll(-1)),
    "The minus sign is missing: a loss is -log p.": lambda logits, ids: -_right(logits, ids),
    "You add the losses up. Take their mean, or a longer text costs more.":
        lambda logits, ids: F.cross_entropy(logits[:-1], ids[1:], reduction="sum"),
    "You divide by T. There are T - 1 next tokens.":
        lambda logits, ids: F.cross_entropy(logits[:-1], ids[1:], reduction="sum") / len(ids),
    "Your logarithm has base 2: that is a loss in bits. Nats are asked for, the natural logarithm.":
        lambda logits, ids: _right(logits, ids) / math.log(2),
    "Your softmax runs over the positions. It runs over the vocabulary: the last axis.":
        lambda logits, ids: -_of_next(logits.log_softmax(0), ids).mean(),
    "You take the columns ids[1:] of every row. Row t goes with the one column ids[t + 1]: see the hint.":
        lambda logits, ids: -logits.log_softmax(-1)[:-1][:, ids[1:]].mean(),
    "Your logarithm has base 10. Nats are asked for, the natural logarithm.":
        lambda logits, ids: _right(logits, ids) / math.log(10),
    "That is -mean(p), without the logarithm.": lambda logits, ids: -_of_next(logits.softmax(-1), ids).mean(),
    "You take the logits for log p. First the log-softmax over the vocabulary.":
        lambda logits, ids: -_of_next(logits, ids).mean(),
    "That is the perplexity. The loss is its logarithm.": lambda logits, ids: _right(logits, ids).exp(),
}  # fmt: skip


@checker
def next_token_loss(fn: Loss, model: nn.Module, windows: Tensor) -> str:
    """Check `fn(logits (T, V), ids (T,))`, the mean next-token loss in nats, then let it score `model` on `windows`."""
    logits = torch.randn(TOKENS, VOCABULARY) * 2
    ids = torch.tensor([0, 3, 1, 1, 4, 2])
    expect_by(call(fn, logits, ids), _right, NEXT_TOKEN_LOSS, logits, ids)
    large = torch.full((3, VOCABULARY), -1e4)
    large[:, 0] = 1e4
    certain = call(fn, large, torch.tensor([1, 0, 0]))
    if not torch.isfinite(torch.as_tensor(certain)):
        raise Wrong(
            "For large logits your loss is not a finite number: exp overflows. "
            "Use log_softmax, which subtracts the largest first."
        )
    expect_gradients(fn, _right, {"logits": logits}, ids)
    with torch.no_grad():
        yours = torch.stack([torch.as_tensor(call(fn, model(window), window)) for window in windows]).mean()
    ours = next_token_losses(model, windows).mean()
    if not torch.allclose(yours, ours, rtol=1e-4):
        raise Wrong(f"On the validation speeches your loss gives {yours:.4f} nats, the library's {ours:.4f}.")
    return (
        f"Right, in value and gradient. On {windows.numel():,} validation tokens the trained network has {yours:.3f} "
        f"nats by your function (the library's: {ours:.3f}): perplexity {yours.exp():.1f}."
    )
