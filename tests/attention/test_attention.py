"""Attention: patterns, weights, symmetry, what may not leak, and what is refused."""

import copy
import re
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.attention import (
    AdditiveAttention,
    KVCache,
    MultiHeadAttention,
    Pattern,
    Places,
    WindowKVCache,
    attention,
    causal,
    fused,
    local_attention,
    masked_softmax,
    sdpa,
    window,
)
from course_lib.attention.flex import flex_attention
from course_lib.attention.online import online_attention
from course_lib.positions import LearnedPosition, Position, SinusoidalPosition
from course_lib.positions.absolute import sinusoids
from tests.conftest import randomise, relative_error
from tests.positions.toy import Toy

places = st.lists(st.integers(-20, 300), min_size=1, max_size=8)
SINK = Pattern("sink", lambda q_pos, k_pos: k_pos == 0)
RULES = {
    "causal": (causal, lambda q, k: k <= q),
    "window(0)": (window(0), lambda q, k: q == k),
    "window(3)": (window(3), lambda q, k: -3 <= q - k <= 3),
    "(causal & window(3))": (causal & window(3), lambda q, k: 0 <= q - k <= 3),
    "(causal | window(3))": (causal | window(3), lambda q, k: q - k >= -3),
    "((causal & window(1)) | sink)": ((causal & window(1)) | SINK, lambda q, k: 0 <= q - k <= 1 or k == 0),
    "(causal & (window(1) | sink))": (causal & (window(1) | SINK), lambda q, k: k <= q and (q - k <= 1 or k == 0)),
}


@settings(deadline=None, max_examples=25)
@given(places, places, st.booleans(), st.booleans(), st.sampled_from([torch.int64, torch.int32]))
def test_a_dense_pattern_is_its_rule_pair_by_pair(q_pos, k_pos, q_by_row, k_by_row, dtype):
    q_rows = [q_pos, [p + 1 for p in q_pos]] if q_by_row else [q_pos]
    k_rows = [k_pos, k_pos[::-1]] if k_by_row else [k_pos]
    q, k = (torch.tensor(rows, dtype=dtype) for rows in (q_rows, k_rows))
    for name, (pattern, rule) in RULES.items():
        got = pattern.dense(q if q_by_row else q[0], k if k_by_row else k[0])
        n_rows = max(len(q_rows), len(k_rows))
        want = [[[rule(i, j) for j in k_rows[b % len(k_rows)]] for i in q_rows[b % len(q_rows)]] for b in range(n_rows)]
        assert got.dtype == torch.bool
        assert got.tolist() == (want if q_by_row or k_by_row else want[0]), name
        assert repr(pattern) == name


@pytest.mark.parametrize("radius", [0, 1, 3, 9, 100])
def test_a_window_sees_two_radii_and_itself(radius):
    pos = torch.arange(10)
    counts = window(radius).dense(pos, pos).sum(1)
    assert counts.tolist() == [min(i, radius) + 1 + min(9 - i, radius) for i in range(10)]
    assert (causal & window(radius)).dense(pos, pos).sum(1).tolist() == [min(i, radius) + 1 for i in range(10)]


def test_a_pattern_of_one_side_alone_has_the_whole_shape():
    q_pos, k_pos = torch.arange(3), torch.arange(4)
    for rule in (lambda q, k: k == 0, lambda q, k: q == 0, lambda q, k: torch.tensor(True)):
        assert Pattern("one", rule).dense(q_pos, k_pos).shape == (3, 4)
        assert Pattern("one", rule).dense(q_pos.expand(2, 3), k_pos).shape == (2, 3, 4)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 6), st.integers(1, 6), st.integers(0, 10**6), st.sampled_from(["causal", "tensor", "additive"]))
def test_rows_of_weights_sum_to_one_or_zero(n_queries, n_keys, seed, way):
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(2, 2, n, 4, generator=generator) for n in (n_queries, n_keys))
    keys = torch.rand(2, n_keys, generator=generator) < 0.6
    q_pos, k_pos = torch.arange(n_queries) - 1, torch.arange(n_keys)
    allowed = (
        torch.rand(n_queries, n_keys, generator=generator) < 0.6 if way == "tensor" else causal.dense(q_pos, k_pos)
    )
    mask = allowed if way == "tensor" else causal
    function = AdditiveAttention(4, 3) if way == "additive" else lambda *a, **b: attention(*a, **b, impl="explicit")
    output, weights = function(q, k, k, mask=mask, key_mask=keys, q_pos=q_pos, k_pos=k_pos, return_weights=True)
    whole = allowed & keys[:, None, None]
    assert weights.shape == (2, 2, n_queries, n_keys)
    assert torch.equal(weights > 0, whole.expand_as(weights))
    assert torch.allclose(weights.sum(-1), whole.any(-1).expand(2, 2, -1).float())
    assert torch.allclose(output, weights @ k, atol=1e-6)


