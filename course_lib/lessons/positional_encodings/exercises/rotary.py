"""Checks for the heart of lesson 05: RoPE written by the learner and put into a decoder, and its two layouts."""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from course_lib.attention import attention, causal, with_attention
from course_lib.exercises import Wrong, call, checker, expect, expect_gradients, expect_kind
from course_lib.exercises.injection import same_model
from course_lib.exercises.mistakes import Mistakes, expect_by
from course_lib.models.pythia import Pythia
from course_lib.positions import Position, RotaryPosition
from course_lib.positions.rope import change_layout
from course_lib.training import next_token_loss

B, H, T, D = 2, 3, 5, 8
Rotate = Callable[[Tensor, Tensor, float], Tensor]


def _right(x: Tensor, pos: Tensor, theta: float) -> Tensor:
    return RotaryPosition(x.shape[-1], theta).rotate(x, x, pos, pos)[0]


def _turned(
    x: Tensor, pos: Tensor, theta: float, *, split: str = "half", signs: tuple[int, int] = (-1, 1),
    exponent: float = 2.0, swap: bool = False, angles: str = "half",
) -> Tensor:  # fmt: skip
    """RoPE in float64, with a switch for each thing that can go wrong; the defaults are right.

    split: which channels are a pair; angles: in which order the angles stand over the channels; signs: those of sin.
    """
    half = x.shape[-1] // 2
    angle = pos.double().unsqueeze(-1) * theta ** (-exponent * torch.arange(half).double() / x.shape[-1])
    cos, sin = (angle.sin(), angle.cos()) if swap else (angle.cos(), angle.sin())
    wide = [f.repeat_interleave(2, -1) if angles == "pairs" else torch.cat([f, f], -1) for f in (cos, sin)]
    y = x.double()
    if split == "half":
        a, b = y.chunk(2, -1)
        other = torch.cat([signs[0] * b, signs[1] * a], -1)
    else:
        a, b = y[..., 0::2], y[..., 1::2]
        other = torch.stack([signs[0] * b, signs[1] * a], -1).flatten(-2)
    return (y * wide[0] + other * wide[1]).to(x.dtype)


def _rounded(x: Tensor, pos: Tensor, theta: float) -> Tensor:
    """RoPE with angles in the type of x."""
    half = x.shape[-1] // 2
    angle = pos.to(x.dtype)[:, None] * (theta ** (-2 * torch.arange(half) / x.shape[-1])).to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


_IN_BFLOAT16: Mistakes = {
    "In bfloat16 256 and 257 are one number, and your places are rounded to it: compute angles in float32, and cast at "
    "the end.": lambda x, pos, theta: _turned(x, pos.to(x.dtype), theta),
    "In bfloat16 256 and 257 are one number, and your angles are rounded like that: compute angles in float32, and "
    "cast at the end.": _rounded,
}
ROTATE: Mistakes = {
    "Your pairs are neighbours, the channels (2 i, 2 i + 1). Here channel i turns with i + D/2: the halves are "
    "`x.chunk(2, -1)`.": partial(_turned, split="pairs", angles="pairs"),
    "The pairs are right, but each angle stands over two *neighbouring* channels. In this layout the angles of the "
    "first half repeat in the second: `torch.cat`, not `repeat_interleave`.": partial(_turned, angles="pairs"),
    "Neighbouring channels are paired, but the angles repeat half by half: two layouts are mixed.":
        partial(_turned, split="pairs"),
    "You turn backwards: the sign of sin is wrong. (a, b) becomes (a cos - b sin, b cos + a sin). A model with it "
    "would learn as well, but weights trained with the other direction would not fit.":
        partial(_turned, signs=(1, -1)),
    "Neither half has a minus: the first is a cos - b sin. Without it that is no rotation, lengths change.":
        partial(_turned, signs=(1, 1)),
    "Both halves have a minus; the second is b cos + a sin.": partial(_turned, signs=(-1, -1)),
    "Sine and cosine are swapped: at place 0 nothing must turn.": partial(_turned, swap=True),
    "The exponent is half of what it should be: pair i turns by pos / theta^(2 i / D), i from 0 to D/2 - 1.":
        partial(_turned, exponent=1.0),
    "The exponent is twice what it should be: pair i turns by pos / theta^(2 i / D), i from 0 to D/2 - 1.":
        partial(_turned, exponent=4.0),
    "The last pairs turn fastest: *divide* the place by theta^(2 i / D).": partial(_turned, exponent=-2.0),
    "All pairs turn by the same angle: theta^(2 i / D) grows with the pair i.": partial(_turned, exponent=0.0),
    "theta=10000 is written into your function; use the argument.": lambda x, pos, theta: _turned(x, pos, 10000.0),
    "You count the places yourself, 0, 1, 2, …. Use the numbers in `pos`: a cached step starts later.":
        lambda x, pos, theta: _turned(x, torch.arange(len(pos)), theta),
    "Your places are one too large: the first is 0, and there nothing turns.":
        lambda x, pos, theta: _turned(x, pos + 1, theta),
    "Your places are reversed.": lambda x, pos, theta: _turned(x, pos.flip(0), theta),
    "Nothing is turned: the result is x.": lambda x, pos, theta: x,
    "Only the first half of the channels is turned as it should be; the second stays as it was.":
        lambda x, pos, theta: torch.cat([_turned(x, pos, theta).chunk(2, -1)[0], x.chunk(2, -1)[1]], -1),
    **_IN_BFLOAT16,
}  # fmt: skip


