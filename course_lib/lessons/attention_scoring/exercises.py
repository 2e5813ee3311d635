"""Checks for lesson 02, attention scoring."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib import attention as library
from course_lib.attention import with_attention
from course_lib.attention.arguments import AttentionFn, Mask, prepare
from course_lib.exercises import Wrong, call, checker, expect, expect_gradients, expect_kind
from course_lib.exercises.injection import same_model
from course_lib.exercises.mistakes import Mistakes, expect_by
from course_lib.models.lookup import Lookup, LookupBatch
from course_lib.positions import Position

B, H, T, S, D, DV = 2, 3, 4, 6, 8, 5  # all different, so that a wrong axis shows


def _qkv() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(B, H, T, D), torch.randn(B, H, S, D), torch.randn(B, H, S, DV)


def _allowed() -> Tensor:
    """A mask (T, S) in which each query may look at two keys or more, and each key is seen."""
    allowed = torch.rand(T, S) < 0.5
    for query in range(T):
        allowed[query, [query, (query + 3) % S]] = True
    allowed[0, 1] = False
    return allowed


def _not_finite(answer: object) -> bool:
    return isinstance(answer, Tensor) and not bool(answer.isfinite().all())


def _not_transposed(got: object, shape: torch.Size) -> None:
    if isinstance(got, Tensor) and got.shape == (*shape[:-2], shape[-1], shape[-2]) != shape:
        raise Wrong(
            f"Your matrix has a row for each key: shape {tuple(got.shape)}. Rows are queries: q @ k.mT, not k @ q.mT."
        )


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.mT / math.sqrt(q.shape[-1])


SCORES: Mistakes = {
    "The scale is missing: divide by the root of the width, `q.shape[-1]`.": lambda q, k: q @ k.mT,
    "You divide by the width. Divide by its root: the spread of the scores, not their variance.":
        lambda q, k: q @ k.mT / q.shape[-1],
    "You multiply by the root of the width. Divide: the scores are too far apart, not too close.":
        lambda q, k: q @ k.mT * q.shape[-1] ** 0.5,
    "You divide by the root of the number of keys. The spread comes from the width: `q.shape[-1]`.":
        lambda q, k: q @ k.mT / k.shape[-2] ** 0.5,
    "You divide by the root of the number of heads, `q.shape[1]`. The width is the last axis.":
        lambda q, k: q @ k.mT / q.shape[1] ** 0.5,
    "That is the cosine: you divide by the lengths of q and k. Attention keeps their lengths.":
        lambda q, k: q @ k.mT / q.norm(dim=-1, keepdim=True) / k.norm(dim=-1).unsqueeze(-2),
    "These are weights already: the softmax comes in exercise 2.": lambda q, k: _scores(q, k).softmax(-1),
}  # fmt: skip


@checker
def scores(fn: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Check `fn(q, k)`: scaled dot products (B, H, T, S), then their gradients."""
    q, k, _ = _qkv()
    answer = call(fn, q, k)
    _not_transposed(answer, torch.Size((B, H, T, S)))
    expect_by(answer, _scores, SCORES, q, k)
    expect_gradients(fn, _scores, {"q": q, "k": k})
    return "Right: one row a query, one column a key, spread about 1."


MASKED_SOFTMAX: Mistakes = {  # the first that fits is named: beside a score of 1,000 two of them give zeros
    "Your columns sum to 1, not your rows: softmax over the queries. It runs over the keys, the last axis.":
        lambda x, allowed: x.masked_fill(~allowed, -1e30).softmax(-2) * allowed,
    "Rows sum to 1, but forbidden keys get weight: `allowed` is not used.": lambda x, allowed: x.softmax(-1),
    "What is allowed vanishes beside a forbidden score of 1,000. Mask before the softmax.":
        lambda x, allowed: (kept := x.softmax(-1) * allowed) / kept.sum(-1, keepdim=True).clamp(min=1e-30),
    "The mask comes after the softmax: what forbidden keys took is lost, and your rows no longer sum to 1.":
        lambda x, allowed: x.softmax(-1) * allowed,
    "Forbidden scores became 0. exp(0) is 1, so they still get weight. They must become very negative.":
        lambda x, allowed: x.masked_fill(~allowed, 0).softmax(-1),
    "Your mask is inverted: True means *may* attend.": lambda x, allowed: library.masked_softmax(x, ~allowed),
    "A query that may look at nothing looks at everything: all its scores are equally low, and its row is even. "
    "It should give zeros.": lambda x, allowed: x.masked_fill(~allowed, -1e9).softmax(-1),
    "A query that may look at nothing looks at everything, as if there were no mask. It should give zeros.":
        lambda x, allowed: library.masked_softmax(x, allowed | ~allowed.any(-1, keepdim=True)),
    "Forbidden scores must be lower than *any* allowed one: -inf or `torch.finfo`, not a number like -100.":
        lambda x, allowed: x.masked_fill(~allowed, -100.0).softmax(-1) * allowed,
}  # fmt: skip


