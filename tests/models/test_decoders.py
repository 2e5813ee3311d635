"""GPT2 and Pythia, with every scheme and placement: the parts, no future, caches, the start."""

import math

import pytest
import torch
import torch.nn.functional as F

from course_lib.attention import MultiHeadAttention, causal
from course_lib.evaluation import future_leak, next_token_losses
from course_lib.features import record_attention
from course_lib.generation import generate
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.models.pythia import Pythia, PythiaConfig
from course_lib.norms import LayerNorm, fused_layer_norm
from course_lib.positions import LearnedPosition, Position
from tests.conftest import relative_error
from tests.models.cases import DECODERS, PLACED, SCHEMES, decoded, ids_of, make, small
from tests.on_meta import NoCpu


def out_of(model, x):
    """Logits of the stream; GPT-2's matrix is that of its embeddings."""
    return F.linear(model.final_norm(x), getattr(model, "unembedding", model.embedding).weight)


@pytest.mark.parametrize(("name", "placement"), PLACED)
def test_the_whole_is_its_parts(name, placement):
    """Attention written out, with the hooks of the scheme that the config names."""
    model, ids = small(name, placement=placement).double(), ids_of(7)
    pos, x = torch.arange(7), model.embedding.weight[ids]
    scheme = (model.config.scheme() if name in SCHEMES else LearnedPosition(12, 16)).double()
    if type(model.position) is not Position:
        scheme.load_state_dict(model.position.state_dict())
        x = scheme.embed(x, pos)

    def attend(layer, x):
        scheme.load_state_dict({} if layer.position is None else layer.position.state_dict(), strict=False)
        q, k, v = (
            p(x).unflatten(-1, (-1, layer.head_dim)).transpose(1, 2) for p in (layer.q_proj, layer.k_proj, layer.v_proj)
        )
        k, v = (x.repeat_interleave(layer.n_heads // layer.n_kv_heads, 1) for x in (k, v))
        q, k = scheme.rotate(q, k, pos, pos)
        score, bias = scheme.score(q, pos, pos), scheme.bias(pos, pos)
        scale = 1 / math.sqrt(layer.head_dim)
        logits = scale * (q @ k.mT + (0 if score is None else score)) + (0 if bias is None else bias)
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
    assert bool(list(model.final_norm.parameters())) == (placement != "post")  # that stream is normalised already
    assert relative_error(model(ids), out_of(model, x)) < 1e-10
    assert torch.equal(model(ids.int()), model(ids))
    assert model(ids[:, :0]).shape == (2, 0, 13)


@pytest.mark.parametrize("name", ["gpt2", "learned", "sinusoidal"])
def test_dropout_begins_at_the_embeddings(name):
    model, ids = small(name, dropout=0.5).train(), ids_of(7)
    torch.manual_seed(3)
    got = model(ids)
    torch.manual_seed(3)
    x = F.dropout(model.position.embed(model.embedding(ids), torch.arange(7)), 0.5)
    for part in model.blocks:
        assert part.dropout.p == 0.5
        x = part(x)
    assert torch.equal(got, out_of(model, x))
    assert not torch.equal(got, model(ids))
    assert torch.equal(model.eval()(ids), model(ids))


@pytest.mark.parametrize("name", DECODERS)
def test_a_recorded_forward_is_the_same(name):
    model, ids = small(name).double(), ids_of()
    want = model(ids)
    with record_attention(model) as seen:
        assert relative_error(model(ids), want) < 1e-10
    assert list(seen) == [f"blocks.{i}.attention" for i in range(model.config.n_layers)]
    assert all(torch.allclose(weights.sum(-1), torch.ones(()).double()) for weights in seen.values())


@pytest.mark.parametrize(("name", "placement"), PLACED)
def test_no_future_token_changes_an_earlier_output(name, placement):
    model = small(name, placement=placement, max_positions=20, dropout=0.3)
    for ids in (ids_of(20)[0], torch.zeros(20, dtype=torch.long)):
        assert future_leak(model, ids).tolist() == [0.0] * 20


@pytest.mark.parametrize(("name", "placement"), PLACED)
def test_cached_decoding_equals_the_whole_text(name, placement):
    model, ids = small(name, placement=placement).double(), ids_of()
    with torch.no_grad():
        want = model(ids)
        for sizes in ([1] * 12, [5, *[1] * 7], [12], [3, 0, 4, 5]):
            caches = model.new_caches()
            assert relative_error(decoded(model, ids, sizes, caches), want) < 1e-12, sizes
            assert [(cache.length, cache.max_length) for cache in caches] == [(12, 12)] * len(model.blocks)
        with pytest.raises(ValueError, match=r"max_positions=12|max_length=12"):
            model(ids[:, :1], caches)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "fields"),
    [(name, {}) for name in DECODERS]
    + [("gpt2 gqa", {"placement": "post"}), ("none", {"placement": "post"}), ("learned", {"placement": "pre"})],
    ids=str,
)
def test_on_meta(name, fields, dtype):
    model = make(name, **{"n_layers": 1, "dropout": 0.1} | fields).to("meta", dtype)
    ids = torch.zeros(4, 12, device="meta", dtype=torch.long)
    with NoCpu():
        logits, losses = model(ids), next_token_losses(model, ids)
        logits.sum().backward()
        caches = model.new_caches()
        with torch.no_grad():
            steps = decoded(model, ids, [5, 1, 6], caches)
    assert (logits.device.type, logits.dtype, losses.shape) == ("meta", dtype, (4, 11))
    assert steps.shape == logits.shape == (4, 12, 13)
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", DECODERS)
def test_a_cache_changes_nothing_but_time(name):
    model = small(name).double()
    for options in ({"temperature": 0.0}, {"seed": 3, "top_k": 5}):
        text = ids_of(3, rows=3)
        texts = [generate(model, text, 9, use_cache=use, **options) for use in (True, False)]
        assert torch.equal(*texts)


