"""Shaw, T5 and ALiBi against `transformers`: numbers, outputs and gradients."""

import pytest
import torch
from transformers import T5Config, Wav2Vec2BertConfig
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import Wav2Vec2BertSelfAttention

from course_lib.attention import MultiHeadAttention, attention, causal
from course_lib.positions import AlibiPosition, ShawPosition, T5Position
from course_lib.positions.alibi import alibi_slopes
from course_lib.positions.relative import t5_buckets
from tests.conftest import randomise, relative_error
from tests.parity.compare import assert_same_gradients, gradients

NAMES = {"q_proj": "linear_q", "k_proj": "linear_k", "v_proj": "linear_v", "out_proj": "linear_out"}
KINDS = ("weight", "bias")


def shaw_pair(length_of_table, bidirectional, d_model=12, n_heads=3):
    """Our layer and theirs, which has a left and a right end of its own."""
    theirs = Wav2Vec2BertSelfAttention(
        Wav2Vec2BertConfig(
            hidden_size=d_model, num_attention_heads=n_heads, position_embeddings_type="relative_key",
            left_max_position_embeddings=length_of_table,
            right_max_position_embeddings=length_of_table if bidirectional else 0, attention_dropout=0.0,
            attn_implementation="eager",
        )
    )  # fmt: skip
    theirs = randomise(theirs).double().eval()
    position = ShawPosition(d_model // n_heads, length_of_table, bidirectional=bidirectional)
    ours = MultiHeadAttention(d_model, n_heads, position=position).double()
    state = {f"{a}.{kind}": theirs.state_dict()[f"{b}.{kind}"] for a, b in NAMES.items() for kind in KINDS}
    state["position.embedding.weight"] = theirs.distance_embedding.weight.detach()
    ours.load_state_dict(state, strict=True)
    return ours, theirs


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("max_distance", [1, 3, 9, 40])
def test_shaw_is_their_relative_key(max_distance, bidirectional):
    """Outputs and all gradients; at 1 and 3 most distances are beyond the end, at 40 none is."""
    ours, theirs = shaw_pair(max_distance, bidirectional)
    x = torch.randn(2, 13, 12).double()
    got, want = ours(x), theirs(x)[0]
    assert relative_error(got, want) < 1e-10
    for y in (got, want):
        y.square().sum().backward()
    want_gradients = {f"{a}.{kind}": gradients(theirs)[f"{b}.{kind}"] for a, b in NAMES.items() for kind in KINDS}
    want_gradients["position.embedding.weight"] = theirs.distance_embedding.weight.grad
    assert_same_gradients(gradients(ours), want_gradients, 1e-10, zero=("k_proj.bias",))


def test_shaws_scores_are_their_dot_products():
    ours, theirs = shaw_pair(3, True)
    q, pos = torch.randn(2, 3, 7, 4).double(), torch.arange(7)
    far = (pos[None] - pos[:, None]).clamp(-3, 3) + 3
    want = torch.einsum("bhld,lrd->bhlr", q, theirs.distance_embedding(far))
    assert relative_error(ours.position.score(q, pos, pos), want) < 1e-12


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("n_buckets", "max_distance"), [(32, 128), (32, 17), (8, 20), (6, 100), (4, 3), (64, 5000)])
def test_t5s_buckets(n_buckets, max_distance, bidirectional):
    distance = torch.arange(-6000, 6001)
    want = T5Attention._relative_position_bucket(distance, bidirectional, n_buckets, max_distance)
    got = t5_buckets(distance, n_buckets, max_distance, bidirectional)
    assert torch.equal(got, want)
    assert torch.equal(t5_buckets(distance.int(), n_buckets, max_distance, bidirectional).long(), want)
    assert (got.min(), got.max()) == (0, n_buckets - 1)


def t5_pair(bidirectional, n_heads=3, n_buckets=8, max_distance=20):
    theirs = T5Attention(
        T5Config(
            d_model=12, d_kv=4, num_heads=n_heads, relative_attention_num_buckets=n_buckets,
            relative_attention_max_distance=max_distance, is_decoder=not bidirectional, dropout_rate=0.0,
            attn_implementation="eager",
        ),
        has_relative_attention_bias=True, layer_idx=0,
    )  # fmt: skip
    ours = T5Position(n_heads, n_buckets, max_distance, bidirectional=bidirectional)
    theirs = randomise(theirs).double().eval()
    ours.load_state_dict({"embedding.weight": theirs.relative_attention_bias.weight})
    return ours.double(), theirs


