"""Window, global tokens and random blocks in one softmax: in blocks and dense are one function; by hand; refusals."""

import re
from functools import partial
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import course_lib.attention.global_local as global_local
from benchmarks.flops import count_flops
from course_lib.attention import (
    GlobalLocalAttention,
    Places,
    attention,
    causal,
    draw_blocks,
    global_local_attention,
    global_tokens,
    local_attention,
    random_blocks,
    window,
)
from course_lib.attention.global_inputs import GlobalPlaces, places_of
from course_lib.attention.local import block_of
from course_lib.features import record_attention
from tests.attention.cases import (
    H,
    arguments,
    assert_equal,
    blocks_of,
    cases,
    errors,
    heads,
    scheme,
    units,
    with_gradients,
)
from tests.attention.test_local import CASE, Distance
from tests.conftest import randomise, relative_error
from tests.on_meta import NoCpu
from tests.positions.toy import Toy, by_hand

GLOBAL = ["none", "one", "several", "all", "different numbers", "one sequence"]


def global_mask_of(kind, batch, length):
    """bool (T,) or (B, T) with a True for each global token."""
    mask = torch.zeros(length, dtype=torch.bool)
    if kind == "one":
        mask[torch.randint(length, ())] = True
    elif kind == "several":
        mask = torch.rand(length) < 0.2
    elif kind == "all":
        mask[:] = True
    elif kind == "different numbers":
        mask = torch.rand(batch, length) < 0.3 * torch.rand(batch, 1)
    elif kind == "one sequence":  # has one or more; the others none
        mask = torch.zeros(batch, length, dtype=torch.bool)
        mask[torch.randint(batch, ()), torch.randint(length, (2,))] = True
    return mask