@pytest.mark.parametrize("name", DECODERS)
def test_beyond_the_longest_text(name):
    """Learned positions end; the other schemes go on."""
    model, ids = small(name), ids_of(60)
    if "gpt2" in name or name == "learned":
        with pytest.raises(ValueError, match="ids: a text of 60 tokens; max_positions=12 is the most"):
            model(ids)
    else:
        assert model(ids).isfinite().all()
        assert next_token_losses(model, ids).shape == (2, 59)


START = {
    "gpt2": (lambda: GPT2(GPT2Config(n_layers=2, n_kv_heads=3)), 0.3),
    "pythia": (lambda: Pythia(PythiaConfig()), 0.6),  # its unembedding is a matrix of its own
}


@pytest.mark.parametrize("kind", START)
def test_what_writes_to_the_stream_begins_smaller(kind):
    make_it, most = START[kind]
    model = make_it()
    shrink = 1 / math.sqrt(2 * len(model.blocks))
    for part in model.blocks:
        for layer, gain in (
            (part.attention.q_proj, 1), (part.attention.k_proj, 1), (part.attention.v_proj, 1),
            (part.attention.out_proj, shrink), (part.mlp.up, 1), (part.mlp.down, shrink),
        ):  # fmt: skip
            assert layer.weight.std().item() == pytest.approx(gain / math.sqrt(layer.in_features), rel=0.03)
            assert layer.bias.abs().max() == 0
    for table in (m for m in model.modules() if isinstance(m, torch.nn.Embedding)):
        assert table.weight.std().item() == pytest.approx(0.02, rel=0.03)
    ids = torch.arange(256)
    loss = F.cross_entropy(model(ids[None]).flatten(0, 1), ids if kind == "gpt2" else ids.roll(-1))
    assert loss.item() == pytest.approx(math.log(4000), abs=most)  # it hesitates between all tokens


@pytest.mark.parametrize("kind", ["gpt2", "rope"])
def test_what_all_blocks_are_made_of(kind):
    model, x = make(kind, d_ff=20), torch.randn(3, 16)
    assert {m.norm_fn for m in model.modules() if isinstance(m, LayerNorm)} == {fused_layer_norm}
    assert {m.mask for m in model.modules() if isinstance(m, MultiHeadAttention)} == {causal}
    assert {part.mlp.up.out_features for part in model.blocks} == {20}
    assert {part.mlp.up.out_features for part in make(kind).blocks} == {64}
    mlp = model.blocks[0].mlp
    approximate = "tanh" if kind == "gpt2" else "none"  # Pythia's is exact
    assert torch.equal(mlp(x), mlp.down(F.gelu(mlp.up(x), approximate=approximate)))
