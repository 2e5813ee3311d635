"""Check for the online softmax of lesson 04: the learner's step between tiles, also inside a trained GPT-2."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from course_lib.attention import attention, causal, with_attention
from course_lib.attention.online import Running, no_keys_yet, online_attention
from course_lib.attention.online import add_tile as right
from course_lib.exercises import Wrong, call, checker, expect, expect_gradients, expect_kind
from course_lib.exercises.injection import same_model
from course_lib.models.gpt2 import GPT2
from course_lib.training import next_token_loss

B, H, T, D, TILE = 2, 2, 5, 6, 4
STEPS = 3  # tiles
AddTile = Callable[[Running, Tensor, Tensor], Running]


def _start(width: int = D) -> Running:
    return no_keys_yet(torch.zeros(B, H, T, D), width)


def _mistakes(running: Running, logits: Tensor, values: Tensor) -> dict[str, dict[str, Tensor]]:
    """What each natural mistake would give, by the part of Running that shows it."""
    m, total, output = right(running, logits, values)
    tile = logits.amax(-1, keepdim=True)
    powers, bare, own = (logits - m).exp(), logits.exp(), (logits - tile).exp()
    shrink, grow = (running.maximum - m).exp(), (m - running.maximum).exp()

    def sums(p: Tensor) -> Tensor:
        return p.sum(-1, keepdim=True)

    seen = running.total > 0  # the first tile must not tell on its own: there is nothing yet to rescale
    return {
        "maximum": {
            "The maximum is that of the tile alone. It must be the largest of all keys so far: what was summed with a "
            "larger one would overflow.": tile,
            "The maximum stays where it was: take the larger one of it and of the tile's.": running.maximum,
            "That is the smaller one of the two maxima.": torch.minimum(running.maximum, tile),
            "The maximum is taken over all queries: each has its own, `amax(-1, keepdim=True)`.": (
                torch.maximum(running.maximum, logits.amax().expand_as(m))
            ),
        },
        "total": {
            "The old total is not rescaled. It was summed with the old maximum: multiply by exp(old - new).": (
                running.total + sums(powers)
            ),
            "The maximum is not subtracted: exp(89) is infinite in float32.": shrink * running.total + sums(bare),
            "The maximum is not subtracted, and the old total is not rescaled: exp(89) is infinite.": (
                running.total + sums(bare)
            ),
            "The factor is upside down: exp(old - new) shrinks, exp(new - old) would grow.": (
                grow.where(seen, 1.0) * running.total + sums(powers)
            ),
            "The tile's powers must use the new maximum, as the sums so far do; yours use the tile's own.": (
                shrink * running.total + sums(own)
            ),
            "The old total is forgotten: add to it.": sums(powers),
            "You rescale the new powers too: they use the new maximum.": shrink * (running.total + sums(powers)),
        },
        "output": {
            "The old output is not rescaled. The total is; the output needs the same factor, exp(old - new).": (
                running.output + powers @ values
            ),
            "The output is divided by the total already. That comes once, after the last tile.": output / total,
            "The factor of the output is upside down: exp(old - new).": (
                grow.where(seen, 1.0) * running.output + powers @ values
            ),
            "The maximum is not subtracted in the output.": shrink * running.output + bare @ values,
            "The tile's powers must use the new maximum in the output too.": shrink * running.output + own @ values,
            "The old output is forgotten: add to it.": powers @ values,
            "You average the values of a tile with a softmax of its own. Sum exp(logit - maximum) · value.": (
                shrink * running.output + logits.softmax(-1) @ values
            ),
            "You rescale what the tile brings too: only the old output needs it.": (
                shrink * (running.output + powers @ values)
            ),
        },
    }


def _step(fn: AddTile, running: Running, logits: Tensor, values: Tensor) -> Running:
    """The learner's answer as a Running."""

    def with_copies(_: None, logits: Tensor, values: Tensor, *state: Tensor) -> Any:
        return fn(Running(*(part.clone() for part in state)), logits, values)  # `running.total += ...` does no harm

    answer = call(with_copies, None, logits, values, *running)
    if not isinstance(answer, tuple | list) or len(answer) != 3:
        raise Wrong("Return three things: `Running(maximum, total, output)`.")
    for name, got, want in zip(Running._fields, answer, running, strict=True):
        if isinstance(got, Tensor) and name != "output" and got.shape == want.shape[:-1]:
            raise Wrong(f"{name} has shape {tuple(got.shape)}; keep the last axis: `keepdim=True`.")
        expect_kind(got, want, name)
    return Running(*answer)


