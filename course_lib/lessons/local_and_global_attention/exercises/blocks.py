"""Checks for the heart of lesson 04: local attention in blocks, written by the learner, put into an encoder."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from course_lib.attention import AttentionFn, attention, local_attention, with_attention
from course_lib.attention.arguments import Mask
from course_lib.exercises import Wrong, call, checker, expect_gradients, expect_kind
from course_lib.exercises.injection import same_model
from course_lib.exercises.mistakes import Mistakes, expect_by
from course_lib.masking import hide, masked_loss
from course_lib.models.sparse_bert import SparseBert
from course_lib.positions import Position

B, H, D = 2, 3, 8
Local = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def _blocked(
    q: Tensor, k: Tensor, v: Tensor, radius: int, *, near: Sequence[int] = (-1, 0, 1), wrap: bool = False,
    bounds: tuple[bool, str] = (True, "text"), far: str = "<=", scale: float | None = None,
) -> Tensor:  # fmt: skip
    """Local attention in blocks of `radius`, with a switch for each thing that can go wrong; the defaults are right.

    bounds: whether places before the text are hidden, and what ends what can be seen: "text", its "padding" or nothing.
    """
    batch, _, length, _ = q.shape
    w, n = radius, -(-length // radius)
    q, k, v = (F.pad(x, (0, 0, 0, n * w - length)).unflatten(2, (n, w)) for x in (q, k, v))  # (B, H, n, w, D)
    ring = [torch.cat([x[:, :, -1:], x, x[:, :, :1]], 2) if wrap else F.pad(x, (0, 0, 0, 0, 1, 1)) for x in (k, v)]
    k, v = (torch.cat([x[:, :, 1 + i : 1 + i + n] for i in near], -2) for x in ring)  # (B, H, n, blocks w, D)
    places, start = torch.arange(w), torch.arange(n)[:, None] * w
    q_pos = (start + places).unsqueeze(-1)
    k_pos = torch.cat([start + i * w + places for i in near], -1).unsqueeze(-2)
    apart = (q_pos - k_pos).abs()
    shifted = (places[:, None] - torch.arange(len(near) * w)).abs().expand_as(apart)
    allowed = {"<=": apart <= w, "<": apart < w, "all": apart >= 0, "shifted": shifted <= w}[far]
    begin, end = bounds
    allowed = allowed & (k_pos < {"text": length, "padding": n * w, "": math.inf}[end])
    allowed = allowed & (k_pos >= 0) if begin else allowed
    folded = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))  # (B n, H, w or blocks w, D)
    y = attention(*folded, mask=allowed.repeat(batch, 1, 1).unsqueeze(1), scale=scale, impl="explicit")
    return y.unflatten(0, (batch, n)).transpose(1, 2).flatten(2, 3)[:, :, :length]


_RING = "The text is bent into a ring: `roll` puts the last block before the first. "
_STOLEN = "Keys of padding are seen. They are zeros, their scores are 0, and exp(0) = 1: they take weight. "
LOCAL: Mistakes = {
    _RING + "The first block sees the end of the text, and the last its beginning.":
        partial(_blocked, wrap=True, bounds=(False, "")),
    _RING + "The first block sees the end of the text.": partial(_blocked, wrap=True, bounds=(False, "text")),
    _RING + "The last block sees the beginning of the text.": partial(_blocked, wrap=True, bounds=(True, "")),
    _STOLEN + "Hide places below 0 and from T on.": partial(_blocked, bounds=(False, "")),
    _STOLEN + "Hide places below 0: the block before the first.": partial(_blocked, bounds=(False, "text")),
    _STOLEN + "Hide places from T on: the block after the last.": partial(_blocked, bounds=(True, "")),
    _STOLEN + "Hide the rest of the last block, from T on.": partial(_blocked, bounds=(True, "padding")),
    "A key *at* the distance `radius` must be seen too: compare with <=, not with <.": partial(_blocked, far="<"),
    "No window is cut: a query sees all of its three blocks. Or do your places count within each block? Then all "
    "are near.": partial(_blocked, far="all"),
    "There is no mask at all: neither the window is cut, nor are the blocks of padding hidden.":
        partial(_blocked, far="all", bounds=(False, "")),
    "Queries count from the beginning of their block, keys from the beginning of the block before: add `radius` to "
    "the queries' places, or compare true places.": partial(_blocked, far="shifted"),
    "The same places are compared wrongly, and padding is seen: a query at place i of its block is at i + radius "
    "among its keys.": partial(_blocked, far="shifted", bounds=(False, "")),
    "The block after is missing: without it a query does not see what comes next.": partial(_blocked, near=(-1, 0)),
    "The block before is missing: without it a query does not see what came last.": partial(_blocked, near=(0, 1)),
    "Each block sees only itself. A query at its edge needs the neighbouring blocks too.": partial(_blocked, near=(0,)),
    "The scale 1/sqrt(D) is missing.": partial(_blocked, scale=1.0),
    "You divide by D; the scale is its root.": lambda q, k, v, radius: _blocked(q, k, v, radius, scale=1 / q.shape[-1]),
    "Each query sees the whole text: that is full attention.": lambda q, k, v, radius: attention(q, k, v),
}  # fmt: skip


@checker
def local(fn: Local) -> str:
    """Check `fn(q, k, v, radius)`: local attention (B, H, T, D) of texts of any length, at a cost linear in T."""
    for length, radius, case in (
        (12, 4, "The result"),
        (14, 4, "For T = 14 and radius 4, where the last block is not full, the result"),
        (3, 5, "For T = 3 and radius 5, a text shorter than a block, the result"),
        (7, 1, "For T = 7 and radius 1, the result"),
    ):
        q, k, v = (torch.randn(B, H, length, D) for _ in range(3))
        _expect_length(answer := _answer(fn, q, k, v, radius), length, radius)
        expect_by(answer, _dense, LOCAL, q, k, v, radius, what=case)
    tensors = {name: torch.randn(B, H, 21, D) for name in "qkv"}
    try:
        expect_gradients(fn, _dense, tensors, 2)
    except Wrong as error:
        if "not a number" not in str(error):
            raise
        raise Wrong(
            "The values are right, but gradients are nan: a query of the padding sees no key at all, 0 / 0. You cut "
            "its row off, and in the backward pass 0 · nan comes back. Use `torch.finfo(q.dtype).min`, not -inf."
        ) from error
    work, largest = _linear(fn)
    return (
        f"Right: values and gradients equal the dense ones. For 4 times the tokens it makes {work:.1f} times as many "
        f"numbers; its largest tensor for 2,048 tokens has shape {largest}."
    )


def _dense(q: Tensor, k: Tensor, v: Tensor, radius: int) -> Tensor:
    return local_attention(q, k, v, radius, impl="dense")


def _answer(fn: Local, q: Tensor, k: Tensor, v: Tensor, radius: int) -> object:
    """The learner's answer; Wrong with a hint where a length that is no multiple of the radius stops it."""
    try:
        return call(fn, q, k, v, radius)
    except Wrong as error:
        if q.shape[2] % radius and isinstance(error.__cause__, RuntimeError):
            raise Wrong(
                f"{q.shape[2]} tokens are no whole number of blocks of {radius}: fill the last block up first, with "
                f"`F.pad`. ({error})"
            ) from error
        raise


