"""Every scheme on every path: fused and explicit, the triangle, in blocks, tile by tile, from a cache."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import course_lib.attention.fused as fused
from course_lib.attention import (
    KVCache,
    MultiHeadAttention,
    WindowKVCache,
    attention,
    causal,
    global_local_attention,
    local_attention,
    window,
)
from course_lib.attention.online import online_attention
from course_lib.mlp import MLP
from course_lib.models.sparse_bert import SparseBert, SparseBertConfig
from course_lib.norms import LayerNorm
from course_lib.positions import AlibiPosition, RotaryPosition, ShawPosition, T5Position
from course_lib.transformer_block import TransformerBlock
from tests.attention.cases import D, H, arguments, assert_equal, blocks_of, cases, heads, with_gradients
from tests.conftest import randomise, relative_error

SCHEMES = {
    "none": lambda: None,
    "rope": lambda: RotaryPosition(D),
    "rope of a part": lambda: RotaryPosition(2, layout="interleaved"),
    "alibi": lambda: AlibiPosition(H),
    "alibi uniform": lambda: AlibiPosition(H, slope=0.1),
    "t5": lambda: T5Position(H, 8, 20),
    "t5 causal": lambda: T5Position(H, 8, 20, bidirectional=False),
    "shaw": lambda: ShawPosition(D, 5),
    "shaw causal": lambda: ShawPosition(D, 5, bidirectional=False),
}


def scheme(name, dtype=torch.float64):
    """The scheme with random tables, and its parameters."""
    position = SCHEMES[name]()
    return (None, []) if position is None else (randomise(position).to(dtype), [*position.to(dtype).parameters()])


def tensors(length, n_kv=H, dtype=torch.float64):
    shapes = [(2, n, length, D) for n in (H, n_kv, n_kv)]
    return [torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("n_kv", [1, 2])
@pytest.mark.parametrize("length", [1, 2, 17])
def test_the_triangle_is_the_mask_and_the_explicit_sum(name, n_kv, length):
    """Without places the kernel may be told of the triangle; all ways to ask for it give one result."""
    (position, parameters), leaves = scheme(name), tensors(length, n_kv)
    pos, triangle = torch.arange(length), torch.ones(length, length).tril().bool()
    ways = [
        {"mask": causal}, {"mask": causal, "impl": "explicit"}, {"mask": triangle, "impl": "explicit"},
        {"mask": triangle}, {"mask": causal, "q_pos": pos, "k_pos": pos},
        {"mask": causal, "key_mask": torch.ones(2, length).bool()},
    ]  # fmt: skip
    results = [
        with_gradients(partial(attention, *leaves, position=position, **way), leaves + parameters) for way in ways
    ]
    for got in results[1:]:
        assert_equal(got, results[0])
    assert all(gradient.any() for gradient in results[0][4:]) or length == 1
    keys = torch.rand(2, length) < 0.5
    padded = [attention(*leaves, position=position, key_mask=keys, **way) for way in ways[:3]]
    for got in padded[1:]:
        assert_equal([got], padded[:1])


@pytest.mark.parametrize("name", SCHEMES)
def test_the_kernel_keeps_its_triangle_where_nothing_is_added(name, monkeypatch):
    """It skips the pairs above; a scheme that only turns must not cost that."""
    seen, kernel = [], fused._kernel
    monkeypatch.setattr(fused, "_kernel", lambda *a, **kw: seen.append(kw.get("is_causal", False)) or kernel(*a, **kw))
    attention(*tensors(9), mask=causal, position=scheme(name)[0])
    assert seen == [name.startswith(("none", "rope"))]


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("changed", [{}, {"n_kv": 1}], ids=str)
def test_in_bfloat16_fused_is_as_near_as_explicit(name, changed):
    """Against float64 with the same, rounded inputs; the bias of a kernel is rounded, a logit of the other is not."""
    leaves = [x.detach() for x in tensors(200, dtype=torch.bfloat16, **changed)]
    position, _ = scheme(name, torch.bfloat16)
    given_ = {"mask": causal, "position": position}
    fused, explicit = (attention(*leaves, **given_, impl=impl).double() for impl in ("fused", "explicit"))
    exact = None if position is None else position.double()
    exact = attention(*(x.double() for x in leaves), mask=causal, position=exact)
    assert fused.sub(exact).norm() <= 2 * explicit.sub(exact).norm()


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(cases(), st.sampled_from(list(SCHEMES)), st.sampled_from(["blocked", "unfold", "online"]))
def test_local_is_dense(case, name, impl):
    """Outputs, and gradients of the scheme's own tables too."""
    case["radius"] = case["radius"] if impl == "blocked" else min(case["radius"], 40)
    torch.manual_seed(case["seed"])
    leaves, (position, parameters) = heads(case), scheme(name)
    given_, _ = arguments(case | {"hooks": None})
    given_["position"] = position
    results = []
    with blocks_of(case["smallest"]):
        for way in (impl, "dense"):
            f = partial(local_attention, *leaves, case["radius"], impl=way, **given_)
            if way == "online":
                is_causal, mask = given_["causal"], window(case["radius"])
                mask = mask & causal if is_causal else mask
                mask = mask if given_["mask"] is None else mask & given_["mask"]
                others = {key: value for key, value in given_.items() if key not in ("causal", "mask")}
                f = partial(online_attention, *leaves, mask=mask, tile=13, **others)
            results.append(with_gradients(f, leaves + parameters))
    assert_equal(*results)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(cases(), st.sampled_from(list(SCHEMES)), st.booleans())