@checker
def masked_softmax(fn: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Check `fn(scores, allowed)`: rows sum to 1 over the allowed keys, or are zeros; large scores do no harm."""
    x, allowed = torch.randn(B, H, T, S), _allowed()
    right = library.masked_softmax
    answer = call(fn, x, allowed)
    if _not_finite(answer):
        raise Wrong("You have nan in rows that have allowed keys. Is it 0 · inf, from adding -inf · mask?")
    expect_by(answer, right, MASKED_SOFTMAX, x, allowed)
    nothing = allowed.clone()
    nothing[1] = False
    answer = call(fn, x, nothing)
    if isinstance(answer, Tensor) and answer.shape == x.shape and answer[:, :, 1].isnan().any():
        raise Wrong(
            "A query that may look at nothing gives nan, 0 / 0: a row of -inf alone, or a sum of 0. "
            "It should give zeros."
        )
    expect_by(answer, right, MASKED_SOFTMAX, x, nothing, what="With a query that may look at nothing, the result")
    large, first = x.clone(), torch.arange(S) == 0
    large[..., 0] = 1000.0
    for mask, case in ((allowed | first, "a score of 1,000"), (allowed & ~first, "a forbidden score of 1,000")):
        answer = call(fn, large, mask)
        if _not_finite(answer):
            raise Wrong(f"With {case} the result is not finite: exp overflows. `softmax` subtracts the largest first.")
        expect_by(answer, right, MASKED_SOFTMAX, large, mask, what=f"With {case}, the result")
    low = x - 1e4
    answer = call(fn, low, allowed)
    expect_by(answer, right, MASKED_SOFTMAX, low, allowed, what="With scores near -10,000, the result")
    expect_gradients(fn, right, {"scores": x}, nothing)
    return "Right: rows sum to 1 over what is allowed, a blind query gives zeros, and nothing overflows."


def _attend(fn: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> object:
    """The learner's answer; Wrong with a hint where the function cannot do without a mask."""
    try:
        return call(fn, q, k, v, mask)
    except Wrong as error:
        if mask is None and isinstance(error.__cause__, TypeError | AttributeError) and "None" in str(error):
            raise Wrong(f"`allowed` may be None: then use a plain softmax. ({error})") from error
        raise


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return library.attention(q, k, v, mask=mask, impl="explicit")


def _by_weights(weights: Callable[[Tensor, Tensor, int], Tensor]) -> Callable[..., Tensor]:
    """Attention whose weights are made of q @ k.mT, a mask (T, S) and the width of q."""

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        allowed = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool) if mask is None else mask
        return weights(q @ k.mT, allowed, q.shape[-1]) @ v

    return attend


ATTENTION: Mistakes = {
    "The scale is missing: your scores spread as the root of the width.":
        lambda q, k, v, mask: library.attention(q, k, v, mask=mask, scale=1.0),
    "You take the width from v. Scores are made of q and k: `q.shape[-1]`.":
        lambda q, k, v, mask: library.attention(q, k, v, mask=mask, scale=v.shape[-1] ** -0.5),
    "You divide by the width. Divide by its root.":
        lambda q, k, v, mask: library.attention(q, k, v, mask=mask, scale=1 / q.shape[-1]),
    "Your softmax runs over the queries. Each query shares out its weight over the keys: the last axis.":
        _by_weights(lambda dots, mask, width: (dots / width**0.5).masked_fill(~mask, -1e30).softmax(-2) * mask),
    "The mask is not used.": lambda q, k, v, mask: library.attention(q, k, v),
    "Your mask is inverted: True means *may* attend.":
        lambda q, k, v, mask: library.attention(q, k, v, mask=None if mask is None else ~mask),
    "The mask comes after the softmax: your rows no longer sum to 1.":
        _by_weights(lambda dots, mask, width: (dots / width**0.5).softmax(-1) * mask),
}  # fmt: skip