def test_masked_softmax_is_a_softmax_of_the_allowed():
    logits = torch.randn(3, 4, dtype=torch.float64)
    allowed = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    got = masked_softmax(logits, allowed)
    assert torch.allclose(got[0], logits[0].softmax(-1))
    assert torch.allclose(got[1, [0, 2]], logits[1, [0, 2]].softmax(-1))
    assert got[1, [1, 3]].tolist() == [0, 0]
    assert got[2].tolist() == [0, 0, 0, 0]
    assert got.dtype == torch.float64
    assert masked_softmax(logits.bfloat16(), None).dtype == torch.float32
    assert masked_softmax(torch.full((1, 2), torch.finfo(torch.float32).min), allowed[:1, :2]).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("fn", ["fused", "explicit", "additive"])
def test_without_order_a_permutation_goes_through(fn):
    own = AdditiveAttention(4, 3) if fn == "additive" else lambda *a, **b: attention(*a, **b, impl=fn)
    module = randomise(MultiHeadAttention(8, 2, attention_fn=own)).double()
    x, keys = torch.randn(2, 6, 8).double(), torch.rand(2, 6) < 0.7
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert torch.allclose(
        module(x[:, order], Places(key_mask=keys[:, order])), module(x, Places(key_mask=keys))[:, order]
    )
    module.mask = causal  # with an order it no longer does
    assert not torch.allclose(module(x[:, order]), module(x)[:, order])


@pytest.mark.parametrize("anything", [1e3, torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("fn", ["fused", "explicit", "additive", "online", "unfold", "blocked", "flex"])
def test_hidden_keys_and_values_may_hold_anything(fn, anything):
    """Outputs and gradients stay, bit by bit: a weight of 0 times NaN would be NaN."""
    functions = {
        "additive": randomise(AdditiveAttention(4, 3)), "online": partial(online_attention, tile=4),
        "unfold": partial(local_attention, radius=3, impl="unfold"), "blocked": partial(local_attention, radius=3),
        "flex": flex_attention,
    }  # fmt: skip
    own = functions.get(fn) or partial(attention, impl=fn)
    given_, keys = torch.randn(3, 2, 2, 70, 4), torch.ones(2, 70, dtype=torch.bool)
    keys[0, 40:] = False
    results = []
    for value in (0.0, anything):
        q, k, v = (x.clone() for x in given_)
        k[0, :, 40:] = v[0, :, 40:] = value
        k, v = k.requires_grad_(fn != "flex"), v.requires_grad_(fn != "flex")
        y = own(q, k, v, key_mask=keys)
        if fn != "flex":  # which has none on a CPU
            y.square().sum().backward()
        results.append((y, k.grad, v.grad))
    for one, other in zip(*results, strict=True):
        assert one is other is None or torch.equal(one, other)
    with torch.no_grad():
        assert torch.allclose(y[0, :, :37], own(*(x[:1, :, :40] for x in (q, k, v)))[0, :, :37], atol=1e-5)


@pytest.mark.parametrize("fn", ["fused", "explicit", "additive", "online", "blocked"])
def test_a_row_of_biases_of_minus_infinity_gives_zeros(fn):
    """A scheme that hides by its bias, as one matrix of ALiBi and mask does: no NaN in outputs or gradients."""

    class Nothing(Position):
        def bias(self, q_pos, k_pos):
            return torch.where(q_pos.unsqueeze(-1) == 3, -torch.inf, 0.0).expand(-1, len(k_pos))[None]

    class Rows(Position):
        def bias(self, q_pos, k_pos):  # in blocks, positions have rows
            return torch.where(q_pos.unsqueeze(-1) == 3, -torch.inf, 0.0 * k_pos.unsqueeze(-2)).unsqueeze(-3)

    functions = {"additive": randomise(AdditiveAttention(4, 3)), "online": partial(online_attention, tile=4),
                 "blocked": partial(local_attention, radius=3)}  # fmt: skip
    own, pos = functions.get(fn) or partial(attention, impl=fn), torch.arange(70)
    q, k, v = (torch.randn(1, 2, 70, 4, requires_grad=True) for _ in range(3))
    y = own(q, k, v, position=Rows() if fn == "blocked" else Nothing(), q_pos=pos, k_pos=pos)
    assert y[0, :, 3].abs().max() == 0
    assert torch.allclose(y[0, :, 4:], own(q, k, v)[0, :, 4:], atol=1e-6)
    y.square().sum().backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v))
    assert q.grad[0, :, 3].abs().max() == 0


