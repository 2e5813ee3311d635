"""Checks for the exercises: they run the learner's function and say in a sentence what is wrong."""

import functools
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


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


def call(fn: Callable[..., Any], *args: Any) -> Any:
    """Call the learner's function; None or NotImplementedError is Unsolved, any other error is Wrong with its line."""
    before = [a.detach().clone() if isinstance(a, Tensor) else a for a in args]
    try:
        answer = fn(*args)
    except NotImplementedError as error:
        raise Unsolved from error
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1].line
        where = f" at `{line}`" if line else ""
        raise Wrong(f"Your function stopped with {type(error).__name__}{where}: {error}") from error
    if answer is None or answer is ...:
        raise Unsolved
    for number, (was, now) in enumerate(zip(before, args, strict=True), 1):
        if isinstance(was, Tensor) and not torch.equal(was, now.detach()):
            raise Wrong(f"Your function changed its argument number {number} in place; compute a new tensor instead.")
    return answer


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

    Errors are relative to the largest entry of `want`, or to `size` where all its entries are smaller than that.
    """
    if not isinstance(got, Tensor):
        raise Wrong(f"{what} is a {type(got).__name__}; a tensor is needed.")
    if got.shape != want.shape:
        raise Wrong(f"{what} has shape {tuple(got.shape)}; needed is {tuple(want.shape)}.")
    if got.dtype != want.dtype:
        raise Wrong(f"{what} has dtype {got.dtype}; needed is {want.dtype}.")
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
    difference = (got - want).abs()
    at = tuple(int(i) for i in torch.unravel_index(difference.argmax(), difference.shape))
    raise Wrong(
        f"{what} differs most at index {at}: yours is {got[at].item():.4g}, it should be {want[at].item():.4g}."
    )


def _close(a: Tensor, b: Tensor, tolerance: float, size: float) -> bool:
    return bool((a.double() - b.double()).abs().max() <= tolerance * max(b.double().abs().max().item(), size))