def run(case, kind, n_random, separate, ways=("blocked", "dense"), dtype=torch.float64, rounded=None):
    """Outputs and gradients of each way."""
    torch.manual_seed(case["seed"])
    leaves = heads(case)
    others = heads(case) if separate else []
    leaves, others = ([x.detach().to(rounded or dtype).to(dtype).requires_grad_() for x in xs]
                      for xs in (leaves, others))  # fmt: skip
    given_, parameters = arguments(case, dtype)
    given_["global_mask"] = global_mask_of(kind, case["batch"], case["length"])
    if separate:
        given_["global_qkv"] = tuple(others)
    results = []
    with blocks_of(case["smallest"]):
        if n_random is not None:
            n_blocks = -(-case["length"] // block_of(case["radius"])) + case["seed"] % 3
            given_["blocks"] = draw_blocks(n_blocks, n_random, case["seed"])
        for way in ways:
            f = partial(global_local_attention, *leaves, case["radius"], impl=way, **given_)
            results.append(with_gradients(f, leaves + others + parameters))
    return results


@pytest.mark.slow
@settings(deadline=None, max_examples=500)
@given(cases(), st.sampled_from(GLOBAL), st.sampled_from([None, None, None, 0, 1, 2, 3]), st.booleans())
def test_blocked_is_dense(case, kind, n_random, separate):
    assert_equal(*run(case, kind, n_random, separate))


@settings(deadline=None, max_examples=40)
@given(cases(), st.sampled_from(GLOBAL), st.integers(0, 3), st.booleans())
def test_in_float32(case, kind, n_random, separate):
    assert_equal(*run(case, kind, n_random, separate, dtype=torch.float32), tolerance=1e-5)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("changed", [{}, {"causal": True}, {"hooks": ("bias", "score"), "n_kv": 1}], ids=str)
def test_in_bfloat16_the_error_is_at_most_twice_that_of_dense(changed, separate):
    """Four times for the gradient of shared values: a sum of up to seven rounded parts, three of them blocks."""
    case = CASE | changed
    exact, exact_blocked = run(case, "several", 2, separate, ("dense", "blocked"), rounded=torch.bfloat16)
    assert_equal(exact_blocked, exact)
    if changed.get("hooks"):  # the parameters of the scheme are not rounded: their dense result is the comparison
        case = case | {"hooks": None}
        exact, _ = run(case, "several", 2, separate, ("dense", "blocked"), rounded=torch.bfloat16)
    dense, ours = run(case, "several", 2, separate, ("dense", "blocked"), torch.bfloat16)
    triples = zip(errors(ours, exact), errors(dense, exact), units(exact, torch.bfloat16), strict=True)
    for i, (error, allowed, unit) in enumerate(triples):
        # Gradients of keys and values (2, 3): those of a global token are a sum of rounded numbers, one for each block.
        assert error <= (3 if i in (2, 3) else 2) * allowed + unit, i


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", GLOBAL)
@pytest.mark.parametrize("hooks", [None, ("rotate", "bias", "score")])
def test_never_nan(dtype, kind, hooks):
    for changed in ({"padding": "all"}, {"padding": "one sequence"}, {"padding": "some", "causal": True}):
        case = CASE | {"hooks": hooks, "length": 61} | changed
        for separate in (False, True):
            for y, *gradients in run(case, kind, 2, separate, dtype=dtype):
                assert all(x.isfinite().all() for x in (y, *gradients))
                assert not y[
                    {"all": slice(None), "one sequence": slice(-1, None), "some": slice(0, 0)}[case["padding"]]
                ].any()


# --- by hand ---


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 8), st.integers(0, 4), st.sampled_from(GLOBAL), st.booleans(), st.booleans(), st.integers(0, 2),
    st.sampled_from([1, 2, 3]), st.sampled_from(["blocked", "dense"]), st.integers(0, 10**6),
)  # fmt: skip
def test_by_hand(length, radius, kind, separate, is_causal, n_random, smallest, impl, seed):
    """One loop over pairs: near, or one of the two is global, or the key's block was drawn; and no key counts twice."""
    torch.manual_seed(seed)
    case = CASE | {"length": length, "dv": 3}
    q, k, v = heads(case)
    other = heads(case) if separate else (q, k, v)
    block = max(radius, smallest)
    blocks = draw_blocks(-(-length // block) + 1, n_random, seed)
    keys, toy, pos = torch.rand(2, length) < 0.8, scheme(("rotate", "bias")), torch.arange(length).expand(2, -1) + 5
    global_mask = global_mask_of(kind, 2, length)
    is_global = global_mask.expand(2, length)

    def allowed(b, h, i, j):
        drawn = j // block in blocks[i // block].tolist()
        sees = abs(i - j) <= radius or is_global[b, i] or is_global[b, j] or drawn
        return sees and keys[b, j] and not (is_causal and j > i)

    def mixed(ours, others):
        return torch.where(is_global[:, None, :, None], others, ours)

    by_pairs = partial(by_hand, allowed=allowed, q_pos=pos, k_pos=pos, toy=toy)
    (y, weights), (rows, row_weights) = by_pairs(q, k, v), by_pairs(*other)
    given_ = {
        "global_mask": global_mask, "blocks": blocks, "global_qkv": tuple(other) if separate else None,
        "causal": is_causal, "key_mask": keys, "position": toy, "q_pos": pos, "k_pos": pos,
    }  # fmt: skip
    with blocks_of(smallest):
        got = global_local_attention(q, k, v, radius, impl=impl, **given_)
        # Values that name their key: the output is the matrix of weights, and a key that counts twice shows.
        named = torch.eye(length).double().expand(2, H, length, length)
        others = (*other[:2], named) if separate else None
        seen = global_local_attention(q, k, named, radius, impl=impl, **given_ | {"global_qkv": others})
        _, recorded = global_local_attention(q, k, v, radius, impl="dense", return_weights=True, **given_)
    assert torch.allclose(got, mixed(y, rows), atol=1e-12)
    assert torch.allclose(seen, mixed(weights, row_weights), atol=1e-12)
    assert torch.allclose(recorded, seen, atol=1e-12)
    assert torch.allclose(seen.sum(-1).round(decimals=10), (seen > 0).any(-1).double())


@pytest.mark.parametrize("length", [49, 64, 100])
def test_a_pattern_says_the_same(length):
    """Longformer's and BigBird's pattern as one `Pattern`, in plain attention."""
    torch.manual_seed(0)
    q, k, v = heads(CASE | {"length": length})
    blocks, chosen = draw_blocks(-(-length // 16), 1, 4), [0, 7, 40]
    mask = torch.zeros(length, dtype=torch.bool)
    mask[chosen] = True
    for drawn in (None, blocks):
        pattern = window(5) | global_tokens(chosen)
        pattern = pattern if drawn is None else pattern | random_blocks(blocks, 16)
        for rule in (None, causal):
            got = global_local_attention(q, k, v, 5, global_mask=mask, blocks=drawn, mask=rule)
            want = attention(q, k, v, mask=pattern if rule is None else pattern & rule)
            assert torch.allclose(got, want, atol=1e-12)
            if rule is not None:
                flagged = global_local_attention(q, k, v, 5, global_mask=mask, blocks=drawn, causal=True)
                assert torch.allclose(got, flagged, atol=1e-12)


def test_without_global_tokens_it_is_local_attention():
    torch.manual_seed(0)
    q, k, v = heads(CASE)
    none = torch.zeros(150, dtype=torch.bool)
    got = global_local_attention(q, k, v, 7, global_mask=none)
    assert torch.allclose(got, local_attention(q, k, v, 7), atol=1e-12)
    everyone = global_local_attention(q, k, v, 7, global_mask=~none)
    assert torch.allclose(everyone, attention(q, k, v), atol=1e-12)


def test_hooks_see_true_places_and_a_shift_changes_nothing():
    torch.manual_seed(0)
    q, k, v = heads(CASE)
    mask = global_mask_of("different numbers", 2, 150)
    blocks, pos = draw_blocks(10, 2, 0), torch.randint(1, 3, (2, 150)).cumsum(-1)
    for position in (scheme(("rotate", "bias")), scheme(("bias", "score")), Distance()):
        outputs = [
            global_local_attention(
                q, k, v, 7, global_mask=mask, blocks=blocks, position=position, q_pos=pos + shift, k_pos=pos + shift
            )
            for shift in (0, 1000, -77)
        ]  # fmt: skip
        for output in outputs[1:]:
            assert torch.allclose(output, outputs[0], atol=1e-10)
    for q_pos, k_pos in position.asked[:2]:
        assert set(q_pos[: len(q_pos) // 2].flatten().tolist()) <= set(pos[0].tolist())
        assert set(k_pos[: len(k_pos) // 2].flatten().tolist()) <= set(pos[0].tolist())


def test_places_in_order_and_which_are_real():
    mask = torch.tensor([[0, 1, 0, 1, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    places, found = places_of(mask)
    assert places.shape == found.shape == (3, 3)
    assert places[0].tolist() == [1, 3, 4]
    assert places[1, 0] == 3
    assert found.tolist() == [[True] * 3, [True, False, False], [False] * 3]
    assert places_of(mask[2:])[0].shape == (1, 0)
    assert places_of(mask[:0])[0].shape == (0, 0)


def test_no_token():
    q = torch.zeros(2, 3, 0, 4)
    for mask in (torch.zeros(0, dtype=torch.bool), torch.zeros(2, 0, dtype=torch.bool)):
        for impl in ("blocked", "dense"):
            assert global_local_attention(q, q, q, 2, global_mask=mask, impl=impl).shape == q.shape


def test_cost_grows_with_the_length_for_a_fixed_number_of_global_tokens():
    def flops(length, impl):
        q, k, v = (torch.randn(1, 1, length, 4, requires_grad=True) for _ in range(3))
        mask, blocks = torch.arange(length) < 2, draw_blocks(length // 16, 2, 0)
        f = partial(global_local_attention, q, k, v, 16, impl=impl, global_mask=mask, blocks=blocks)
        return count_flops(lambda: f().sum().backward())

    assert flops(1024, "blocked") / flops(512, "blocked") == pytest.approx(2, rel=0.05)
    assert flops(512, "dense") / flops(256, "dense") == pytest.approx(4, rel=0.05)


# --- the module ---


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("length", [20, 70])
def test_the_module_projects_attends_and_projects_back(length, separate, bias):
    toy, blocks = Toy(2, 4, ("rotate", "bias")), draw_blocks(7, 1, 0)
    module = GlobalLocalAttention(
        8, 2, 5, blocks=blocks, separate_global=separate, bias=bias, mask=causal, position=toy
    )  # fmt: skip
    module, x = randomise(module).double(), torch.randn(2, length, 8).double()
    keys, pos = torch.rand(2, length) < 0.8, torch.randint(1, 3, (2, length)).cumsum(-1)
    mask = global_mask_of("different numbers", 2, length)

    def projected(layers):
        return [layer(x).unflatten(-1, (2, 4)).transpose(1, 2) for layer in layers]

    y = global_local_attention(
        *projected((module.q_proj, module.k_proj, module.v_proj)), 5, mask=causal, key_mask=keys, position=toy,
        q_pos=pos, k_pos=pos, global_mask=mask, blocks=blocks, impl="dense",
        global_qkv=tuple(projected(module.global_proj)) or None,
    )  # fmt: skip
    got = module(x, Places(pos=pos, key_mask=keys, global_mask=mask))
    assert torch.allclose(got, module.out_proj(y.transpose(1, 2).flatten(2)), atol=1e-12)
    assert "blocks" not in module.state_dict()
    names = {name.split(".")[0] for name, _ in module.named_parameters()}
    want = {"q_proj", "k_proj", "v_proj", "out_proj", "position"} | ({"global_proj"} if separate else set())
    assert names == want
    assert (module.q_proj.bias is not None) == bias
    with record_attention(module) as seen:
        assert torch.allclose(module(x, Places(pos=pos, key_mask=keys, global_mask=mask)), got, atol=1e-12)
    total = seen[""].sum(-1)
    assert torch.allclose(total, (seen[""] > 0).any(-1).double(), atol=1e-12)


@pytest.mark.parametrize("separate", [False, True])
def test_on_meta_but_for_the_places_of_global_tokens(separate):
    """Their number depends on data: `places_of` asks for it, and nothing else does."""
    module = GlobalLocalAttention(8, 2, 4, blocks=draw_blocks(5, 2, 0), separate_global=separate).to("meta")
    x = torch.empty(2, 70, 8, device="meta", requires_grad=True)
    global_mask = torch.zeros(2, 70, dtype=torch.bool, device="meta")
    found = torch.ones(2, 3, dtype=torch.bool, device="meta")
    with mock.patch.object(global_local, "places_of", return_value=GlobalPlaces(found.long(), found)), NoCpu():
        y = module(x, Places(global_mask=global_mask, key_mask=~global_mask))
        y.sum().backward()
    assert y.shape == (2, 70, 8)
    assert x.grad.shape == x.shape


# --- refusals ---

N = 60
Q, K, V = torch.randn(2, 4, N, 6), torch.randn(2, 2, N, 6), torch.randn(2, 2, N, 3)
MASK, POS = torch.zeros(N, dtype=torch.bool), torch.arange(N)
BLOCKS = draw_blocks(4, 1, 0)
NO_SUCH = "no row may name a block twice, itself or a neighbour"


@pytest.mark.parametrize("impl", ["blocked", "dense"])
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"radius": -1}, "radius=-1; it must be 0 or more"),
        ({"impl": "unfold"}, "impl='unfold'; allowed are 'blocked', 'dense'"),
        ({"mask": torch.ones(N, N).bool()}, "mask is a Tensor; needed is a Pattern"),
        ({"global_mask": MASK[:5]}, "global_mask is torch.bool (5,); needed is bool (60,) or (2, 60)"),
        ({"global_mask": MASK.expand(3, N)}, "global_mask is torch.bool (3, 60); needed is bool (60,) or (2, 60)"),
        ({"global_mask": MASK.expand(1, 2, N)}, "global_mask is torch.bool (1, 2, 60); needed is bool"),
        ({"global_mask": MASK.long()}, "global_mask is torch.int64 (60,); needed is bool"),
        ({"global_mask": [0]}, "global_mask is list; needed is bool (60,) or (2, 60)"),
        ({"global_mask": torch.tensor(True)}, "global_mask is torch.bool (); needed is bool"),
        ({"global_mask": MASK.to("meta")}, "global_mask is on meta; q is on cpu"),
        ({"key_mask": MASK.expand(2, N).to("meta")}, "key_mask is on meta; q is on cpu"),
        ({"q_pos": POS.to("meta"), "k_pos": POS}, "q_pos is on meta"),
        ({"key_mask": MASK}, "key_mask is torch.bool (60,)"),
        ({"blocks": BLOCKS[:3]}, "blocks is torch.int64 (3, 1); needed is int64 (n_blocks, n_random), with 4 blocks"),
        ({"blocks": BLOCKS.int()}, "blocks is torch.int32 (4, 1)"),
        ({"blocks": BLOCKS[:, 0]}, "blocks is torch.int64 (4,)"),
        ({"blocks": torch.tensor([[2], [3], [3], [0]])}, NO_SUCH),
        ({"blocks": torch.tensor([[2], [3], [2], [0]])}, NO_SUCH),
        ({"blocks": torch.tensor([[2, 2], [3, -1], [0, -1], [0, 1]])}, NO_SUCH),
        ({"k": K[:, :, :5], "v": V[:, :, :5]}, "q has 60 tokens, k 5; global tokens need the same text on both sides"),
        ({"global_qkv": (Q, K, V[..., :2])}, "global_qkv: its v has shape (2, 2, 60, 2); needed is"),
        ({"global_qkv": (Q[:, :2], K, V)}, "global_qkv: its q has shape (2, 2, 60, 6); needed is"),
        ({"global_qkv": (Q, K[:, :1], V[:, :1])}, "global_qkv: its k has shape (2, 1, 60, 6)"),
        ({"global_qkv": (Q.double(), K.double(), V.double())}, "global_qkv: its q"),
        ({"q": Q[0]}, "q is torch.float32 (4, 60, 6)"),
        ({"q_pos": POS}, "q_pos and k_pos must both be given"),
    ],
)  # fmt: skip
def test_bad_input_names_itself(impl, changed, words):
    given_ = {"q": Q, "k": K, "v": V, "radius": 2, "global_mask": MASK, "impl": impl} | changed
    with pytest.raises(ValueError, match=re.escape(words)):
        global_local_attention(**given_)


@pytest.mark.parametrize("n", [N, 5])
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"q_pos": POS.flip(0), "k_pos": POS.flip(0)}, "q_pos, k_pos: they must be equal and rise"),
        ({"q_pos": POS, "k_pos": POS + 1}, "q_pos, k_pos: they must be equal and rise"),
    ],
)
def test_blocks_refuse_what_only_dense_can_do(changed, words, n):
    changed = {name: x[:n] if isinstance(x, torch.Tensor) else x for name, x in changed.items()}
    with pytest.raises(ValueError, match=re.escape(words)):
        global_local_attention(Q[:, :, :n], K[:, :, :n], V[:, :, :n], 2, global_mask=MASK[:n], **changed)


@pytest.mark.parametrize("impl", ["blocked", "dense"])
def test_any_rising_places_and_blocks_drawn_for_a_longer_text_are_fine(impl):
    blocks = draw_blocks(40, 2, 3)
    given_ = {"global_mask": MASK, "blocks": blocks, "impl": impl}
    got = global_local_attention(Q, K, V, 2, q_pos=2 * POS[None] + 7, k_pos=2 * POS[None] + 7, **given_)
    assert relative_error(got, global_local_attention(Q, K, V, 1, **given_)) < 1e-6  # every second place: half as far
    assert global_local_attention(Q, K, V, 2, **given_ | {"blocks": blocks[:, :0]}).shape == (2, 4, N, 3)


def test_a_module_shares_its_projections_unless_told():
    assert not list(GlobalLocalAttention(8, 2, 1).global_proj)


def test_a_module_refuses_what_its_function_does():
    with pytest.raises(ValueError, match="radius=-1; it must be 0 or more"):
        GlobalLocalAttention(8, 2, -1)
    with pytest.raises(ValueError, match="n_heads=3 does not divide d_model=8"):
        GlobalLocalAttention(8, 3, 1)
    with pytest.raises(ValueError, match=r"x has shape \(2, 5, 7\); needed is \(B, tokens, 8\)"):
        GlobalLocalAttention(8, 2, 1)(torch.randn(2, 5, 7), Places(global_mask=torch.zeros(5).bool()))