def kernel_calls(monkeypatch, f):
    seen = []
    kernel = fused.F.scaled_dot_product_attention

    def spy(*args, **options):
        seen.append(options)
        return kernel(*args, **options)

    monkeypatch.setattr(fused.F, "scaled_dot_product_attention", spy)
    f()
    monkeypatch.undo()
    return seen


def test_the_triangle_is_left_to_the_kernel_in_a_copied_model_too(monkeypatch):
    """A dense (T, T) mask would cost memory and the skipped half: copies of a model keep the short way."""
    module, x = MultiHeadAttention(8, 2, mask=causal), torch.randn(1, 5, 8)
    for model in (module, copy.deepcopy(module), copy.copy(module)):
        ((options),) = kernel_calls(monkeypatch, lambda model=model: model(x))
        assert options["is_causal"]
        assert options["attn_mask"] is None
    module.mask = causal & window(3)
    ((options),) = kernel_calls(monkeypatch, lambda: module(x))
    assert not options["is_causal"]
    assert options["attn_mask"].shape == (5, 5)
    module.mask = torch.ones(5, 5, dtype=torch.bool)
    ((options),) = kernel_calls(monkeypatch, lambda: module(x))
    assert options["attn_mask"] is module.mask
    module.position = Toy(2, 4, ("bias",))  # with fewer than four axes the slow kernel would take it
    ((options),) = kernel_calls(monkeypatch, lambda: module(x))
    assert options["attn_mask"].shape == (1, 2, 5, 5)


