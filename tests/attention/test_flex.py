"""FlexAttention: its blocks and tables are the patterns, pair by pair, and its outputs those of `attention`."""

import re
from copy import deepcopy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask, create_mask
from torch.nn.attention.flex_attention import flex_attention as torch_flex

from course_lib.attention import MultiHeadAttention, Pattern, attention, causal, draw_blocks, random_blocks, window
from course_lib.attention.flex import flex_attention, mask_mod
from course_lib.attention.flex_blocks import BLOCK, flex_block_mask
from course_lib.attention.masks import dilated, full, global_tokens
from course_lib.positions import Position
from tests.attention.test_attention import BAD, FIVE, K, Q, V, call
from tests.conftest import relative_error
from tests.positions.toy import Toy

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
PATTERNS = {
    "full": full,
    "causal": causal,
    "window": window(3),
    "wide window": window(200),
    "causal window": causal & window(40),
    "dilated": dilated(3, 7),
    "global": window(2) | global_tokens([0, 150]),
    "many global": global_tokens(range(0, 40, 2)),
    "random blocks": window(4) | random_blocks(draw_blocks(40, 3, seed=1), 16),
    "nothing": Pattern("nothing", lambda q_pos, k_pos: (q_pos < 0) & (k_pos < 0)),
    "of the keys": Pattern("of the keys", lambda q_pos, k_pos: k_pos % 5 == 0),
}


def dense(pattern, q_pos, k_pos, key_mask=None, global_mask=None):
    """What is allowed, (Bp, T, S), said without blocks."""
    allowed = pattern.dense(q_pos.view(-1, q_pos.shape[-1]), k_pos.view(-1, k_pos.shape[-1]))
    if global_mask is not None:
        rows = global_mask.view(-1, global_mask.shape[-1])
        allowed = allowed | rows[:, :, None] | rows[:, None, :]
    return allowed if key_mask is None else allowed & key_mask[:, None]