def test_global_and_local_is_dense(case, name, separate):
    torch.manual_seed(case["seed"])
    leaves, (position, parameters) = heads(case), scheme(name)
    given_, _ = arguments(case | {"hooks": None})
    given_ |= {"position": position, "global_mask": torch.rand(case["batch"], case["length"]) < 0.1}
    if separate:
        others = heads(case)
        leaves, given_["global_qkv"] = leaves + others, tuple(others)
    results = []
    with blocks_of(case["smallest"]):
        for way in ("blocked", "dense"):
            f = partial(global_local_attention, *leaves[:3], case["radius"], impl=way, **given_)
            results.append(with_gradients(f, leaves + parameters))
    assert_equal(*results)


@pytest.mark.parametrize("pattern", ["local", "local_global", "bigbird"])
def test_rope_of_a_sparse_bert_in_blocks(pattern):
    """A long text, and where the radius reaches all, the full pattern; gradients of all weights."""
    sizes = {"vocab_size": 11, "max_positions": 100, "d_model": 8, "n_heads": 2, "n_layers": 2, "position": "rope"}
    model = randomise(SparseBert(SparseBertConfig(**sizes, pattern=pattern, radius=3))).double()
    ids, keys = torch.randint(11, (2, 83)), torch.ones(2, 83).bool()
    keys[1, 70:] = False
    in_blocks = with_gradients(partial(model, ids, key_mask=keys), [*model.parameters()])  # six of 16 tokens
    wide = model.with_pattern(radius=90)
    assert relative_error(wide(ids), wide.with_pattern(pattern="full")(ids)) < 1e-10
    for block in model.blocks:
        block.attention.attention_fn.keywords["impl"] = "dense"
    assert_equal(in_blocks, with_gradients(partial(model, ids, key_mask=keys), [*model.parameters()]))
    moved = model.with_pattern(pattern="full", rope_theta=100.0)
    assert relative_error(moved(ids), wide.with_pattern(pattern="full")(ids)) > 1e-3


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("sizes", [[1] * 12, [5, 1, 1, 5], [3, 0, 4, 5]])
@pytest.mark.parametrize("radius", [None, 2])
def test_from_a_cache_a_text_is_what_it_is_at_once(name, sizes, radius):
    mask = causal if radius is None else causal & window(radius)
    position, _ = scheme(name)
    layer = randomise(MultiHeadAttention(8, H, n_kv_heads=1, mask=mask)).double()
    layer.position, x = position, torch.randn(2, 12, 8).double()
    cache = KVCache(12) if radius is None else WindowKVCache(radius)
    with torch.no_grad():
        steps = torch.cat([layer(part, cache=cache) for part in x.split(sizes, 1)], 1)
        assert relative_error(steps, layer(x)) < 1e-10


@pytest.mark.parametrize("placement", ["pre", "post", "parallel"])
def test_without_positions_and_mask_blocks_go_through_a_permutation(placement):
    def stack(position):
        parts = [
            (MultiHeadAttention(8, H, position=position), MLP(8, 12), (LayerNorm(8), LayerNorm(8))) for _ in range(3)
        ]
        return randomise(torch.nn.Sequential(*(TransformerBlock(*p, placement=placement) for p in parts))).double()

    x, order = torch.randn(2, 9, 8).double(), torch.randperm(9)
    blocks = stack(None)
    assert relative_error(blocks(x[:, order]), blocks(x)[:, order]) < 1e-10
    for name in sorted(set(SCHEMES) - {"none"}):
        blocks = stack(scheme(name)[0])
        assert relative_error(blocks(x[:, order]), blocks(x)[:, order]) > 1e-6, name


def test_an_encoder_without_positions_reads_a_bag():
    fields = {"vocab_size": 11, "d_model": 8, "n_heads": 2, "n_layers": 2, "pattern": "full"}
    ids, order = torch.randint(11, (2, 9)), torch.randperm(9)
    for position in ("none", "rope", "sinusoidal", "learned"):
        model = randomise(SparseBert(SparseBertConfig(**fields, position=position))).double()
        error = relative_error(model(ids[:, order]), model(ids)[:, order])
        assert error < 1e-10 if position == "none" else error > 1e-4
