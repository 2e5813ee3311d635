"""Let a language model write: one token after the other, each drawn from what the model thinks likely."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from course_lib.attention.kv_cache import Cache


class Decoder(Protocol):
    """A causal language model with caches, such as GPT2."""

    def __call__(self, ids: Tensor, caches: Sequence[Cache] | None = None) -> Tensor: ...

    def new_caches(self) -> Sequence[Cache]:
        """An empty cache for each block."""
        ...


def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The distribution that a next token is drawn from: logits (..., V) -> probabilities (..., V).

    `temperature` divides the logits; 0 is greedy: all on the largest, the first of equals. `top_k` keeps the k most
    likely tokens (and those that tie with the last of them); `top_p` the smallest set of most likely tokens that has at
    least that probability, counted after temperature and top_k. What is left is scaled to sum to 1.
    Raises ValueError for temperature < 0, top_k < 1, top_p outside (0, 1], and a largest logit that is not finite.
    Source of top_k: Fan, Lewis, Dauphin 2018, section 5.4; of top_p: Holtzman et al. 2020, "The Curious Case of Neural
    Text Degeneration", section 3.1.
    """
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature}; it must be 0 (greedy) or more")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k}; it must be at least 1, or None for all tokens")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p}; allowed is above 0 to 1, or None for all tokens")
    logits = logits.float()
    if not logits.amax(-1).isfinite().all():
        raise ValueError("logits: the largest is infinite or NaN, so that no distribution follows from them")
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    # The largest logit as 0 first: a tiny temperature then gives -inf, never inf - inf. In float32 1e-50 would be 0.
    logits = (logits - logits.amax(-1, keepdim=True)) / max(temperature, torch.finfo(torch.float32).tiny)
    if top_k is not None and top_k < logits.shape[-1]:
        last = logits.topk(top_k, -1).values[..., -1:]
        logits = logits.masked_fill(logits < last, -torch.inf)
    probabilities = logits.softmax(-1)
    if top_p is None or top_p == 1:  # 1 is all of them: a sum of many may round to it before the last
        return probabilities
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    needed = ordered.cumsum(-1) - ordered < top_p  # what comes before a kept token is less than top_p
    kept = torch.zeros_like(needed).scatter(-1, order, needed)
    kept_probabilities = probabilities * kept
    return kept_probabilities / kept_probabilities.sum(-1, keepdim=True)


@torch.no_grad()
def generate(
    model: Decoder, ids: Tensor, n_tokens: int, *, temperature: float = 1.0, top_k: int | None = None,
    top_p: float | None = None, seed: int = 0, use_cache: bool = True,
) -> Tensor:  # fmt: skip
    """Continue each row of ids (B, T) by `n_tokens` tokens: (B, T + n_tokens). The same seed gives the same text.

    `model` is used as it is: put it in eval mode. Draws are made on the CPU, so that a seed means the same on every
    device. Without `use_cache` the whole text is computed again for each token: the same, but slower. Raises ValueError
    for n_tokens < 0, ids without a token, a model that gives NaN, and what `next_token_probabilities` and the model's
    end of positions refuse.
    """
    if ids.ndim != 2 or ids.shape[1] < 1:
        raise ValueError(f"ids has shape {tuple(ids.shape)}; needed is (B, T) with at least one token")
    if n_tokens < 0:
        raise ValueError(f"n_tokens={n_tokens}; it must be 0 or more")
    generator = torch.Generator().manual_seed(seed)
    caches = model.new_caches() if use_cache else None
    new = ids
    for _ in range(n_tokens):
        logits = model(new if use_cache else ids, caches)[:, -1]  # (B, V)
        if logits.isnan().any():
            raise ValueError("model: its logits are NaN, so that no token is the most likely one")
        probabilities = next_token_probabilities(logits, temperature, top_k, top_p).cpu()
        new = torch.multinomial(probabilities, 1, generator=generator).to(ids)  # (B, 1)
        ids = torch.cat([ids, new], 1)
    return ids
