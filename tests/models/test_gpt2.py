"""TransformerBlock by its formula; GPT2: its parts, its start, its caches, no future, what it refuses."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.attention import KVCache, MultiHeadAttention, Pattern, Places, WindowKVCache, causal, window
from course_lib.evaluation import future_leak
from course_lib.init import init_weights
from course_lib.mlp import MLP
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.norms import LayerNorm, fused_layer_norm
from course_lib.transformer_block import TransformerBlock
from tests.conftest import randomise, relative_error

SMALL = {"vocab_size": 13, "max_positions": 12, "d_model": 8, "n_heads": 4, "n_layers": 3}


def small(**fields):
    return GPT2(GPT2Config(**(SMALL | fields)))


def block(placement, dropout=0.0):
    parts = MultiHeadAttention(8, 2, mask=causal), MLP(8, 12), (LayerNorm(8), LayerNorm(8))
    return randomise(TransformerBlock(*parts, placement=placement, dropout=dropout))


def test_blocks_follow_their_formulas():
    x = torch.randn(2, 5, 8)
    b = block("pre")
    between = x + b.attention(b.attention_norm(x))
    assert torch.equal(b(x), between + b.mlp(b.mlp_norm(between)))
    b = block("post")
    between = b.attention_norm(x + b.attention(x))
    assert torch.equal(b(x), b.mlp_norm(between + b.mlp(between)))


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_a_block_hands_places_padding_and_cache_to_its_attention(placement):
    b, x = block(placement).double(), torch.randn(2, 5, 8).double()
    keys = torch.tensor([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    assert torch.allclose(b(x, Places(key_mask=keys))[1], b(x)[1])
    assert not torch.allclose(b(x, Places(key_mask=keys))[0, 2:], b(x)[0, 2:])
    order = torch.tensor([4, 3, 2, 1, 0])
    assert torch.allclose(b(x.flip(1), Places(pos=order)), b(x).flip(1))
    cache = KVCache(5)
    with torch.no_grad():
        assert torch.allclose(torch.cat([b(x[:, i : i + 1], cache=cache) for i in range(5)], 1), b(x))


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_dropout_acts_on_what_each_part_adds(placement):
    """Masks drawn by hand in the same order: one for the attention, one for the MLP, none on the stream."""
    b, x = block(placement, dropout=0.4), torch.randn(2, 5, 8)
    torch.manual_seed(7)
    got = b(x)
    torch.manual_seed(7)
    if placement == "pre":
        between = x + F.dropout(b.attention(b.attention_norm(x)), 0.4)
        want = between + F.dropout(b.mlp(b.mlp_norm(between)), 0.4)
    else:
        between = b.attention_norm(x + F.dropout(b.attention(x), 0.4))
        want = b.mlp_norm(between + F.dropout(b.mlp(between), 0.4))
    assert torch.equal(got, want)
    assert not torch.equal(got, b(x))
    b.eval()
    assert torch.equal(b(x), b(x))
    parts = MultiHeadAttention(8, 2), MLP(8, 12), (LayerNorm(8), LayerNorm(8))
    assert TransformerBlock(*parts).dropout.p == 0
    assert TransformerBlock(*parts).placement == "pre"


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_the_whole_is_its_parts(placement):
    model, ids = randomise(small(placement=placement)), torch.randint(13, (2, 7))
    x = model.embedding.weight[ids] + model.position.embedding.weight[:7]
    for part in model.blocks:
        assert part.placement == placement
        x = part(x)
    if placement == "pre":
        x = model.final_norm(x)
    else:
        assert not list(model.final_norm.parameters())
    assert torch.allclose(model(ids), x @ model.embedding.weight.T, atol=1e-4)
    assert torch.equal(model(ids.int()), model(ids))
    assert model(ids[:, :0]).shape == (2, 0, 13)


def test_dropout_of_the_model_begins_at_the_embeddings():
    model, ids = randomise(small(dropout=0.5)), torch.randint(13, (2, 7))
    torch.manual_seed(3)
    got = model(ids)
    torch.manual_seed(3)
    x = F.dropout(model.position.embed(model.embedding(ids), torch.arange(7)), 0.5)
    for part in model.blocks:
        assert part.dropout.p == 0.5
        x = part(x)
    assert torch.equal(got, F.linear(model.final_norm(x), model.embedding.weight))
    assert not torch.equal(got, model(ids))
    assert torch.equal(model.eval()(ids), model(ids))


def test_parameters_of_the_default_model():
    model, c, v = GPT2(GPT2Config()), 192, 4000
    a_block = 4 * (c * c + c) + 8 * c * c + 5 * c + 4 * c
    assert sum(p.numel() for p in model.parameters()) == (v + 256) * c + 6 * a_block + 2 * c
    assert {m.norm_fn for m in model.modules() if isinstance(m, LayerNorm)} == {fused_layer_norm}
    assert {m.mask for m in model.modules() if isinstance(m, MultiHeadAttention)} == {causal}
    (head_dim,) = {m.head_dim for m in model.modules() if isinstance(m, MultiHeadAttention)}
    assert head_dim == 32
    x = torch.randn(3, 192)
    mlp = model.blocks[0].mlp
    assert torch.allclose(mlp(x), mlp.down(F.gelu(mlp.up(x), approximate="tanh")))


def test_the_config_reaches_the_blocks_and_stays():
    config = GPT2Config(**SMALL, n_kv_heads=2, d_ff=20)
    model = GPT2(config)
    assert len(model.blocks) == 3
    assert {part.attention.n_kv_heads for part in model.blocks} == {2}
    assert {part.mlp.up.out_features for part in model.blocks} == {20}
    assert {part.attention.n_kv_heads for part in small().blocks} == {4}
    assert model.new_caches()[0].update(*torch.zeros(2, 1, 2, 3, 2).unbind(), torch.arange(3))[0].shape == (1, 2, 3, 2)
    with pytest.raises(AttributeError):
        config.n_layers = 5


def test_what_writes_to_the_stream_begins_smaller():
    model = GPT2(GPT2Config(n_layers=2, n_kv_heads=3))
    shrink = 1 / math.sqrt(4)
    for part in model.blocks:
        for layer, gain in (
            (part.attention.q_proj, 1), (part.attention.k_proj, 1), (part.attention.v_proj, 1),
            (part.attention.out_proj, shrink), (part.mlp.up, 1), (part.mlp.down, shrink),
        ):  # fmt: skip
            assert layer.weight.std().item() == pytest.approx(gain / math.sqrt(layer.in_features), rel=0.03)
            assert layer.bias.abs().max() == 0
    for table in (model.embedding, model.position.embedding):
        assert table.weight.std().item() == pytest.approx(0.02, rel=0.03)
    loss = F.cross_entropy(model(torch.arange(256)[None]).flatten(0, 1), torch.arange(256))
    assert loss.item() == pytest.approx(math.log(4000), abs=0.3)  # it hesitates between all tokens


FIRST = {"embedding": -0.02681426890194416, "out_proj": 0.06491244584321976}


def test_first_weights_are_recorded_numbers():
    """Training runs depend on them: by seed and name, whatever else is in the model."""
    model, other, deeper = small(), small(seed=1), small(n_layers=4)
    assert torch.equal(model.embedding.weight, deeper.embedding.weight)
    assert torch.equal(model.blocks[1].mlp.up.weight, deeper.blocks[1].mlp.up.weight)
    factor = math.sqrt(6 / 8)
    assert torch.allclose(model.blocks[1].mlp.down.weight * factor, deeper.blocks[1].mlp.down.weight)
    assert not torch.equal(model.embedding.weight, other.embedding.weight)
    state = torch.random.get_rng_state()
    init_weights(other, 0)
    assert torch.equal(other.embedding.weight, model.embedding.weight)
    assert torch.equal(torch.random.get_rng_state(), state)  # no draw but from the generators of their own
    assert model.embedding.weight[0, 0].item() == pytest.approx(FIRST["embedding"], rel=1e-6)
    assert model.blocks[2].attention.out_proj.weight[0, 0].item() == pytest.approx(FIRST["out_proj"], rel=1e-6)


def test_gains_multiply_and_name_what_they_miss():
    def layers():
        return nn.ModuleDict({"up": nn.Linear(4, 400), "down": nn.Linear(400, 4), "table": nn.Embedding(4, 4)})

    plain = init_weights(layers(), 3)
    changed = init_weights(layers(), 3, gain=2.0, gains={"down": 0.25, "*": 3.0})
    assert torch.allclose(changed["up"].weight, 6 * plain["up"].weight)
    assert torch.allclose(changed["down"].weight, 1.5 * plain["down"].weight)
    assert torch.equal(changed["table"].weight, plain["table"].weight)
    for gains, words in (
        ({"middle": 1.0}, "gains: 'middle' fits no linear layer of the model"),
        ({"table": 2.0}, "gains: 'table' fits no linear layer"),
        ({"down": 0.0}, "gains['down']=0.0; it must be above 0"),
        ({"down": float("nan")}, "gains['down']=nan"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            init_weights(layers(), 0, gains=gains)


LEAK_FREE = {
    "plain": {}, "gqa": {"n_kv_heads": 2}, "mqa": {"n_kv_heads": 1}, "post": {"placement": "post"},
    "post gqa": {"placement": "post", "n_kv_heads": 2}, "dropout, in eval": {"dropout": 0.3},
}  # fmt: skip


@pytest.mark.parametrize("name", LEAK_FREE)
def test_no_future_token_changes_an_earlier_output(name):
    model, ids = randomise(small(**LEAK_FREE[name])).eval(), torch.randint(13, (12,))
    assert future_leak(model, ids).tolist() == [0.0] * 12
    assert future_leak(model, torch.zeros(12, dtype=torch.long)).tolist() == [0.0] * 12


BROKEN = {
    "no mask": None,
    "one ahead": Pattern("one ahead", lambda q_pos, k_pos: k_pos <= q_pos + 1),
    "turned": Pattern("turned", lambda q_pos, k_pos: k_pos >= q_pos),
    "both sides": window(2),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_mask_leaks(name):
    model, ids = randomise(small()).eval(), torch.randint(13, (12,))
    model.blocks[1].attention.mask = BROKEN[name]
    leak = future_leak(model, ids)
    assert leak[0] == 0
    assert (leak[1:] > 0).all()


def decoded(model, ids, sizes, caches):
    outputs, begin = [], 0
    for size in sizes:
        outputs.append(model(ids[:, begin : begin + size], caches))
        begin += size
    return torch.cat(outputs, 1)


@pytest.mark.parametrize("fields", [{}, {"n_kv_heads": 2}, {"n_kv_heads": 1}, {"placement": "post"}, {"n_layers": 1}])
@pytest.mark.parametrize("sizes", [[1] * 12, [5, *[1] * 7], [12], [3, 0, 4, 5]])
def test_cached_decoding_equals_the_whole_text(fields, sizes):
    model, ids = randomise(small(**fields)).double().eval(), torch.randint(13, (3, 12))
    caches = model.new_caches()
    with torch.no_grad():
        assert relative_error(decoded(model, ids, sizes, caches), model(ids)) < 1e-12
    assert [cache.length for cache in caches] == [12] * len(model.blocks)
    assert [cache.max_length for cache in caches] == [12] * len(model.blocks)
    with pytest.raises(ValueError, match="ids: a text of 13 tokens; max_positions=12"):
        model(ids[:, :1], caches)


def test_window_caches_where_every_block_has_the_window():
    model, ids = randomise(small()).double().eval(), torch.randint(13, (3, 12))
    for part in model.blocks:
        part.attention.mask = causal & window(2)
    caches = [WindowKVCache(2) for _ in model.blocks]
    with torch.no_grad():
        assert relative_error(decoded(model, ids, [5, *[1] * 7], caches), model(ids)) < 1e-12


def of_lengths(*lengths):
    caches = [KVCache(12) for _ in lengths]
    for cache, n in zip(caches, lengths, strict=True):
        cache.update(torch.zeros(2, 4, n, 2), torch.zeros(2, 4, n, 2), torch.arange(n))
    return caches


IDS = torch.zeros(2, 3, dtype=torch.long)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: GPT2Config(vocab_size=0), "vocab_size=0; it must be 1 or more"),
        (lambda: GPT2Config(max_positions=0), "max_positions=0"),
        (lambda: GPT2Config(n_layers=0), "n_layers=0"),
        (lambda: GPT2Config(d_ff=0), "d_ff=0; it must be 1 or more"),
        (lambda: GPT2Config(d_model=0), "d_model=0"),
        (lambda: GPT2Config(n_heads=0), "n_heads=0"),
        (lambda: GPT2Config(n_kv_heads=0), "n_kv_heads=0"),
        (lambda: GPT2Config(n_heads=7), "n_heads=7 does not divide d_model=192"),
        (lambda: GPT2Config(n_kv_heads=4), "n_kv_heads=4 does not divide n_heads=6"),
        (lambda: GPT2Config(dropout=1.0), "dropout=1.0; allowed is 0 to below 1"),
        (lambda: GPT2Config(dropout=-0.1), "dropout=-0.1"),
        (lambda: GPT2Config(dropout=float("nan")), "dropout=nan"),
        (lambda: GPT2Config(placement="mid"), "placement='mid'; allowed are 'pre', 'post'"),
        (lambda: small()(IDS[0]), "ids is torch.int64 (3,); needed is int64 or int32 (B, T)"),
        (lambda: small()(IDS.float()), "ids is torch.float32 (2, 3)"),
        (lambda: small()(torch.zeros(1, 13, dtype=torch.long)), "ids: a text of 13 tokens; max_positions=12"),
        (lambda: small()(IDS, []), "caches: of lengths []; needed are 3 equally full ones, one for each block"),
        (lambda: small()(IDS, of_lengths(0, 0)), "caches: of lengths [0, 0]"),
        (lambda: small()(IDS, of_lengths(0, 0, 0, 0)), "caches: of lengths [0, 0, 0, 0]"),
        (lambda: small()(IDS, of_lengths(2, 0, 2)), "caches: of lengths [2, 0, 2]"),
        (lambda: small()(IDS, of_lengths(0, 0, 0) * 2), "caches: of lengths [0, 0, 0, 0, 0, 0]; needed are 3"),
        (lambda: small()(IDS, of_lengths(0) * 3), "caches: of lengths [0, 0, 0]; needed are 3"),
        (lambda: block("mid"), "placement='mid'; allowed are 'pre', 'post'"),
        (
            lambda: TransformerBlock(MultiHeadAttention(8, 2), MLP(8, 8), (LayerNorm(8),)),
            "norms has 1 entries; needed are two",
        ),
    ],
)
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()