@pytest.mark.parametrize("bidirectional", [True, False])
def test_t5s_bias_and_its_gradient(bidirectional):
    ours, theirs = t5_pair(bidirectional)
    for queries, keys, past in ((50, 50, 0), (1, 31, 30), (7, 40, 33), (2, 4000, 3998)):
        want = theirs.compute_bias(queries, keys, past_seen_tokens=past)[0]
        got = ours.bias(torch.arange(queries) + past, torch.arange(keys))
        assert torch.equal(got, want)
        upstream = torch.randn_like(want)
        gradients = [torch.autograd.grad(y, m, upstream)[0] for y, m in (
            (got, ours.embedding.weight), (want, theirs.relative_attention_bias.weight))]  # fmt: skip
        assert relative_error(*gradients) < 1e-10


def test_a_layer_of_t5_is_ours_without_a_scale():
    ours, theirs = t5_pair(True)
    x = torch.randn(2, 30, 12).double()
    q, k, v = (getattr(theirs, name)(x).unflatten(-1, (3, 4)).transpose(1, 2) for name in "qkv")
    y = attention(q, k, v, position=ours, scale=1.0)
    assert relative_error(theirs.o(y.transpose(1, 2).flatten(2)), theirs(x)[0]) < 1e-6  # theirs: softmax in float32


@pytest.mark.parametrize("n_heads", range(1, 34))
def test_alibis_slopes_are_blooms(n_heads):
    want = build_alibi_tensor(torch.ones(1, 2), n_heads, torch.float32)[:, 0, 1]  # the second key is at distance 1
    assert torch.allclose(alibi_slopes(n_heads), want, rtol=3e-6, atol=0)
    assert alibi_slopes(n_heads).dtype == torch.float32
    assert torch.equal(AlibiPosition(n_heads).slopes(), alibi_slopes(n_heads))


@pytest.mark.parametrize("n_heads", [1, 4, 6])
@pytest.mark.parametrize("impl", ["fused", "explicit"])
def test_under_a_causal_softmax_our_distances_are_blooms_places(n_heads, impl):
    """Theirs adds slope · j, ours -slope · (i - j): a row differs by a constant, and softmax does not see it."""
    q, k, v = (torch.randn(2, n_heads, 20, 4).double().requires_grad_() for _ in range(3))
    alibi = build_alibi_tensor(torch.ones(2, 20), n_heads, torch.float64).view(2, n_heads, 1, 20)
    allowed = torch.ones(20, 20).tril().bool()
    ours = attention(q, k, v, mask=causal, position=AlibiPosition(n_heads), impl=impl)
    theirs = (q @ k.mT / 2 + alibi).masked_fill(~allowed, -torch.inf).softmax(-1) @ v
    tolerance = 1e-6 if n_heads == 6 else 1e-10  # slopes of float32, some irrational
    assert relative_error(ours, theirs) < tolerance
    got, want = (
        dict(zip("qkv", torch.autograd.grad(y.square().sum(), (q, k, v)), strict=True)) for y in (ours, theirs)
    )
    assert_same_gradients(got, want, tolerance)


def test_in_both_directions_alibi_is_minus_the_distance():
    q_pos, k_pos = torch.tensor([[3, 9], [0, 1]]), torch.tensor([0, 5, 9])
    got = AlibiPosition(2).bias(q_pos, k_pos)
    for b in range(2):
        for h, slope in enumerate((1 / 16, 1 / 256)):
            want = [[-slope * abs(int(i) - int(j)) for j in k_pos] for i in q_pos[b]]
            assert got[b, h].tolist() == want
    assert torch.equal(
        AlibiPosition(2, slope=0.5).bias(q_pos[0], k_pos)[0], -0.5 * torch.tensor([[3, 2, 6], [9, 4, 0]])
    )
