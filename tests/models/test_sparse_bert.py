"""SparseBert: patterns, padding, places, what stays with another pattern, how far it reads, what it refuses."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from course_lib.attention import GlobalLocalAttention, MultiHeadAttention, draw_blocks, local_attention
from course_lib.features import record_attention
from course_lib.init import seed_of
from course_lib.models.sparse_bert import PATTERNS, SparseBert, SparseBertConfig
from course_lib.norms import LayerNorm, fused_layer_norm
from course_lib.positions import POSITIONS
from tests.conftest import randomise, relative_error
from tests.models.cases import ENCODER, VARIANTS
from tests.on_meta import NoCpu

IDS = torch.randint(23, (2, 100), generator=torch.Generator().manual_seed(3))


def config(**fields):
    return SparseBertConfig(**ENCODER | fields)


def small(**fields):
    return randomise(SparseBert(config(**fields))).eval()


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("position", POSITIONS)
def test_forward_and_backward(name, placement, position):
    model = small(placement=placement, position=position, **VARIANTS[name])
    logits = model(IDS)
    assert logits.shape == (2, 100, 23)
    F.cross_entropy(logits.flatten(0, 1), IDS.flatten()).backward()
    unused = set() if VARIANTS[name].get("n_global") else {"global_proj"}
    for parameter, p in model.named_parameters():
        assert p.grad is not None or any(word in parameter for word in unused), parameter
        assert p.grad.isfinite().all()
        assert p.grad.any() or parameter.endswith(("k_proj.bias", "global_proj.1.bias")), parameter
    assert torch.equal(model(IDS.int()), logits)
    assert model(IDS[:, :0]).shape == (2, 0, 23)


@pytest.mark.parametrize("name", VARIANTS)
def test_places_are_those_of_the_whole(name):
    model = small(**VARIANTS[name])
    at = torch.tensor([[5, 0, 99], [17, 17, 42]])
    want = model(IDS).gather(1, at.unsqueeze(-1).expand(-1, -1, 23))
    assert torch.allclose(model(IDS, at=at), want, atol=1e-5)
    assert model(IDS, at=at[:, :0]).shape == (2, 0, 23)


@pytest.mark.parametrize("name", VARIANTS)
def test_what_stands_in_padding_changes_nothing(name):
    model, keys = small(**VARIANTS[name]).double(), torch.ones(2, 100, dtype=torch.bool)
    keys[0, 60:] = False
    keys[1, 97:] = False
    changed = torch.where(keys, IDS, (IDS + 7) % 23)
    want = model(IDS, key_mask=keys)
    assert relative_error(model(changed, key_mask=keys)[keys], want[keys]) < 1e-12
    assert not torch.allclose(model(changed)[keys], model(IDS)[keys])
    if name != "separate" and "random" not in name and name != "bigbird":
        assert relative_error(model(IDS[:1, :60]), want[:1, :60]) < 1e-12  # as if it were not there
    assert model(IDS, key_mask=torch.zeros_like(keys)).isfinite().all()


@pytest.mark.parametrize("name", VARIANTS)
def test_a_recorded_forward_is_the_same_and_shows_the_weights(name):
    model = small(**VARIANTS[name]).double()
    keys = torch.rand(2, 100) < 0.9
    want = model(IDS, key_mask=keys)
    with record_attention(model) as seen:
        got = model(IDS, key_mask=keys)
    assert relative_error(got, want) < 1e-10
    assert list(seen) == ["blocks.0.attention", "blocks.1.attention"]
    i, j = torch.arange(100)[:, None], torch.arange(100)
    for layer, weights in enumerate(seen.values()):
        allowed = (i - j).abs() <= 3
        config = model.config
        if config.pattern == "full":
            allowed = torch.ones_like(allowed)
        if config.has_global:
            allowed = allowed | (i < config.n_global) | (j < config.n_global)
        if config.pattern == "bigbird":
            drawn = model.blocks[layer].attention.blocks
            allowed = allowed | (drawn[i // 16] == (j // 16).unsqueeze(-1)).any(-1)
        allowed = allowed & keys[:, None, None]
        assert torch.equal(weights > 0, allowed.expand_as(weights))
        assert torch.allclose(weights.sum(-1), allowed.any(-1).expand(2, 2, -1).double())
    assert torch.equal(model(IDS, key_mask=keys), want)


def test_with_another_pattern_the_weights_stay():
    model = small(pattern="local").double()
    others = {name: model.with_pattern(**fields) for name, fields in VARIANTS.items() if name != "separate"}
    for name, other in others.items():
        assert other.config.pattern == VARIANTS[name]["pattern"]
        assert not other.training
        assert other.embedding.weight.dtype == torch.float64
        assert other.state_dict().keys() == model.state_dict().keys()
        assert all(
            torch.equal(a, b) for a, b in zip(other.state_dict().values(), model.state_dict().values(), strict=True)
        )
        assert all(a.data_ptr() != b.data_ptr() for a, b in zip(other.parameters(), model.parameters(), strict=True))
    assert torch.equal(others["local"](IDS), model(IDS))
    assert torch.equal(others["no global token"].with_pattern(pattern="local")(IDS), model(IDS))
    assert relative_error(others["no global token"](IDS), model(IDS)) < 1e-12
    assert not torch.allclose(others["full"](IDS), model(IDS))
    assert model.train().with_pattern(radius=1).training
    with pytest.raises(ValueError, match="need other weights"):
        small().with_pattern(separate_global=True)  # these weights are not there
    with pytest.raises(ValueError, match="changes: radios unknown"):
        small().with_pattern(radios=3)
    frozen = small().requires_grad_(False).with_pattern(pattern="full")
    assert not any(p.requires_grad for p in frozen.parameters())
    for at in (torch.zeros(1, 2).long(), torch.zeros(len(IDS), 2), torch.full((len(IDS), 1), IDS.shape[1])):
        with pytest.raises(ValueError, match="at "):
            small()(IDS, at=at)
    with pytest.raises(ValueError, match="pattern='dense'"):
        small().with_pattern(pattern="dense")


@pytest.mark.parametrize("pattern", ["local", "local_global", "bigbird"])
@pytest.mark.parametrize("radius", [99, 100, 400])
def test_a_radius_beyond_the_text_sees_all(pattern, radius):
    model = small(pattern="full").double()
    want = model(IDS)
    assert relative_error(model.with_pattern(pattern=pattern, radius=radius)(IDS), want) < 1e-12
    assert relative_error(model.with_pattern(pattern=pattern, radius=98)(IDS), want) > 1e-9 or pattern != "local"


@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("radius", [2, 5])
def test_information_goes_radius_times_depth_far_and_everywhere_through_a_global_token(n_layers, radius):
    model, place, reach = small(pattern="local", n_layers=n_layers, radius=radius), 50, radius * n_layers

    def influence(model):
        """Size of the gradient of the output at `place` for each token's embedding."""
        kept = []
        handle = model.embedding.register_forward_hook(lambda module, args, x: kept.append(x))
        y = model.hidden(IDS[:1])[0, place]
        handle.remove()
        (gradient,) = torch.autograd.grad(y, kept[0], torch.randn_like(y))
        return gradient[0].abs().sum(-1)

    size = influence(model)
    far = (torch.arange(100) - place).abs() > reach
    assert (size[far] == 0).all()
    assert (size[~far] > 0).all()
    size = influence(model.with_pattern(pattern="local_global"))
    assert (size > 0).all() == (n_layers > 1)
    assert size[0] > 0  # one step away


