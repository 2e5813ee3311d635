"""The checks for the exercises of lesson 08."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.attention import attention, with_attention
from course_lib.exercises import Wrong, call, checker, expect, expect_gradients, expect_kind
from course_lib.exercises.injection import same_model
from course_lib.exercises.mistakes import Mistakes, expect_by, part
from course_lib.masking import NOT_ASKED, hide, masked_loss
from course_lib.models.modernbert import ModernBertForMaskedLM
from course_lib.positions import Position
from course_lib.tokenization import MASK

T, V, C, D_FF = 400, 50, 6, 10  # so many tokens that a share of 78 % is not one of 80 %
Hide = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def _hide(
    ids: Tensor, chosen: Tensor, fate: Tensor, other: Tensor, *, mask: float = 0.8, random: float = 0.9,
    asked: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda ids, chosen, shown: chosen,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Shown tokens and targets; each number of the rule can be changed."""
    new = torch.where(fate < mask, MASK, torch.where(fate < random, other, ids))
    shown = torch.where(chosen, new, ids)
    return shown, torch.where(asked(ids, chosen, shown), ids, NOT_ASKED)


SHOWN: Mistakes = {
    "Every chosen token became <mask>. 10 % should get another token, and 10 % stay as they are.":
        partial(_hide, mask=1.1, random=1.2),
    "Tokens that were not chosen have changed too. Fate is for the chosen ones.":
        lambda ids, chosen, fate, other: _hide(ids, torch.ones_like(chosen), fate, other),
    "20 % got another token, and none stays. From 0.9 on a chosen token stays as it is.": partial(_hide, random=1.1),
    "The share of <mask> is the last 80 %, not the first: `fate < 0.8`.":
        lambda ids, chosen, fate, other: _hide(ids, chosen, 1 - fate, other),
    "10 % stay too many: a fate from 0.8 to below 0.9 makes a chosen token its `other`.": partial(_hide, random=0.8),
    "No <mask> is left: what you write for a fate below 0.9 overwrites it.": partial(_hide, mask=-1.0),
    "Another token belongs to the fates from 0.8 to below 0.9; from 0.9 on a token stays. You have it the other way.":
        lambda ids, chosen, fate, other: _hide(ids, chosen, torch.where(fate < 0.8, fate, 1.8 - fate), other),
    "The order is wrong: return first what is shown, then the targets.": lambda *given: _hide(*given)[::-1],
    "Nothing is hidden at all: the chosen tokens stand there as before.":
        lambda ids, chosen, fate, other: _hide(ids, torch.zeros_like(chosen), fate, other),
    "10 % of <mask> and 80 % of other tokens: the two shares are swapped.":
        lambda ids, chosen, fate, other: _hide(ids, chosen, (fate + 0.1) % 1, other, mask=0.1, random=0.9),
}  # fmt: skip
TARGETS: Mistakes = {
    "All tokens are asked for. Most of them stand in plain sight: targets belong to the chosen ones, -100 elsewhere.":
        partial(_hide, asked=lambda ids, chosen, shown: torch.ones_like(chosen)),
    "The targets are what is shown, not what stood there.":
        lambda *given: (_hide(*given)[0], torch.where(given[1], _hide(*given)[0], NOT_ASKED)),
    "Only <mask> is asked for. The chosen tokens that were replaced or that stayed must be named too, or the model "
    "would trust all that is no mask.": partial(_hide, asked=lambda ids, chosen, shown: chosen & (shown == MASK)),
    "Chosen tokens that stayed are not asked for. The model must not know that what it sees is true.":
        partial(_hide, asked=lambda ids, chosen, shown: chosen & (shown != ids)),
    "Targets and -100 are swapped: what is chosen is asked for.":
        partial(_hide, asked=lambda ids, chosen, shown: ~chosen),
}  # fmt: skip
HIDE_TOKENS: Mistakes = {**SHOWN, **TARGETS}


@checker
def hide_tokens(fn: Hide) -> str:
    """Check `fn(ids, chosen, fate, other)`, all (T,): the shown ids, and the targets with -100 where none is asked."""
    ids, other = torch.randint(5, V, (2, T))
    chosen, fate = torch.rand(T) < 0.6, torch.rand(T)
    answer = call(fn, ids, chosen, fate, other)
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise Wrong("Return two tensors: what is shown, and the targets.")
    given = (ids, chosen, fate, other)
    expect_by(answer[0], _hide, SHOWN, *given, run=part(0), what="What is shown")
    expect_by(answer[1], _hide, TARGETS, *given, run=part(1), what="The targets")
    return "Right: what is hidden, what is shown instead, and what is asked for."


