"""Let a language model write: one token after the other, each drawn from what the model thinks likely."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from course_lib.attention.kv_cache import Cache
from course_lib.checks import check_at_least
from course_lib.tokenization import PAD


class Decoder(Protocol):
    """A causal language model with caches, such as GPT2."""

    def __call__(
        self, ids: Tensor, caches: Sequence[Cache] | None = None, *, key_mask: Tensor | None = None
    ) -> Tensor: ...

    def new_caches(self) -> Sequence[Cache]:
        """An empty cache for each block."""
        ...


def next_token_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The distribution that a next token is drawn from: logits (..., V) -> probabilities (..., V).

    `temperature` divides the logits; 0 is greedy: all on the largest, the first of equals; infinity is an even draw
    from all that no logit of -inf forbids. `top_k` keeps the k most likely tokens (and those that tie with the last of
    them); `top_p` the smallest set of most likely tokens that has at least that probability, counted after temperature
    and top_k. What is left is scaled to sum to 1.
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
    cooled = (logits - logits.amax(-1, keepdim=True)) / max(temperature, torch.finfo(torch.float32).tiny)
    logits = cooled.masked_fill(logits == -torch.inf, -torch.inf)  # -inf / inf would be NaN
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
    top_p: float | None = None, seed: int = 0, use_cache: bool = True, pad: int | None = PAD,
) -> Tensor:  # fmt: skip
    """Continue each row of ids (B, T) by `n_tokens` tokens: (B, T + n_tokens). The same seed gives the same text.

    `model` is used as it is: put it in eval mode. Draws are made on the CPU, so that a seed means the same on every
    device. Prompts of unequal length are padded on the left, see `left_padded`: tokens `pad` at the beginning of a row
    are not read (None: they are, in a vocabulary where that number is a token like others). Without `use_cache` the
    whole text is computed again for each token: the same but for rounding, and slower; in bfloat16 that rounding can
    turn a close draw. Raises ValueError for n_tokens < 0, ids without a token, a row of padding alone, a model that
    gives NaN, and what `next_token_probabilities` and the model's end of positions refuse.
    """
    if ids.ndim != 2 or ids.shape[1] < 1:
        raise ValueError(f"ids has shape {tuple(ids.shape)}; needed is (B, T) with at least one token")
    check_at_least("n_tokens", n_tokens, 0)
    key_mask = (ids != pad).cumsum(-1) > 0 if pad is not None else torch.ones_like(ids, dtype=torch.bool)
    if not key_mask[:, -1].all():
        raise ValueError(f"ids: a row holds nothing but pad={pad}; needed is one token or more")
    padded = not key_mask.all()
    generator = torch.Generator().manual_seed(seed)
    caches = model.new_caches() if use_cache else None
    new = ids
    for _ in range(n_tokens):
        given = {"key_mask": key_mask} if padded else {}  # a decoder of one's own need not know of padding
        logits = model(new if use_cache else ids, caches, **given)[:, -1]  # (B, V)
        if logits.isnan().any():
            raise ValueError("model: its logits are NaN, so that no token is the most likely one")
        probabilities = next_token_probabilities(logits, temperature, top_k, top_p).cpu()
        new = torch.multinomial(probabilities, 1, generator=generator).to(ids)  # (B, 1)
        ids = torch.cat([ids, new], 1)
        key_mask = torch.cat([key_mask, torch.ones_like(new, dtype=torch.bool)], 1)
    return ids


def left_padded(prompts: Sequence[Sequence[int]], pad: int = PAD) -> Tensor:
    """Prompts of any lengths as one batch: ids int64 (B, T), filled up with `pad` on the left.

    Raises ValueError for no prompt, or one without a token.
    """
    if not prompts or not all(map(len, prompts)):
        raise ValueError(f"prompts have lengths {[len(p) for p in prompts]}; needed is one token or more in each")
    longest = max(map(len, prompts))
    return torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
