"""MultiHeadAttention against torch's module, and grouped heads against their definition: outputs and all gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.attention import AdditiveAttention, MultiHeadAttention, Places, attention, causal
from course_lib.attention.arguments import AttentionFn
from tests.conftest import randomise, relative_error
from tests.parity.compare import assert_same_gradients, gradients
from tests.positions.toy import Toy, by_hand

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
C, H, B, T, S = 12, 3, 2, 5, 7
KEYS = torch.tensor([[1, 1, 0, 1, 0, 0, 1], [0, 1, 1, 1, 1, 1, 0]], dtype=torch.bool)


def torch_state(ours):
    """The weights of ours under the names of nn.MultiheadAttention."""
    parts = (ours.q_proj, ours.k_proj, ours.v_proj)
    state = {"in_proj_weight": torch.cat([p.weight for p in parts]), "out_proj.weight": ours.out_proj.weight}
    if ours.out_proj.bias is not None:
        state |= {"in_proj_bias": torch.cat([p.bias for p in parts]), "out_proj.bias": ours.out_proj.bias}
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def run(module, inputs, call):
    """Output, and gradients by name of the parameters and of the inputs."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    y = call(module, *inputs)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    y.backward(upstream)
    return y.detach(), gradients(module) | {f"input {i}": x.grad for i, x in enumerate(inputs)}


def under_our_names(theirs):
    """Gradients of nn.MultiheadAttention; its one matrix is cut into three."""
    parts = {}
    for name, gradient in theirs.items():
        if name.startswith("in_proj_"):
            kind = name.removeprefix("in_proj_")
            parts |= {f"{p}_proj.{kind}": third for p, third in zip("qkv", gradient.chunk(3), strict=True)}
        else:
            parts[name] = gradient
    return parts


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("way", ["plain", "causal", "padding", "causal, padding", "cross", "cross, padding"])
def test_against_torch(way, bias, dtype):
    mask = causal if "causal" in way else None
    ours = randomise(MultiHeadAttention(C, H, bias=bias, mask=mask)).to(dtype)
    theirs = nn.MultiheadAttention(C, H, bias=bias, batch_first=True).to(dtype)
    theirs.load_state_dict(torch_state(ours), strict=True)
    inputs = [torch.randn(B, T, C, dtype=dtype)]
    if "cross" in way:
        inputs.append(torch.randn(B, S, C, dtype=dtype))
    n_keys = S if "cross" in way else T
    keys = KEYS[:, :n_keys].clone()
    keys[:, 0] = True  # torch's module gives NaN where a row has no key
    keys = keys if "padding" in way else None

    def call_ours(module, x, context=None):
        return module(x, Places(key_mask=keys), context=context)

    def call_theirs(module, x, context=None):
        source = x if context is None else context
        not_allowed = None if mask is None else torch.ones(T, T, dtype=torch.bool).triu(1)
        padding = None if keys is None else ~keys
        return module(x, source, source, attn_mask=not_allowed, key_padding_mask=padding, need_weights=False)[0]

    got, got_gradients = run(ours, inputs, call_ours)
    want, want_gradients = run(theirs, inputs, call_theirs)
    assert relative_error(got, want) < TOLERANCE[dtype]
    assert_same_gradients(got_gradients, under_our_names(want_gradients), TOLERANCE[dtype], zero=("k_proj.bias",))