def _expect_running(got: Running, before: Running, logits: Tensor, values: Tensor, case: str) -> None:
    want, mistakes = right(before, logits, values), _mistakes(before, logits, values)
    for name, mine, theirs in zip(Running._fields, got, want, strict=True):
        expect(mine, theirs, mistakes[name], what=f"{case}{name}")


@checker
def add_tile(fn: AddTile) -> str:
    """Check `fn(running, logits, values)`: the next tile of keys, in `Running(maximum, total, output)`."""
    logits = [torch.randn(B, H, T, TILE) * 2 for _ in range(STEPS)]
    values = [torch.randn(B, H, TILE, D) for _ in range(STEPS)]
    logits[1] = logits[1] + torch.tensor([3.0, -9.0, 0.0, 3.0, -9.0]).view(T, 1)  # of some the maximum rises
    running = _start()
    tiles = list(zip(logits, values, strict=True))
    states = [running]
    for pair in tiles:
        states.append(right(states[-1], *pair))
    for number in (1, 2, 0):  # the first tile last: nothing is there yet to rescale
        got = _step(fn, states[number], *tiles[number])
        _expect_running(got, states[number], *tiles[number], f"After tile {number + 1}, ")
    for case, more in (("logits near 1,000", 1000.0), ("logits near -1,000", -1000.0)):
        got = _step(fn, states[0], logits[0] + more, values[0])
        if any(not part.isfinite().all() for part in got) or (got.total == 0).any():
            raise Wrong(f"With {case} exp overflows or vanishes: subtract the maximum before exp.")
        _expect_running(got, states[0], logits[0] + more, values[0], f"With {case}, ")
    high = right(states[0], logits[0] + 1000.0, values[0])
    got = _step(fn, high, *tiles[1])
    if any(not part.isfinite().all() for part in got):
        raise Wrong(
            "Where the old maximum is 1,000 and the tile's near 0, a factor overflows: exponents are differences to "
            "the *larger* maximum, never above 0."
        )
    _expect_running(got, high, *tiles[1], "After a maximum near 1,000, ")
    hidden = torch.full((B, H, T, TILE), -torch.inf)
    half = logits[1].masked_fill(torch.arange(TILE) < 2, -torch.inf)
    for state, tile, case in (
        (states[1], half, "With a tile that is half hidden, "),
        (states[1], hidden, "With a tile that is all hidden, "),
        (states[0], hidden, "With a first tile that is all hidden, "),
    ):
        got = _step(fn, state, tile, values[1])
        if any(part.isnan().any() for part in got):
            raise Wrong(
                f"{case}you get nan: -inf - (-inf). The running maximum is a finite number from the start: "
                "subtract the larger of the two, not the tile's own."
            )
        _expect_running(got, state, tile, values[1], case)
    tensors = {name: torch.randn(B, H, 11, D) for name in "qkv"}
    expect_gradients(_online(fn, TILE), partial(attention, mask=causal, impl="explicit"), tensors)
    return "Right: tile by tile it is the softmax of the whole row, and nothing overflows."


def _online(fn: AddTile, tile: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Causal attention with the learner's step."""
    return lambda q, k, v: online_attention(q, k, v, mask=causal, tile=tile, step=partial(_step, fn))


@checker
def injected_online(fn: AddTile, model: GPT2, windows: Tensor, tile: int = 32) -> str:
    """Put online attention with `fn` between its tiles into a trained GPT-2; compare loss, gradients, ten steps."""
    theirs = copy.deepcopy(model)
    mine = with_attention(model, attention_fn=partial(online_attention, tile=tile, step=partial(_step, fn)))
    compared = same_model(theirs, mine, (windows,), next_token_loss)
    return f"Your step joins tiles of {tile} in all {len(mine.blocks)} layers: {compared}"
