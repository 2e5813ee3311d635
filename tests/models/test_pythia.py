"""Pythia: its parallel block, its parts with every scheme and placement, and its start."""

import math

import pytest
import torch
import torch.nn.functional as F

from course_lib.attention import KVCache, MultiHeadAttention, Places, causal
from course_lib.features import record_attention
from course_lib.mlp import MLP
from course_lib.models.pythia import Pythia, PythiaConfig
from course_lib.norms import LayerNorm, fused_layer_norm
from course_lib.positions import POSITIONS, AlibiPosition, Position, RotaryPosition, ShawPosition, T5Position
from course_lib.transformer_block import PLACEMENTS, TransformerBlock
from tests.conftest import randomise, relative_error

SMALL = {
    "vocab_size": 13, "max_positions": 12, "d_model": 16, "n_heads": 2, "n_layers": 3,
    "max_distance": 5, "n_buckets": 6,
}  # fmt: skip
SCHEMES = {name: {"position": name} for name in POSITIONS} | {
    "alibi uniform": {"position": "alibi", "alibi_slopes": "uniform"},
    "rope ntk": {"rotary_pct": 1.0, "rope_extension": "ntk", "rope_factor": 4.0},
    "rope interpolated": {"rope_extension": "interpolate", "rope_factor": 4.0},
}


def small(**fields):
    return Pythia(PythiaConfig(**SMALL | fields))


def ids_of(length=12, rows=2):
    return torch.randint(13, (rows, length))


def block(placement, dropout=0.0):
    parts = MultiHeadAttention(8, 2, mask=causal), MLP(8, 12), (LayerNorm(8), LayerNorm(8))
    return randomise(TransformerBlock(*parts, placement=placement, dropout=dropout))