def _expect_lengths(answer: object, x: Tensor, what: str) -> None:
    """Where no mistake is known: say at least whether it is a rotation."""
    if not isinstance(answer, Tensor) or answer.shape != x.shape or answer.dtype != x.dtype:
        return  # `expect` says so
    if not answer.isfinite().all():
        return
    if (answer.norm(dim=-1) - x.norm(dim=-1)).abs().max() > 1e-3:
        raise Wrong(f"{what} is no rotation: the lengths of the vectors change. Each pair must keep its own.")


@checker
def rotate(fn: Rotate) -> str:
    """Check `fn(x, pos, theta)`: RoPE of all channels of x (B, H, T, D) at integer places (T,), halves as pairs."""
    counted = torch.arange(T)
    for pos, theta, width, case in (
        (counted, 10000.0, D, "The result"),
        (counted, 500.0, D, "For theta = 500, the result"),
        (counted + 60, 10000.0, D, "For places from 60 on, the result"),
        (torch.tensor([7, 0, 3, 3, 200]), 10000.0, D, "For the places 7, 0, 3, 3, 200, the result"),
        (counted, 10000.0, 16, "For heads of width 16, the result"),
        (counted, 10000.0, 2, "For a single pair, the result"),
    ):
        x = torch.randn(B, H, T, width)
        answer = call(fn, x, pos, theta)
        try:
            expect_by(answer, _right, ROTATE, x, pos, theta, what=case, tolerance=1e-4)
        except Wrong as error:
            if "differs most" in str(error):
                _expect_lengths(answer, x, case)
            raise
    one = torch.randn(B, 1, 1, D)
    expect(call(fn, one, counted[2:3], 100.0), _right(one, counted[2:3], 100.0), {}, what="For one token, the result")
    for dtype in (torch.float64, torch.bfloat16):
        _expect_type(fn, torch.randn(B, H, T, D, dtype=dtype))
    expect_gradients(fn, _right, {"x": torch.randn(B, H, T, D)}, counted + 3, 10000.0)
    q, k = torch.randn(2, 1, 1, 1, D).unbind()
    scores = [
        (call(fn, q, torch.tensor([at]), 10000.0) * call(fn, k, torch.tensor([at - 4]), 10000.0)).sum().item()
        for at in (4, 104)
    ]
    return (
        f"Right, in values and gradients. A query and a key 4 places before it have the score {scores[0]:.3f}, and "
        f"{scores[1]:.3f} 100 places later: the distance alone counts."
    )


def _expect_type(fn: Rotate, x: Tensor) -> None:
    """Types other than float32 come back as they were, and angles are not rounded to them."""
    pos = torch.tensor([255, 256, 257, 900, 901])
    name = str(x.dtype).removeprefix("torch.")
    answer = call(fn, x, pos, 10000.0)
    if isinstance(answer, Tensor) and answer.dtype != x.dtype:
        raise Wrong(f"x of {name} comes back as {answer.dtype}; the result must have the type of x: `.to(x.dtype)`.")
    # Sines in bfloat16 are off by 0.4 %, a product of them by twice that: that may be.
    known, tolerance = (_IN_BFLOAT16, 0.02) if x.dtype == torch.bfloat16 else ({}, 1e-4)
    try:
        expect_by(answer, _right, known, x, pos, 10000.0, what=f"For x of {name}, the result", tolerance=tolerance)
    except Wrong as error:
        if x.dtype == torch.bfloat16 and "differs most" in str(error):
            raise Wrong(
                f"{error} In float32 yours is right: are angles rounded to bfloat16? Compute them in float32."
            ) from error
        raise