def _near(layer: int, length: int, *, radius: int = 8, strict: bool = False, first: int = 0, causal: bool = False,
          swapped: bool = False) -> Tensor:  # fmt: skip
    place = torch.arange(length)
    distance = place[:, None] - place
    inside = distance.abs() < radius if strict else distance.abs() <= radius
    inside = inside & (distance >= 0) if causal else inside
    wide = (layer % 3 == first) != swapped
    return torch.ones(length, length, dtype=torch.bool) if wide else inside


MAY_SEE: Mistakes = {
    "The window is twice as wide as it should be. local_attention counts both sides: 8 to either side.": partial(
        _near, radius=16
    ),
    "The token exactly 8 places away is missing: the last one is included.": partial(_near, strict=True),
    "Local and global layers are swapped: layers 0, 3, 6 … see all.": partial(_near, swapped=True),
    "The wrong layers are global: they are 0, 3, 6 …, not 2, 5, 8 ….": partial(_near, first=2),
    "The future is hidden. An encoder looks to both sides.": partial(_near, causal=True),
    "True and False are swapped: True is where a query may see.": lambda layer, length: ~_near(layer, length),
    "All that comes after is seen: there the distance is negative. Take its absolute value.": lambda layer, length: (
        _near(layer, length) | ~_near(0, length).tril()
    ),
    "All that comes before is seen: there the distance is negative. Take its absolute value.": lambda layer, length: (
        _near(layer, length) | ~_near(0, length).triu()
    ),
    "All layers are global.": lambda layer, length: _near(0, length),
    "All layers are local.": lambda layer, length: _near(1, length),
}


@checker
def may_see(fn: Callable[[int, int], Tensor]) -> str:
    """Check `fn(layer, length)`: bool (T, T), True where a query may see; local_attention=16, every third global."""
    layers, length = range(7), 24

    def all_layers(function: Callable[[int, int], Tensor], *_: Any) -> Tensor:
        rows = [call(function, layer, length) for layer in layers]
        for row in rows:
            expect_kind(row, torch.ones(length, length, dtype=torch.bool), "The mask of a layer")
        return torch.stack(rows).float()

    expect_by(all_layers(fn), _near, MAY_SEE, run=all_layers, what="The masks of layers 0 to 6")
    return "Right: eight tokens to either side, and every third layer sees all."


def _geglu(x: Tensor, wi: Tensor, wo: Tensor, *, swap: bool = False, act: Callable[[Tensor], Tensor] = F.gelu,
           join: Callable[[Tensor, Tensor], Tensor] = torch.mul) -> Tensor:  # fmt: skip
    first, second = (x @ wi.T).chunk(2, -1)
    first, second = (second, first) if swap else (first, second)
    return join(act(first), second) @ wo.T


GEGLU: Mistakes = {
    "The halves are swapped: GELU goes on the first half, the second one multiplies.": partial(_geglu, swap=True),
    "You use the approximation by tanh; ModernBERT's GELU is the exact one.":
        partial(_geglu, act=partial(F.gelu, approximate="tanh")),
    "You add the halves; they are multiplied.": partial(_geglu, join=torch.add),
    "That is SwiGLU: the activation is GELU, not SiLU.": partial(_geglu, act=F.silu),
    "That is a plain GLU: the activation is GELU, not the sigmoid.": partial(_geglu, act=torch.sigmoid),
    "No half is activated.": partial(_geglu, act=lambda x: x),
    "Both halves are activated; the second one only multiplies.":
        partial(_geglu, join=lambda a, b: a * F.gelu(b)),
    "Even and odd channels are not the halves: `chunk(2, -1)`.":
        lambda x, wi, wo: (F.gelu((x @ wi.T)[..., ::2]) * (x @ wi.T)[..., 1::2]) @ wo.T,
}  # fmt: skip


@checker
def geglu(fn: Callable[[Tensor, Tensor, Tensor], Tensor]) -> str:
    """Check `fn(x (B, T, C), wi (2 F, C), wo (C, F))`: ModernBERT's MLP, (B, T, C)."""
    given = {"x": torch.randn(2, 5, C) * 2, "wi": torch.randn(2 * D_FF, C), "wo": torch.randn(C, D_FF)}
    expect_by(call(fn, *given.values()), _geglu, GEGLU, *given.values())
    expect_gradients(fn, _geglu, given)
    return "Right, in value and gradient: one half says how much of the other passes."


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=NOT_ASKED, reduction="sum")
    return total / (targets != NOT_ASKED).sum().clamp(min=1)