def test_repeated_heads_stay_in_their_groups():
    x = torch.arange(3.0)[None, :, None, None].expand(2, 3, 4, 5)
    assert sdpa.repeat_heads(x, 6)[0, :, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(sdpa.repeat_heads(x, 3), x)


Q, K, V = torch.randn(2, 4, 5, 6), torch.randn(2, 2, 5, 6), torch.randn(2, 2, 5, 3)
FIVE = torch.arange(5)


def call(fn, **changed):
    arguments = {"q": Q, "k": K, "v": V} | changed
    return fn(arguments.pop("q"), arguments.pop("k"), arguments.pop("v"), **arguments)


BAD = {
    "q is a list": ({"q": [[1.0]]}, "q is list; needed is a floating-point tensor"),
    "q is a number": ({"q": torch.tensor(1.0)}, "q is torch.float32 (); needed"),
    "k of integers": ({"k": K.long()}, "k is torch.int64 (2, 2, 5, 6)"),
    "v of three axes": ({"v": V[0]}, "v is torch.float32 (2, 5, 3)"),
    "v is None": ({"v": None}, "v is NoneType"),
    "k of another type": ({"k": K.double()}, "k is torch.float64 on cpu; q is torch.float32 on cpu"),
    "v elsewhere": ({"v": V.to("meta")}, "v is torch.float32 on meta; q is torch.float32 on cpu"),
    "another width": ({"k": K[..., :5]}, "q, k, v have shapes (2, 4, 5, 6), (2, 2, 5, 5), (2, 2, 5, 3)"),
    "no width": ({"q": Q[..., :0], "k": K[..., :0]}, "q, k, v have shapes (2, 4, 5, 0)"),
    "another batch": ({"q": Q[:1]}, "q, k, v have shapes (1, 4, 5, 6)"),
    "values of other tokens": ({"v": V[:, :, :4]}, "(2, 2, 4, 3); needed are"),
    "values of other heads": ({"v": V[:, :1]}, "(2, 1, 5, 3); needed are"),
    "heads that do not divide": ({"q": Q[:, :3]}, "(B, Hkv, S, Dv) with H a multiple of Hkv"),
    "no key head": ({"k": K[:, :0], "v": V[:, :0]}, "(2, 0, 5, 6)"),
    "mask of lists": ({"mask": [[True] * 5] * 5}, "mask is list; needed is a Pattern or a bool tensor"),
    "mask of numbers": ({"mask": torch.zeros(5, 5)}, "mask is torch.float32 (5, 5); needed is a Pattern or a bool"),
    "mask of 0 and 1": ({"mask": torch.ones(5, 5).byte()}, "mask is torch.uint8"),
    "mask of three axes": ({"mask": torch.ones(2, 5, 5).bool()}, "mask has shape (2, 5, 5); needed are 2 or 4 axes"),
    "mask of the heads": ({"mask": torch.ones(4, 5, 5).bool()}, "mask has shape (4, 5, 5); needed are 2 or 4 axes"),
    "mask of one axis": ({"mask": torch.ones(5).bool()}, "mask has shape (5,)"),
    "mask too wide": ({"mask": torch.ones(5, 6).bool()}, "mask has shape (5, 6); needed are 2 or 4 axes that"),
    "mask of more rows": ({"mask": torch.ones(3, 1, 5, 5).bool()}, "broadcast to (2, 4, 5, 5)"),
    "mask of the key heads": ({"mask": torch.ones(2, 2, 5, 5).bool()}, "mask has shape (2, 2, 5, 5)"),
    "mask elsewhere": ({"mask": torch.ones(5, 5).bool().to("meta")}, "mask is on meta; q is on cpu"),
    "a pattern of numbers": (
        {"mask": Pattern("mine", lambda q, k: (k <= q).float())},
        "allowed of the pattern mine gives torch.float32; needed is a bool tensor",
    ),
    "a pattern of one bool": ({"mask": Pattern("mine", lambda q, k: True)}, "pattern mine gives bool"),
    "key_mask of a list": ({"key_mask": [[True] * 5] * 2}, "key_mask is list; needed is bool (2, 5)"),
    "key_mask of numbers": ({"key_mask": torch.ones(2, 5)}, "key_mask is torch.float32 (2, 5); needed is bool (2, 5)"),
    "key_mask of one row": ({"key_mask": torch.ones(5).bool()}, "key_mask is torch.bool (5,)"),
    "key_mask turned": ({"key_mask": torch.ones(5, 2).bool()}, "key_mask is torch.bool (5, 2)"),
    "key_mask elsewhere": ({"key_mask": torch.ones(2, 5).bool().to("meta")}, "key_mask is on meta"),
    "no positions": ({"mask": causal, "q": Q[:, :, :3]}, "must both be given for 3 queries and 5 keys"),
    "no positions, no pattern": ({"position": Position(), "q": Q[:, :, :3]}, "q_pos and k_pos must both be given"),
    "q_pos alone": ({"mask": causal, "q_pos": FIVE}, "q_pos and k_pos must both be given for 5 queries and 5 keys"),
    "k_pos alone": ({"mask": causal, "k_pos": FIVE}, "q_pos and k_pos must both be given"),
    "a list of places": ({"mask": causal, "q_pos": [0, 1, 2, 3, 4], "k_pos": FIVE}, "q_pos is list; needed is an int"),
    "places with halves": ({"mask": causal, "q_pos": FIVE, "k_pos": FIVE.float()}, "k_pos is torch.float32"),
    "few places": ({"mask": causal, "q_pos": FIVE[:4], "k_pos": FIVE}, "q_pos has shape (4,); needed is (5,) or (2"),
    "few places of keys": ({"mask": causal, "q_pos": FIVE, "k_pos": FIVE[:4]}, "k_pos has shape (4,); needed is (5,)"),
    "places of keys of more rows": ({"mask": causal, "q_pos": FIVE, "k_pos": FIVE.expand(3, 5)}, "k_pos has shape (3,"),
    "one place": ({"mask": causal, "q_pos": FIVE, "k_pos": torch.tensor(3)}, "k_pos has shape (); needed"),
    "places of more rows": (
        {"mask": causal, "q_pos": FIVE.expand(3, 5), "k_pos": FIVE},
        "q_pos has shape (3, 5); needed is (5,) or (2, 5)",
    ),
    "queries' places elsewhere": ({"mask": causal, "q_pos": FIVE.to("meta"), "k_pos": FIVE}, "q_pos is on meta; q is"),
    "places elsewhere": ({"mask": causal, "q_pos": FIVE, "k_pos": FIVE.to("meta")}, "k_pos is on meta; q is on cpu"),
}  # fmt: skip


@pytest.mark.parametrize("fn", ["fused", "explicit", "additive"])
@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_name_themselves(name, fn):
    own = AdditiveAttention(6, 3) if fn == "additive" else lambda *a, **b: attention(*a, **b, impl=fn)
    changed, words = BAD[name]
    with pytest.raises(ValueError, match=re.escape(words)):
        call(own, **changed)


def test_one_sequence_does_not_become_three():
    """Places of more rows than there are sequences would broadcast."""
    for impl in ("explicit", "fused"):
        with pytest.raises(ValueError, match=r"q_pos has shape \(3, 5\)"):
            attention(Q[:1], K[:1], V[:1], mask=causal, q_pos=FIVE.expand(3, 5), k_pos=FIVE, impl=impl)


def of_length(n):
    cache = KVCache(9)
    cache.update(torch.zeros(1, 2, n, 4), torch.zeros(1, 2, n, 4), torch.arange(n))
    return cache


def mha(**changed):
    return MultiHeadAttention(**({"d_model": 8, "n_heads": 2} | changed))


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: attention(Q, K, V, impl="flash"), "impl='flash'; allowed are 'explicit', 'fused'"),
        (lambda: window(-1), "radius=-1; it must be 0 or more"),
        (lambda: causal.dense(FIVE.float(), FIVE), "q_pos is torch.float32; needed is an int64 or int32 tensor"),
        (lambda: causal.dense(FIVE, FIVE[None, None]), "k_pos has shape (1, 1, 5); needed is (T,) or (B, T)"),
        (lambda: causal.dense(torch.tensor(1), FIVE), "q_pos has shape ()"),
        (lambda: AdditiveAttention(0, 3), "head_dim=0; it must be 1 or more"),
        (lambda: AdditiveAttention(3, 0), "hidden=0; it must be 1 or more"),
        (lambda: AdditiveAttention(5, 3)(Q, K, V), "q has shape (2, 4, 5, 6); needed is a width of head_dim=5"),
        (lambda: mha(n_heads=3), "n_heads=3 does not divide d_model=8; choose another, or give head_dim"),
        (lambda: mha(n_heads=0), "n_heads=0; it must be 1 or more"),
        (lambda: mha(d_model=0), "d_model=0; it must be 1 or more"),
        (lambda: mha(head_dim=0), "head_dim=0; it must be 1 or more"),
        (lambda: mha(n_kv_heads=0), "n_kv_heads=0; it must be 1 or more"),
        (lambda: mha(n_heads=4, n_kv_heads=3), "n_kv_heads=3 does not divide n_heads=4"),
        (lambda: mha(n_kv_heads=4), "n_kv_heads=4 does not divide n_heads=2"),
        (lambda: mha()(torch.randn(2, 5, 7)), "x has shape (2, 5, 7); needed is (B, tokens, 8)"),
        (lambda: mha()(torch.randn(5, 8)), "x has shape (5, 8)"),
        (lambda: mha()(torch.randn(2, 5, 8), context=torch.randn(2, 5, 7)), "context has shape (2, 5, 7)"),
        (lambda: mha()(torch.randn(2, 5, 8), context=torch.randn(3, 5, 8)), "q, k, v have shapes (2, 2, 5, 4), (3,"),
        (
            lambda: mha()(torch.randn(2, 5, 8), Places(context_pos=FIVE)),
            "context_pos: it gives the places of a",
        ),
        (lambda: mha(mask=causal)(torch.randn(2, 5, 8), context=torch.randn(2, 4, 8)), "must both be given for 5 quer"),
        (lambda: sinusoids(FIVE, 7), "d_model=7; it must be even and at least 2"),
        (lambda: SinusoidalPosition(0), "d_model=0; it must be even"),
        (lambda: LearnedPosition(0, 4), "max_positions=0; it must be 1 or more"),
        (lambda: LearnedPosition(4, 0), "d_model=0; it must be 1 or more"),
        (lambda: LearnedPosition(4, 8).embed(torch.zeros(1, 5, 8), FIVE), "pos goes from 0 to 4; learned are 0 to 3"),
        (
            lambda: LearnedPosition(9, 8).embed(torch.zeros(1, 5, 8), FIVE - 1),
            "pos goes from -1 to 3; learned are 0 to",
        ),
        (lambda: LearnedPosition(9, 8).embed(torch.zeros(1, 5, 8), FIVE[:4]), "pos has shape (4,); needed is (5,)"),
        (lambda: LearnedPosition(9, 8).embed(torch.zeros(1, 5, 8), FIVE.expand(3, 5)), "pos has shape (3, 5)"),
        (lambda: SinusoidalPosition(8).embed(torch.zeros(1, 5, 8), FIVE.expand(3, 5)), "pos has shape (3, 5)"),
        (lambda: SinusoidalPosition(8).embed(torch.zeros(1, 5, 8), FIVE.float()), "pos is torch.float32"),
    ],
)
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()


