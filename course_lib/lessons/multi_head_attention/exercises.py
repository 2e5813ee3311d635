"""Checks for the exercises of lesson 03."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import heads as library
from course_lib.attention import Pattern, attention, causal
from course_lib.exercises import Wrong, call, checker, expect, expect_gradients, expect_kind
from course_lib.exercises.injection import same_model
from course_lib.exercises.mistakes import Mistakes, expect_by
from course_lib.generation import next_token_probabilities
from course_lib.models.gpt2 import GPT2
from course_lib.training import next_token_loss

B, T, HEADS, WIDTH = 2, 5, 3, 4
C = HEADS * WIDTH
Layer = Callable[[Tensor], Tensor]


def _split(x: Tensor, n_heads: int) -> Tensor:
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def _cut_alone(x: Tensor, n_heads: int) -> Tensor:
    return x.reshape(x.shape[0], n_heads, x.shape[1], -1)


def _merge(y: Tensor) -> Tensor:
    return y.transpose(1, 2).flatten(2)


def _joined_alone(y: Tensor) -> Tensor:
    return y.reshape(y.shape[0], y.shape[2], -1)


SPLIT_HEADS: Mistakes = {
    "The numbers are in the wrong places: `view(B, H, T, D)` cuts the sequence, not the channels. Split the last "
    "axis first, (B, T, H, D), then swap axes 1 and 2.": _cut_alone,
    "Head h must get *neighbouring* channels, h D to (h + 1) D - 1; yours takes every H-th one: the last axis "
    "splits as (H, D), not as (D, H).": lambda x, n_heads: x.unflatten(-1, (-1, n_heads)).permute(0, 3, 1, 2),
}


@checker
def split_heads(fn: Callable[[Tensor, int], Tensor]) -> str:
    """Check `fn(x, n_heads)`: (B, T, C) -> (B, H, T, D), head h from channels h D to (h + 1) D - 1."""
    x = torch.randn(B, T, C)
    answer = call(fn, x, HEADS)
    if isinstance(answer, Tensor) and answer.shape == (B, T, HEADS, WIDTH):
        raise Wrong("That is (B, T, H, D). Each head must see the whole sequence: swap axes 1 and 2.")
    expect_by(answer, _split, SPLIT_HEADS, x, HEADS)
    return "Right: cut the channels, then give each head its own sequence."


MERGE_HEADS: Mistakes = {
    "Heads and tokens are mixed up: swap axes 1 and 2 back before you join the last two.": _joined_alone,
    "The channels of the heads alternate: join (H, D), in this order.": lambda y: y.permute(0, 2, 3, 1).flatten(2),
}


@checker
def merge_heads(fn: Callable[[Tensor], Tensor]) -> str:
    """Check `fn(y)`: (B, H, T, D) -> (B, T, H D), the inverse of `split_heads`."""
    y = torch.randn(B, HEADS, T, WIDTH)
    expect_by(call(fn, y), _merge, MERGE_HEADS, y)
    return "Right: it undoes the split."


_causal = partial(attention, mask=causal, impl="explicit")


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.mT / q.shape[-1] ** 0.5


def _hide_future(scores: Tensor) -> Tensor:
    return scores + torch.full_like(scores, -torch.inf).triu(1)


def _multi_head(
    x: Tensor, q_proj: Layer, k_proj: Layer, v_proj: Layer, out_proj: Layer, n_heads: int, *,
    split: Callable[[Tensor, int], Tensor] = _split, attend: Callable[..., Tensor] = _causal,
    merge: Callable[[Tensor], Tensor] = _merge,
) -> Tensor:  # fmt: skip
    """Causal multi-head attention; each of its steps can be changed."""
    q, k, v = (split(layer(x), n_heads) for layer in (q_proj, k_proj, v_proj))
    return out_proj(merge(attend(q, k, v)))


MULTI_HEAD: Mistakes = {
    "The future is visible: the causal mask is missing.": partial(_multi_head, attend=attention),
    "The mask is the wrong way round: a token sees itself and what came *before* it.":
        partial(_multi_head, attend=partial(attention, mask=Pattern("", lambda q_pos, k_pos: k_pos >= q_pos))),
    "The mask comes after the softmax: the rows no longer sum to 1. Set scores to -inf before it.":
        partial(_multi_head, attend=lambda q, k, v: _scores(q, k).softmax(-1).tril() @ v),
    "A score of 0 is not hidden: exp(0) = 1. Set the future to -inf before the softmax.":
        partial(_multi_head, attend=lambda q, k, v: _scores(q, k).tril().softmax(-1) @ v),
    "You divide by D; the scale is its root.":
        partial(_multi_head, attend=lambda q, k, v: _causal(q, k, v, scale=1 / q.shape[-1])),
    "The scale is 1/sqrt(C). Each head has its own small space: 1/sqrt(D) with D = C / n_heads.":
        partial(_multi_head, attend=lambda q, k, v: _causal(q, k, v, scale=(q.shape[1] * q.shape[-1]) ** -0.5)),
    "The scale 1/sqrt(D) is missing.": partial(_multi_head, attend=partial(_causal, scale=1.0)),
    "Softmax runs over the wrong axis: each query's weights, along a row, must sum to 1.":
        partial(_multi_head, attend=lambda q, k, v: _hide_future(_scores(q, k)).softmax(-2) @ v),
    "The heads are joined with a reshape alone; (B, H, T, D) needs axes 1 and 2 swapped back first.":
        partial(_multi_head, merge=_joined_alone),
    "The heads are cut with a view alone. Split (B, T, C) as (B, T, H, D), then swap axes 1 and 2.":
        partial(_multi_head, split=_cut_alone),
    "The output projection out_proj is missing.": lambda x, q, k, v, out, n: _multi_head(x, q, k, v, lambda y: y, n),
    "Attention runs over the heads, not over the tokens: it needs (B, H, T, D).":
        partial(_multi_head, attend=lambda *qkv: attention(*(x.transpose(1, 2) for x in qkv)).transpose(1, 2)),
    "That is one head of width C: split q, k and v into n_heads first.":
        lambda x, q, k, v, out, n: _multi_head(x, q, k, v, out, 1),
    "Queries and keys are swapped: rows are queries.": lambda x, q, k, v, out, n: _multi_head(x, k, q, v, out, n),
}  # fmt: skip


def _with_layers(function: Callable[..., Tensor], x: Tensor, *parameters: Tensor) -> Tensor:
    """`function` on four linear layers with these weights and biases."""
    pairs = zip(parameters[::2], parameters[1::2], strict=True)
    return function(x, *(partial(F.linear, weight=weight, bias=bias) for weight, bias in pairs), HEADS)


@checker
def multi_head(fn: Callable[..., Tensor]) -> str:
    """Check `fn(x, q_proj, k_proj, v_proj, out_proj, n_heads)`: causal multi-head attention (B, T, C) -> (B, T, C)."""
    tensors = {"x": torch.randn(B, T, C)}
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        tensors |= {f"{name}.weight": torch.randn(C, C) * 0.7, f"{name}.bias": torch.randn(C)}
    mine = partial(_with_layers, fn)
    answer = call(mine, *tensors.values())
    expect_kind(answer, tensors["x"], "The result")
    if answer[:, 0].isnan().all() and answer[:, 1:].isfinite().all():
        raise Wrong("The first row is all -inf: a token must see itself. The future is `triu(1)`, not `triu(0)`.")
    expect_by(answer, _multi_head, MULTI_HEAD, *tensors.values(), run=_with_layers, tolerance=1e-4)
    expect_gradients(mine, partial(_with_layers, _multi_head), tensors)
    return "Right: values and gradients equal the library's."


class _Mine(nn.Module):
    """A MultiHeadAttention of a model, computed by the learner's function with the module's own layers."""

    def __init__(self, module: Any, fn: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module, self.fn = module, fn

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        m = self.module
        answer = call(self.fn, x, m.q_proj, m.k_proj, m.v_proj, m.out_proj, m.n_heads)
        expect_kind(answer, x, "In the model, the result of your function")
        return answer


@checker
def injected(fn: Callable[..., Tensor], model: GPT2, windows: Tensor) -> str:
    """Put `fn` into every attention of a trained GPT-2; compare losses and gradients on windows, train ten steps."""
    theirs, mine = copy.deepcopy(model), copy.deepcopy(model)
    for block in mine.blocks:
        block.attention = _Mine(block.attention, fn)
    compared = same_model(theirs, mine, (windows,), next_token_loss)
    return f"Your function runs in all {len(theirs.blocks)} layers: {compared}"


def _mean_of_groups(weight: Tensor, n_heads: int, n_kv_heads: int) -> Tensor:
    return weight.unflatten(0, (n_kv_heads, n_heads // n_kv_heads, -1)).mean(1).flatten(0, 1)


GROUPED_WEIGHT: Mistakes = {
    "You average heads 0, 2, 4 and heads 1, 3, 5; *neighbouring* heads share a key head: 0, 1, 2 ….":
        lambda weight, h, n: weight.unflatten(0, (h // n, n, -1)).mean(0).flatten(0, 1),
    "That is the sum over the group; the paper takes the mean.":
        lambda weight, h, n: weight.unflatten(0, (n, h // n, -1)).sum(1).flatten(0, 1),
    "You keep one head of each group; the mean of all of them is asked.":
        lambda weight, h, n: weight.unflatten(0, (n, h // n, -1))[:, 0].flatten(0, 1),
    "You average across the width of a head: split the rows as (heads, D) first.":
        lambda weight, h, n: weight.unflatten(0, (-1, h // n)).mean(1),
}  # fmt: skip


@checker
def grouped_weight(fn: Callable[[Tensor, int, int], Tensor]) -> str:
    """Check `fn(weight, n_heads, n_kv_heads)`: (n_heads D, C) -> (n_kv_heads D, C), the mean of each group of heads."""
    weight = torch.randn(6 * WIDTH, C)
    for n in (2, 1, 6):
        what = f"For n_kv_heads={n}, the result"
        expect_by(call(fn, weight, 6, n), _mean_of_groups, GROUPED_WEIGHT, weight, 6, n, what=what)
    return "Right: one head gives MQA, as many as before change nothing."


Past = tuple[Tensor, Tensor] | None
Step = Callable[[Tensor, Tensor, Tensor, Past], tuple[Tensor, Past]]


def _joined(past: Past, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of all tokens so far."""
    return (k, v) if past is None else (torch.cat([past[0], k], 2), torch.cat([past[1], v], 2))


