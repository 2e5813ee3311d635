"""Checks for the exercises: they run the learner's function and say in a sentence what is wrong."""

import functools
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

GRADIENT_TOLERANCE = 1e-4
_LIBRARIES = tuple(str(Path(file).parents[depth]) for file, depth in ((torch.__file__, 0), (__file__, 1)))


class Wrong(Exception):
    """The answer is wrong; the message says in a sentence how."""


class Unsolved(Exception):
    """The stub was not filled in yet."""


@dataclass(frozen=True)
class Result:
    """Outcome of a check: ok is True, False, or None for a stub that is not solved yet."""

    ok: bool | None
    message: str

    def __repr__(self) -> str:
        return f"{ {True: '✓', False: '✗', None: '○'}[self.ok] } {self.message}"


def checker(check: Callable[..., str]) -> Callable[..., Result]:
    """Turn a function that returns praise, or raises Wrong or Unsolved, into one that returns a Result."""

    @functools.wraps(check)
    def run(*args: Any, **kwargs: Any) -> Result:
        try:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                return Result(True, check(*args, **kwargs))
        except Unsolved:
            return Result(
                None, "Not solved yet: the function returns nothing. If you have filled it in, is a `return` missing?"
            )
        except Wrong as wrong:
            return Result(False, str(wrong))

    return run


@contextmanager
def learners_code(what: str) -> Iterator[None]:
    """Errors inside become Wrong, "`what` stopped with ..." and the learner's line; NotImplementedError is Unsolved."""
    try:
        yield
    except (Wrong, Unsolved):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        # torch raises NotImplementedError too, for types that an operation cannot take.
        if isinstance(error, NotImplementedError) and (frames[-1].line or "").startswith("raise"):
            raise Unsolved from error
        lines = [frame.line for frame in frames if not frame.filename.startswith(_LIBRARIES)]
        where = f" at `{lines[-1]}`" if lines else ""
        raise Wrong(f"{what} stopped with {type(error).__name__}{where}: {error}") from error


def call(fn: Callable[..., Any], *args: Any) -> Any:
    """Call the learner's function; no answer is Unsolved, an error or an argument changed in place is Wrong."""
    before = [a.detach().clone() if isinstance(a, Tensor) else a for a in args]
    with learners_code("Your function"):
        answer = fn(*args)
    if answer is None or answer is ...:
        raise Unsolved
    for number, (was, now) in enumerate(zip(before, args, strict=True), 1):
        if isinstance(was, Tensor) and not _same(was, now.detach()):
            raise Wrong(f"Your function changed its argument number {number} in place; compute a new tensor instead.")
    return answer


def _same(was: Tensor, now: Tensor) -> bool:
    # A nan is not equal to itself, but unchanged.
    return was.shape == now.shape and was.dtype == now.dtype and torch.equal(was.nan_to_num(), now.nan_to_num())


def expect_kind(got: Any, want: Tensor, what: str) -> None:
    """Raise Wrong unless `got` is a tensor with the shape, dtype and device of `want`."""
    if not isinstance(got, Tensor):
        raise Wrong(f"{what} is a {type(got).__name__}; a tensor is needed.")
    if got.shape != want.shape:
        raise Wrong(f"{what} has shape {tuple(got.shape)}; needed is {tuple(want.shape)}.")
    if got.layout != torch.strided or got.is_inference():
        raise Wrong(f"{what} is a sparse or inference tensor; an ordinary one is needed.")
    for name in ("dtype", "device"):
        if getattr(got, name) != getattr(want, name):
            raise Wrong(f"{what} has {name} {getattr(got, name)}; needed is {getattr(want, name)}.")


def expect(
    got: Any,
    want: Tensor,
    mistakes: Mapping[str, Tensor],
    *,
    what: str = "The result",
    tolerance: float = 1e-5,
    size: float = 0.0,
) -> None:
    """Raise Wrong unless `got` equals `want`; `mistakes` maps a sentence to the value that this mistake would give.

    Errors are relative to the largest entry of `want`, or to `size` where all its entries are smaller than that; to 1
    where both are 0.
    """
    expect_kind(got, want, what)
    if not got.isfinite().all() and want.isfinite().all():
        bad = (~got.isfinite()).sum().item()
        raise Wrong(
            f"{what} has {bad} entries that are infinite or not a number. Which step overflows or divides by 0?"
        )
    if _close(got, want, tolerance, size):
        return
    for sentence, value in mistakes.items():
        if value.shape == got.shape and _close(got, value, tolerance, size):
            raise Wrong(sentence)
    if want.ndim == 0:
        raise Wrong(f"{what} is {got.item():.4g}; it should be {want.item():.4g}.")
    difference = (got - want).abs()
    at = tuple(int(i) for i in torch.unravel_index(difference.argmax(), difference.shape))
    raise Wrong(
        f"{what} differs most at index {at}: yours is {got[at].item():.4g}, it should be {want[at].item():.4g}."
    )


def expect_gradient(got: Tensor | None, want: Tensor, name: str, largest: float) -> None:
    """Raise Wrong unless `got`, the gradient with respect to `name`, equals `want`; None: there was no path to it.

    `largest` is the largest entry of all gradients of the computation. One that is small beside it may be 0 but for
    rounding, as that of the keys' bias, which adds the same to all scores of a query: errors are relative to a tenth of
    `largest` there, and no path is needed.
    """
    size = largest / 10 or 1.0
    if got is None:
        if _close(torch.zeros_like(want), want, GRADIENT_TOLERANCE, size):
            return
        raise Wrong(
            f"The values are right, but no gradient reaches {name}: look for .item(), .data, .detach() or NumPy."
        )
    what = f"The values are right, but the gradient with respect to {name}"
    expect(got, want, {}, what=what, tolerance=GRADIENT_TOLERANCE, size=size)


def largest_of(gradients: Iterable[Tensor | None]) -> float:
    """The largest entry of all gradients, in absolute value; None stands for one that is 0."""
    return max((g.abs().max().item() for g in gradients if g is not None), default=0.0)


def expect_gradients(
    fn: Callable[..., Any], reference: Callable[..., Tensor], tensors: Mapping[str, Tensor], *others: Any
) -> None:
    """Raise Wrong unless `fn(*tensors, *others)` has the gradient of `reference` with respect to each of `tensors`."""
    mine, theirs = ([t.detach().clone().requires_grad_() for t in tensors.values()] for _ in range(2))
    want = reference(*theirs, *others)
    upstream = torch.randn_like(want)
    wanted = torch.autograd.grad(want, theirs, upstream)
    y = call(fn, *mine, *others)
    expect_kind(y, want, "For tensors that require gradients, the result")
    got: tuple[Tensor | None, ...] = (None,) * len(mine)
    if y.requires_grad:
        with learners_code("The backward pass through your function"):
            got = torch.autograd.grad(y, mine, upstream, allow_unused=True)
    for name, g, w in zip(tensors, got, wanted, strict=True):
        expect_gradient(g, w, name, largest_of(wanted))


def _close(a: Tensor, b: Tensor, tolerance: float, size: float) -> bool:
    a, b = a.double(), b.double()
    largest = b.where(b.isfinite(), 0).abs().max().item()
    return torch.allclose(a, b, rtol=0, atol=tolerance * (max(largest, size) or 1.0))  # equal infinities are close