@pytest.mark.parametrize("n_kv", [1, 2, 4])
@pytest.mark.parametrize("head_dim", [None, 5])
@pytest.mark.parametrize("cross", [False, True])
def test_grouped_heads_one_after_the_other(cross, head_dim, n_kv):
    """The definition: slice each head's rows out of the matrices, attend, multiply by its columns of W_O, add up."""
    n_heads, width = 4, head_dim or C // 4
    ours = randomise(MultiHeadAttention(C, n_heads, n_kv_heads=n_kv, head_dim=head_dim)).double()
    inputs = [torch.randn(B, n, C).double() for n in ((T, S) if cross else (T,))]

    def loop(module, x, context=None):
        source = x if context is None else context
        y = module.out_proj.bias.expand(B, T, C)
        for h in range(n_heads):
            own, shared = (slice(i * width, (i + 1) * width) for i in (h, h * n_kv // n_heads))
            q = F.linear(x, module.q_proj.weight[own], module.q_proj.bias[own])
            k = F.linear(source, module.k_proj.weight[shared], module.k_proj.bias[shared])
            v = F.linear(source, module.v_proj.weight[shared], module.v_proj.bias[shared])
            weights = (torch.einsum("btd,bsd->bts", q, k) / width**0.5).softmax(-1)
            y = y + torch.einsum("bts,bsd,cd->btc", weights, v, module.out_proj.weight[:, own])
        return y

    got, got_gradients = run(ours, inputs, lambda module, x, context=None: module(x, context=context))
    ours.zero_grad()
    want, want_gradients = run(ours, inputs, loop)
    assert relative_error(got, want) < 1e-10
    assert_same_gradients(got_gradients, want_gradients, 1e-10, zero=("k_proj.bias",))


@pytest.mark.parametrize("n_kv", [1, 2, 4])
def test_grouped_heads_are_repeated_full_heads(n_kv):
    """GQA is the full module whose key and value heads are copies within a group: h // (H / Hkv), not h mod Hkv."""
    n_heads, width = 4, C // 4
    ours = randomise(MultiHeadAttention(C, n_heads, n_kv_heads=n_kv, mask=causal)).double()
    full = MultiHeadAttention(C, n_heads, mask=causal).double()
    state = {
        name: tensor
        if not name.startswith(("k_proj", "v_proj"))
        else tensor.unflatten(0, (n_kv, width)).repeat_interleave(n_heads // n_kv, 0).flatten(0, 1)
        for name, tensor in ours.state_dict().items()
    }
    full.load_state_dict(state, strict=True)
    x = torch.randn(B, T, C).double()
    assert relative_error(ours(x), full(x)) < 1e-10
    parameters = sum(p.numel() for p in ours.parameters())
    assert parameters == 2 * (C * C + C) + 2 * (C * n_kv * width + n_kv * width)


def test_places_mask_and_position_reach_the_function():
    toy = Toy(H, C // H)
    module = randomise(MultiHeadAttention(C, H, mask=causal, position=toy)).double()
    x, context = torch.randn(B, T, C).double(), torch.randn(B, S, C).double()
    q_pos, k_pos = torch.tensor([[9, 3, 4, 4, 6], [8, 7, 6, 5, 4]]), torch.tensor([[0, 1, 2, 3, 4, 5, 9]]).expand(B, -1)

    def by_loops(source, k_pos):
        q, k, v = (p(s).unflatten(-1, (H, C // H)).transpose(1, 2) for p, s in
                   ((module.q_proj, x), (module.k_proj, source), (module.v_proj, source)))  # fmt: skip
        y, _ = by_hand(
            q, k, v, lambda b, h, t, s: k_pos[b, s] <= q_pos[b, t], q_pos=q_pos, k_pos=k_pos, toy=toy
        )  # fmt: skip
        return module.out_proj(y.transpose(1, 2).reshape(B, T, C))

    assert relative_error(module(x, Places(pos=q_pos)), by_loops(x, q_pos)) < 1e-10
    assert (
        relative_error(module(x, Places(pos=q_pos, context_pos=k_pos), context=context), by_loops(context, k_pos))
        < 1e-10
    )
    assert set(dict(module.named_parameters())) >= {"position.slopes", "position.table"}


def test_any_function_of_the_signature_is_called_with_exactly_it():
    calls = []

    def mine(q, k, v, *, mask=None, key_mask=None, position=None, q_pos=None, k_pos=None, scale=None):
        calls.append((q, k, v, mask, key_mask, position, q_pos, k_pos, scale))
        return v.mean(-2, keepdim=True).repeat_interleave(2, 1).expand(*q.shape[:-1], v.shape[-1])

    toy = Toy(4, 3)
    module = randomise(MultiHeadAttention(C, 4, n_kv_heads=2, mask=causal, position=toy, attention_fn=mine))
    x, q_pos = torch.randn(B, T, C), torch.arange(T) + 3
    got = module(x, Places(pos=q_pos, key_mask=KEYS[:, :T]))
    ((q, k, v, mask, key_mask, position, seen_q, seen_k, scale),) = calls
    assert (q.shape, k.shape, v.shape) == ((B, 4, T, 3), (B, 2, T, 3), (B, 2, T, 3))
    assert torch.equal(q.transpose(1, 2).flatten(2), module.q_proj(x))
    assert torch.equal(k.transpose(1, 2).flatten(2), module.k_proj(x))
    assert torch.equal(v.transpose(1, 2).flatten(2), module.v_proj(x))
    assert mask is causal
    assert position is toy
    assert torch.equal(key_mask, KEYS[:, :T])
    assert seen_q is seen_k is q_pos
    assert scale is None
    means = module.v_proj(x).mean(1).view(B, 2, 3).repeat_interleave(2, 1).flatten(1)
    assert torch.allclose(got, module.out_proj(means)[:, None].expand(B, T, C), atol=1e-6)
    parameters = set(AttentionFn.__call__.__annotations__) - {"return"}
    assert parameters == {"q", "k", "v", "mask", "key_mask", "position", "q_pos", "k_pos", "scale"}


def test_a_function_that_is_a_module_is_trained_with_the_rest():
    module = MultiHeadAttention(C, H, attention_fn=AdditiveAttention(C // H, 4))
    module(torch.randn(B, T, C)).square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    assert "attention_fn.score.weight" in module.state_dict()
    assert MultiHeadAttention(C, H).attention_fn is attention
