"""Checks for the exercises of lesson 03."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import heads as library
from course_lib.attention import attention, causal
from course_lib.exercises import Wrong, call, checker, expect, expect_gradients, expect_kind
from course_lib.exercises.injection import same_model
from course_lib.generation import next_token_probabilities
from course_lib.models.gpt2 import GPT2
from course_lib.training import next_token_loss

B, T, HEADS, WIDTH = 2, 5, 3, 4
C = HEADS * WIDTH
Layer = Callable[[Tensor], Tensor]


def _split(x: Tensor, n_heads: int) -> Tensor:
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


@checker
def split_heads(fn: Callable[[Tensor, int], Tensor]) -> str:
    """Check `fn(x, n_heads)`: (B, T, C) -> (B, H, T, D), head h from channels h D to (h + 1) D - 1."""
    x = torch.randn(B, T, C)
    mistakes = {
        "The numbers are in the wrong places: `view(B, H, T, D)` cuts the sequence, not the channels. Split the last "
        "axis first, (B, T, H, D), then swap axes 1 and 2.": x.reshape(B, HEADS, T, WIDTH),
        "Head h must get *neighbouring* channels, h D to (h + 1) D - 1; yours takes every H-th one: the last axis "
        "splits as (H, D), not as (D, H).": x.unflatten(-1, (WIDTH, HEADS)).permute(0, 3, 1, 2),
    }
    answer = call(fn, x, HEADS)
    if isinstance(answer, Tensor) and answer.shape == (B, T, HEADS, WIDTH):
        raise Wrong("That is (B, T, H, D). Each head must see the whole sequence: swap axes 1 and 2.")
    expect(answer, _split(x, HEADS), mistakes)
    return "Right: cut the channels, then give each head its own sequence."


@checker
def merge_heads(fn: Callable[[Tensor], Tensor]) -> str:
    """Check `fn(y)`: (B, H, T, D) -> (B, T, H D), the inverse of `split_heads`."""
    y = torch.randn(B, HEADS, T, WIDTH)
    mistakes = {
        "Heads and tokens are mixed up: swap axes 1 and 2 back before you join the last two.": y.reshape(B, T, C),
        "The channels of the heads alternate: join (H, D), in this order.": y.permute(0, 2, 3, 1).flatten(2),
    }
    expect(call(fn, y), y.transpose(1, 2).flatten(2), mistakes)
    return "Right: it undoes the split."


def _multi_head(x: Tensor, q_proj: Layer, k_proj: Layer, v_proj: Layer, out_proj: Layer, n_heads: int) -> Tensor:
    q, k, v = (_split(layer(x), n_heads) for layer in (q_proj, k_proj, v_proj))
    return out_proj(attention(q, k, v, mask=causal, impl="explicit").transpose(1, 2).flatten(2))


def _multi_head_mistakes(x: Tensor, layers: tuple[Layer, Layer, Layer, Layer]) -> dict[str, Tensor]:
    """What each natural mistake would give."""
    q_proj, k_proj, v_proj, out_proj = layers
    q, k, v = (_split(layer(x), HEADS) for layer in (q_proj, k_proj, v_proj))
    right = attention(q, k, v, mask=causal, impl="explicit")

    def joined(y: Tensor) -> Tensor:
        return out_proj(y.transpose(1, 2).flatten(2))

    across = attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), impl="explicit")  # (B, T, H, D)
    scores = (q @ k.mT / WIDTH**0.5).masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -torch.inf)
    late = (q @ k.mT / WIDTH**0.5).softmax(-1).tril()
    zeroed = (q @ k.mT / WIDTH**0.5).tril()
    return {
        "The future is visible: the causal mask is missing.": joined(attention(q, k, v, impl="explicit")),
        "The mask is the wrong way round: a token sees itself and what came *before* it.": joined(
            attention(q, k, v, mask=torch.ones(T, T, dtype=torch.bool).triu(), impl="explicit")
        ),
        "The mask comes after the softmax: the rows no longer sum to 1. Set scores to -inf before it.": joined(
            late @ v
        ),
        "A score of 0 is not hidden: exp(0) = 1. Set the future to -inf before the softmax.": joined(
            zeroed.softmax(-1) @ v
        ),
        "You divide by D; the scale is its root.": joined(
            attention(q, k, v, mask=causal, scale=1 / WIDTH, impl="explicit")
        ),
        "The scale is 1/sqrt(C). Each head has its own small space: 1/sqrt(D) with D = C / n_heads.": joined(
            attention(q, k, v, mask=causal, scale=C**-0.5, impl="explicit")
        ),
        "The scale 1/sqrt(D) is missing.": joined(attention(q, k, v, mask=causal, scale=1.0, impl="explicit")),
        "Softmax runs over the wrong axis: each query's weights, along a row, must sum to 1.": joined(
            scores.softmax(-2).nan_to_num() @ v
        ),
        "The heads are joined with a reshape alone; (B, H, T, D) needs axes 1 and 2 swapped back first.": out_proj(
            right.reshape(B, T, C)
        ),
        "The heads are cut with a view alone. Split (B, T, C) as (B, T, H, D), then swap axes 1 and 2.": joined(
            attention(*(layer(x).reshape(B, HEADS, T, WIDTH) for layer in layers[:3]), mask=causal, impl="explicit")
        ),
        "The output projection out_proj is missing.": right.transpose(1, 2).flatten(2),
        "Attention runs over the heads, not over the tokens: it needs (B, H, T, D).": out_proj(across.flatten(2)),
        "That is one head of width C: split q, k and v into n_heads first.": _multi_head(x, *layers, 1),
        "Queries and keys are swapped: rows are queries.": _multi_head(x, k_proj, q_proj, v_proj, out_proj, HEADS),
    }


@checker
def multi_head(fn: Callable[..., Tensor]) -> str:
    """Check `fn(x, q_proj, k_proj, v_proj, out_proj, n_heads)`: causal multi-head attention (B, T, C) -> (B, T, C)."""
    tensors = {"x": torch.randn(B, T, C)}
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        tensors |= {f"{name}.weight": torch.randn(C, C) * 0.7, f"{name}.bias": torch.randn(C)}

    def with_layers(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda x, *parameters: function(x, *_layers(parameters), HEADS)

    x, *parameters = tensors.values()
    mistakes = _multi_head_mistakes(x, _layers(parameters))
    answer = call(with_layers(fn), x, *parameters)
    expect_kind(answer, x, "The result")
    if answer[:, 0].isnan().all() and answer[:, 1:].isfinite().all():
        raise Wrong("The first row is all -inf: a token must see itself. The future is `triu(1)`, not `triu(0)`.")
    expect(answer, with_layers(_multi_head)(x, *parameters), mistakes, tolerance=1e-4)
    expect_gradients(with_layers(fn), with_layers(_multi_head), tensors)
    return "Right: values and gradients equal the library's."


def _layers(parameters: Sequence[Tensor]) -> tuple[Layer, Layer, Layer, Layer]:
    pairs = zip(parameters[::2], parameters[1::2], strict=True)
    q_proj, k_proj, v_proj, out_proj = (partial(F.linear, weight=weight, bias=bias) for weight, bias in pairs)
    return q_proj, k_proj, v_proj, out_proj


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


@checker
def grouped_weight(fn: Callable[[Tensor, int, int], Tensor]) -> str:
    """Check `fn(weight, n_heads, n_kv_heads)`: (n_heads D, C) -> (n_kv_heads D, C), the mean of each group of heads."""
    weight = torch.randn(6 * WIDTH, C)
    by_head = weight.unflatten(0, (6, WIDTH))  # (H, D, C)
    for n in (2, 1, 6):
        groups = by_head.unflatten(0, (n, -1))  # (Hkv, group, D, C)
        mistakes = {
            "You average heads 0, 2, 4 and heads 1, 3, 5; *neighbouring* heads share a key head: 0, 1, 2 ….": (
                by_head.unflatten(0, (-1, n)).mean(0).flatten(0, 1)
            ),
            "That is the sum over the group; the paper takes the mean.": groups.sum(1).flatten(0, 1),
            "You keep one head of each group; the mean of all of them is asked.": groups[:, 0].flatten(0, 1),
            "You average across the width of a head: split the rows as (heads, D) first.": (
                weight.unflatten(0, (n * WIDTH, -1)).mean(1)
            ),
        }
        expect(call(fn, weight, 6, n), groups.mean(1).flatten(0, 1), mistakes, what=f"For n_kv_heads={n}, the result")
    return "Right: one head gives MQA, as many as before change nothing."


@checker
def cached_step(fn: Callable[..., Any]) -> str:
    """Check `fn(q, k, v, past)`: attention of new queries to all keys so far; returns (output, past)."""
    q, k, v = (torch.randn(B, HEADS, T, WIDTH) for _ in range(3))
    outputs, past = [], None
    for t in range(T):
        answer = call(fn, *(x[:, :, t : t + 1] for x in (q, k, v)), past)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise Wrong("Return two things: the output (B, H, 1, D), and the past for the next call.")
        outputs.append(answer[0].clone() if isinstance(answer[0], Tensor) else answer[0])
        past = answer[1]
    want = attention(q, k, v, mask=causal, impl="explicit")
    for t in reversed(range(T)):  # late steps tell mistakes apart that give the same in early ones

        def attend(first: int, last: int, turn: bool = False, scale: float | None = None, t: int = t) -> Tensor:
            values = v[:, :, first:last].flip(2) if turn else v[:, :, first:last]
            return attention(q[:, :, t : t + 1], k[:, :, first:last], values, scale=scale, impl="explicit")

        mistakes = {
            "The scale 1/sqrt(D) is missing.": attend(0, t + 1, scale=1.0),
            "The new query sees only its own key: append the new key and value to the past first.": attend(t, t + 1),
            "Your mask takes the new query for place 0 and hides all but the first key; no mask is needed.": attend(
                0, 1
            ),
            "The new token's own key is missing: append before you attend.": attend(0, t) if t else want[:, :, :1],
            "The past that you return holds the last token only.": attend(max(0, t - 1), t + 1),
            "Keys and values are in different orders: append both at the end.": attend(0, t + 1, turn=True),
        }
        expect(outputs[t], want[:, :, t : t + 1], mistakes, what=f"At step {t}, the output")
    return "Right: equal to the full forward at every step, without computing a key twice."


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
        want = next_token_probabilities(probabilities.log(), top_p=p)
        ordered, order = probabilities.sort(descending=True, stable=True)
        short = torch.zeros_like(probabilities)
        short[order] = ordered * (ordered.cumsum(0) <= p)
        mistakes = {
            "The set is too small: it must *reach* p, so the token that crosses p stays in.": (
                short / short.sum() if short.sum() > 0 else short
            ),
            "What is left must sum to 1 again: divide by its sum.": probabilities * (want > 0),
            "The set reaches p already without its last token: compare with <, not with <=.": _scaled(
                probabilities, order, ordered.cumsum(0) - ordered <= p
            ),
            "The tokens are in sorted order; put each back in its place: `out[order] = ...`.": want[order],
        }
        answer = call(fn, probabilities, p)
        if isinstance(answer, Tensor) and answer.shape == want.shape and not answer.isfinite().all():
            raise Wrong(
                "No token is left, and 0 / 0 is not a number. p is about the *sum* of the largest: one always stays."
            )
        expect(answer, want, mistakes, what=f"For p = {p}, the result")
    return "Right: few tokens where the model is sure, many where it is not."


def _scaled(probabilities: Tensor, order: Tensor, kept: Tensor) -> Tensor:
    out = torch.zeros_like(probabilities)
    out[order] = probabilities[order] * kept
    return out / out.sum()


@checker
def induction(fn: Callable[[Tensor, int], Tensor]) -> str:
    """Check `fn(weights, length)`: the induction score of one head's map (T, T), with T = 1 + 2 length."""
    length = 5
    weights = torch.rand(1 + 2 * length, 1 + 2 * length).tril()
    weights = weights / weights.sum(-1, keepdim=True)

    def diagonal(offset: int, begin: int) -> Tensor:
        return weights.diagonal(offset)[begin:].mean()

    mistakes = {
        "That is the weight on the earlier copy of the token itself; the head needs the token *after* it.": diagonal(
            -length, 1
        ),
        "That is the token before the earlier copy; needed is the one after.": diagonal(-length - 1, 0),
        "That is the map the wrong way round: rows are queries.": weights.diagonal(length - 1)[2:].mean(),
        "You count queries of the first copy too: only the repetition has an earlier copy.": diagonal(1 - length, 0),
        "You count one query too many: the last token of the first copy has no earlier copy of itself.": diagonal(
            1 - length, 1
        ),
        "Sum where a mean is needed: divide by the number of queries.": weights.diagonal(1 - length)[2:].sum(),
    }
    want = library.induction(weights[None, None, None], length).squeeze()
    expect(call(fn, weights, length), want, mistakes)
    return "Right: a diagonal of the map, length - 1 places below the main one."