def kinds(allowed):
    """Of a mask (Bp, T, S) the blocks that are mixed and those that are whole, cut one by one."""
    b, t, s = allowed.shape
    n_rows, n_columns = -(-t // BLOCK), -(-s // BLOCK)
    mixed, whole = (torch.zeros(b, n_rows, n_columns, dtype=torch.int32) for _ in range(2))
    for row, i, j in torch.cartesian_prod(*map(torch.arange, mixed.shape)).view(-1, 3).tolist():
        part = allowed[row, i * BLOCK : (i + 1) * BLOCK, j * BLOCK : (j + 1) * BLOCK]
        whole[row, i, j] = part.sum() == BLOCK * BLOCK
        mixed[row, i, j] = bool(part.any()) and not whole[row, i, j]
    return mixed, whole


def listed(counts, places, n_columns):
    """The blocks that FlexAttention will visit, (Bp, rows, columns)."""
    out = torch.zeros(*counts.shape, n_columns, dtype=torch.int32)
    for index in torch.cartesian_prod(*map(torch.arange, counts.shape)).view(-1, 3).tolist():
        out[(*index, places[(*index, slice(int(counts[tuple(index)])))].long())] = 1
    return out.squeeze(1)


def assert_is(mask, want):
    b, t, s = want.shape
    n_columns = -(-s // BLOCK)
    assert mask.shape == (b, 1, t, s)
    assert torch.equal(create_mask(mask.mask_mod, b, 1, t, s, device="cpu").squeeze(1), want)
    mixed, whole = kinds(want)
    assert torch.equal(listed(mask.kv_num_blocks, mask.kv_indices, n_columns), mixed)
    assert torch.equal(listed(mask.full_kv_num_blocks, mask.full_kv_indices, n_columns), whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("length", [5, 128, 300])
def test_a_block_mask_is_the_pattern_pair_by_pair(name, length):
    pos = torch.arange(length)
    keys, chosen = torch.rand(2, length) < 0.8, torch.rand(2, length) < 0.02
    keys[1, length // 2 :] = False
    for masks in (
        {}, {"key_mask": keys}, {"global_mask": chosen}, {"global_mask": chosen[0]},
        {"key_mask": keys, "global_mask": chosen}, {"key_mask": keys, "global_mask": chosen[0]},
    ):  # fmt: skip
        want = dense(PATTERNS[name], pos, pos, **masks)
        assert_is(flex_block_mask(PATTERNS[name], length, length, device="cpu", **masks), want)


def test_a_pattern_is_a_mask_mod():
    """torch's own way to make blocks asks for one pair at a time, and finds the same ones."""
    q_pos, k_pos = torch.arange(140) + 60, torch.arange(200)
    for pattern in (causal, causal & window(70), dilated(30, 2), window(9) | causal):
        blocks = create_block_mask(mask_mod(pattern, q_pos, k_pos), None, None, 140, 200, device="cpu")
        ours = flex_block_mask(pattern, 140, 200, device="cpu", q_pos=q_pos, k_pos=k_pos)
        assert torch.equal(blocks.to_dense(), ours.to_dense()), pattern
        pairs = [
            [bool(blocks.mask_mod(0, 0, torch.tensor(i), torch.tensor(j))) for j in (0, 69, 199)] for i in (0, 139)
        ]
        assert pairs == pattern.dense(q_pos[[0, 139]], k_pos[[0, 69, 199]]).tolist()


@settings(deadline=None, max_examples=20)
@given(st.sampled_from([*PATTERNS]), st.integers(1, 300), st.integers(1, 300), st.integers(0, 10**6), st.integers(0, 3))
def test_true_positions_decide(name, n_queries, n_keys, seed, rows):
    generator = torch.Generator().manual_seed(seed)
    q_shape, k_shape = [((), ()), ((2,), ()), ((), (2,)), ((2,), (2,))][rows]
    q_pos = torch.randint(0, 600, (*q_shape, n_queries), generator=generator)
    k_pos = torch.randint(0, 600, (*k_shape, n_keys), generator=generator)
    keys = torch.rand(2, n_keys, generator=generator) < 0.8
    for masks in ({}, {"key_mask": keys}):
        got = flex_block_mask(PATTERNS[name], n_queries, n_keys, device="cpu", q_pos=q_pos, k_pos=k_pos, **masks)
        assert_is(got, dense(PATTERNS[name], q_pos, k_pos, **masks))


class Turning(Toy):
    """The Toy that only rotates."""

    def __init__(self, n_heads, head_dim):
        super().__init__(n_heads, head_dim, ("rotate",))


CASES = {
    "plain": {},
    "key_mask": {"key_mask": torch.arange(200) < torch.tensor([[150], [7]])},
    "global": {"global_mask": torch.arange(200) % 90 == 3},
    "global by row": {"global_mask": torch.arange(200) % torch.tensor([[90], [70]]) == 3},
    "places": {"q_pos": torch.arange(200) + 5, "k_pos": torch.arange(200)},
    "places by row": {"q_pos": torch.randint(0, 600, (2, 200)), "k_pos": torch.randint(0, 600, (2, 200))},
    "position": {"position": Turning(4, 16)},
    "scale": {"scale": 0.7},
}


def pair(name, case, dtype, device="cpu", n_kv=2, length=200):
    """Ours and the oracle as functions of q, k, v, and q, k, v."""
    arguments = {
        key: value.to(device) if hasattr(value, "to") else value for key, value in deepcopy(CASES[case]).items()
    }
    shared = {key: value for key, value in arguments.items() if key not in ("global_mask", "key_mask")}
    masks = {key: value for key, value in arguments.items() if key in ("global_mask", "key_mask")}
    counted = torch.arange(length, device=device)
    allowed = dense(PATTERNS[name], arguments.get("q_pos", counted), arguments.get("k_pos", counted), **masks)
    theirs = partial(attention, mask=allowed.unsqueeze(1), **shared, impl="explicit")
    tensors = [torch.randn(2, heads, length, 16).to(device, dtype) for heads in (4, n_kv, n_kv)]
    return partial(flex_attention, mask=PATTERNS[name], **arguments), theirs, tensors


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["causal window", "global", "random blocks", "nothing"])
def test_on_a_cpu_it_is_attention(name, case):
    ours, theirs, tensors = pair(name, case, torch.float64, n_kv={"plain": 4, "scale": 1}.get(case, 2))
    with torch.no_grad():
        got, want = ours(*tensors), theirs(*tensors)
    assert torch.allclose(got, want, rtol=1e-10, atol=1e-10)
    if name == "nothing" and "global_mask" not in CASES[case]:
        assert torch.equal(got, torch.zeros_like(got))  # not NaN


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_types_are_kept(dtype, tolerance):
    ours, theirs, tensors = pair("causal window", "key_mask", dtype)
    got = ours(*tensors)
    assert got.dtype == dtype
    assert relative_error(got, theirs(*(x.double() for x in tensors))) < tolerance


@pytest.mark.slow
def test_blocks_made_once_serve_many_calls():
    ours, _, (q, k, v) = pair("causal window", "key_mask", torch.float64)
    blocks = flex_block_mask(causal & window(40), 200, 200, key_mask=CASES["key_mask"]["key_mask"], device="cpu")
    assert torch.equal(flex_attention(q, k, v, mask=blocks), ours(q, k, v))
    shared = flex_block_mask(causal & window(40), 200, 200, device="cpu")  # one for all sequences
    want = attention(q, k, v, mask=causal & window(40), position=CASES["position"]["position"].double())
    got = flex_attention(q, k, v, mask=shared, position=CASES["position"]["position"].double())
    assert torch.allclose(got, want, rtol=1e-10, atol=1e-10)


def test_without_a_pattern_places_do_not_matter():
    q, k, v = torch.randn(2, 2, 5, 8), torch.randn(2, 2, 9, 8), torch.randn(2, 2, 9, 4)
    keys = torch.rand(2, 9) < 0.7
    assert torch.allclose(flex_attention(q, k, v, key_mask=keys), attention(q, k, v, key_mask=keys), atol=1e-6)


def test_a_module_takes_it():
    module = MultiHeadAttention(32, 4, n_kv_heads=2, mask=causal & window(3), attention_fn=flex_attention).double()
    x = torch.randn(2, 20, 32).double()
    with torch.no_grad():
        got = module(x)
        module.attention_fn = attention
        assert torch.allclose(got, module(x), atol=1e-12)


DENSE = ("mask of", "mask too wide", "mask elsewhere")  # here no dense mask is taken at all


@pytest.mark.parametrize("name", [name for name in BAD if not name.startswith(DENSE)])
def test_bad_arguments_name_themselves(name):
    changed, words = BAD[name]
    with pytest.raises(ValueError, match=re.escape(words)):
        call(flex_attention, **changed)


def block_mask(t=5, s=5, rows=1):
    places = {"q_pos": torch.arange(t), "k_pos": torch.arange(s)}
    return flex_block_mask(full, t, s, key_mask=torch.ones(rows, s, dtype=torch.bool), device="cpu", **places)


GLOBAL = torch.ones(2, 5, dtype=torch.bool)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"mask": torch.ones(5, 5).bool()}, "mask is a Tensor; needed is a Pattern, or a BlockMask"),
        ({"mask": "causal"}, "mask is a str; needed is a Pattern"),
        ({"position": Toy(4, 6, ("bias",))}, "position has a bias, T x S numbers"),
        ({"position": Toy(4, 6, ("rotate", "score"))}, "position has a score, T x S numbers"),
        ({"q": Q.clone().requires_grad_()}, "q, k, v are on cpu and need gradients"),
        ({"v": V.clone().requires_grad_()}, "q, k, v are on cpu and need gradients"),
        ({"mask": block_mask(), "key_mask": GLOBAL}, "a BlockMask holds them already"),
        ({"mask": block_mask(), "global_mask": GLOBAL}, "a BlockMask holds them already"),
        (
            {"mask": block_mask(6)},
            "mask has blocks for 1 sequences of 6 queries and 5 keys; needed are 1 or 2 of 5 and 5",
        ),
        ({"mask": block_mask(5, 6)}, "of 5 queries and 6 keys; needed"),
        ({"mask": block_mask(rows=3)}, "mask has blocks for 3 sequences"),
        ({"mask": block_mask(), "position": Position(), "q_pos": FIVE}, "q_pos and k_pos must both be given"),
        ({"global_mask": GLOBAL.int()}, "global_mask is torch.int32 (2, 5); needed is bool (5,) or (B, 5)"),
        ({"global_mask": [True] * 5}, "global_mask is list; needed is bool"),
        ({"global_mask": GLOBAL[:, :4]}, "global_mask has shape (2, 4); needed is (5,) or (2, 5)"),
        ({"global_mask": GLOBAL[:1].expand(3, 5)}, "global_mask has shape (3, 5); needed is (5,) or (2, 5)"),
        ({"global_mask": GLOBAL[None]}, "global_mask is torch.bool"),
        ({"global_mask": GLOBAL.to("meta")}, "global_mask is on meta; q is on cpu"),
        ({"global_mask": GLOBAL, "q": Q[:, :, :3]}, "it needs one text on both sides; here are 3 queries and 5 keys"),
        ({"k": K[:, :, :0], "v": V[:, :, :0]}, "kv_len=0; it must be 1 or more"),
        ({"q": Q[:, :, :0]}, "q_len=0; it must be 1 or more"),
    ],
)
def test_what_it_cannot_do_names_itself(changed, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call(flex_attention, **changed)


def test_a_tensor_that_could_have_gradients_may_be_asked_for_none():
    with torch.no_grad():
        got = flex_attention(Q.clone().requires_grad_(), K, V, mask=causal)
    assert torch.allclose(got, attention(Q, K, V, mask=causal), atol=1e-6)


def test_the_mask_of_a_long_text_takes_no_square():
    """The tables of a window grow with the length."""
    sizes = [flex_block_mask(causal & window(100), n, n, device="cpu") for n in (1024, 2048)]
    tables = [mask.mask_mod.__closure__[1].cell_contents.numel() for mask in sizes]
    assert tables == [(2 + 8 + 7) * BLOCK**2, (2 + 16 + 15) * BLOCK**2]


@pytest.mark.slow
def test_all_patterns_share_one_compiled_kernel():
    """What CUDA compiles: once, and once more when sizes turn out to vary; not for each pattern or length."""
    torch.compiler.reset()
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(torch_flex, fullgraph=True, backend=count)
    for length in (200, 300, 600):
        pos = torch.arange(length)
        q, k, v = torch.randn(2, 4, length, 16), torch.randn(2, 2, length, 16), torch.randn(2, 2, length, 16)
        for pattern in PATTERNS.values():
            blocks = flex_block_mask(pattern, length, length, device="cpu")
            got = compiled(q, k, v, block_mask=blocks, enable_gqa=True)
            assert torch.allclose(got, attention(q, k, v, mask=pattern.dense(pos, pos)), atol=1e-5)
    assert len(graphs) <= 3
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["causal", "causal window", "global", "random blocks", "nothing"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=GPU)])
def test_on_a_gpu_it_is_attention_with_gradients(device, dtype, name):
    for case in CASES:
        ours, theirs, tensors = pair(name, case, dtype, device)
        results = []
        for function, kind in ((ours, dtype), (theirs, torch.float32)):
            leaves = [x.detach().to(kind).requires_grad_() for x in tensors]
            y = function(*leaves)
            upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(device, kind)
            results.append([y.detach(), *torch.autograd.grad(y, leaves, upstream)])
        for got, want in zip(*results, strict=True):
            assert got.dtype == dtype
            assert got.isfinite().all()
            assert relative_error(got, want) < (0.02 if dtype == torch.float32 else 0.04)  # products may be in TF32