def test_the_last_learned_position_is_there():
    table = LearnedPosition(5, 8)
    assert torch.equal(table.embed(torch.zeros(1, 5, 8), FIVE)[0], table.embedding.weight)
    assert table.embed(torch.zeros(2, 0, 8), FIVE[:0]).shape == (2, 0, 8)


def test_position_itself_is_none():
    q, k, x = torch.randn(2, 4, 5, 6), torch.randn(2, 2, 5, 6), torch.randn(2, 5, 8)
    none = Position()
    assert none.embed(x, FIVE) is x
    rotated = none.rotate(q, k, FIVE, FIVE)
    assert rotated[0] is q
    assert rotated[1] is k
    assert none.bias(FIVE, FIVE) is None
    assert none.score(q, FIVE, FIVE) is None


def test_a_nan_stays_in_its_sequence():
    for impl in ("explicit", "fused"):
        q, k, v = (x.clone() for x in (Q, K, V))
        k[1, 0, 2, 0] = torch.nan
        y = attention(q, k, v, impl=impl)
        assert y[0].isfinite().all()
        assert y[1].isnan().any()


# --- caches ---

WIDTHS = {"MHA": None, "GQA": 2, "MQA": 1}
LENGTH = 11


def steps(module, x, cache, sizes, key_mask=None):
    """The outputs for x, handed over in pieces."""
    outputs, begin = [], 0
    for size in sizes:
        end = begin + size
        seen = None
        if key_mask is not None:
            seen = key_mask[:, :end]
        outputs.append(module(x[:, begin:end], Places(key_mask=seen), cache=cache))
        assert cache.length == end
        begin = end
    return torch.cat(outputs, 1)


