"""Online softmax against the whole one: outputs, gradients, masks, positions, large logits, memory."""

import math
import re
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.attention import MultiHeadAttention, Pattern, attention, causal, window
from course_lib.attention.masks import dilated, global_tokens
from course_lib.attention.online import Running, add_tile, cut, divided, no_keys_yet, online_attention
from course_lib.measure import peak_bytes, slope
from tests.attention.test_attention import BAD, call
from tests.conftest import relative_error
from tests.on_meta import NoCpu, OneSequence
from tests.positions.toy import Toy

explicit = partial(attention, impl="explicit")
PATTERNS = {
    "none": None,
    "causal": causal,
    "window": window(2),
    "causal window": causal & window(1),
    "dilated": dilated(2, 3),
    "global": window(1) | global_tokens([0, 4]),
    "nothing": Pattern("nothing", lambda q_pos, k_pos: (q_pos < 0) & (k_pos < 0)),
}
HOOKS = [None, (), ("rotate",), ("bias",), ("score",), ("rotate", "bias", "score")]


def with_gradients(f, *leaves):
    """The output of f and the gradients of all leaves for one and the same upstream gradient."""
    y = f()
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    grads = torch.autograd.grad(y, leaves, upstream, allow_unused=True, materialize_grads=True)
    return [y.detach(), *grads]


def assert_equal(got, want, tolerance=1e-10):
    for i, (ours, theirs) in enumerate(zip(got, want, strict=True)):
        assert ours.shape == theirs.shape, i
        assert ours.dtype == theirs.dtype, i
        assert ours.isfinite().all(), i
        assert torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance), i


@pytest.mark.slow
@settings(deadline=None, max_examples=120)
@given(st.data(), st.integers(1, 9), st.integers(1, 9), st.integers(1, 10), st.integers(0, 10**6))
def test_it_is_the_whole_softmax(data, n_queries, n_keys, tile, seed):
    """For any lengths and tiles, masks of all kinds, positions in no order, grouped heads, a scheme with all hooks."""
    torch.manual_seed(seed)
    n_kv, hooks = data.draw(st.sampled_from([1, 2, 4])), data.draw(st.sampled_from(HOOKS))
    q = torch.randn(2, 4, n_queries, 6).double().requires_grad_()
    k, v = (torch.randn(2, n_kv, n_keys, width).double().requires_grad_() for width in (6, 3))
    toy = None if hooks is None else Toy(4, 6, hooks).double()
    rows = data.draw(st.sampled_from([(), (1,), (2,)]))
    arguments = {
        "q_pos": torch.randint(0, 9, (*rows, n_queries)), "k_pos": torch.randint(0, 9, (*rows[:1], n_keys)),
        "position": toy, "scale": data.draw(st.sampled_from([None, 0.7])),
    }  # fmt: skip
    if data.draw(st.booleans()):
        arguments["key_mask"] = torch.rand(2, n_keys) < 0.6
    mask = data.draw(st.sampled_from([*PATTERNS, "two axes", "four axes", "of the keys", "of the heads"]))
    shapes = {
        "two axes": (n_queries, n_keys), "four axes": (2, 4, n_queries, n_keys), "of the keys": (2, 1, 1, n_keys),
        "of the heads": (1, 4, n_queries, 1),
    }  # fmt: skip
    arguments["mask"] = PATTERNS[mask] if mask in PATTERNS else torch.rand(shapes[mask]) < 0.6
    leaves = [q, k, v, *([] if toy is None else toy.parameters())]
    want = with_gradients(lambda: explicit(q, k, v, **arguments), *leaves)
    assert_equal(with_gradients(lambda: online_attention(q, k, v, **arguments, tile=tile), *leaves), want)