def test_global_tokens_are_the_first_or_those_that_are_said():
    model = small(pattern="local_global", n_global=2).double()
    first = torch.arange(100) < 2
    assert torch.equal(model(IDS, global_mask=first), model(IDS))
    assert torch.equal(model(IDS, global_mask=first.expand(2, 100)), model(IDS))
    others = torch.zeros(2, 100, dtype=torch.bool)
    others[0, 40] = others[1, [7, 99]] = True
    got = model(IDS, global_mask=others)
    assert not torch.allclose(got, model(IDS))
    for b in range(2):
        assert relative_error(got[b], model(IDS[b : b + 1], global_mask=others[b])[0]) < 1e-12


def test_each_layer_draws_its_own_blocks_by_seed():
    def drawn(**fields):
        model = SparseBert(config(**{"pattern": "bigbird", "n_layers": 3} | fields))
        return [block.attention.blocks for block in model.blocks]

    first, second, third = drawn()
    assert first.shape == (10, 2)  # 150 tokens in blocks of 16
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert torch.equal(first, draw_blocks(10, 2, seed_of(0, 0, "blocks")))
    assert torch.equal(second, draw_blocks(10, 2, seed_of(0, 1, "blocks")))
    same = drawn(random_per_layer=False)
    assert all(torch.equal(blocks, first) for blocks in same)
    assert not torch.equal(drawn(seed=1)[0], first)
    assert drawn(radius=50)[0].shape == (3, 2)
    assert drawn(n_random=0)[0].shape == (10, 0)
    assert all(torch.equal(a, b) for a, b in zip(drawn(), (first, second, third), strict=True))


def test_parts_and_parameters():
    config = SparseBertConfig()
    c, v = config.d_model, config.vocab_size
    a_block = 4 * (c * c + c) + 8 * c * c + 5 * c + 4 * c
    size = v * c + 4 * a_block + 2 * c + 2 * c + c * c + c + 2 * c

    def count(**fields):
        return sum(p.numel() for p in SparseBert(SparseBertConfig(**fields)).parameters())

    assert {count(pattern=pattern) for pattern in PATTERNS} == {size}
    assert count(placement="post") == size - 2 * c
    assert count(position="learned") == size + 4096 * c
    assert count(separate_global=True) == size + 4 * 3 * (c * c + c)
    assert count(pattern="local", separate_global=True) == size
    model = small(pattern="local", d_ff=20, dropout=0.3)
    assert {m.norm_fn for m in model.modules() if isinstance(m, LayerNorm)} == {fused_layer_norm}
    assert {block.mlp.up.out_features for block in model.blocks} == {20}
    assert {block.dropout.p for block in model.blocks} == {model.dropout.p} == {0.3}
    assert {type(block.attention) for block in model.blocks} == {MultiHeadAttention}
    assert {block.attention.attention_fn.func for block in model.blocks} == {local_attention}
    assert {type(block.attention) for block in small().blocks} == {GlobalLocalAttention}
    assert not torch.equal(model.train()(IDS), model(IDS))