def pieces(data):
    """A prefill of some size, further pieces, single steps: LENGTH tokens in all."""
    sizes = []
    while sum(sizes) < LENGTH:
        sizes.append(data.draw(st.integers(0, LENGTH - sum(sizes)) | st.just(1)))
        if len(sizes) > 6:
            sizes += [1] * (LENGTH - sum(sizes))
    return sizes


@settings(deadline=None, max_examples=40)
@given(st.data(), st.sampled_from([*WIDTHS]), st.booleans(), st.booleans(), st.integers(-1, 12))
def test_cached_decoding_equals_the_whole_text(data, width, with_position, with_padding, radius):
    """In any pieces, with any heads, padding, a scheme that uses all hooks; a window's cache under a window's mask."""
    torch.manual_seed(0)
    mask = causal if radius < 0 else causal & window(radius)
    toy = Toy(4, 6) if with_position else None
    module = MultiHeadAttention(8, 4, n_kv_heads=WIDTHS[width], head_dim=6, mask=mask, position=toy)
    module = randomise(module).double()
    x = torch.randn(2, LENGTH, 8).double()
    key_mask = torch.rand(2, LENGTH) < 0.7 if with_padding else None
    cache = KVCache(LENGTH + 2) if radius < 0 else WindowKVCache(radius)
    with torch.no_grad():
        got = steps(module, x, cache, pieces(data), key_mask)
        assert torch.allclose(got, module(x, Places(key_mask=key_mask)), atol=1e-12)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("cache", [lambda: KVCache(LENGTH), lambda: WindowKVCache(3)])
def test_cached_decoding_in_bfloat16(cache, width):
    mask = causal if isinstance(cache(), KVCache) else causal & window(3)
    module = randomise(MultiHeadAttention(16, 4, n_kv_heads=WIDTHS[width], mask=mask)).bfloat16()
    x = torch.randn(2, LENGTH, 16).bfloat16()
    with torch.no_grad():
        got, want = steps(module, x, cache(), [4, *[1] * 7]), module(x)
    assert got.dtype == torch.bfloat16
    assert relative_error(got, want) < 0.03  # four units in the last place


