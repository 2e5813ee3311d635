"""Properties of the norms that hold for any input, and what they refuse."""

import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.norms import LayerNorm, RMSNorm, fused_layer_norm, layer_norm, make_norm, rms_norm
from tests.conftest import relative_error


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 5), st.integers(2, 40), st.integers(0, 10**6), st.floats(-50, 50), st.floats(0.1, 100),
)  # fmt: skip
def test_layer_norm_ignores_shift_and_scale(rows, width, seed, shift, scale):
    x = torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    y = layer_norm(x, eps=0.0)
    assert torch.allclose(layer_norm(x * scale + shift, eps=0.0), y, atol=1e-7)
    assert torch.allclose(layer_norm(-x, eps=0.0), -y, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 40), st.integers(0, 10**6))
def test_geometry(width, seed):
    """With eps = 0 the output lies on a sphere in a hyperplane; the gradient is orthogonal to 1 and to x-hat."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, width, dtype=torch.float64, generator=generator).requires_grad_()
    y = layer_norm(x, eps=0.0)
    assert torch.allclose(y.sum(-1), torch.zeros(3, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(y.norm(dim=-1), torch.full((3,), width**0.5, dtype=torch.float64))
    upstream = torch.randn(3, width, dtype=torch.float64, generator=generator)
    (gradient,) = torch.autograd.grad(y, x, upstream)
    size = upstream.norm(dim=-1) / x.detach().std(-1, correction=0)  # of the terms that cancel
    assert ((gradient.sum(-1) / size).abs() < 1e-8).all()
    assert (((gradient * y).sum(-1) / size).abs() < 1e-8).all()


def test_eps_lets_radial_gradient_through():
    x = torch.randn(4, 9, dtype=torch.float64).requires_grad_()
    eps, upstream = 0.2, torch.randn(4, 9, dtype=torch.float64)
    y = layer_norm(x, eps=eps)
    (gradient,) = torch.autograd.grad(y, x, upstream)
    variance = x.detach().var(-1, correction=0)
    leak = (upstream * y.detach()).sum(-1) / (variance + eps).sqrt() * eps / (variance + eps)
    assert torch.allclose((gradient * y.detach()).sum(-1), leak)
    assert torch.allclose(gradient.sum(-1), torch.zeros(4, dtype=torch.float64), atol=1e-12)


def test_each_row_stands_alone():
    x = torch.randn(6, 8)
    for norm in (layer_norm, rms_norm):
        assert torch.equal(norm(x)[2:3], norm(x[2:3]))
        assert torch.equal(norm(x[torch.tensor([3, 1, 0])]), norm(x)[torch.tensor([3, 1, 0])])


def test_rms_norm_keeps_the_mean_and_is_layer_norm_on_centred_rows():
    x = torch.randn(5, 16, dtype=torch.float64) + 2
    assert (rms_norm(x).mean(-1) > 0.1).all()
    centred = x - x.mean(-1, keepdim=True)
    assert torch.allclose(rms_norm(centred), layer_norm(x))


def test_constant_rows_and_large_half_values_stay_finite():
    assert torch.equal(layer_norm(torch.full((2, 8), 7.0)), torch.zeros(2, 8))
    large = torch.tensor([[60000.0, -60000.0, 30000.0, 0.0]], dtype=torch.float16)
    for norm in (layer_norm, rms_norm):
        assert norm(large).dtype == torch.float16
        assert torch.allclose(norm(large).double(), norm(large.double()), atol=2e-3)


def test_gradcheck():
    x, w, b = (torch.randn(n, 6, dtype=torch.float64).squeeze(0).requires_grad_() for n in (3, 1, 1))
    assert torch.autograd.gradcheck(lambda *a: layer_norm(*a, eps=0.1), (x, w, b))
    assert torch.autograd.gradcheck(lambda *a: rms_norm(*a, eps=0.1), (x, w, b))


def test_nan_stays_in_its_row():
    x = torch.randn(3, 4)
    x[1, 2] = float("nan")
    y = layer_norm(x)
    assert y[1].isnan().all()
    assert y[[0, 2]].isfinite().all()


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: LayerNorm(0), "d_model=0; it must be 1 or more, a whole number"),
        (lambda: RMSNorm(4, eps=-1.0), "eps=-1"),
        (lambda: LayerNorm(4, eps=float("nan")), "eps=nan"),
        (lambda: layer_norm(torch.ones(2, 4), eps=-1e-5), "eps=-1e-05; it must be 0 or more"),
        (lambda: rms_norm(torch.ones(2, 4), eps=float("nan")), "eps=nan"),
        (lambda: fused_layer_norm(torch.ones(2, 4), eps=-1.0), "eps=-1.0"),
        (lambda: LayerNorm(4)(torch.randn(2, 5)), "weight has shape (4,)"),
        (lambda: layer_norm(torch.ones(2, 4), bias=torch.ones(3)), "bias has shape (3,)"),
        (lambda: layer_norm(torch.ones(2, 4).long()), "x is torch.int64 (2, 4); a floating-point tensor is needed"),
        (lambda: rms_norm([1.0, 2.0]), "x is list; a floating-point tensor is needed"),
        (lambda: LayerNorm(8.0), "d_model=8.0; it must be 1 or more, a whole number"),
        (lambda: layer_norm(torch.tensor(1.0)), "no axis"),
        (lambda: make_norm("layer", 4), "norm='layer'; allowed are 'layernorm', 'rmsnorm', 'none'"),
    ],
)
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()


def test_a_fresh_norm_has_gain_one_and_bias_zero():
    x = torch.randn(3, 8) + 1
    assert torch.equal(LayerNorm(8)(x), layer_norm(x))
    assert torch.equal(RMSNorm(8)(x), rms_norm(x))
    assert LayerNorm(8).bias is not None
    assert LayerNorm(8, bias=False).bias is None
    assert RMSNorm(8).bias is None
    assert LayerNorm(8).eps == RMSNorm(8).eps == 1e-5
    assert LayerNorm(8, eps=0.0).eps == 0
    flat = torch.tensor([[1.0, 1.001]])
    for norm, eps_given in ((layer_norm, layer_norm(flat, eps=1e-5)), (rms_norm, rms_norm(flat, eps=1e-5))):
        assert torch.equal(norm(flat), eps_given)


def test_the_bias_is_added_after_the_gain():
    x, weight, bias = torch.randn(3, 8), torch.randn(8), torch.randn(8)
    for norm in (layer_norm, rms_norm, fused_layer_norm):
        assert torch.allclose(norm(x, weight, bias), norm(x) * weight + bias, atol=1e-6)
        assert torch.allclose(norm(x, None, bias), norm(x) + bias, atol=1e-6)


HALF = {torch.bfloat16: 2**-7, torch.float16: 2**-10}
TYPES = (*HALF, torch.float32, torch.float64)


@pytest.mark.parametrize("rows", TYPES)
@pytest.mark.parametrize("gain", TYPES)
@pytest.mark.parametrize("bias", [*TYPES, None])
def test_the_fused_norm_takes_weights_of_any_type(rows, gain, bias):
    """Result, its type and all gradients are those of `layer_norm`, which computes in the widest of the types."""
    given = [torch.randn(shape).to(dtype) for shape, dtype in (((3, 8), rows), (8, gain), (8, bias)) if dtype]
    upstream, found = torch.randn(3, 8).to(rows), {}
    for norm in (layer_norm, fused_layer_norm):
        inputs = [tensor.clone().requires_grad_() for tensor in given]
        y = norm(*inputs, **({} if bias else {"bias": None}))
        found[norm] = [y, *torch.autograd.grad(y, inputs, upstream)]
    for ours, theirs in zip(found[layer_norm], found[fused_layer_norm], strict=True):
        assert ours.dtype == theirs.dtype
        assert relative_error(theirs, ours) < 2 * max(HALF.get(dtype, 1e-6) for dtype in (rows, ours.dtype))


def test_whatever_the_default_type_is():
    x, weight = torch.randn(2, 8), torch.randn(8)
    want = [norm(x, weight) for norm in (layer_norm, rms_norm, fused_layer_norm)]
    torch.set_default_dtype(torch.float64)
    try:
        got = [norm(x, weight) for norm in (layer_norm, rms_norm, fused_layer_norm)]
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(want, got, strict=True))


def gradients(norm, dtype, given):
    """Output, and gradients of input, gain and bias, of `given` (x, gain, bias, upstream) in `dtype`."""
    *inputs, upstream = (tensor.to(dtype) for tensor in given)
    inputs = [tensor.requires_grad_() for tensor in inputs]
    y = norm(*inputs)
    return dict(zip(("y", "x", "gain", "bias"), (y, *torch.autograd.grad(y, inputs, upstream)), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_in_half_types_over_many_rows(dtype):
    """A sum over 4,096 rows needs more than the 8 or 11 bits of a half type; only `layer_norm` promises that."""
    given = [torch.randn(shape).add(1).to(dtype).float() for shape in ((4096, 16), (16,), (16,), (4096, 16))]
    want = gradients(layer_norm, torch.float64, given)
    for norm, right in ((layer_norm, want), (fused_layer_norm, ("y", "x"))):
        got = gradients(norm, dtype, given)
        for name in right:
            assert got[name].dtype == dtype
            assert relative_error(got[name], want[name]) < 0.01, (norm.__name__, name)


def test_what_is_said_about_fused_layer_norm_was_measured(root):
    said = " ".join(fused_layer_norm.__doc__.split())
    rows = json.loads((root / "results/bench/norms.json").read_text("utf-8"))["rows"]

    def quoted(name, *passes):
        ratios = [row["ratio"] for row in rows if row["name"] == name and row["setting"]["pass"] in passes]
        return f"{min(ratios):.2g} to {max(ratios):.2g} times"

    assert f"`layer_norm` takes {quoted('layer_norm', 'forward')} as long as torch's own module forward" in said
    assert f"{quoted('layer_norm', 'forward+backward')} forward and backward" in said
    fused = quoted("fused_layer_norm", "forward", "forward+backward")
    assert f"this one {fused}, which shows no difference" in said
    assert {row["difference"] for row in rows if row["name"] == "fused_layer_norm"} == {"none shown"}
    assert {row["difference"] for row in rows if row["name"] == "layer_norm"} == {"slower"}


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="it is said of torch 2.13")
def test_fused_sums_over_rows_stop_where_it_is_said():
    """When this fails, torch has mended it: then the docstring and benchmarks/cases/norms.py need other words."""
    for dtype, stop in ((torch.bfloat16, 256), (torch.float16, 2048)):
        rows = 4 * stop * torch.get_num_threads()
        given = (torch.randn(rows, 8), torch.ones(8), torch.zeros(8), torch.ones(rows, 8))
        bias = {norm: gradients(norm, dtype, given)["bias"] for norm in (layer_norm, fused_layer_norm)}
        assert (bias[layer_norm] == rows).all()
        assert (bias[fused_layer_norm] <= stop * torch.get_num_threads()).all()
        assert f"{stop} in {str(dtype).removeprefix('torch.')}" in " ".join(fused_layer_norm.__doc__.split())