class _Mine(Position):
    """A RoPE computed by the learner's function, on the channels that turn in the model."""

    def __init__(self, fn: Rotate, rotary_dim: int, theta: float) -> None:
        super().__init__()
        self.fn, self.rotary_dim, self.theta = fn, rotary_dim, theta

    def rotate(self, q: Tensor, k: Tensor, q_pos: Tensor, k_pos: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys, each with its own places."""
        return self._one(q, q_pos), self._one(k, k_pos)

    def _one(self, x: Tensor, pos: Tensor) -> Tensor:
        turning = x[..., : self.rotary_dim]
        answer = call(self.fn, turning, pos, self.theta)
        expect_kind(answer, turning, "In the model, the result of your function")
        return torch.cat([answer, x[..., self.rotary_dim :]], -1)


@checker
def injected(fn: Rotate, model: Pythia, windows: Tensor) -> str:
    """Put `fn` into every layer of a Pythia with RoPE: cached decoding, loss, gradients and ten steps on windows."""
    config = model.config
    if config.position != "rope" or config.rope_extension != "none":
        raise ValueError(f"model: its position is {config.position!r}; needed is 'rope' without an extension")
    if windows.ndim != 2 or len(windows) < 1 or windows.shape[1] < 2:
        raise ValueError(f"windows has shape {tuple(windows.shape)}; needed is (N, T + 1) with N and T of 1 or more")
    theirs = copy.deepcopy(model)
    mine = with_attention(model, position=_Mine(fn, config.rotary_dim, config.rope_theta))
    _expect_cached(mine, theirs, windows[:1, : min(12, config.max_positions)])
    compared = same_model(theirs, mine, (windows,), next_token_loss)
    return f"Your rotation runs in all {len(mine.blocks)} layers, and cached steps agree with it: {compared}"


@torch.no_grad()
def _expect_cached(mine: Pythia, theirs: Pythia, ids: Tensor) -> None:
    caches = mine.new_caches()
    steps = torch.cat([mine(ids[:, t : t + 1], caches=caches) for t in range(ids.shape[1])], 1)
    if not torch.allclose(steps, theirs(ids), atol=1e-3):
        at = int((steps - theirs(ids)).abs().amax((0, 2)).argmax())
        raise Wrong(
            f"Token by token, with a cache, the logits differ from the library's by "
            f"{(steps - theirs(ids)).abs().max():.2f}, most at token {at}. Each step brings its own place in `pos`."
        )


def _scores(q: Tensor, k: Tensor, layout: str) -> Tensor:
    """Weights of causal attention with all channels turned: (B, H, T, T)."""
    position = RotaryPosition(q.shape[-1], layout=layout)
    return attention(q, k, k, mask=causal, position=position, impl="explicit", return_weights=True)[1]


def _to_half_split(weight: Tensor, n_heads: int) -> Tensor:
    return change_layout(weight, n_heads, len(weight) // n_heads, to="half_split")


def _to_interleaved(weight: Tensor, n_heads: int) -> Tensor:
    return change_layout(weight, n_heads, len(weight) // n_heads, to="interleaved")


TO_HALF_SPLIT: Mistakes = {
    "That is the way back, from halves to neighbours. Here rows 0, 2, 4, … of a head come first, then 1, 3, 5, ….":
        _to_interleaved,
    "The heads are forgotten: you sort all rows as if they were one head. Split them as (H, D) first.":
        lambda weight, n_heads: _to_half_split(weight, 1),
    "The heads are forgotten, and it is the way back.": lambda weight, n_heads: _to_interleaved(weight, 1),
    "The rows split as (H, D), not as (D, H): a head has neighbouring rows.":
        lambda weight, n_heads: _to_half_split(weight.unflatten(0, (-1, n_heads)), 1).flatten(0, 1),
    "Rows 1, 3, 5, … come first; the first of each pair, 0, 2, 4, …, must: the pairs would turn backwards.":
        lambda weight, n_heads: _to_half_split(weight.unflatten(0, (-1, 2)).flip(1).flatten(0, 1), n_heads),
    "Nothing has moved.": lambda weight, n_heads: weight,
    "You reorder the columns, the inputs. The heads' channels are the rows of the weight.":
        lambda weight, n_heads: _to_half_split(weight.T, n_heads).T if weight.shape[1] == len(weight) else weight,
}  # fmt: skip


@checker
def to_half_split(fn: Callable[[Tensor, int], Tensor]) -> str:
    """Check `fn(weight, n_heads)`: the rows (H D, C) of a projection, from neighbours as pairs to halves as pairs."""
    for n_heads, width, channels in ((3, 8, 24), (1, 8, 5), (4, 6, 24), (2, 16, 32)):
        weight = torch.randn(n_heads * width, channels)
        answer = call(fn, weight, n_heads)
        if isinstance(answer, Tensor) and answer.shape == (n_heads, width, channels):
            raise Wrong("Your result is (H, D, C): join the first two axes again.")
        what = f"For {n_heads} heads of width {width}, the result"
        expect_by(answer, _to_half_split, TO_HALF_SPLIT, weight, n_heads, what=what)
    x, n_heads = torch.randn(2, 7, 24), 3
    old = [torch.randn(24, 24) for _ in "qk"]
    q, k = ((x @ weight.T).unflatten(-1, (n_heads, -1)).transpose(1, 2) for weight in old)
    new_q, new_k = ((x @ call(fn, weight, n_heads).T).unflatten(-1, (n_heads, -1)).transpose(1, 2) for weight in old)
    want = _scores(q, k, "interleaved")
    apart, before = ((_scores(*pair, "half_split") - want).abs().max() for pair in ((new_q, new_k), (q, k)))
    if apart > 1e-4:
        raise Wrong(f"In a whole attention with the new weights, the old scores change by {apart:.2g}.")
    return (
        f"Right. In an attention, weights of queries to keys stay as they were, up to {apart:.0e}; with the rows as "
        f"they are, they would change by {before:.2f}."
    )