def test_a_cache_under_a_mask_that_looks_both_ways():
    """The pattern decides, not the cache: without one a step sees all that is there."""
    module = randomise(MultiHeadAttention(8, 2)).double()
    x = torch.randn(1, 5, 8).double()
    with torch.no_grad():
        got = steps(module, x, KVCache(5), [2, 1, 2])
        for begin, end in ((0, 2), (2, 3), (3, 5)):
            assert torch.allclose(got[:, begin:end], module(x[:, :end])[:, begin:])


def test_a_cache_gives_back_what_it_was_given():
    cache, window_cache = KVCache(7), WindowKVCache(2)
    k, v = torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 5)  # the widths may differ
    assert cache.bytes() == window_cache.bytes() == 0
    for begin, end in ((0, 3), (3, 3), (3, 4), (4, 7)):
        new = k[:, :, begin:end], v[:, :, begin:end], torch.arange(begin, end)
        got_k, got_v, pos = cache.update(*new)
        assert torch.equal(got_k, k[:, :, :end])
        assert torch.equal(got_v, v[:, :, :end])
        assert pos.tolist() == list(range(end))
        got_k, got_v, pos = window_cache.update(*new)
        first = max(0, begin - 2)
        assert torch.equal(got_k, k[:, :, first:end])
        assert torch.equal(got_v, v[:, :, first:end])
        assert pos.tolist() == list(range(first, end))
        assert pos.dtype == torch.int64
        assert cache.length == window_cache.length == end


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_bytes_are_those_of_the_tensors(dtype):
    size = torch.finfo(dtype).bits // 8

    def filled(cache, n_kv, n_tokens=5):
        mask = causal & window(0 if cache.reach == 0 else 3)
        module = MultiHeadAttention(24, 12, n_kv_heads=n_kv, mask=mask).to(dtype)
        with torch.no_grad():
            for _ in range(n_tokens):
                module(torch.randn(3, 1, 24, dtype=dtype), cache=cache)
        held = (cache._k, cache._v)
        # The storage, not the view: a slice of a larger tensor would keep all of it alive.
        assert cache.bytes() == sum(t.untyped_storage().nbytes() for t in held) == sum(t.nbytes for t in held)
        return cache.bytes()

    assert filled(KVCache(20), None) == 2 * 3 * 12 * 20 * 2 * size
    for n_kv in (1, 2, 3, 4, 6):
        assert filled(KVCache(20), None) * n_kv == 12 * filled(KVCache(20), n_kv)
    growth = [filled(WindowKVCache(3), 2, n_tokens) for n_tokens in (1, 2, 3, 4, 5, 9)]
    unit = 2 * 3 * 2 * 2 * size
    assert growth == [unit, 2 * unit, 3 * unit, 3 * unit, 3 * unit, 3 * unit]
    assert filled(WindowKVCache(0), 2) == 0
    prefilled = WindowKVCache(3)
    prefilled.update(*torch.randn(2, 3, 2, 16, 2, dtype=dtype).unbind(), torch.arange(16))
    assert prefilled.bytes() == 3 * unit
    assert prefilled._k.untyped_storage().nbytes() == 3 * unit // 2


def test_a_refused_update_leaves_the_cache_as_it_was():
    cache = KVCache(4)
    cache.update(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4), torch.arange(3))
    with pytest.raises(ValueError, match="k has 2 tokens after 3; the cache holds max_length=4"):
        cache.update(torch.zeros(1, 2, 2, 4), torch.zeros(1, 2, 2, 4), torch.arange(3, 5))
    k, _, pos = cache.update(torch.full((1, 2, 1, 4), 2.0), torch.ones(1, 2, 1, 4), torch.tensor([7]))
    assert k[0, 0, :, 0].tolist() == [1, 1, 1, 2]
    assert pos.tolist() == [0, 1, 2, 7]
    cache.length = 2  # two tokens taken back
    assert cache.update(k[:, :, :1], k[:, :, :1], torch.tensor([[5]]))[2].tolist() == [[0, 1, 5]]


X = torch.zeros(2, 3, 4, 5)