@pytest.mark.parametrize("tile", [1, 3, 64])
def test_positions_are_counted_from_zero(tile):
    q, k, v = torch.randn(2, 4, 7, 6), torch.randn(2, 2, 7, 6), torch.randn(2, 2, 7, 3)
    for arguments in ({"mask": causal}, {"position": Toy(4, 6)}, {"mask": window(2), "position": Toy(4, 6)}):
        got = online_attention(q, k, v, **arguments, tile=tile)
        assert relative_error(got, explicit(q, k, v, **arguments)) < 1e-5


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float16, 0.005)]
)
def test_narrow_types_keep_their_type(dtype, tolerance):
    q, k, v = (2 * torch.randn(2, 4, 50, 16) for _ in range(3))
    for mask in (None, causal, window(3)):
        got = online_attention(*(x.to(dtype) for x in (q, k, v)), mask=mask, tile=16)
        assert got.dtype == dtype
        assert relative_error(got, explicit(*(x.to(dtype).double() for x in (q, k, v)), mask=mask)) < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_logits_do_not_overflow(dtype):
    """exp(1e4) is infinite; first the largest logit comes last, then first, then all are far below zero."""
    for factors in (torch.arange(-4, 5), torch.arange(-4, 5).flip(0), torch.arange(-9, 0)):
        k = (factors * 2500.0)[None, None, :, None].to(dtype).requires_grad_()
        q, v = (torch.ones(1, 1, 2, 1, dtype=dtype), torch.randn(1, 1, 9, 3).to(dtype))
        got, grad = with_gradients(lambda k=k, q=q, v=v: online_attention(q, k, v, scale=1.0, tile=2), k)
        assert torch.equal(got, v[:, :, [factors.argmax()] * 2])
        assert torch.equal(grad, torch.zeros_like(grad))


@pytest.mark.parametrize("way", ["mask", "key_mask", "pattern"])
@pytest.mark.parametrize("hooks", [None, ("rotate", "bias", "score")], ids=str)
def test_a_row_without_keys_gives_zeros(way, hooks):
    """No output and no gradient is NaN, whether the others came before or after."""
    q, k, v = (torch.randn(2, 2, 7, 4, requires_grad=True) for _ in range(3))
    allowed = torch.ones(7, 7, dtype=torch.bool)
    allowed[2] = False
    keys = torch.ones(2, 7, dtype=torch.bool)
    keys[1] = False
    arguments = {
        "mask": {"mask": allowed},
        "key_mask": {"key_mask": keys},
        "pattern": {"mask": Pattern("not 2", lambda q_pos, k_pos: (q_pos != 2) & (k_pos > 3))},
    }[way]
    toy = None if hooks is None else Toy(2, 4, hooks)
    y, *grads = with_gradients(lambda: online_attention(q, k, v, **arguments, position=toy, tile=2), q, k, v)
    empty = y[1] if way == "key_mask" else y[:, :, 2]
    assert torch.equal(empty, torch.zeros_like(empty))
    assert all(x.isfinite().all() for x in (y, *grads))
    assert (y[0, :, 3] != 0).all()


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 3), (2, 3, 0), (2, 0, 0), (1, 1, 1)])
def test_small_and_empty_shapes(shape):
    b, t, s = shape
    q, k, v = torch.randn(b, 4, t, 6), torch.randn(b, 2, s, 6), torch.randn(b, 2, s, 3)
    places = {"q_pos": torch.arange(t), "k_pos": torch.arange(s)}
    for arguments in ({}, {"mask": causal, **places}, {"position": Toy(4, 6), **places}):
        got = online_attention(q, k, v, **arguments, tile=2)
        assert torch.allclose(got, explicit(q, k, v, **arguments), atol=1e-6)


def test_one_tile_by_hand():
    """Logits 0, ln 2, then ln 8: weights 1, 2, 8 of 11."""
    running = no_keys_yet(torch.zeros(1, 5).double(), 2)
    first = add_tile(
        running, torch.tensor([[0.0, math.log(2)]]).double(), torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    )
    assert first.maximum.item() == pytest.approx(math.log(2))
    assert first.total.item() == pytest.approx(1.5)  # 1/2 + 1
    assert first.output.tolist() == [pytest.approx([0.5, 1.0])]
    second = add_tile(first, torch.tensor([[math.log(8), -math.inf]]).double(), torch.full((2, 2), 3.0).double())
    assert second.maximum.item() == pytest.approx(math.log(8))
    assert second.total.item() == pytest.approx(11 / 8)
    assert divided(second).tolist() == [pytest.approx([25 / 11, 26 / 11])]
    third = add_tile(second, torch.full((1, 3), -math.inf).double(), torch.full((3, 2), 9.0).double())
    assert all(torch.equal(a, b) for a, b in zip(second, third, strict=True))