def test_a_parallel_block_reads_one_stream_twice():
    b, x = block("parallel"), torch.randn(2, 5, 8)
    want = x + b.attention(b.attention_norm(x)) + b.mlp(b.mlp_norm(x))
    assert torch.equal(b(x), want)
    assert not torch.allclose(b.attention_norm(x), b.mlp_norm(x))
    keys = torch.tensor([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    places = Places(key_mask=keys)
    assert torch.equal(b(x, places), x + b.attention(b.attention_norm(x), places) + b.mlp(b.mlp_norm(x)))
    cache = KVCache(5)
    with torch.no_grad():
        assert torch.allclose(torch.cat([b(x[:, i : i + 1], cache=cache) for i in range(5)], 1), want, atol=1e-5)


def test_dropout_of_a_parallel_block_acts_on_each_part():
    b, x = block("parallel", dropout=0.4), torch.randn(2, 5, 8)
    torch.manual_seed(7)
    got = b(x)
    torch.manual_seed(7)
    written = F.dropout(b.attention(b.attention_norm(x)), 0.4)
    assert torch.equal(got, x + written + F.dropout(b.mlp(b.mlp_norm(x)), 0.4))
    assert torch.equal(b.eval()(x), b(x))


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_whole_is_its_parts(name, placement):
    """Attention written out, with the hooks of the scheme that the config names."""
    model, ids = randomise(small(**SCHEMES[name], placement=placement)).double(), ids_of(7)
    pos, scheme = torch.arange(7), model.config.scheme().double()
    x = model.embedding.weight[ids]
    if model.config.position in ("sinusoidal", "learned"):
        scheme.load_state_dict(model.position.state_dict())
        x = scheme.embed(x, pos)

    def attend(layer, x):
        scheme.load_state_dict({} if layer.position is None else layer.position.state_dict(), strict=False)
        q, k, v = (p(x).unflatten(-1, (2, 8)).transpose(1, 2) for p in (layer.q_proj, layer.k_proj, layer.v_proj))
        q, k = scheme.rotate(q, k, pos, pos)
        score, bias = scheme.score(q, pos, pos), scheme.bias(pos, pos)
        logits = (q @ k.mT + (0 if score is None else score)) / math.sqrt(8) + (0 if bias is None else bias)
        weights = logits.masked_fill(torch.ones(7, 7).triu(1).bool(), -torch.inf).softmax(-1)
        return layer.out_proj((weights @ v).transpose(1, 2).flatten(2))

    for part in model.blocks:
        if placement == "parallel":
            x = x + attend(part.attention, part.attention_norm(x)) + part.mlp(part.mlp_norm(x))
        elif placement == "pre":
            x = x + attend(part.attention, part.attention_norm(x))
            x = x + part.mlp(part.mlp_norm(x))
        else:
            x = part.attention_norm(x + attend(part.attention, x))
            x = part.mlp_norm(x + part.mlp(x))
    x = x if placement == "post" else model.final_norm(x)
    assert bool(list(model.final_norm.parameters())) == (placement != "post")
    assert relative_error(model(ids), x @ model.unembedding.weight.T) < 1e-10
    assert torch.equal(model(ids.int()), model(ids))
    assert model(ids[:, :0]).shape == (2, 0, 13)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_recorded_forward_is_the_same(name):
    model, ids = randomise(small(**SCHEMES[name])).double(), ids_of()
    want = model(ids)
    with record_attention(model) as seen:
        assert relative_error(model(ids), want) < 1e-10
    assert list(seen) == [f"blocks.{i}.attention" for i in range(3)]
    assert all(torch.allclose(weights.sum(-1), torch.ones(()).double()) for weights in seen.values())


def test_the_config_reaches_the_schemes():
    def positions(**fields):
        return [part.attention.position for part in small(**fields).blocks]

    for name, cls, own in (("rope", RotaryPosition, 1), ("alibi", AlibiPosition, 1), ("t5", T5Position, 1),
                           ("shaw", ShawPosition, 3), ("none", Position, 1)):  # fmt: skip
        found = positions(position=name)
        assert {type(p) for p in found} == {cls}
        assert len({id(p) for p in found}) == own  # Shaw's vectors are each block's own
    rope = positions(rotary_pct=0.5, rope_theta=50.0, rope_extension="ntk", rope_factor=3.0)[0]
    assert (rope.rotary_dim, rope.theta, rope.extension, rope.factor, rope.layout) == (4, 50, "ntk", 3, "half_split")
    assert positions(rotary_pct=0.25)[0].rotary_dim == 2
    assert Pythia(PythiaConfig(n_layers=1)).blocks[0].attention.position.rotary_dim == 8
    assert positions(position="alibi")[0].slopes().tolist() == [1 / 16, 1 / 256]
    assert positions(position="alibi", alibi_slopes="uniform")[0].slopes().tolist() == [1 / 16]
    t5, shaw = positions(position="t5")[0], positions(position="shaw")[0]
    assert (t5.n_buckets, t5.max_distance, t5.bidirectional, t5.embedding.weight.shape) == (6, 5, False, (6, 2))
    assert (shaw.max_distance, shaw.bidirectional, shaw.embedding.weight.shape) == (5, False, (6, 8))
    assert positions(position="learned") == positions(position="sinusoidal") == [None] * 3
    assert type(small(position="rope").position) is Position
    assert small(position="learned").position.embedding.weight.shape == (12, 16)


def test_parameters_and_the_start():
    config = PythiaConfig()
    model, c, v = Pythia(config), 128, 4000
    a_block = 4 * (c * c + c) + 8 * c * c + 5 * c + 4 * c
    assert sum(p.numel() for p in model.parameters()) == 2 * v * c + 4 * a_block + 2 * c
    counts = {name: sum(p.numel() for p in small(**SCHEMES[name]).parameters()) for name in SCHEMES}
    more = {name: count - counts["none"] for name, count in counts.items() if count != counts["none"]}
    assert more == {"t5": 6 * 2, "shaw": 3 * 6 * 8, "learned": 12 * 16}
    assert {m.norm_fn for m in model.modules() if isinstance(m, LayerNorm)} == {fused_layer_norm}
    assert {m.mask for m in model.modules() if isinstance(m, MultiHeadAttention)} == {causal}
    x = torch.randn(3, 128)
    mlp = model.blocks[0].mlp
    assert torch.equal(mlp(x), mlp.down(F.gelu(mlp.up(x))))  # exact, not the tanh of GPT-2
    assert {part.mlp.up.out_features for part in small(d_ff=20).blocks} == {20}
    shrink = 1 / math.sqrt(8)
    for part in model.blocks:
        for layer, gain in ((part.attention.q_proj, 1), (part.attention.out_proj, shrink), (part.mlp.up, 1),
                            (part.mlp.down, shrink)):  # fmt: skip
            assert layer.weight.std().item() == pytest.approx(gain / math.sqrt(layer.in_features), rel=0.03)
    loss = F.cross_entropy(model(torch.arange(512)[None]).flatten(0, 1), torch.arange(512).roll(-1))
    assert loss.item() == pytest.approx(math.log(4000), abs=0.6)
    waves = Pythia(PythiaConfig(position="sinusoidal", n_layers=1)).position.embed(
        torch.zeros(1, 99, c), torch.arange(99)
    )
    assert waves.square().mean().sqrt().item() == pytest.approx(0.02, rel=1e-4)  # as large as the embeddings


def test_the_seed_gives_the_weights_and_schemes_share_what_they_have():
    for name in SCHEMES:
        first, again, other = (small(**SCHEMES[name], seed=seed).state_dict() for seed in (0, 0, 1))
        assert all(torch.equal(first[key], again[key]) for key in first)
        assert not torch.equal(first["embedding.weight"], other["embedding.weight"])
        plain = small(position="none").state_dict()
        assert all(torch.equal(first[key], plain[key]) for key in plain)  # a comparison of schemes compares no seeds
    tables = [part.attention.position.embedding.weight for part in small(position="shaw").blocks]
    assert not torch.equal(tables[0], tables[1])
    assert small().embedding.weight[0, 0].item() == pytest.approx(-0.02681426890194416, rel=1e-6)


def test_dropout_begins_at_the_embeddings():
    model, ids = randomise(small(position="sinusoidal", dropout=0.5)), ids_of(7)
    torch.manual_seed(3)
    got = model(ids)
    torch.manual_seed(3)
    x = F.dropout(model.position.embed(model.embedding(ids), torch.arange(7)), 0.5)
    for part in model.blocks:
        x = part(x)
    assert torch.equal(got, model.unembedding(model.final_norm(x)))
    assert torch.equal(model.eval()(ids), model(ids))