@pytest.mark.parametrize("make", [lambda: KVCache(20), lambda: WindowKVCache(3)])
@pytest.mark.parametrize(
    ("k", "v", "words"),
    [
        (X[0], X[0], "k has shape (3, 4, 5), v (3, 4, 5); equal must be all axes but the width"),
        (X, X[:, :, :1], "k has shape (2, 3, 4, 5), v (2, 3, 1, 5)"),
        (X[:1], X, "k has shape (1, 3, 4, 5), v (2, 3, 4, 5)"),
        (X, X[:, :1], "v (2, 1, 4, 5)"),
        (X[:1], X[:1], "k is torch.float32 (1, 3, 4, 5); the cache holds torch.float32 (2, 3,"),
        (X[:, :1], X[:, :1], "k is torch.float32 (2, 1, 4, 5); the cache holds"),
        (X, X[..., :1], "v is torch.float32 (2, 3, 4, 1); the cache holds"),
        (X.double(), X.double(), "k is torch.float64 (2, 3, 4, 5); the cache holds torch.float32"),
        (X, X.bfloat16(), "v is torch.bfloat16 (2, 3, 4, 5); the cache holds"),
        (X.to("meta"), X.to("meta"), "k is on meta; the cache is on cpu"),
    ],
)
def test_what_does_not_fit_a_cache(k, v, words, make):
    empty, filled = make(), make()
    filled.update(X, X, torch.arange(4))
    for cache in (filled, empty):
        if cache is filled or "the cache" not in words:  # the first keys and values may be of any kind
            with pytest.raises(ValueError, match=re.escape(words)):
                cache.update(k, v, torch.arange(4))


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: KVCache(0), "max_length=0; it must be 1 or more"),
        (lambda: WindowKVCache(-1), "radius=-1; it must be 0 or more"),
        (lambda: mha()(torch.zeros(1, 3, 8), cache=KVCache(2)), "k has 3 tokens after 0; the cache holds max_length=2"),
        (lambda: KVCache(9).update(X, X, torch.arange(3)), "pos has shape (3,); needed is (T,) or (B, T) for k of (2,"),
        (lambda: KVCache(9).update(X, X, torch.zeros(3, 4)), "pos has shape (3, 4); needed is (T,) or (B, T)"),
        (lambda: mha()(torch.zeros(1, 3, 8), cache=KVCache(9), context=torch.zeros(1, 3, 8)), "cache: it goes on with"),
        (lambda: mha()(torch.zeros(1, 5, 8), Places(context_pos=FIVE), cache=KVCache(9)), "context_pos: it gives"),
        (
            lambda: mha()(torch.zeros(1, 5, 8), Places(key_mask=FIVE[None] > 5), cache=of_length(2)),
            "needed is bool (1, 7)",
        ),
        (lambda: mha()(torch.zeros(1, 3, 8), cache=WindowKVCache(2)), "cache: it holds 2 tokens before a new one, and"),
        (
            lambda: mha(mask=causal)(torch.zeros(1, 3, 8), cache=WindowKVCache(2)),
            "mask=causal sees farther back;",
        ),
        (
            lambda: mha(mask=causal & window(3))(torch.zeros(1, 3, 8), cache=WindowKVCache(2)),
            "needed is a pattern such as causal & window(2), or a KVCache",
        ),
    ],
)
def test_what_a_cache_refuses(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()


def test_keys_are_cached_rotated_and_told_their_own_places():
    """A step at offset 7 turns by 7: the hooks see true positions, and no key twice."""
    seen = []

    class Spy(Toy):
        def rotate(self, q, k, q_pos, k_pos):
            seen.append(("rotate", q_pos.tolist(), k_pos.tolist()))
            return super().rotate(q, k, q_pos, k_pos)

        def bias(self, q_pos, k_pos):
            seen.append(("bias", q_pos.tolist(), k_pos.tolist()))
            return super().bias(q_pos, k_pos)

    module = MultiHeadAttention(8, 2, mask=causal, position=Spy(2, 4))
    cache = KVCache(9)
    with torch.no_grad():
        module(torch.randn(1, 7, 8), cache=cache)
        seen.clear()
        module(torch.randn(1, 1, 8), cache=cache)
    assert seen == [("rotate", [7], [7]), ("bias", [7], list(range(8)))]
    assert set(module.state_dict()) == set(MultiHeadAttention(8, 2, position=Toy(2, 4)).state_dict())


def test_heads_of_a_given_width_need_not_divide():
    module = MultiHeadAttention(10, 4, head_dim=3)
    assert module.q_proj.weight.shape == (12, 10)
    assert module(torch.zeros(1, 2, 10)).shape == (1, 2, 10)


def test_the_repr_tells_heads_and_pattern():
    text = MultiHeadAttention(8, 4, n_kv_heads=2, mask=causal & window(3)).extra_repr()
    assert text == "n_heads=4, n_kv_heads=2, head_dim=2, mask=(causal & window(3))"