@checker
def attention(fn: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]) -> str:
    """Check `fn(q, k, v, allowed)` against `course_lib.attention.attention`, with a mask and with None."""
    q, k, v = _qkv()
    allowed = _allowed()
    for mask, case in ((None, "With allowed=None, the result"), (allowed, "With a mask, the result")):
        answer = _attend(fn, q, k, v, mask)
        if isinstance(answer, Tensor) and answer.shape == (B, H, T, S):
            raise Wrong(f"{case} has the shape of the weights, {(B, H, T, S)}: multiply them with the values.")
        expect_by(answer, _attention, ATTENTION, q, k, v, mask, what=case)
    expect_gradients(fn, _attention, {"q": q, "k": k, "v": v}, allowed)
    blind = allowed.clone()
    blind[2] = False
    answer = call(fn, q, k, v, blind)
    if _not_finite(answer):
        raise Wrong("A query that may look at nothing gives nan. Use your masked softmax: it should give zeros.")
    expect(answer, _attention(q, k, v, blind), {}, what="With a query that may look at nothing, the result")
    return "Right: values and gradients equal the library's, with a mask and without."


def as_attention_fn(fn: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]) -> AttentionFn:
    """The learner's `fn(q, k, v, allowed)` as an AttentionFn; ValueError for a scale or a position with a bias."""

    def attend(
        q: Tensor, k: Tensor, v: Tensor, *, mask: Mask | None = None, key_mask: Tensor | None = None,
        position: Position | None = None, q_pos: Tensor | None = None, k_pos: Tensor | None = None,
        scale: float | None = None,
    ) -> Tensor:  # fmt: skip
        ready = prepare(q, k, v, mask, key_mask, position, q_pos, k_pos)
        if scale is not None or ready.bias is not None or ready.score is not None:
            raise ValueError(f"scale={scale}, position={position}: the exercise's function takes neither")
        answer = call(fn, ready.q, ready.k, v, ready.allowed)
        expect_kind(answer, q.new_empty(*q.shape[:-1], v.shape[-1]), "In the model, the result of your function")
        return answer

    return attend