def _expect_length(answer: object, length: int, radius: int) -> None:
    if not isinstance(answer, Tensor) or answer.ndim != 4:
        return  # `expect` says so
    if answer.shape[2] == -(-length // radius) * radius > length:
        raise Wrong(
            f"You return {answer.shape[2]} rows for {length} tokens: cut off those of the padding at the end, "
            "`y[:, :, :T]`."
        )
    if answer.shape[2] == length // radius * radius < length:
        raise Wrong(
            f"You return {answer.shape[2]} rows for {length} tokens: the last block is lost where it is not full."
        )


class _Work(TorchDispatchMode):
    """Counts the numbers that operations give, and remembers the largest tensor. A view counts what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers, self.largest, self.shape = 0, 0, torch.Size()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> object:
        result = op(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                held = min(tensor.numel(), tensor.untyped_storage().nbytes() // tensor.element_size())
                self.numbers += held
                if held > self.largest:
                    self.largest, self.shape = held, tensor.shape
        return result


def _linear(fn: Local) -> tuple[float, tuple[int, ...]]:
    """By how much the work grows from 512 to 2,048 tokens, and the shape of the largest tensor; Wrong if quadratic."""
    counts = []
    for length in (512, 2048):
        with _Work() as work, torch.no_grad():
            call(fn, *(torch.randn(1, 1, length, D) for _ in range(3)), 16)
        counts.append(work)
    growth = counts[1].numbers / counts[0].numbers
    if growth > 6:
        what = (
            f"A tensor of shape {tuple(counts[1].shape)} is made: all scores, or a mask for all pairs?"
            if counts[1].largest >= 2048**2
            else "No single tensor is large. Does each block look at the whole text?"
        )
        raise Wrong(
            f"The values are right, but the cost grows with the square of the length: for 4 times the tokens you make "
            f"{growth:.1f} times as many numbers. {what} A query needs three blocks of keys."
        )
    return growth, tuple(counts[1].shape)


def as_attention_fn(fn: Local, radius: int) -> AttentionFn:
    """The learner's `fn(q, k, v, radius)` as an AttentionFn; ValueError for all that it does not take."""

    def attend(
        q: Tensor, k: Tensor, v: Tensor, *, mask: Mask | None = None, key_mask: Tensor | None = None,
        position: Position | None = None, q_pos: Tensor | None = None, k_pos: Tensor | None = None,
        scale: float | None = None,
    ) -> Tensor:  # fmt: skip
        others = {"mask": mask, "key_mask": key_mask, "position": position, "q_pos": q_pos, "scale": scale}
        if given := [name for name, value in others.items() if value is not None]:
            raise ValueError(f"{', '.join(given)}: the exercise's function takes q, k, v and radius alone")
        answer = call(fn, q, k, v, radius)
        expect_kind(answer, q, "In the model, the result of your function")
        return answer

    return attend


@checker
def injected(fn: Local, model: SparseBert, windows: Tensor) -> str:
    """Put `fn` into every layer of a trained SparseBert; compare the loss of hidden tokens, gradients, ten steps.

    The model attends locally, with the radius of its config, whatever its pattern was. windows (N, T) int64.
    """
    radius = model.config.radius
    theirs = model.with_pattern(pattern="local")
    mine = with_attention(theirs, attention_fn=as_attention_fn(fn, radius))
    if radius > 1 and windows.shape[1] % radius == 0:
        windows = windows[:, :-1]  # a length that is no multiple: the harder case
    hidden = hide(windows, model.config.vocab_size, 0.15, 0)
    compared = same_model(theirs, mine, hidden, masked_loss)
    return f"Your function runs in all {len(mine.blocks)} layers, with radius {radius}: {compared}"