def test_ones_own_step_is_the_one_that_runs():
    seen = []

    def mine(running, logits, values):
        seen.append((tuple(logits.shape), tuple(values.shape)))
        return Running(running.maximum, running.total + 1, running.output + values.sum(-2, keepdim=True))

    q, v = torch.randn(2, 4, 5, 6), torch.randn(2, 2, 5, 3)
    got = online_attention(q, q[:, :2], v, step=mine, tile=3)
    assert seen[:2] == [((2, 4, 3, 3), (2, 4, 3, 3)), ((2, 4, 3, 2), (2, 4, 2, 3))]
    assert len(seen) == 4
    assert torch.allclose(got, v.sum(2, keepdim=True).repeat_interleave(2, 1).expand(2, 4, 5, 3) / 2)


def test_queries_and_keys_are_rotated_once(monkeypatch):
    toy, calls = Toy(4, 6), []
    rotate = toy.rotate
    monkeypatch.setattr(toy, "rotate", lambda *tensors: calls.append(tensors) or rotate(*tensors))
    q = torch.randn(2, 4, 7, 6)
    got = online_attention(q, q, q, position=toy, tile=2)
    assert len(calls) == 1
    assert relative_error(got, explicit(q, q, q, position=toy)) < 1e-5


def test_a_part_keeps_axes_of_one():
    x = torch.arange(12).view(1, 3, 4)
    assert cut(x, slice(1, 9), slice(2, 4)).tolist() == [[[6, 7], [10, 11]]]
    assert cut(x[:, :1], slice(2, 4), slice(2, 4)).tolist() == [[[2, 3]]]
    assert cut(None, slice(2)) is None


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_name_themselves(name):
    changed, words = BAD[name]
    with pytest.raises(ValueError, match=re.escape(words)):
        call(partial(online_attention, tile=2), **changed)


def test_a_tile_holds_something():
    q = torch.randn(1, 1, 2, 2)
    with pytest.raises(ValueError, match="tile=0; it must be 1 or more"):
        online_attention(q, q, q, tile=0)


@pytest.mark.parametrize("position", [None, Toy(2, 4)], ids=["none", "toy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_and_backward_on_meta(dtype, position):
    for mask in (None, causal, causal & window(2)):
        fn = partial(online_attention, tile=3)
        module = OneSequence(MultiHeadAttention(8, 2, mask=mask, position=position, attention_fn=fn)).to("meta", dtype)
        x = torch.empty(4, 8, device="meta", dtype=dtype, requires_grad=True)
        with NoCpu():
            y = module(x)
            y.sum().backward()
        assert (y.device.type, y.dtype, x.grad.shape) == ("meta", dtype, x.shape)


class Distance(Toy):
    """A scheme with a bias, asked for tile by tile."""

    def __init__(self):
        super().__init__(1, 8, ("bias",))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [{}, {"mask": causal & window(9)}, {"position": Distance()}], ids=["", "mask", "bias"]
)
def test_memory_is_linear_where_the_whole_softmax_is_quadratic(arguments):
    lengths = [256, 512, 1024]

    def bytes_of(function, length):
        q, k, v = (torch.randn(1, 1, length, 8) for _ in range(3))
        with torch.no_grad():
            return peak_bytes(lambda: function(q, k, v, **arguments), "cpu")

    ours = [bytes_of(partial(online_attention, tile=32), length) for length in lengths]
    whole = [bytes_of(explicit, length) for length in lengths]
    assert slope(lengths, ours) < 1.1
    assert slope(lengths, whole) > 1.9
    assert ours[-1] < whole[-1] / 20
    assert whole[-1] > 4 * 1024**2  # the matrix itself
