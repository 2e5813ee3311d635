"""What attention heads do: scores of their maps for known roles, and what the model loses without each head."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from course_lib.attention import MultiHeadAttention
from course_lib.checks import check_at_least, check_range, check_token_ids, kind_of
from course_lib.evaluation import next_token_losses
from course_lib.features import record, record_attention


@torch.no_grad()
def attention_maps(model: nn.Module, ids: Tensor) -> Tensor:
    """Weights of all heads on ids (B, T) -> (L, B, H, T, T), layers as `model.named_modules()` has them.

    Raises ValueError as `record_attention` does, and for layers with different numbers of heads.
    """
    modules = _attention_modules(model)
    with record_attention(model) as seen:
        model(ids)
    return torch.stack([seen[name] for name in modules])


def _attention_modules(model: nn.Module) -> dict[str, MultiHeadAttention]:
    modules = {name: m for name, m in model.named_modules() if isinstance(m, MultiHeadAttention)}
    if len({m.n_heads for m in modules.values()}) != 1:
        found = [m.n_heads for m in modules.values()]
        raise ValueError(f"model has layers of {found} heads; needed is one layer or more, with equally many")
    return modules


def _check(maps: Tensor) -> None:
    fits = isinstance(maps, Tensor) and maps.ndim == 5 and maps.shape[-1] == maps.shape[-2] > 1 and maps.numel() > 0
    if not fits or not maps.is_floating_point() or maps.amin() < 0:
        raise ValueError(f"maps is {kind_of(maps)}; needed are weights of 0 or more, (L, B, H, T, T), T >= 2")


def previous_token(maps: Tensor) -> Tensor:
    """Mean weight on the token just before: maps (L, B, H, T, T) -> (L, H), 0 to 1. The first query has none."""
    _check(maps)
    return maps.diagonal(-1, -2, -1).mean((1, 3))


def same_token(maps: Tensor) -> Tensor:
    """Mean weight of a token on itself, the map's diagonal: (L, H). The first query, which has no choice, is out."""
    _check(maps)
    return maps.diagonal(0, -2, -1)[..., 1:].mean((1, 3))


def first_token(maps: Tensor) -> Tensor:
    """Mean weight on the first token, the "attention sink" of Xiao et al. 2023: (L, H). The first query is out."""
    _check(maps)
    return maps[..., 1:, 0].mean((1, 3))


def on_tokens(maps: Tensor, ids: Tensor, wanted: Sequence[int]) -> Tensor:
    """Mean weight on keys that are one of the tokens `wanted`, such as full stops: (L, H).

    ids (B, T) as the maps were made of. Counted are queries with such a key *before* them, the first token left out, so
    that neither a diagonal head nor a sink can score. Raises ValueError where there is no such query, or for ids of
    another shape.
    """
    _check(maps)
    check_token_ids("ids", ids)
    if ids.shape != (maps.shape[1], maps.shape[-1]):
        raise ValueError(f"ids has shape {tuple(ids.shape)}; the maps need {(maps.shape[1], maps.shape[-1])}")
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
    _check(maps)
    place = torch.arange(maps.shape[-1], device=maps.device)
    distance = (place[:, None] - place[None, :]).abs()
    return (maps * distance).sum(-1).mean((1, 3))


def evenness(maps: Tensor) -> Tensor:
    """How evenly a causal head spreads its weight, 1 / T to 1: (L, H).

    exp(entropy) of a row is the number of keys that it looks at in effect; divided by the number that it may see, and
    averaged over queries. The first query, which sees one key, is out.
    """
    _check(maps)
    effective = torch.special.entr(maps).sum(-1).exp()  # (L, B, H, T)
    visible = torch.arange(1, maps.shape[-1] + 1, device=maps.device)
    return (effective / visible)[..., 1:].mean((1, 3))


def repeated(length: int, n: int, tokens: Sequence[int], seed: int, start: int) -> Tensor:
    """Sequences for `induction`: `start`, then `length` random tokens twice: (n, 1 + 2 length), int64.

    Within a sequence no token comes twice before the repetition, so that nothing but the repetition can be used.
    Raises ValueError for n below 1, what is no token, tokens that repeat or hold `start`, and a length below 2 or above
    their number.
    """
    check_at_least("n", n, 1)
    for name, ids in (("tokens", tokens), ("start", (start,))):
        for i in ids:
            check_at_least(name, i, 0)
    if start in tokens:
        raise ValueError(f"start={start} is one of the tokens, and would come again")
    if len(set(tokens)) < len(tokens):
        raise ValueError(f"tokens: {len(tokens)}, {len(set(tokens))} different; needed are all different")
    if not isinstance(length, int) or not 2 <= length <= len(tokens):
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
    _check(maps)
    if maps.shape[-1] != 1 + 2 * length:
        raise ValueError(f"maps are of {maps.shape[-1]} tokens; length={length} needs {1 + 2 * length}")


@contextmanager
def without_head(model: nn.Module, layer: int, head: int, instead: Tensor | None = None) -> Iterator[None]:
    """While the block runs, head `head` of the attention module number `layer` says the same to every token.

    That is nothing at all (zero ablation), or `instead`, the head's own (D,), such as one of `mean_outputs` (mean
    ablation). Layers are counted as in `attention_maps`. Raises ValueError for a layer or head that is not there, and
    an `instead` of another shape.
    """
    modules = list(_attention_modules(model).values())
    for name, value, n in (("layer", layer, len(modules)), ("head", head, modules[0].n_heads)):
        check_range(name, value, 0, n - 1)
    width = modules[layer].head_dim
    if instead is not None and instead.shape != (width,):
        raise ValueError(f"instead has shape {tuple(instead.shape)}; needed is {(width,)}, the width of a head")

    def replace(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        heads = args[0].clone()  # (B, T, H D)
        heads[..., head * width : (head + 1) * width] = 0 if instead is None else instead.to(heads)
        return (heads,)

    handle = modules[layer].out_proj.register_forward_pre_hook(replace)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def mean_outputs(model: nn.Module, ids: Tensor) -> Tensor:
    """What each head says on average over all tokens of ids (B, T), before `out_proj`: (L, H, D)."""
    modules = _attention_modules(model)
    names = {f"{name}.out_proj".lstrip("."): module.n_heads for name, module in modules.items()}
    with record(model, names, inputs=True) as seen:
        model(ids)
    return torch.stack([seen[name].mean((0, 1)).unflatten(0, (n_heads, -1)) for name, n_heads in names.items()])


def ablation_costs(model: nn.Module, windows: Tensor, instead: Tensor | None = None) -> Tensor:
    """What the next-token loss rises by, in nats, without each head in turn: windows (N, T) -> (L, H, N).

    In a head's place comes nothing, or its own of `instead` (L, H, D). One number a window: pairs of the same text
    with and without the head, of which mean and spread can be taken.
    """
    modules = list(_attention_modules(model).values())
    whole = next_token_losses(model, windows).mean(1)  # (N,)
    costs = torch.zeros(len(modules), modules[0].n_heads, len(windows), dtype=whole.dtype)
    for layer, module in enumerate(modules):
        for head in range(module.n_heads):
            with without_head(model, layer, head, None if instead is None else instead[layer, head]):
                costs[layer, head] = (next_token_losses(model, windows).mean(1) - whole).cpu()
    return costs
