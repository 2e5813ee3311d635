"""Local attention: in blocks, unfolded and dense are one function; by hand; what it reaches, and what it costs."""

import re
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.flops import count_flops
from course_lib.attention import (
    KVCache,
    MultiHeadAttention,
    WindowKVCache,
    attention,
    causal,
    local_attention,
    window,
)
from course_lib.attention.blocks import text_of, unfold_kv
from course_lib.attention.local import block_of
from course_lib.positions import Position
from tests.attention.cases import (
    HOOKS,
    MASKS,
    D,
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
from tests.attention.test_attention import BAD, call
from tests.conftest import randomise, relative_error
from tests.positions.toy import Toy, by_hand


def both(case, impl, dtype=torch.float64):
    """Outputs and gradients of `impl` and of dense."""
    torch.manual_seed(case["seed"])
    leaves = heads(case, dtype)
    given_, parameters = arguments(case, dtype)
    results = []
    for way in (impl, "dense"):
        with blocks_of(case["smallest"]):
            f = partial(local_attention, *leaves, case["radius"], impl=way, **given_)
            results.append(with_gradients(f, leaves + parameters))
    return results


@pytest.mark.slow
@pytest.mark.parametrize("impl", ["blocked", "unfold"])
@settings(deadline=None, max_examples=300)
@given(cases())
def test_each_way_is_dense(impl, case):
    if impl == "unfold":  # every token has a copy of its 2 radius + 1 keys
        case["radius"] = min(case["radius"], 40)
    assert_equal(*both(case, impl))


@settings(deadline=None, max_examples=40)
@given(cases(), st.sampled_from(["blocked", "unfold"]))
def test_in_float32(case, impl):
    case["radius"] = min(case["radius"], 40)
    assert_equal(*both(case, impl, torch.float32), tolerance=1e-5)


CASE = {
    "seed": 0, "length": 150, "batch": 2, "n_kv": 2, "dv": D, "radius": 7, "smallest": None, "causal": False,
    "mask": None, "hooks": None, "padding": "some", "places": None, "scale": None,
}  # fmt: skip


@pytest.mark.parametrize("impl", ["blocked", "unfold"])
@pytest.mark.parametrize("changed", [{}, {"causal": True}, {"hooks": HOOKS[-1], "n_kv": 1}, {"radius": 30}], ids=str)
def test_in_bfloat16_the_error_is_at_most_twice_that_of_dense(impl, changed):
    """Both are compared with float64 on the same, rounded, inputs.

    Not so the gradients of keys and values: each is a sum of its rounded copies, 2 radius + 1 or three, in bfloat16.
    """
    case = CASE | changed
    results = []
    for dtype in (torch.float64, torch.bfloat16):
        torch.manual_seed(0)
        leaves = [x.detach().bfloat16().to(dtype).requires_grad_() for x in heads(case)]
        given_, _ = arguments(case, torch.bfloat16)
        toy = given_["position"]
        given_["position"] = None if toy is None else toy.to(dtype)
        parameters = [] if toy is None else [*toy.parameters()]
        for way in ("dense", impl):
            f = partial(local_attention, *leaves, case["radius"], impl=way, **given_)
            results.append(with_gradients(f, leaves + parameters))
    exact, exact_blocked, dense, ours = results
    assert_equal(exact_blocked, exact)
    assert {x.dtype for x in ours} == {torch.bfloat16}
    triples = zip(errors(ours, exact), errors(dense, exact), units(exact, torch.bfloat16), strict=True)
    for i, (error, allowed, unit) in enumerate(triples):
        copies = {"unfold": 6, "blocked": 3}[impl]
        assert error <= (copies if i in (2, 3) else 2) * allowed + unit, i


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("impl", ["blocked", "unfold", "dense"])
@pytest.mark.parametrize("hooks", [None, ("bias",), ("rotate", "bias", "score")])
def test_never_nan(dtype, impl, hooks):
    """All keys masked, a pattern that allows nothing, places far from zero: zeros, and gradients that are numbers."""
    for changed in ({"padding": "all"}, {"mask": MASKS[-1]}, {"padding": "one sequence"}, {"places": "far"}):
        case = CASE | {"hooks": hooks, "length": 61} | changed
        far = case["places"] == "far"
        torch.manual_seed(0)
        leaves = heads(case, dtype)
        given_, parameters = arguments(case | {"places": None if far else case["places"]}, dtype)
        if far:  # 100,000 is beyond float16; a distance within the text is not
            given_["q_pos"] = given_["k_pos"] = torch.arange(61) + 100_000
            given_["position"] = None if hooks is None else scheme(set(hooks) - {"rotate"}, dtype)
            parameters = [] if hooks is None else [*given_["position"].parameters()]
        f = partial(local_attention, *leaves, 3, impl=impl, **given_)
        y, *gradients = with_gradients(f, leaves + parameters)
        assert all(x.isfinite().all() for x in (y, *gradients))
        empty = {"all": slice(None), "one sequence": slice(-1, None), "some": slice(0, 0)}[case["padding"]]
        assert not y[slice(None) if case["mask"] else empty].any()


# --- by hand ---


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 7), st.integers(0, 8), st.booleans(), st.sampled_from([None, HOOKS[-1]]),
    st.sampled_from([None, 1, 2, 3]), st.sampled_from(["blocked", "unfold", "dense"]), st.integers(0, 10**6),
)  # fmt: skip
def test_by_hand(length, radius, is_causal, hooks, smallest, impl, seed):
    """One loop over pairs says who sees whom: |i - j| <= radius, no padding, nothing later if causal."""
    torch.manual_seed(seed)
    case = CASE | {"length": length, "n_kv": 1, "dv": 3}
    q, k, v = heads(case)
    keys, toy = torch.rand(2, length) < 0.7, None if hooks is None else scheme(hooks)
    pos = torch.randint(1, 3, (2, length)).cumsum(-1) - 4

    def allowed(b, h, i, j):
        return abs(pos[b, i] - pos[b, j]) <= radius and keys[b, j] and not (is_causal and pos[b, j] > pos[b, i])

    want, weights = by_hand(q, k, v, allowed, q_pos=pos, k_pos=pos, toy=toy)
    given_ = {"key_mask": keys, "position": toy, "q_pos": pos, "k_pos": pos, "causal": is_causal}
    with blocks_of(smallest):
        got = local_attention(q, k, v, radius, impl=impl, **given_)
        # Values that name their key: the output is the matrix of weights, and a key that counts twice shows.
        named = torch.eye(length).double().expand(2, 1, length, length)
        seen = local_attention(q, k, named, radius, impl=impl, **given_)
    assert torch.allclose(got, want, atol=1e-12)
    assert torch.allclose(seen, weights, atol=1e-12)
    _, recorded = local_attention(q, k, v, radius, impl="dense", return_weights=True, **given_)
    assert torch.allclose(recorded, weights, atol=1e-12)
    assert torch.allclose(recorded.sum(-1).round(decimals=10), (weights > 0).any(-1).double())


