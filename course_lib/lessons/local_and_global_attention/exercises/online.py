"""Check for the online softmax of lesson 04: the learner's step between tiles, also inside a trained GPT-2."""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from course_lib.attention import attention, causal, with_attention
from course_lib.attention.online import Running, no_keys_yet, online_attention
from course_lib.attention.online import add_tile as right
from course_lib.exercises import Wrong, call, checker, expect_gradients, expect_kind
from course_lib.exercises.injection import same_model
from course_lib.exercises.mistakes import Mistakes, expect_by, part
from course_lib.models.gpt2 import GPT2
from course_lib.training import next_token_loss

B, H, T, D, TILE = 2, 2, 5, 6, 4
STEPS = 3  # tiles
AddTile = Callable[[Running, Tensor, Tensor], Running]


def _start(width: int = D) -> Running:
    return no_keys_yet(torch.zeros(B, H, T, D), width)


Part = Callable[[Running, Tensor, Tensor, Tensor], Tensor]


def _changed(running: Running, logits: Tensor, values: Tensor, **parts: Part) -> Running:
    """The right step, but for some parts: each made of the Running so far, logits, values and the new maximum."""
    want = right(running, logits, values)
    return want._replace(**{name: part(running, logits, values, want.maximum) for name, part in parts.items()})


def _top(logits: Tensor) -> Tensor:
    return logits.amax(-1, keepdim=True)


def _sums(powers: Tensor) -> Tensor:
    return powers.sum(-1, keepdim=True)


def _shrunk(part: Tensor, run: Running, maximum: Tensor) -> Tensor:
    return (run.maximum - maximum).exp() * part


ADD_TILE: Mistakes = {
    "The maximum is that of the tile alone. It must be the largest of all keys so far: what was summed with a "
    "larger one would overflow.": partial(_changed, maximum=lambda run, x, v, m: _top(x)),
    "The maximum stays where it was: take the larger one of it and of the tile's.":
        partial(_changed, maximum=lambda run, x, v, m: run.maximum),
    "That is the smaller one of the two maxima.":
        partial(_changed, maximum=lambda run, x, v, m: torch.minimum(run.maximum, _top(x))),
    "The maximum is taken over all queries: each has its own, `amax(-1, keepdim=True)`.":
        partial(_changed, maximum=lambda run, x, v, m: torch.maximum(run.maximum, x.amax())),
    "The old total is not rescaled. It was summed with the old maximum: multiply by exp(old - new).":
        partial(_changed, total=lambda run, x, v, m: run.total + _sums((x - m).exp())),
    "The maximum is not subtracted: exp(89) is infinite in float32.":
        partial(_changed, total=lambda run, x, v, m: _shrunk(run.total, run, m) + _sums(x.exp())),
    "The maximum is not subtracted, and the old total is not rescaled: exp(89) is infinite.":
        partial(_changed, total=lambda run, x, v, m: run.total + _sums(x.exp())),
    "The factor is upside down: exp(old - new) shrinks, exp(new - old) would grow.":
        partial(_changed, total=lambda run, x, v, m: (m - run.maximum).exp() * run.total + _sums((x - m).exp())),
    "The tile's powers must use the new maximum, as the sums so far do; yours use the tile's own.":
        partial(_changed, total=lambda run, x, v, m: _shrunk(run.total, run, m) + _sums((x - _top(x)).exp())),
    "The old total is forgotten: add to it.": partial(_changed, total=lambda run, x, v, m: _sums((x - m).exp())),
    "You rescale the new powers too: they use the new maximum.":
        partial(_changed, total=lambda run, x, v, m: _shrunk(run.total + _sums((x - m).exp()), run, m)),
    "The old output is not rescaled. The total is; the output needs the same factor, exp(old - new).":
        partial(_changed, output=lambda run, x, v, m: run.output + (x - m).exp() @ v),
    "The output is divided by the total already. That comes once, after the last tile.":
        partial(_changed, output=lambda run, x, v, m: right(run, x, v).output / right(run, x, v).total),
    "The factor of the output is upside down: exp(old - new).":
        partial(_changed, output=lambda run, x, v, m: (m - run.maximum).exp() * run.output + (x - m).exp() @ v),
    "The maximum is not subtracted in the output.":
        partial(_changed, output=lambda run, x, v, m: _shrunk(run.output, run, m) + x.exp() @ v),
    "The tile's powers must use the new maximum in the output too.":
        partial(_changed, output=lambda run, x, v, m: _shrunk(run.output, run, m) + (x - _top(x)).exp() @ v),
    "The old output is forgotten: add to it.": partial(_changed, output=lambda run, x, v, m: (x - m).exp() @ v),
    "You average the values of a tile with a softmax of its own. Sum exp(logit - maximum) · value.":
        partial(_changed, output=lambda run, x, v, m: _shrunk(run.output, run, m) + x.softmax(-1) @ v),
    "You rescale what the tile brings too: only the old output needs it.":
        partial(_changed, output=lambda run, x, v, m: _shrunk(run.output + (x - m).exp() @ v, run, m)),
}  # fmt: skip


def _step(fn: AddTile, running: Running, logits: Tensor, values: Tensor) -> Running:
    """The learner's answer as a Running."""

    def with_copies(_: None, logits: Tensor, values: Tensor, *state: Tensor) -> Running:
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
    for i, name in enumerate(Running._fields):
        expect_by(got[i], right, ADD_TILE, before, logits, values, run=part(i), what=f"{case}{name}")


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
