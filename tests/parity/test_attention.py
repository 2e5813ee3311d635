"""Attention against torch's kernel and against loops over single pairs: outputs and all gradients."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.attention import AdditiveAttention, attention, causal, masked_softmax, window
from course_lib.positions import Position
from tests.conftest import randomise, relative_error
from tests.parity.compare import assert_same_gradients
from tests.positions.toy import Toy, by_hand

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
IMPLS = ("explicit", "fused")
B, H, T, S, D, DV = 2, 4, 5, 7, 6, 3


def heads(dtype, n_kv=2, t=T, s=S, dv=DV, b=B, h=H, d=D):
    q, k, v = torch.randn(b, h, t, d), torch.randn(b, n_kv, s, d), torch.randn(b, n_kv, s, dv)
    return [(x + 0.1).to(dtype) for x in (q, k, v)]


def with_gradients(f, *tensors):
    """The output of f and the gradients of all tensors for one and the same upstream gradient."""
    tensors = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    y = f(*tensors)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    return [y.detach(), *torch.autograd.grad(y, tensors, upstream)]


def assert_equal(got, want, tolerance, zero=()):
    """Outputs and gradients; `zero` are the leaves, by number, whose gradient is zero in theory."""
    (y, *ours), (other, *theirs) = got, want
    assert (y.shape, y.dtype) == (other.shape, other.dtype)
    assert relative_error(y, other) < tolerance
    ours, theirs = ({f"leaf {i}": x for i, x in enumerate(tensors)} for tensors in (ours, theirs))
    assert_same_gradients(ours, theirs, tolerance, [f"leaf {i}" for i in zero])


def grid(rule, b=B, h=1, t=T, s=S):
    """bool (b, h, t, s) of rule(b, h, t, s), entry by entry."""
    places = torch.cartesian_prod(*map(torch.arange, (b, h, t, s))).tolist()
    return torch.tensor([bool(rule(*place)) for place in places]).view(b, h, t, s)


RANDOM = torch.rand(B, H, T, S, generator=torch.Generator().manual_seed(5)) < 0.6
KEYS = torch.tensor([[1, 1, 0, 1, 0, 0, 1], [0, 1, 1, 1, 1, 1, 0]], dtype=torch.bool)
PLACES = torch.tensor([[3, 0, 8, 8, 5], [2, 2, 9, 1, 4]])  # of the queries: in no order, some twice
KEY_PLACES = torch.tensor([[0, 4, 2, 8, 9, 1, 3], [7, 2, 5, 2, 0, 11, 1]])
STEP = {"q_pos": torch.arange(2, 7), "k_pos": torch.arange(7)}

# Arguments of ours, and what they allow, said without them; T queries, S keys.
MASKS = {
    "nothing": ({}, grid(lambda b, h, t, s: True)),
    "two axes": ({"mask": RANDOM[0, 0]}, RANDOM[:1, :1]),
    "four axes": ({"mask": RANDOM}, RANDOM),
    "of the sequences": ({"mask": RANDOM[:, :1]}, RANDOM[:, :1]),
    "of the heads": ({"mask": RANDOM[:1]}, RANDOM[:1]),
    "of the keys": ({"mask": RANDOM[:, :1, :1]}, RANDOM[:, :1, :1]),
    "key_mask": ({"key_mask": KEYS}, grid(lambda b, h, t, s: KEYS[b, s])),
    "tensor and key_mask": (
        {"mask": RANDOM[0, 0], "key_mask": KEYS},
        grid(lambda b, h, t, s: RANDOM[0, 0, t, s] and KEYS[b, s]),
    ),
    "a step": ({"mask": causal, **STEP}, grid(lambda b, h, t, s: s <= t + 2)),
    "a step and key_mask": (
        {"mask": causal, "key_mask": KEYS, **STEP},
        grid(lambda b, h, t, s: s <= t + 2 and KEYS[b, s]),
    ),
    "window": ({"mask": window(1), **STEP}, grid(lambda b, h, t, s: -1 <= s - (t + 2) <= 1)),
    "both": ({"mask": causal & window(2), **STEP}, grid(lambda b, h, t, s: 0 <= t + 2 - s <= 2)),
    "either": ({"mask": causal | window(1), **STEP}, grid(lambda b, h, t, s: s - (t + 2) <= 1)),
    "places by row": (
        {"mask": causal, "q_pos": PLACES, "k_pos": KEY_PLACES},
        grid(lambda b, h, t, s: KEY_PLACES[b, s] <= PLACES[b, t]),
    ),
    "places of the queries by row": (
        {"mask": causal, "q_pos": PLACES.int(), "k_pos": KEY_PLACES[0].int()},
        grid(lambda b, h, t, s: KEY_PLACES[0, s] <= PLACES[b, t]),
    ),
    "places of the keys by row": (
        {"mask": causal & window(4), "q_pos": PLACES[1], "k_pos": KEY_PLACES},
        grid(lambda b, h, t, s: 0 <= PLACES[1, t] - KEY_PLACES[b, s] <= 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", MASKS)
def test_masks_against_torch(name, impl, dtype):
    arguments, allowed = MASKS[name]
    for n_kv in (1, 2, 4):
        tensors = heads(dtype, n_kv)
        theirs = partial(F.scaled_dot_product_attention, attn_mask=allowed, enable_gqa=n_kv != H)
        want = with_gradients(theirs, *tensors)
        assert_equal(with_gradients(partial(attention, impl=impl, **arguments), *tensors), want, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dv", [D, DV])
def test_the_triangle_against_torch(impl, dtype, dv):
    """Where positions are counted the fused call takes a way of its own; with a key_mask, or places, it must not."""
    tril = grid(lambda b, h, t, s: s <= t, s=T)
    for n_kv in (1, 2, 4):
        tensors = heads(dtype, n_kv, s=T, dv=dv)
        for arguments, allowed in (
            ({}, tril),
            ({"key_mask": KEYS[:, :T]}, tril & KEYS[:, None, None, :T]),
            ({"q_pos": torch.arange(T), "k_pos": torch.arange(T)}, tril),
            ({"q_pos": torch.arange(T) + 2, "k_pos": torch.arange(T)}, grid(lambda b, h, t, s: s <= t + 2, s=T)),
            ({"position": Position()}, tril),
        ):
            theirs = partial(F.scaled_dot_product_attention, attn_mask=allowed, enable_gqa=n_kv != H)
            ours = partial(attention, impl=impl, mask=causal, **arguments)
            assert_equal(with_gradients(ours, *tensors), with_gradients(theirs, *tensors), TOLERANCE[dtype])


@pytest.mark.parametrize("scale", [None, 0.0, 0.3, -1.0, 2])
@pytest.mark.parametrize("impl", IMPLS)
def test_scale_against_torch(impl, scale):
    tensors = heads(torch.float64)
    theirs = partial(F.scaled_dot_product_attention, scale=scale, enable_gqa=True)
    got = with_gradients(partial(attention, impl=impl, scale=scale), *tensors)
    assert_equal(got, with_gradients(theirs, *tensors), 1e-10, zero=(0, 1) if scale == 0 else ())
    if scale == 0:
        assert torch.allclose(
            attention(*tensors, impl=impl, scale=0), tensors[2].mean(2, keepdim=True)[:, [0, 0, 1, 1]]
        )


@pytest.mark.parametrize("shape", [(0, 4, 3, 2), (2, 0, 3, 2), (1, 1, 1, 1), (2, 0, 0, 2), (2, 1, 4, 1)])
@pytest.mark.parametrize("mask", [None, causal])
@pytest.mark.parametrize("impl", IMPLS)
def test_small_and_empty_shapes(impl, mask, shape):
    b, t, s, n_kv = shape
    tensors = heads(torch.float64, n_kv, b=b, t=t, s=s, h=2 if n_kv > 1 else 1)
    places = {"q_pos": torch.arange(s - t, s), "k_pos": torch.arange(s)}
    got = with_gradients(partial(attention, impl=impl, mask=mask, **places), *tensors)
    assert got[0].shape == (*tensors[0].shape[:3], DV)
    if b and t:
        want, weights = by_hand(*tensors, lambda b, h, i, j: mask is None or j <= i + s - t)
        assert torch.allclose(got[0], want)
        assert torch.allclose(weights.sum(-1), torch.ones(()).double())
    if t == s:
        counted = attention(*tensors, impl=impl, mask=mask)
        assert torch.allclose(counted, got[0])


@pytest.mark.parametrize("impl", IMPLS)
def test_no_key_at_all_gives_zeros(impl):
    q, k, v = heads(torch.float32, s=0)
    assert torch.equal(attention(q, k, v, impl=impl), torch.zeros(B, H, T, DV))


HOOKS = [("rotate",), ("bias",), ("score",), ("bias", "score"), ("rotate", "bias", "score")]


def toy_of(hooks, slopes, table):
    """A Toy of these tensors, and a 0 that depends on them: a hook that is not in use has no gradient."""
    toy = Toy(H, D, hooks)
    del toy.slopes, toy.table
    toy.slopes, toy.table = slopes, table
    return toy, 0 * (slopes.sum() + table.sum())


@pytest.mark.parametrize("hooks", HOOKS, ids="+".join)
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("by_row", [False, True])
def test_a_position_against_loops(by_row, impl, hooks):
    """The weights of the scheme have gradients too; masks, scale and grouped heads come along."""
    n_queries, n_keys, scale = 3, 4, 0.7
    toy = Toy(H, D, hooks).double()
    q_pos, k_pos = PLACES[:, :n_queries], KEY_PLACES[:, :n_keys]
    if not by_row:
        q_pos, k_pos = q_pos[:1].expand(B, -1), k_pos[:1].expand(B, -1)
    keys = KEYS[:, :n_keys].clone()
    keys[:, 1] = True
    places = {"q_pos": q_pos, "k_pos": k_pos} if by_row else {"q_pos": q_pos[0], "k_pos": k_pos[0]}
    tensors = heads(torch.float64, 2, n_queries, n_keys)
    for arguments, allowed in (
        ({}, lambda b, h, t, s: True),
        ({"mask": window(5), "key_mask": keys}, lambda b, h, t, s: abs(q_pos[b, t] - k_pos[b, s]) <= 5 and keys[b, s]),
    ):

        def ours(q, k, v, *weights, arguments=arguments):
            scheme, unused = toy_of(hooks, *weights)
            return attention(q, k, v, impl=impl, position=scheme, scale=scale, **places, **arguments) + unused

        def theirs(q, k, v, *weights, allowed=allowed):
            scheme, unused = toy_of(hooks, *weights)
            return by_hand(q, k, v, allowed, q_pos=q_pos, k_pos=k_pos, scale=scale, toy=scheme)[0] + unused

        leaves = (*tensors, toy.slopes, toy.table)
        unused = [leaf for leaf, hook in ((3, "bias"), (4, "score")) if hook not in hooks]
        assert_equal(with_gradients(ours, *leaves), with_gradients(theirs, *leaves), 1e-10, unused)


@pytest.mark.parametrize("dtype", [*TOLERANCE, torch.bfloat16])
@pytest.mark.parametrize("impl", IMPLS)
def test_positions_are_counted_from_zero_and_keep_the_type(impl, dtype):
    toy = Toy(H, D).to(dtype)
    q, k, v = heads(dtype, s=T)
    arange = torch.arange(T)
    got = attention(q, k, v, position=toy, mask=causal, impl=impl)
    assert got.dtype == dtype
    assert torch.equal(got, attention(q, k, v, position=toy, mask=causal, impl=impl, q_pos=arange, k_pos=arange))
    if dtype in TOLERANCE:
        rows = arange.expand(B, T)
        want, _ = by_hand(q, k, v, lambda b, h, t, s: s <= t, q_pos=rows, k_pos=rows, toy=toy)
        assert relative_error(got, want) < TOLERANCE[dtype]


class Distance(Position):
    """The example of `Position`: whole numbers, which cannot hold -inf."""

    def bias(self, q_pos, k_pos):
        return -(q_pos[:, None] - k_pos[None, :]).abs()[None]


@pytest.mark.parametrize("dtype", [*TOLERANCE, torch.bfloat16])
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("mask", [None, causal])
def test_a_bias_of_integers(mask, impl, dtype):
    q, k, v = heads(dtype, s=T)
    far = (torch.arange(T)[:, None] - torch.arange(T)).abs().double()
    bias = -far if mask is None else (-far).masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf)
    want = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), attn_mask=bias, enable_gqa=True)
    got = attention(q, k, v, position=Distance(), mask=mask, impl=impl)
    assert relative_error(got, want) < TOLERANCE.get(dtype, 0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("n_kv", [2, 4])
@pytest.mark.parametrize("hooks", [(), ("bias",), ("rotate", "bias", "score")], ids=str)
@pytest.mark.parametrize("way", ["mask", "key_mask", "pattern"])
def test_a_row_without_keys_gives_zeros(way, hooks, n_kv, impl, dtype):
    """No output and no gradient is NaN; the other rows are what they are alone."""
    toy = Toy(H, D, hooks).to(dtype) if hooks else None
    allowed = torch.ones(T, T, dtype=torch.bool)
    allowed[2] = False
    places = torch.arange(T)
    arguments = {"mask": allowed}
    if way == "key_mask":
        keys = torch.ones(B, T, dtype=torch.bool)
        keys[1] = False  # a sequence of padding alone
        arguments = {"key_mask": keys}
    if way == "pattern":
        arguments = {"mask": causal}
        places = torch.tensor([3, 4, -1, 5, 6])  # the third query stands before every key
    q_pos, k_pos = places, torch.arange(T)
    tensors = heads(dtype, n_kv, s=T)
    call = partial(attention, impl=impl, position=toy, q_pos=q_pos, k_pos=k_pos, **arguments)
    y, *gradients = with_gradients(call, *tensors)
    empty = y[1] if way == "key_mask" else y[:, :, 2]
    assert torch.equal(empty, torch.zeros_like(empty))
    assert all(tensor.isfinite().all() for tensor in (y, *gradients))
    assert (gradients[0][1] if way == "key_mask" else gradients[0][:, :, 2]).abs().max() == 0
    if way == "key_mask":
        assert relative_error(y[:1], attention(*(x[:1] for x in tensors), impl=impl, position=toy)) < 0.03
        assert gradients[1][1].abs().max() == gradients[2][1].abs().max() == 0
    else:
        rest = [0, 1, 3, 4]
        mask = causal if way == "pattern" else None
        want = attention(
            tensors[0][:, :, rest], *tensors[1:], impl=impl, mask=mask, position=toy, q_pos=q_pos[rest], k_pos=k_pos
        )
        assert relative_error(y[:, :, rest], want) < (1e-5 if dtype in TOLERANCE else 0.03)


def test_huge_logits_and_masked_infinities_do_no_harm():
    for impl in IMPLS:
        q, k, v = heads(torch.float32, s=T)
        y, *gradients = with_gradients(partial(attention, impl=impl, mask=causal), 1e4 * q, 1e4 * k, v)
        assert all(tensor.isfinite().all() for tensor in (y, *gradients))
    logits = torch.tensor([[1e30, -1e30, 0.0], [-torch.inf, 2.0, 2.0]])
    assert torch.equal(masked_softmax(logits, None), torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("mask", [None, causal])
def test_half_types_are_as_exact_as_torch(mask, impl, dtype):
    """The error against float64 is at most twice that of torch's kernel, on output and gradients.

    And one unit in the last place: the largest error is that of one entry, by chance.
    """
    unit = torch.finfo(dtype).eps
    tensors = [x.to(dtype) for x in heads(torch.float32, 4, t=64, s=64, dv=16, d=16)]
    theirs = partial(F.scaled_dot_product_attention, is_causal=mask is causal)
    exact = with_gradients(theirs, *(x.double() for x in tensors))
    ours = with_gradients(partial(attention, impl=impl, mask=mask), *tensors)
    reference = with_gradients(theirs, *tensors)
    for i, (want, got, other) in enumerate(zip(exact, ours, reference, strict=True)):
        assert got.dtype == dtype
        assert (got - want).abs().max() <= 2 * (other - want).abs().max() + unit * want.abs().max(), i


@pytest.mark.parametrize("impl", IMPLS)
def test_gradcheck(impl):
    tensors = [x.requires_grad_() for x in heads(torch.float64, t=3, s=4, b=1, h=2, n_kv=1, d=2)]
    toy = Toy(2, 2).double()
    call = partial(attention, impl=impl, mask=causal, position=toy, q_pos=torch.arange(1, 4), k_pos=torch.arange(4))
    assert torch.autograd.gradcheck(call, tensors)


def test_weights_are_those_of_the_output():
    tensors = heads(torch.float64)
    for arguments, allowed in MASKS.values():
        output, weights = attention(*tensors, impl="explicit", return_weights=True, **arguments)
        want, by_loops = by_hand(*tensors, lambda *place, allowed=allowed: allowed.expand(B, H, T, S)[place])
        assert relative_error(weights, by_loops) < 1e-10
        assert relative_error(output, want) < 1e-10
        assert torch.equal(weights == 0, ~allowed.expand(B, H, T, S))
        assert torch.equal(output, attention(*tensors, impl="explicit", **arguments))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n_kv", [1, 2, 4])
@pytest.mark.parametrize("scale", [None, 0.4])
def test_additive_attention_against_loops(scale, n_kv, dtype):
    module = randomise(AdditiveAttention(D, 5)).to(dtype)
    query_part, key_part, score = (
        p.detach() for p in (module.of_query.weight, module.of_key.weight, module.score.weight)
    )
    n_queries, n_keys = 3, 4
    tensors = heads(dtype, n_kv, n_queries, n_keys)
    keys = KEYS[:, :n_keys]

    def allowed(b, h, t, s):
        return s <= t + 1 and bool(keys[b, s])

    def theirs(q, k, v, query_part, key_part, score):
        def logit(query, key):
            hidden = [
                torch.tanh((query * a).sum() + (key * b).sum()) for a, b in zip(query_part, key_part, strict=True)
            ]
            return (1.0 if scale is None else scale) * sum(w * x for w, x in zip(score[0], hidden, strict=True))

        return by_hand(q, k, v, allowed, logit=logit)

    arguments = {"mask": causal, "q_pos": torch.arange(1, 4), "k_pos": torch.arange(n_keys), "key_mask": keys}
    arguments |= {"scale": scale}
    leaves = (*tensors, query_part, key_part, score)

    def ours(q, k, v, *weights):
        names = ("of_query.weight", "of_key.weight", "score.weight")
        state = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(module, state, (q, k, v), arguments)

    want = with_gradients(lambda *leaves: theirs(*leaves)[0], *leaves)
    assert_equal(with_gradients(ours, *leaves), want, TOLERANCE[dtype])
    output, weights = module(*tensors, **arguments, return_weights=True)
    assert relative_error(weights, theirs(*leaves)[1]) < TOLERANCE[dtype]
    assert torch.equal(output, module(*tensors, **arguments))


def test_additive_attention_uses_the_hooks_of_a_position():
    toy, n_queries, n_keys = Toy(H, D).double(), 3, 4
    module = randomise(AdditiveAttention(D, 5)).double()
    tensors = heads(torch.float64, 2, n_queries, n_keys)
    q_pos, k_pos = PLACES[:, :n_queries], KEY_PLACES[:, :n_keys]

    def logit(query, key):
        return module.score((module.of_query(query) + module.of_key(key)).tanh()).squeeze()

    want, _ = by_hand(
        *tensors, lambda b, h, t, s: True, q_pos=q_pos, k_pos=k_pos, scale=1.0, toy=toy, logit=logit
    )  # fmt: skip
    assert relative_error(module(*tensors, position=toy, q_pos=q_pos, k_pos=k_pos), want) < 1e-10


def test_a_row_without_keys_in_additive_attention():
    module = randomise(AdditiveAttention(D, 5))
    allowed = torch.ones(T, T, dtype=torch.bool)
    allowed[2] = False
    y, *gradients = with_gradients(partial(module, mask=allowed), *heads(torch.float32, s=T))
    assert torch.equal(y[:, :, 2], torch.zeros(B, H, DV))
    assert all(tensor.isfinite().all() for tensor in (y, *gradients))


def test_additive_attention_begins_as_torch_begins_linear_layers():
    assert [type(m) for m in AdditiveAttention(D, 5).children()] == [nn.Linear] * 3
    assert all(m.bias is None for m in AdditiveAttention(D, 5).children())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("n_kv_heads", [1, 2, 6])
@pytest.mark.parametrize(
    "kind", ["none", "pattern", "keys", "two axes", "per head", "bias", "score", "nothing allowed"]
)
def test_one_query_with_shared_key_heads(dtype, n_kv_heads, kind):
    """A step of decoding takes another way through the kernel: the same outputs and gradients as written out."""

    class Scheme(Position):
        def bias(self, q_pos, k_pos):
            slope = torch.arange(1, 7).view(6, 1, 1) / 6
            return -slope * (q_pos[:, None] - k_pos[None, :]).abs() if kind == "bias" else None

        def score(self, q, q_pos, k_pos):
            return q.sum(-1, keepdim=True) * k_pos / 9 if kind == "score" else None

    given = {
        "pattern": {"mask": window(4), "q_pos": torch.tensor([8]), "k_pos": torch.arange(9)},
        "keys": {"key_mask": torch.rand(2, 9) < 0.6},
        "two axes": {"mask": torch.rand(1, 9) < 0.6},
        "per head": {"mask": torch.rand(2, 6, 1, 9) < 0.6, "key_mask": torch.rand(2, 9) < 0.8},
        "bias": {"position": Scheme(), "q_pos": torch.tensor([8]), "k_pos": torch.arange(9)},
        "score": {"position": Scheme(), "q_pos": torch.tensor([8]), "k_pos": torch.arange(9)},
        "nothing allowed": {"mask": torch.zeros(2, 1, 1, 9, dtype=torch.bool)},
    }.get(kind, {})
    shapes = ((2, 6, 1, 8), (2, n_kv_heads, 9, 8), (2, n_kv_heads, 9, 5))
    tensors = [torch.randn(shape, dtype=torch.float64).to(dtype) for shape in shapes]
    results = []
    for impl in ("explicit", "fused"):
        inputs = [t.clone().requires_grad_() for t in tensors]
        y = attention(*inputs, **given, impl=impl)
        assert y.shape == (2, 6, 1, 5)
        gradients = torch.autograd.grad(y, inputs, torch.ones_like(y), allow_unused=True)
        results.append([y, *(torch.zeros(()) if g is None else g for g in gradients)])
    for want, got in zip(*results, strict=True):
        assert got.isfinite().all()
        limit = 1e-10 if dtype == torch.float64 else 0.03
        assert (got.double() - want.double()).abs().max() <= limit * max(1.0, want.double().abs().max())