@pytest.mark.parametrize("impl", ["blocked", "unfold", "dense"])
@pytest.mark.parametrize("radius", [0, 1, 5, 16, 20, 200])
@pytest.mark.parametrize("length", [1, 48, 49, 64, 65, 130])
def test_equal_keys_are_averaged(impl, radius, length):
    """Without differences each of the 2 radius + 1 neighbours that there are has the same weight."""
    q = k = torch.zeros(1, 1, length, 2)
    seen = local_attention(q, k, torch.eye(length)[None, None], radius, impl=impl)[0, 0]
    for i in range(length):
        near = [float(abs(i - j) <= radius) for j in range(length)]
        assert torch.allclose(seen[i], torch.tensor(near) / sum(near))


def test_no_token_at_all():
    q = torch.zeros(2, 3, 0, 4)
    for impl in ("blocked", "unfold", "dense"):
        assert local_attention(q, q, q, 2, impl=impl).shape == (2, 3, 0, 4)


def test_unfold_puts_a_token_in_the_middle_of_its_neighbours():
    assert unfold_kv(torch.tensor([[1, 2, 3]]), 1).tolist() == [[[0, 1, 2], [1, 2, 3], [2, 3, 0]]]
    x = torch.randn(2, 5, 3, 4)
    assert unfold_kv(x, 2).shape == (2, 5, 5, 3, 4)
    assert torch.equal(unfold_kv(x, 2)[:, :, 2], x)