class _Rows(nn.Module):
    """The lookup as a classifier: a tuple of its inputs -> one row of logits a question."""

    def __init__(self, lookup: Lookup) -> None:
        super().__init__()
        self.lookup = lookup

    def forward(self, inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return self.lookup(*inputs).flatten(0, 1)


@checker
def injected(fn: Callable[..., Tensor], model: Lookup, batch: LookupBatch) -> str:
    """Put `fn` into a trained lookup; compare answers and gradients with the library's, then train both ten steps."""
    theirs = with_attention(model, attention_fn=library.attention)
    mine = with_attention(model, attention_fn=as_attention_fn(fn))
    *inputs, right = batch
    compared = same_model(_Rows(theirs), _Rows(mine), (tuple(inputs), right.flatten()))
    return f"Your function answers {right.numel():,} questions in the trained head: {compared}"


def _softmax_gradient(grad: Tensor, w: Tensor) -> Tensor:
    return w * (grad - (grad * w).sum(-1, keepdim=True))


SOFTMAX_BACKWARD: Mistakes = {
    "Only the direct path: raising one score also lowers all other weights of its row.": lambda grad, w: w * grad,
    "You subtract the sum of the gradients. Subtract their mean *weighted by the weights*.":
        lambda grad, w: w * (grad - grad.sum(-1, keepdim=True)),
    "You subtract the plain mean of the gradients. Subtract their mean *weighted by the weights*.":
        lambda grad, w: w * (grad - grad.mean(-1, keepdim=True)),
    "That is the diagonal of the Jacobian alone, w (1 - w): the other weights of the row change too.":
        lambda grad, w: w * (1 - w) * grad,
    "The factor in front is missing: a key without weight gets no gradient.":
        lambda grad, w: grad - (grad * w).sum(-1, keepdim=True),
    "You sum over the queries. Each row is a softmax of its own: sum over the last axis.":
        lambda grad, w: w * (grad - (grad * w).sum(-2, keepdim=True)),
    "You sum over all rows at once: `.sum()` without an axis. Each row is a softmax of its own.":
        lambda grad, w: w * (grad - (grad * w).sum()),
    "The sign of the second term is wrong: weight that one key wins, the others lose.":
        lambda grad, w: w * (grad + (grad * w).sum(-1, keepdim=True)),
}  # fmt: skip


@checker
def softmax_backward(fn: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Check `fn(grad, weights)`: the gradient of the scores from that of the weights, both (..., S)."""
    x, grad = torch.randn(T, S, dtype=torch.float64) * 2, torch.randn(T, S, dtype=torch.float64)
    w = x.softmax(-1)
    expect_by(call(fn, grad, w), _softmax_gradient, SOFTMAX_BACKWARD, grad, w, tolerance=1e-9)
    three = torch.randn(B, T, S, dtype=torch.float64)
    w3 = three.softmax(-1)
    wanted = _softmax_gradient(three, w3)
    expect(call(fn, three, w3), wanted, {}, what=f"For weights of shape ({B}, {T}, {S}), the result")
    flat = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)
    answer = call(fn, torch.ones_like(flat).cumsum(-1), flat)
    expect(answer, torch.zeros_like(flat), {}, what="For weights 1, 0, 0, 0, the result", size=1.0)
    return "Right. And where one weight is 1 and the others are 0, your gradient is 0, whatever arrives."


SCALE: Mistakes = {
    "Right if both spreads are 1. But a query twice as long has scores twice as large.": lambda a, b, d: d**-0.5,
    "That is the spread of the scores; asked is the factor that makes it 1.": lambda a, b, d: a * b * d**0.5,
    "That makes the *variance* of the scores the factor. The spread is its root.":
        lambda a, b, d: 1 / (a * a * b * b * d),
    "You divide by d. The spread grows as the root of d.": lambda a, b, d: 1 / (a * b * d),
    "You took the root of the spreads too: only d stands under the root.": lambda a, b, d: (a * b * d) ** -0.5,
    "You add the spreads. The spread of a product is their product: multiply the two spreads.":
        lambda a, b, d: 1 / ((a + b) * d**0.5),
    "The spreads are squared: a variance and a spread are mixed.": lambda a, b, d: 1 / (a * a * b * b * d**0.5),
    "You multiply by the spreads; longer vectors need a *smaller* factor.": lambda a, b, d: a * b * d**-0.5,
}  # fmt: skip


@checker
def scale(fn: Callable[[float, float, int], float]) -> str:
    """Check `fn(q_std, k_std, d)`: the factor that gives scores of spread 1; then measure it on random vectors."""
    cases = [(1.0, 1.0, 64), (2.0, 1.0, 64), (0.5, 3.0, 16), (2.0, 4.0, 256)]

    def values(formula: Callable[[float, float, int], float]) -> Tensor:
        return torch.tensor([float(formula(*case)) for case in cases], dtype=torch.float64)

    answers = [call(fn, *case) for case in cases]
    try:
        got = torch.tensor([float(a) for a in answers], dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise Wrong(f"Return one number; yours is a {type(answers[0]).__name__}.") from error
    expect_by(got, lambda a, b, d: 1 / (a * b * d**0.5), SCALE, run=values)
    a, b, d = cases[-1]
    dots = (a * torch.randn(4000, d) * b * torch.randn(4000, d)).sum(-1)
    after = (dots * float(got[-1])).std()
    return f"Right. Measured for {a:g}, {b:g}, {d}: a spread of {dots.std():.0f} before, of {after:.2f} after."


def _additive(q: Tensor, k: Tensor, w_query: Tensor, w_key: Tensor, w: Tensor) -> Tensor:
    return ((q @ w_query.mT)[:, None] + (k @ w_key.mT)[None]).tanh() @ w


ADDITIVE_SCORES: Mistakes = {  # for (q, k, w_query A, w_key B, w)
    "The tanh is missing. Without it, the part of the query is the same for all keys, and the softmax drops it.":
        lambda q, k, A, B, w: ((q @ A.mT)[:, None] + (k @ B.mT)[None]) @ w,
    "Two tanh, added: then query and key never meet. First add, then one tanh.":
        lambda q, k, A, B, w: ((q @ A.mT).tanh()[:, None] + (k @ B.mT).tanh()[None]) @ w,
    "You multiply query and key. This score adds them, hence its name.":
        lambda q, k, A, B, w: ((q @ A.mT)[:, None] * (k @ B.mT)[None]).tanh() @ w,
    "The two matrices are swapped: w_query belongs to q.": lambda q, k, A, B, w: _additive(q, k, B, A, w),
    "You average over the hidden units; w already weighs them: sum.":
        lambda q, k, A, B, w: _additive(q, k, A, B, w) / len(w),
    "These are weights already; asked are the scores.": lambda q, k, A, B, w: _additive(q, k, A, B, w).softmax(-1),
}  # fmt: skip


@checker
def additive_scores(fn: Callable[..., Tensor]) -> str:
    """Check `fn(q, k, w_query, w_key, w)`: w · tanh(W_q q + W_k k) for each query and key, (T, S)."""
    q, k, hidden = torch.randn(T, D), torch.randn(S, D), 7
    w_query, w_key, w = torch.randn(hidden, D) * 0.4, torch.randn(hidden, D) * 0.4, torch.randn(hidden)
    answer = call(fn, q, k, w_query, w_key, w)
    _not_transposed(answer, torch.Size((T, S)))
    expect_by(answer, _additive, ADDITIVE_SCORES, q, k, w_query, w_key, w)
    expect_gradients(fn, _additive, {"q": q, "k": k, "w_query": w_query, "w_key": w_key, "w": w})
    return f"Right. In between you hold {T} · {S} · {hidden} numbers, {hidden} times as many as there are scores."