def test_the_head_is_linear_gelu_norm_and_the_embedding_again():
    model = small(placement="post")
    x = model.hidden(IDS)
    head = F.gelu(x @ model.head.weight.T + model.head.bias)
    head = F.layer_norm(head, (8,), model.head_norm.weight, model.head_norm.bias)
    assert torch.allclose(model(IDS), head @ model.embedding.weight.T, atol=1e-4)


FIRST = {"embedding.weight": -0.02681426890194416, "head.weight": 0.5307492017745972}


def test_the_first_weights_and_the_first_loss():
    """Recorded studies begin with these, whatever the pattern."""
    models = [SparseBert(config(**fields)) for fields in ({"pattern": "full"}, {"pattern": "bigbird"})]
    for model in models:
        got = {name: float(dict(model.named_parameters())[name][0, 0].detach()) for name in FIRST}
        assert got == pytest.approx(FIRST, rel=1e-5)
        loss = F.cross_entropy(model(IDS).flatten(0, 1), IDS.flatten())
        assert loss.item() == pytest.approx(math.log(23), abs=0.3)
    assert models[0].position.scale == pytest.approx(0.02 * 2**0.5)


@pytest.mark.parametrize("pattern", ["full", "local"])
@pytest.mark.parametrize("fields", [{}, {"placement": "post", "position": "none", "dropout": 0.1}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_meta(pattern, fields, dtype):
    """Patterns with global tokens ask how many there are: see test_global_local."""
    model = SparseBert(config(pattern=pattern, **fields)).to("meta", dtype)
    ids = torch.zeros(2, 100, device="meta", dtype=torch.long)
    with NoCpu():
        logits = model(ids, at=ids[:, :5], key_mask=ids == 0)
        logits.sum().backward()
    assert logits.shape == (2, 5, 23)
    assert logits.dtype == dtype
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: config(vocab_size=0), "vocab_size=0; it must be 1 or more"),
        (lambda: config(vocab_size=50.0), "vocab_size=50.0; it must be 1 or more, a whole number"),
        (lambda: config(max_positions=0), "max_positions=0; it must be 1 or more"),
        (lambda: config(n_layers=0), "n_layers=0; it must be 1 or more"),
        (lambda: config(d_ff=0), "d_ff=0; it must be 1 or more"),
        (lambda: config(radius=-1), "radius=-1; it must be 0 or more"),
        (lambda: config(n_global=-1), "n_global=-1; it must be 0 or more"),
        (lambda: config(n_random=-1), "n_random=-1; it must be 0 or more"),
        (lambda: config(d_model=0), "d_model=0; it must be 1 or more"),
        (lambda: config(n_heads=3), "n_heads=3 does not divide d_model=8"),
        (lambda: config(pattern="sparse"), "pattern='sparse'; allowed are 'full', 'local', 'local_global', 'bigbird'"),
        (lambda: config(position="yarn"), "position='yarn'; allowed are 'rope', 'alibi', 't5', 'shaw', 'sinusoidal',"),
        (lambda: config(placement="mid"), "placement='mid'; allowed are 'pre', 'post'"),
        (lambda: config(dropout=1.0), "dropout=1.0; allowed is 0 to below 1"),
        (lambda: config(dropout=float("nan")), "dropout=nan"),
        (lambda: small()(IDS[0]), "ids is torch.int64 (100,); needed is int64 or int32 (B, T)"),
        (lambda: small()(IDS.float()), "ids is torch.float32 (2, 100)"),
        (lambda: small(position="learned", max_positions=99)(IDS), "ids: 100 tokens; max_positions=99 is the most"),
        (lambda: small(pattern="bigbird", max_positions=99)(IDS), "ids: 100 tokens; max_positions=99 is the most"),
        (lambda: small(pattern="full")(IDS, global_mask=IDS > 3), "global_mask: pattern='full' has no global tokens"),
        (lambda: small(pattern="local")(IDS, global_mask=IDS > 3), "global_mask: pattern='local' has no global"),
        (lambda: small()(IDS, global_mask=IDS), "global_mask is torch.int64 (2, 100); needed is bool (100,) or (2,"),
        (lambda: small()(IDS, key_mask=IDS), "key_mask is torch.int64 (2, 100); needed is bool (2, 100)"),
    ],
)
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()


def test_texts_longer_than_max_positions_where_nothing_ends_there():
    assert small(pattern="local", max_positions=9)(IDS).shape == (2, 100, 23)
    assert small(pattern="full", position="none", max_positions=9)(IDS).shape == (2, 100, 23)