def _step(change: Callable[[Past, Tensor, Tensor], tuple[tuple[Tensor, Tensor], Past]]) -> Step:
    """A cached step; `change(past, k, v)` gives the keys and values that are attended to, and the past for the next."""

    def step(q: Tensor, k: Tensor, v: Tensor, past: Past) -> tuple[Tensor, Past]:
        seen, past = change(past, k, v)
        return attention(q, *seen, impl="explicit"), past

    return step


CACHED_STEP: Mistakes = {
    "The scale 1/sqrt(D) is missing.":
        lambda q, k, v, past: (attention(q, *_joined(past, k, v), scale=1.0), _joined(past, k, v)),
    "The new query sees only its own key: append the new key and value to the past first.":
        _step(lambda past, k, v: ((k, v), None)),
    "Your mask takes the new query for place 0 and hides all but the first key; no mask is needed.":
        lambda q, k, v, past: (_joined(past, k, v)[1][:, :, :1], _joined(past, k, v)),
    "The new token's own key is missing: append before you attend.":
        _step(lambda past, k, v: (past or (k, v), _joined(past, k, v))),
    "The past that you return holds the last token only.": _step(lambda past, k, v: (_joined(past, k, v), (k, v))),
    "Keys and values are in different orders: append both at the end.":
        _step(lambda past, k, v: 2 * ((_joined(past, k, v)[0], v if past is None else torch.cat([v, past[1]], 2)),)),
}  # fmt: skip


