"""What attention heads do: scores of their maps for known roles, and what the model loses without each head."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from course_lib.attention import MultiHeadAttention
from course_lib.evaluation import next_token_losses
from course_lib.features import record_attention


@torch.no_grad()
def attention_maps(model: nn.Module, ids: Tensor) -> Tensor:
    """Weights of all heads on ids (B, T) -> (L, B, H, T, T), on the ids' device.

    Raises ValueError as `record_attention` does.
    """
    with record_attention(model) as seen:
        model(ids)
    return torch.stack(list(seen.values()))


def previous_token(maps: Tensor) -> Tensor:
    """Mean weight on the token just before: maps (L, B, H, T, T) -> (L, H), 0 to 1. The first query has none."""
    return maps.diagonal(-1, -2, -1).mean((1, 3))


def same_token(maps: Tensor) -> Tensor:
    """Mean weight of a token on itself, the map's diagonal: (L, H). The first query, which has no choice, is out."""
    return maps.diagonal(0, -2, -1)[..., 1:].mean((1, 3))


def first_token(maps: Tensor) -> Tensor:
    """Mean weight on the first token, the "attention sink" of Xiao et al. 2023: (L, H). The first query is out."""
    return maps[..., 1:, 0].mean((1, 3))


def on_tokens(maps: Tensor, ids: Tensor, wanted: Sequence[int]) -> Tensor:
    """Mean weight on keys that are one of the tokens `wanted`, such as full stops: (L, H).

    ids (B, T) as the maps were made of. Counted are queries with such a key *before* them, the first token left out, so
    that neither a diagonal head nor a sink can score. Raises ValueError where there is no such query.
    """
    key = torch.isin(ids, torch.tensor(wanted, device=ids.device))  # (B, T)
    key[:, 0] = False
    before = key.unsqueeze(1).expand(-1, ids.shape[1], -1).tril(-1)  # (B, T, T)
    asked = before.any(-1)  # (B, T)
    if not asked.any():
        raise ValueError(f"wanted={list(wanted)}: none of these tokens stands before another one")
    mass = (maps * before.unsqueeze(1)).sum(-1)  # (L, B, H, T)
    return (mass * asked.unsqueeze(1)).sum((1, 3)) / asked.sum()


def reach(maps: Tensor) -> Tensor:
    """Mean distance in tokens from a query to its keys, weighted by attention: (L, H).

    A causal head that attends evenly to all has (T - 1) / 4 on average.
    """
    place = torch.arange(maps.shape[-1], device=maps.device)
    distance = (place[:, None] - place[None, :]).abs()
    return (maps * distance).sum(-1).mean((1, 3))


def evenness(maps: Tensor) -> Tensor:
    """How evenly a causal head spreads its weight, 1 / T to 1: (L, H).

    exp(entropy) of a row is the number of keys that it looks at in effect; divided by the number that it may see, and
    averaged over queries. The first query, which sees one key, is out.
    """
    effective = torch.special.entr(maps).sum(-1).exp()  # (L, B, H, T)
    visible = torch.arange(1, maps.shape[-1] + 1, device=maps.device)
    return (effective / visible)[..., 1:].mean((1, 3))


def repeated(length: int, n: int, tokens: Sequence[int], seed: int, start: int) -> Tensor:
    """Sequences for `induction`: `start`, then `length` random tokens twice: (n, 1 + 2 length), int64.

    Within a sequence no token comes twice before the repetition, so that nothing but the repetition can be used.
    Raises ValueError for a length below 2 or above the number of tokens.
    """
    if not 2 <= length <= len(tokens):
        raise ValueError(f"length={length}; allowed is 2 to {len(tokens)}, the number of tokens")
    generator = torch.Generator().manual_seed(seed)
    pool = torch.tensor(tokens)
    rows = torch.stack([pool[torch.randperm(len(pool), generator=generator)[:length]] for _ in range(n)])
    return torch.cat([torch.full((n, 1), start), rows, rows], 1)


def induction(maps: Tensor, length: int) -> Tensor:
    """Mean weight, in the repetition, on the token *after* the earlier copy of the current one: (L, H).

    maps are those of `repeated(length, ...)`. A head that does this can continue "… A B … A" with B.
    Source: Olsson et al. 2022, "In-context Learning and Induction Heads", section "Key concepts".
    """
    _check_repeated(maps, length)
    # Query 1 + length + i, the second copy of token i, looks at key 2 + i, the one after its first copy.
    return maps.diagonal(1 - length, -2, -1)[..., 2:].mean((1, 3))


def earlier_copy(maps: Tensor, length: int) -> Tensor:
    """Mean weight, in the repetition, on the earlier copy of the current token itself: (L, H).

    maps are those of `repeated(length, ...)`. Such "duplicate token heads" were found in GPT-2 by Wang et al. 2022,
    "Interpretability in the Wild", section 3.
    """
    _check_repeated(maps, length)
    return maps.diagonal(-length, -2, -1)[..., 1:].mean((1, 3))  # query 1 + length + i, key 1 + i


def _check_repeated(maps: Tensor, length: int) -> None:
    if maps.shape[-1] != 1 + 2 * length:
        raise ValueError(f"maps are of {maps.shape[-1]} tokens; length={length} needs {1 + 2 * length}")


@contextmanager
def without_head(model: nn.Module, layer: int, head: int) -> Iterator[None]:
    """While the block runs, head `head` of the attention module number `layer` adds nothing (zero ablation).

    Raises ValueError for a layer or head that is not there.
    """
    modules = [m for m in model.modules() if isinstance(m, MultiHeadAttention)]
    for name, value, n in (("layer", layer, len(modules)), ("head", head, modules[0].n_heads if modules else 0)):
        if not 0 <= value < n:
            raise ValueError(f"{name}={value}; allowed is 0 to {n - 1}")
    width = modules[layer].head_dim

    def silence(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        heads = args[0].clone()  # (B, T, H D)
        heads[..., head * width : (head + 1) * width] = 0
        return (heads,)

    handle = modules[layer].out_proj.register_forward_pre_hook(silence)
    try:
        yield
    finally:
        handle.remove()


def ablation_costs(model: nn.Module, windows: Tensor) -> Tensor:
    """What the next-token loss rises by, in nats, without each head in turn: windows (N, T) -> (L, H, N).

    One number a window: pairs of the same text with and without the head, of which mean and spread can be taken.
    """
    modules = [m for m in model.modules() if isinstance(m, MultiHeadAttention)]
    whole = next_token_losses(model, windows).mean(1)  # (N,)
    costs = torch.zeros(len(modules), modules[0].n_heads, len(windows))
    for layer, module in enumerate(modules):
        for head in range(module.n_heads):
            with without_head(model, layer, head):
                costs[layer, head] = (next_token_losses(model, windows).mean(1) - whole).cpu()
    return costs