def test_a_block_is_as_long_as_the_radius():
    assert [block_of(radius) for radius in (0, 15, 16, 17, 64)] == [16, 16, 16, 17, 64]


# --- positions ---


class Distance(Position):
    """Dislikes distance; keeps what it was asked."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def bias(self, q_pos, k_pos):
        self.asked.append((q_pos, k_pos))
        return -0.1 * (q_pos.unsqueeze(-1) - k_pos.unsqueeze(-2)).abs().unsqueeze(-3).double()


@pytest.mark.slow
@pytest.mark.parametrize("impl", ["blocked", "unfold"])
@pytest.mark.parametrize("offset", [0, 1000, -30])
def test_hooks_are_asked_block_by_block_for_true_places(impl, offset):
    """70 tokens: 5 blocks of 16 queries, or 70 of one; what fills the last block stands on a place of the text too."""
    torch.manual_seed(0)
    q, k, v = heads(CASE | {"batch": 1, "length": 70})
    pos, spy = torch.randint(1, 3, (70,)).cumsum(0) + offset, Distance()
    got = local_attention(q, k, v, 4, impl=impl, position=spy, q_pos=pos, k_pos=pos)
    ((q_pos, k_pos),) = spy.asked
    assert (q_pos.shape, k_pos.shape) == (((5, 16), (5, 48)) if impl == "blocked" else ((70, 1), (70, 9)))
    assert torch.equal(q_pos.flatten()[:70], pos)
    assert {*q_pos.flatten().tolist()} == {*pos.tolist()} == {*k_pos.flatten().tolist()}
    if impl == "blocked":
        assert torch.equal(k_pos[1], pos[:48])
    want, _ = by_hand(
        q, k, v, lambda b, h, i, j: abs(pos[i] - pos[j]) <= 4, q_pos=pos[None], k_pos=pos[None], toy=None,
    )  # fmt: skip
    assert not torch.allclose(got, want)
    far = (pos[:, None] - pos).abs()
    logits = (q @ k.mT / 2 - 0.1 * far).masked_fill(far > 4, -torch.inf)
    assert torch.allclose(got, logits.softmax(-1) @ v, atol=1e-12)


@pytest.mark.parametrize("impl", ["blocked", "unfold", "dense"])
def test_a_shift_of_all_places_changes_nothing_for_relative_schemes(impl):
    torch.manual_seed(0)
    q, k, v = heads(CASE)
    pos = torch.randint(1, 3, (2, 150)).cumsum(-1)
    for position in (scheme(("rotate", "bias")), scheme(("bias", "score")), Distance()):
        outputs = [
            local_attention(q, k, v, 7, impl=impl, position=position, q_pos=pos + shift, k_pos=pos + shift)
            for shift in (0, 1, 500, -77)
        ]
        for output in outputs[1:]:
            assert torch.allclose(output, outputs[0], atol=1e-10)


def test_rotation_is_done_once_for_the_whole_text():
    class Spy(Toy):
        def rotate(self, q, k, q_pos, k_pos):
            calls.append((q.shape, k.shape))
            return super().rotate(q, k, q_pos, k_pos)

    for impl in ("blocked", "unfold"):
        calls = []
        local_attention(*heads(CASE), 3, impl=impl, position=Spy(H, D).double())
        assert calls == [((2, H, 150, D), (2, H, 150, D))]


# --- with a cache ---


@pytest.mark.parametrize("radius", [0, 1, 3, 20])
@pytest.mark.parametrize("sizes", [[1] * 12, [5, *[1] * 7], [12], [3, 0, 4, 5]])
@pytest.mark.parametrize("kind", ["all", "window"])
def test_cached_decoding_equals_the_whole_text(radius, sizes, kind):
    fn, mask = partial(local_attention, radius=radius), causal & window(radius)  # a cache of a window must be told
    module = MultiHeadAttention(8, 4, n_kv_heads=2, head_dim=4, mask=mask, position=Toy(4, 4), attention_fn=fn)
    module, x = randomise(module).double(), torch.randn(2, 12, 8).double()
    cache, outputs, begin = KVCache(12) if kind == "all" else WindowKVCache(radius), [], 0
    with torch.no_grad():
        for size in sizes:
            outputs.append(module(x[:, begin : begin + size], cache=cache))
            begin += size
        assert torch.allclose(torch.cat(outputs, 1), module(x), atol=1e-12)
        with blocks_of(2):
            assert torch.allclose(torch.cat(outputs, 1), module(x), atol=1e-12)
        module.set_attention_fn(attention)
        assert torch.allclose(torch.cat(outputs, 1), module(x), atol=1e-12)


# --- what it reaches, and what it costs ---


@pytest.mark.parametrize("impl", ["blocked", "unfold"])
@pytest.mark.parametrize("is_causal", [False, True])
def test_nothing_comes_from_beyond_the_radius(impl, is_causal):
    """A token that changes changes bits at most `radius` places away, and there all."""
    torch.manual_seed(0)
    q, k, v = (x.detach().float() for x in heads(CASE))
    want = local_attention(q, k, v, 5, impl=impl, causal=is_causal)
    for place in (0, 15, 16, 77, 149):
        changed = [x.clone() for x in (q, k, v)]
        for x in changed:
            x[:, :, place] = torch.randn(x.shape[:2] + x.shape[3:])
        got = local_attention(*changed, 5, impl=impl, causal=is_causal)
        moved = (got != want).any(-1).all(1)  # (B, T)
        first, last = (place if is_causal else max(0, place - 5)), min(149, place + 5)
        assert (got == want).all(-1).all(1)[:, [i for i in range(150) if not first <= i <= last]].all()
        assert moved[:, first : last + 1].all()


def flops(length, impl, radius=16):
    q, k, v = (torch.randn(1, 1, length, 4, requires_grad=True) for _ in range(3))
    return count_flops(lambda: local_attention(q, k, v, radius, impl=impl).sum().backward())


def test_twice_the_text_costs_twice_as_much_in_blocks_and_four_times_densely():
    assert flops(1024, "blocked") / flops(512, "blocked") == pytest.approx(2, rel=0.05)
    assert flops(512, "unfold") / flops(256, "unfold") == pytest.approx(2, rel=0.05)
    assert flops(512, "dense") / flops(256, "dense") == pytest.approx(4, rel=0.05)
    assert flops(512, "blocked", 64) / flops(512, "blocked", 32) == pytest.approx(2, rel=0.05)
    assert flops(512, "dense") / flops(512, "blocked") == pytest.approx(512 / 48, rel=0.01)  # three blocks of 16
    assert flops(512, "dense") / flops(512, "unfold") == pytest.approx(512 / 33, rel=0.01)


def test_causal_blocks_look_at_two_of_three():
    q, k, v = (torch.randn(1, 1, 512, 4) for _ in range(3))
    one, other = (count_flops(lambda c=c: local_attention(q, k, v, 16, causal=c)) for c in (True, False))
    assert one / other == pytest.approx(2 / 3, rel=0.01)


# --- refusals ---

REFUSED = {
    name: case
    for name, case in BAD.items()
    if not isinstance(case[0].get("mask"), torch.Tensor | list) and "mask" not in name
    and "one bool" not in name and not name.startswith(("places of more rows", "q_pos"))
}  # fmt: skip


@pytest.mark.parametrize("impl", ["blocked", "unfold", "dense"])
@pytest.mark.parametrize("name", REFUSED)
def test_bad_arguments_name_themselves(name, impl):
    """As `attention` does, in a text that is short, and in one that is not."""
    changed, words = REFUSED[name]
    with pytest.raises(ValueError, match=re.escape(words)):
        call(partial(local_attention, radius=2, impl=impl), **changed)


LONG = {"q": torch.randn(2, 4, 60, 6), "k": torch.randn(2, 2, 60, 6), "v": torch.randn(2, 2, 60, 3)}
PLACES = torch.arange(60)
FEW = {name: x[:, :, :5] for name, x in LONG.items()}


@pytest.mark.parametrize("text", [LONG, FEW], ids=["long", "short"])
@pytest.mark.parametrize("impl", ["blocked", "unfold"])
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda n: {"radius": -1}, "radius=-1; it must be 0 or more"),
        (lambda n: {"impl": "fast"}, "impl='fast'; allowed are 'blocked', 'unfold', 'dense', 'flex'"),
        (lambda n: {"mask": torch.ones(n, n).bool()}, "mask is a Tensor; needed is a Pattern"),
        (lambda n: {"mask": [1], "causal": True}, "mask is a list; needed is a Pattern"),
        (lambda n: {"q_pos": PLACES[:n].flip(0), "k_pos": PLACES[:n].flip(0)}, "q_pos, k_pos: they must be equal and"),
        (lambda n: {"q_pos": PLACES[:n] // 2, "k_pos": PLACES[:n] // 2}, "they must be equal and rise from token to"),
        (lambda n: {"q_pos": PLACES[:n], "k_pos": PLACES[:n] + 1}, "q_pos, k_pos: they must be equal"),
        (lambda n: {"q_pos": PLACES[:n]}, "q_pos and k_pos must both be given"),
        (lambda n: {"q_pos": PLACES[:n].to("meta"), "k_pos": PLACES[:n]}, "q_pos is on meta; q is on cpu"),
        (lambda n: {"q_pos": PLACES[:n], "k_pos": PLACES[:n].to("meta")}, "k_pos is on meta; q is on cpu"),
        (lambda n: {"key_mask": torch.ones(2, n).bool().to("meta")}, "key_mask is on meta; q is on cpu"),
        (lambda n: {"key_mask": torch.ones(2, n)}, "key_mask is torch.float32"),
        (lambda n: {"key_mask": torch.ones(n).bool()}, "key_mask is torch.bool"),
        (lambda n: {"key_mask": torch.ones(1, n).bool()}, "key_mask is torch.bool"),
    ],
)
def test_bad_input_names_itself(impl, text, changed, words):
    given_ = {"radius": 2, "impl": impl} | changed(text["q"].shape[2])
    with pytest.raises(ValueError, match=re.escape(words)):
        local_attention(**text, **given_)


def test_blocks_need_the_same_text_on_both_sides():
    with pytest.raises(ValueError, match="q has 60 tokens, k 5; blocks need the same text on both sides"):
        text_of(LONG["q"], FEW["k"], FEW["v"], None, None, None, None)
    with pytest.raises(ValueError, match="must both be given for 5 queries and 60 keys"):
        local_attention(FEW["q"], LONG["k"], LONG["v"], 2)


@pytest.mark.parametrize("impl", ["blocked", "unfold", "dense"])
@pytest.mark.parametrize("n", [5, 55])
def test_few_queries_of_a_long_text(n, impl):
    """T differs from S: the last of sixty, with their own places."""
    whole = local_attention(**LONG, radius=3)
    few = local_attention(LONG["q"][:, :, -n:], LONG["k"], LONG["v"], 3, impl=impl, q_pos=PLACES[-n:], k_pos=PLACES)
    assert relative_error(few, whole[:, :, -n:]) < 1e-6


@pytest.mark.parametrize("impl", ["blocked", "unfold", "dense", "flex"])
def test_who_asks_for_weights_gets_all_of_them(impl):
    y, weights = local_attention(**LONG, radius=3, impl=impl, causal=True, return_weights=True)
    assert relative_error(y, local_attention(**LONG, radius=3, causal=True)) < 1e-6
    allowed = (causal & window(3)).dense(PLACES, PLACES)
    assert ((weights > 0) == allowed).all()
    assert torch.allclose(weights.sum(-1), torch.ones(2, 4, 60))