def _decoded(step: Step, q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
    """The outputs of a step made for token after token."""
    outputs, past = [], None
    for t in range(q.shape[2]):
        answer = call(step, *(x[:, :, t : t + 1] for x in (q, k, v)), past)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise Wrong("Return two things: the output (B, H, 1, D), and the past for the next call.")
        outputs.append(answer[0].clone() if isinstance(answer[0], Tensor) else answer[0])
        past = answer[1]
    return outputs


@checker
def cached_step(fn: Step) -> str:
    """Check `fn(q, k, v, past)`: attention of new queries to all keys so far; returns (output, past)."""
    q, k, v = (torch.randn(B, HEADS, T, WIDTH) for _ in range(3))
    outputs = _decoded(fn, q, k, v)
    mistakes = {sentence: _decoded(mistake, q, k, v) for sentence, mistake in CACHED_STEP.items()}
    want = _causal(q, k, v)
    for t in reversed(range(T)):  # late steps tell mistakes apart that give the same in early ones
        known = {sentence: wrong[t] for sentence, wrong in mistakes.items()}
        expect(outputs[t], want[:, :, t : t + 1], known, what=f"At step {t}, the output")
    return "Right: equal to the full forward at every step, without computing a key twice."


def _nucleus(
    probabilities: Tensor, p: float, *, scaled: bool = True,
    keep: Callable[[Tensor, Tensor, float], Tensor] = lambda ordered, total, p: total - ordered < p,
) -> Tensor:  # fmt: skip
    """The tokens to keep, by their probabilities in order and the sums up to each."""
    ordered, order = probabilities.sort(descending=True, stable=True)
    kept = torch.zeros_like(probabilities)
    kept[order] = ordered * keep(ordered, ordered.cumsum(0), p)
    return kept / kept.sum() if scaled else kept


TOP_P: Mistakes = {
    "The set is too small: it must *reach* p, so the token that crosses p stays in.":
        partial(_nucleus, keep=lambda ordered, total, p: total <= p),
    "What is left must sum to 1 again: divide by its sum.": partial(_nucleus, scaled=False),
    "The set reaches p already without its last token: compare with <, not with <=.":
        partial(_nucleus, keep=lambda ordered, total, p: total - ordered <= p),
    "The tokens are in sorted order; put each back in its place: `out[order] = ...`.":
        lambda probabilities, p: _nucleus(probabilities.sort(descending=True).values, p),
}  # fmt: skip


@checker
def top_p(fn: Callable[[Tensor, float], Tensor]) -> str:
    """Check `fn(probabilities, p)`: (V,) -> (V,), the smallest set of likely tokens that reaches p, scaled to sum 1."""
    for probabilities, p in (
        (torch.tensor([0.10, 0.45, 0.05, 0.25, 0.15]), 0.6),
        (torch.tensor([0.10, 0.45, 0.05, 0.25, 0.15]), 0.2),
        (torch.tensor([0.30, 0.25, 0.25, 0.20]), 0.5),
        (torch.tensor([0.125, 0.5, 0.125, 0.25]), 0.5),  # reached exactly, by one token
        (torch.tensor([0.125, 0.5, 0.125, 0.25]), 0.515625),  # just not
    ):
        answer = call(fn, probabilities, p)
        if isinstance(answer, Tensor) and answer.shape == probabilities.shape and not answer.isfinite().all():
            raise Wrong(
                "No token is left, and 0 / 0 is not a number. p is about the *sum* of the largest: one always stays."
            )
        expect_by(
            answer, lambda probabilities, p: next_token_probabilities(probabilities.log(), top_p=p),
            TOP_P, probabilities, p, what=f"For p = {p}, the result",
        )  # fmt: skip
    return "Right: few tokens where the model is sure, many where it is not."


INDUCTION: Mistakes = {
    "That is the weight on the earlier copy of the token itself; the head needs the token *after* it.":
        lambda weights, length: weights.diagonal(-length)[1:].mean(),
    "That is the token before the earlier copy; needed is the one after.":
        lambda weights, length: weights.diagonal(-length - 1).mean(),
    "That is the map the wrong way round: rows are queries.":
        lambda weights, length: weights.diagonal(length - 1)[2:].mean(),
    "You count queries of the first copy too: only the repetition has an earlier copy.":
        lambda weights, length: weights.diagonal(1 - length).mean(),
    "You count one query too many: the last token of the first copy has no earlier copy of itself.":
        lambda weights, length: weights.diagonal(1 - length)[1:].mean(),
    "Sum where a mean is needed: divide by the number of queries.":
        lambda weights, length: weights.diagonal(1 - length)[2:].sum(),
}  # fmt: skip


@checker
def induction(fn: Callable[[Tensor, int], Tensor]) -> str:
    """Check `fn(weights, length)`: the induction score of one head's map (T, T), with T = 1 + 2 length."""
    length = 5
    weights = torch.rand(1 + 2 * length, 1 + 2 * length).tril()
    weights = weights / weights.sum(-1, keepdim=True)
    right = lambda weights, length: library.induction(weights[None, None, None], length).squeeze()  # noqa: E731
    expect_by(call(fn, weights, length), right, INDUCTION, weights, length)
    return "Right: a diagonal of the map, length - 1 places below the main one."
