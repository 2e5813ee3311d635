"""Gradients that are 0 but for rounding: right answers pass however they are written, wrong ones still do not."""

import pytest
import torch
import torch.nn.functional as F

from course_lib.exercises import Wrong, checker, expect, expect_gradients
from course_lib.lessons.multi_head_attention import exercises
from course_lib.models.gpt2 import GPT2, GPT2Config


def split(x, n_heads):
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def written_with(attend):
    def multi_head(x, q_proj, k_proj, v_proj, out_proj, n_heads):
        heads = attend(*(split(layer(x), n_heads) for layer in (q_proj, k_proj, v_proj)))
        return out_proj(heads.transpose(1, 2).flatten(2))

    return multi_head


def seen(q):
    return torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril()


def masked(q, k):
    return (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~seen(q), -torch.inf)


def by_quotient(q, k, v):
    powers = masked(q, k).exp()
    return powers / powers.sum(-1, keepdim=True) @ v


# The gradient of the keys' bias is 0, and each of these rounds it in its own way.
WAYS = {
    "softmax": lambda q, k, v: masked(q, k).softmax(-1) @ v,
    "torch's kernel": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "torch's kernel, a mask": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, seen(q)),
    "in float64": lambda q, k, v: (masked(q.double(), k.double()).softmax(-1) @ v.double()).float(),
    "log_softmax": lambda q, k, v: masked(q, k).log_softmax(-1).exp() @ v,
    "a quotient": by_quotient,
    "keys without their mean": lambda q, k, v: masked(q, k - k.mean(2, keepdim=True)).softmax(-1) @ v,
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_write_attention(way):
    fn = written_with(WAYS[way])
    assert exercises.multi_head(fn).ok, exercises.multi_head(fn)
    model = GPT2(GPT2Config(vocab_size=20, max_positions=8, d_model=16, n_heads=2, n_layers=2))
    injected = exercises.injected(fn, model, torch.arange(36).view(4, 9) % 20)
    assert injected.ok, injected


@checker
def check(fn):
    """Reference: c has no effect; b one that is 50 times smaller than that of a."""
    tensors = {name: torch.randn(4) for name in "abc"}
    expect_gradients(fn, lambda a, b, c: a + 0.02 * b + 0 * c, tensors)
    return "Right"


def scaled_gradient(x, factor):
    return factor * x + ((1 - factor) * x).detach()


def test_a_tensor_without_effect_needs_no_path():
    assert check(lambda a, b, c: a + 0.02 * b).ok
    assert check(lambda a, b, c: a + 0.02 * b + (c - c) * 1e-7).ok
    assert check(lambda a, b, c: a + 0.02 * b + scaled_gradient(c, 1e-6) - c.detach()).ok


def test_wrong_gradients_are_wrong_still():
    for name, fn in {
        "no gradient reaches b": lambda a, b, c: a + 0.02 * b.detach(),
        "with respect to a differs": lambda a, b, c: scaled_gradient(a, 1.001) + 0.02 * b,
        "with respect to b differs": lambda a, b, c: a + 0.02 * scaled_gradient(b, 1.01),
        "with respect to c differs": lambda a, b, c: a + 0.02 * b + scaled_gradient(c, 0.001) - c.detach(),
    }.items():
        result = check(fn)
        assert result.ok is False
        assert name in result.message


def test_all_gradients_are_zero():
    """A row of softmax sums to 1 whatever the scores are."""

    def without_effect(x):
        return (0 * x).sum(-1) + 1

    scores = {"scores": torch.randn(3, 5)}
    expect_gradients(lambda x: x.softmax(-1).sum(-1), without_effect, scores)
    expect_gradients(lambda x: torch.ones(3), without_effect, scores)
    with pytest.raises(Wrong, match="with respect to scores differs"):
        expect_gradients(lambda x: scaled_gradient(x - x.detach(), 1e-3).sum(-1) + 1, without_effect, scores)


def test_values_that_are_zero_or_infinite():
    zeros, ends = torch.zeros(3), torch.tensor([1.0, -torch.inf, 2.0])
    expect(zeros + 1e-7, zeros, {})
    with pytest.raises(Wrong, match="differs most"):
        expect(zeros + 1e-3, zeros, {})
    expect(ends, ends, {})
    with pytest.raises(Wrong, match="at index \\(1,\\)"):
        expect(torch.tensor([1.0, 0.0, 2.0]), ends, {})
    with pytest.raises(Wrong, match="at index \\(0,\\)"):  # not the mistake, which differs elsewhere too
        expect(torch.tensor([9.0, 1.0, 2.0]), torch.ones(3), {"not this one": torch.tensor([9.0, torch.inf, 2.0])})
