"""Checks for two exercises of lesson 04: how many layers a pattern needs, and a pattern of one's own."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from course_lib.attention import Pattern, causal, draw_blocks, global_tokens, random_blocks, window
from course_lib.exercises import Wrong, call, checker, expect_kind, learners_code
from course_lib.exercises.mistakes import Mistakes, sentence_on

LENGTH = 256
BUDGETS = {2: 0.125, 3: 0.08}  # layers -> largest share of the pairs
OPERATIONS = 50_000  # a search that has not ended by then never will


def _dense(pattern: Pattern, length: int) -> Tensor:
    places = torch.arange(length)
    return pattern.dense(places, places)


def _hops(allowed: Tensor) -> Tensor:
    """Least number of layers until token i knows of token j: int64 (T, T), 0 on the diagonal, -1 for never."""
    known = torch.eye(len(allowed), dtype=torch.bool)
    steps = known.long() - 1
    for layers in range(1, len(allowed)):
        after = known | (allowed.float() @ known.float() > 0)
        if torch.equal(after, known):
            break
        steps[after & ~known] = layers
        known = after
    return steps


class _Patience(TorchDispatchMode):
    """Raises Wrong after so many operations: a loop that never ends would stop the notebook."""

    def __init__(self) -> None:
        super().__init__()
        self.left = OPERATIONS

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> object:
        self.left -= 1
        if self.left < 0:
            raise Wrong(
                "Your loop does not end. With the causal pattern token 0 never hears of token 1: stop when a layer "
                "brings nothing new, not when all are reached."
            )
        return op(*args, **(kwargs or {}))


def _walks(allowed: Tensor) -> Tensor:
    """The length of the shortest walk, of a step or more: from a token to itself too."""
    walks, power = torch.full(allowed.shape, -1), torch.eye(len(allowed))
    for layers in range(1, 2 * len(allowed)):
        power = (allowed.float() @ power > 0).float()
        walks = walks.where((walks >= 0) | (power == 0), layers)
    return walks


HOPS: Mistakes = {
    "rows and columns are swapped: rows are queries. Entry (i, j) is about what i hears of j.":
        lambda allowed: _hops(allowed).mT,
    "a token needs no layer to know of itself: the residual stream carries it. The diagonal is 0.": _walks,
    "you count one layer too many: the token itself 0, what it sees 1.":
        lambda allowed: (steps := _hops(allowed)).where(steps < 0, steps + 1),
    "you count one layer too few: what a token sees is one layer away, only itself 0.":
        lambda allowed: (steps := _hops(allowed)).where(steps <= 0, steps - 1),
    "that is one layer. Go on: what those that I see have seen, I know after two.":
        lambda allowed: (steps := _hops(allowed)).where(steps <= 1, -1),
    "you stop after two layers.": lambda allowed: (steps := _hops(allowed)).where(steps <= 2, -1),
    "what never arrives must be -1; yours is 0, as if it were the token itself.":
        lambda allowed: _hops(allowed).clamp(min=0),
    "what never arrives must be -1; yours is T.":
        lambda allowed: (steps := _hops(allowed)).where(steps >= 0, len(allowed)),
}  # fmt: skip


@checker
def hops(fn: Callable[[Tensor], Tensor]) -> str:
    """Check `fn(allowed)`: bool (T, T) -> int64 (T, T), the layers until i knows of j; 0 for itself, -1 for never."""
    neighbours = Pattern("", lambda q_pos, k_pos: (q_pos - k_pos).abs() == 1)
    chain = Pattern("", lambda q_pos, k_pos: q_pos - k_pos == 1)
    for pattern, case in (
        (window(2), "For a window of radius 2, "),
        (window(1) | global_tokens([3]), "For window(1) | global_tokens([3]), "),
        (neighbours, "For a pattern in which no token sees itself, only its two neighbours, "),
        (causal & window(2), "For causal & window(2), "),
        (chain, "For a pattern in which each token sees only the one before it, "),
        (global_tokens([1, 4]), "For global tokens alone, "),
    ):
        allowed = _dense(pattern, 9)
        with _Patience():
            answer = call(fn, allowed)
        if isinstance(answer, Tensor) and answer.dtype != torch.int64:
            raise Wrong(f"{case}the result is {answer.dtype}; needed are whole numbers: int64, as `.long()` gives.")
        expect_kind(answer, allowed.long(), f"{case}the result")
        _expect_hops(answer, allowed, case)
    depths = {}
    block = 16
    for name, pattern in {
        "window(16)": window(16),
        "window(16) | global_tokens([0])": window(16) | global_tokens([0]),
        "BigBird": window(16) | global_tokens([0]) | random_blocks(draw_blocks(LENGTH // block, 2, 0), block),
        "window(16) | random_blocks": window(16) | random_blocks(draw_blocks(LENGTH // block, 2, 0), block),
    }.items():
        answer = call(fn, allowed := _dense(pattern, LENGTH))
        _expect_hops(answer, allowed, f"For {name} and {LENGTH} tokens, ")
        depths[name] = int(answer.max())
    found = ", ".join(f"{name} {depth}" for name, depth in depths.items())
    return f"Right. The layers that {LENGTH} tokens need: {found}."


def _expect_hops(answer: Tensor, allowed: Tensor, case: str) -> None:
    want = _hops(allowed)
    if torch.equal(answer, want):
        return
    if sentence := sentence_on(answer, HOPS, allowed):
        raise Wrong(case + sentence)
    i, j = (int(x) for x in (answer != want).nonzero()[0])
    raise Wrong(f"{case}token {i} knows of token {j} after {int(want[i, j])} layers; yours says {int(answer[i, j])}.")


@checker
def design(fn: Callable[[], Pattern], most: int = LENGTH) -> str:
    """Check the Pattern that `fn()` gives: few pairs of 256 tokens, and all know of all after 2 layers, or 3.

    `most` is how many keys a query may see, and how many queries may see a key.
    """
    pattern = call(fn)
    if not isinstance(pattern, Pattern):
        raise Wrong(
            f"You return a {type(pattern).__name__}; a Pattern is needed, such as `causal & window(8)`, or "
            '`Pattern("mine", lambda q_pos, k_pos: ...)`.'
        )
    with learners_code("Your pattern"):
        allowed = _dense(pattern, LENGTH)
    if allowed.shape != (LENGTH, LENGTH):
        raise Wrong(f"Your pattern gives {tuple(allowed.shape)}; needed is a value for each of the 256 x 256 pairs.")
    share = allowed.float().mean().item()
    steps = _hops(allowed)
    depth = int(steps.max())
    spent = f"{int(allowed.sum()):,} pairs, {share:.1%}"
    budget = "12.5 % for two layers, or 8 % for three"
    faults = []
    if (steps < 0).any():
        i, j = (int(x) for x in (steps < 0).nonzero()[0])
        faults.append(f"token {i} never hears of token {j}, nor do {int((steps < 0).sum()) - 1:,} other pairs meet")
    elif depth > max(BUDGETS):
        i, j = (int(x) for x in (steps == depth).nonzero()[0])
        faults.append(f"it needs {depth} layers: token {i} hears of token {j} only then")
    if share > BUDGETS.get(depth, max(BUDGETS.values())):
        layers = f" and {depth} layers" if depth in BUDGETS and not faults else ""
        faults.append(f"{spent}{layers} are too many: allowed are {budget}")
    seen, seeing = int(allowed.sum(1).max()), int(allowed.sum(0).max())
    if max(seen, seeing) > most:
        faults.append(f"one query sees {seen} keys and one key is seen by {seeing} queries; allowed are {most}")
    if faults:
        text = "; ".join(faults)
        raise Wrong(f"{text[0].upper()}{text[1:]}.")
    return (
        f"Right: {spent}, and all know of all after {depth} layers. The busiest query sees {seen} keys, and the "
        f"busiest key is seen by {seeing} queries."
    )