def _told(targets: Tensor) -> Tensor:
    return targets.clamp(min=0)


LOSS: Mistakes = {
    "You average over all places. Where the target is -100 nothing is asked: divide by the number of the others.":
        lambda logits, targets: F.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=NOT_ASKED, reduction="sum") / targets.numel(),
    "That is the sum. Batches hide different numbers of tokens: take the mean.":
        lambda logits, targets: F.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=NOT_ASKED, reduction="sum"),
    "The targets -100 count as token 0. Leave them out.":
        lambda logits, targets: F.cross_entropy(logits.flatten(0, 1), _told(targets).flatten()),
    "Token 0 is a token too: what is not asked for has the target -100, and nothing else has.":
        lambda logits, targets: _loss(logits, targets.where(targets > 0, NOT_ASKED)),
    "The sign is wrong: a loss is *minus* the log probability.": lambda logits, targets: -_loss(logits, targets),
    "That is in bits: nats are natural logarithms.":
        lambda logits, targets: _loss(logits, targets) / torch.tensor(2.0).log(),
    "You take the mean of each row, and then of the rows. A row with one gap then counts as much as a row with ten.":
        lambda logits, targets: torch.stack([_loss(a[None], b[None]) for a, b in zip(logits, targets, strict=True)])
        .mean(),
}  # fmt: skip


@checker
def loss(fn: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Check `fn(logits (B, T, V), targets (B, T))`: the mean loss of the places asked for; 0 where there is none."""
    logits = torch.randn(3, 7, V) * 2
    targets = torch.randint(0, V, (3, 7)).where(torch.rand(3, 7) < torch.tensor([[0.8], [0.4], [0.2]]), NOT_ASKED)
    targets[0, 0] = 0  # a token like others
    expect_by(call(fn, logits, targets), _loss, LOSS, logits, targets)
    nothing = torch.full_like(targets, NOT_ASKED)
    empty = call(fn, logits, nothing)
    if isinstance(empty, Tensor) and not empty.isfinite().all():
        raise Wrong("Where nothing is asked for, your loss is NaN: a mean of nothing. One such batch ends a training.")
    expect(empty, torch.zeros(()), {}, what="The loss of a batch that asks for nothing")
    expect_gradients(lambda x: fn(x, targets), lambda x: _loss(x, targets), {"logits": logits})
    return "Right: a mean over what is asked for, and 0 where nothing is."


@checker
def injected(
    fn: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], model: ModernBertForMaskedLM, windows: Tensor
) -> str:
    """Put `fn(q, k, v, allowed)` into every attention of `model`; compare with the library's on windows (N, T).

    q, k, v (B, H, T, D) come turned by RoPE; allowed (T, T) is the mask of the layer. Outputs, gradients and ten steps
    of training must agree.
    """
    place = torch.arange(windows.shape[1], device=windows.device)
    near = (place[:, None] - place).abs() <= model.config.radius

    def attend(q: Tensor, k: Tensor, v: Tensor, *, allowed: Tensor, position: Position, **given: Any) -> Tensor:
        q, k = position.rotate(q, k, place, place)
        answer = call(fn, q, k, v, allowed)
        expect_kind(answer, v, "In the model, the result of your function")
        if not answer.isfinite().all():
            raise Wrong(
                "In the model your function gives infinite numbers or NaN. `allowed` is True where a query may see: "
                "hide the others, and them alone."
            )
        return answer

    theirs = with_attention(model, attention_fn=attention)
    mine = model
    for i in range(model.config.n_layers):
        names = f"encoder.blocks.{i}.attention"
        wide = model.config.is_global(i)
        seen = torch.ones_like(near) if wide else near
        mine = with_attention(mine, attention_fn=partial(attend, allowed=seen), names=names)
        theirs = theirs if wide else with_attention(theirs, attention_fn=partial(_dense, seen), names=names)
    compared = same_model(theirs, mine, hide(windows, model.config.vocab_size, 0.15, 0), masked_loss)
    return f"Your function runs in all {model.config.n_layers} layers: {compared}"


def _dense(allowed: Tensor, q: Tensor, k: Tensor, v: Tensor, *, mask: Any = None, **given: Any) -> Tensor:
    return attention(q, k, v, mask=allowed, **given)
