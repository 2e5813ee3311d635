"""The check for the exercise of notebook 00, from text to loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.evaluation import next_token_losses
from course_lib.exercises import Wrong, call, checker, expect, expect_gradients

TOKENS, VOCABULARY = 6, 5


def _reference(logits: Tensor, ids: Tensor) -> Tensor:
    return F.cross_entropy(logits[:-1], ids[1:])


@checker
def next_token_loss(fn: Callable[[Tensor, Tensor], Any], model: nn.Module, windows: Tensor) -> str:
    """Check `fn(logits (T, V), ids (T,))`, the mean next-token loss in nats, then let it score `model` on `windows`."""
    logits = torch.randn(TOKENS, VOCABULARY) * 2
    ids = torch.tensor([0, 3, 1, 1, 4, 2])
    log_p = logits.log_softmax(-1)
    own = log_p[range(TOKENS), ids]
    next_ = log_p[range(TOKENS - 1), ids[1:]]
    before = log_p[range(1, TOKENS), ids[:-1]]
    wrapped = log_p[range(TOKENS), ids.roll(-1)]
    other_axis = logits.log_softmax(0)[range(TOKENS - 1), ids[1:]]
    mistakes = {
        "You compare the logits of a token with that same token. They are a guess at the *next* one: shift by one.": (
            -own.mean()
        ),
        "You shift the wrong way: the logits at t guess ids[t + 1], not ids[t - 1].": -before.mean(),
        "The last logits have no next token: yours are compared with the first one. Leave them out.": -wrapped.mean(),
        "The minus sign is missing: a loss is -log p.": next_.mean(),
        "You add the losses up. Take their mean, or a longer text costs more.": -next_.sum(),
        "You divide by T. There are T - 1 next tokens.": -next_.sum() / TOKENS,
        "Your logarithm has base 2: that is a loss in bits. Nats are asked for, the natural logarithm.": (
            -next_.mean() / torch.log(torch.tensor(2.0))
        ),
        "Your softmax runs over the positions. It runs over the vocabulary: the last axis.": -other_axis.mean(),
        "You take the columns ids[1:] of every row. Row t goes with the one column ids[t + 1]: see the hint.": (
            -log_p[:-1][:, ids[1:]].mean()
        ),
        "Your logarithm has base 10. Nats are asked for, the natural logarithm.": (
            -next_.mean() / torch.log(torch.tensor(10.0))
        ),
        "That is -mean(p), without the logarithm.": -next_.exp().mean(),
        "You take the logits for log p. First the log-softmax over the vocabulary.": -logits[
            range(TOKENS - 1), ids[1:]
        ].mean(),
        "That is the perplexity. The loss is its logarithm.": (-next_.mean()).exp(),
    }
    expect(call(fn, logits, ids), _reference(logits, ids), mistakes)
    large = torch.full((3, VOCABULARY), -1e4)
    large[:, 0] = 1e4
    certain = call(fn, large, torch.tensor([1, 0, 0]))
    if not torch.isfinite(torch.as_tensor(certain)):
        raise Wrong(
            "For large logits your loss is not a finite number: exp overflows. "
            "Use log_softmax, which subtracts the largest first."
        )
    expect_gradients(fn, _reference, {"logits": logits}, ids)
    with torch.no_grad():
        yours = torch.stack([torch.as_tensor(call(fn, model(window), window)) for window in windows]).mean()
    ours = next_token_losses(model, windows).mean()
    if not torch.allclose(yours, ours, rtol=1e-4):
        raise Wrong(f"On the validation speeches your loss gives {yours:.4f} nats, the library's {ours:.4f}.")
    return (
        f"Right, in value and gradient. On {windows.numel():,} validation tokens the trained network has {yours:.3f} "
        f"nats by your function (the library's: {ours:.3f}): perplexity {yours.exp():.1f}."
    )
