"""ModernBERT: which layers see how far, padding, what it is made of, forms it comes in, what it refuses."""

import copy
import io
import math
import pickle
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib import pretrained
from course_lib.attention import MultiHeadAttention, attention, local_attention, window
from course_lib.features import record_attention
from course_lib.models.modernbert import ModernBert, ModernBertConfig, ModernBertForMaskedLM
from course_lib.norms import LayerNorm, fused_layer_norm
from course_lib.optim import split_params
from tests.conftest import randomise, relative_error
from tests.on_meta import NoCpu

SMALL = {"vocab_size": 23, "d_model": 16, "n_heads": 2, "n_layers": 4, "local_attention": 6}
IDS = torch.randint(23, (2, 100), generator=torch.Generator().manual_seed(3))


def config(**fields):
    return ModernBertConfig(**SMALL | fields)


def small(**fields):
    return randomise(ModernBertForMaskedLM(config(**fields))).eval()


@pytest.mark.parametrize("global_every", [1, 2, 3, 4, None])
def test_which_layer_sees_what(global_every):
    model = small(global_every=global_every, local_attention=7).double()  # 3 on either side, as with 6
    keys = torch.rand(2, 100) < 0.9
    want = model(IDS, key_mask=keys)
    with record_attention(model) as seen:
        assert relative_error(model(IDS, key_mask=keys), want) < 1e-10
    assert list(seen) == [f"encoder.blocks.{i}.attention" for i in range(4)]
    places = torch.arange(100)
    for layer, weights in enumerate(seen.values()):
        near = window(3).dense(places, places)
        allowed = near | (layer in {1: (0, 1, 2, 3), 2: (0, 2), 3: (0, 3), 4: (0,), None: ()}[global_every])
        assert torch.equal(weights > 0, (allowed & keys[:, None, None]).expand_as(weights))


@pytest.mark.parametrize("n_layers", [2, 3, 4])
@pytest.mark.parametrize("radius", [2, 5])
def test_local_layers_carry_information_radius_times_their_number_far(n_layers, radius):
    model, place = small(n_layers=n_layers, local_attention=2 * radius, global_every=None).encoder, 50

    def influence(after):
        kept = []
        part = model.blocks[after - 1] if after else model.embedding_norm
        handle = part.register_forward_hook(lambda module, args, x: kept.append(x))
        y = model(IDS[:1])[0, place]
        handle.remove()
        (gradient,) = torch.autograd.grad(y, kept[0], torch.randn_like(y))
        return gradient[0].abs().sum(-1)

    distance = (torch.arange(100) - place).abs()
    for after in range(n_layers + 1):
        assert torch.equal(influence(after) > 0, distance <= radius * (n_layers - after))


def test_a_global_layer_carries_it_everywhere():
    model = small(global_every=3).double()
    changed = IDS.clone()
    changed[:, 90] = (IDS[:, 90] + 1) % 23
    assert (model(changed) != model(IDS))[:, :5].any(-1).all()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("local_attention", [6, 60])
def test_what_stands_in_padding_changes_no_bit(side, local_attention):
    model, keys = small(local_attention=local_attention), torch.ones(2, 100, dtype=torch.bool)
    keys[0, 60:] = False
    keys[1, 97:] = False
    keys = keys if side == "right" else keys.flip(1)
    want = model(IDS, key_mask=keys)
    for offset in (1, 7):
        changed = torch.where(keys, IDS, (IDS + offset) % 23)
        assert torch.equal(model(changed, key_mask=keys)[keys], want[keys])
    assert not torch.allclose(model(changed)[keys], model(IDS)[keys])
    alone = model(IDS[:1, keys[0]])
    assert torch.allclose(alone, want[:1, keys[0]], atol=2e-5)  # as if it were not there
    assert model(IDS, key_mask=torch.zeros_like(keys)).isfinite().all()
    assert torch.allclose(model(IDS, key_mask=torch.ones_like(keys)), model(IDS), atol=2e-5)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("local_attention", [6, 60])
def test_unpadding_is_padding_without_the_work(side, local_attention):
    """The same logits and gradients; but for the attention nothing is computed for padding."""
    plain = small(local_attention=local_attention).double()
    other = ModernBertForMaskedLM(config(local_attention=local_attention, unpad=True)).double()
    other.load_state_dict(plain.state_dict())
    keys = torch.ones(2, 100, dtype=torch.bool)
    keys[0, 9:] = False
    keys[1, 80:] = False
    keys = keys if side == "right" else keys.flip(1)
    shapes = []
    for module in (other.encoder.blocks[1].mlp, other.encoder.blocks[2].attention.q_proj):
        module.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape)))
    want, got = plain(IDS, key_mask=keys), other(IDS, key_mask=keys)
    assert shapes == [(1, 89, 16)] * 2
    assert relative_error(got[keys], want[keys]) < 1e-12
    assert not other.encoder(IDS, key_mask=keys)[~keys].any()
    for logits in (want, got):
        F.cross_entropy(logits[keys], IDS[keys]).backward()
    for p, q in zip(plain.parameters(), other.parameters(), strict=True):
        assert relative_error(q.grad, p.grad) < 1e-10
    assert relative_error(other(IDS), plain(IDS)) < 1e-12  # nothing to leave out
    assert shapes[-1] == (2, 100, 16)
    with record_attention(other) as seen, record_attention(plain) as wanted:
        other(IDS, key_mask=keys)
        plain(IDS, key_mask=keys)
    rows = keys[:, None, :, None].expand(-1, 2, -1, 100)  # what padding itself looks at says nothing
    assert all(torch.allclose(seen[name][rows], wanted[name][rows]) for name in wanted)
    at = torch.tensor([[keys[0].nonzero()[3].item()], [50]])
    assert relative_error(other(IDS, at=at, key_mask=keys), plain(IDS, at=at, key_mask=keys)) < 1e-12


def test_places_are_those_of_the_whole():
    model = small()
    at = torch.tensor([[5, 0, 99], [17, 17, 42]])
    want = model(IDS).gather(1, at.unsqueeze(-1).expand(-1, -1, 23))
    assert torch.allclose(model(IDS, at=at), want, atol=1e-5)
    assert model(IDS, at=at[:, :0]).shape == (2, 0, 23)
    assert torch.equal(model(IDS.int()), model(IDS))
    assert model(IDS[:, :0]).shape == (2, 0, 23)


def test_the_head_is_linear_gelu_norm_and_the_embedding_again():
    model = small()
    head = F.layer_norm(F.gelu(model.encoder(IDS) @ model.head.weight.T), (16,), model.head_norm.weight)
    assert torch.allclose(model(IDS), head @ model.encoder.embedding.weight.T + model.bias, atol=1e-4)


def test_parts_and_parameters():
    made = ModernBertForMaskedLM(ModernBertConfig())
    c, v = 192, 4000
    a_block = 4 * c * c + 3 * c * (3 * c // 2) + 2 * c
    assert sum(p.numel() for p in made.parameters()) == v * c + v + 6 * a_block - c + 2 * c + c * c + c == 2_691_616
    model = small(d_ff=10, global_every=2, global_theta=50.0, local_theta=7.0)
    assert {name for name, p in model.named_parameters() if name.endswith("bias")} == {"bias"}
    assert {m.norm_fn for m in model.modules() if isinstance(m, LayerNorm)} == {fused_layer_norm}
    norms = [block.attention_norm for block in model.encoder.blocks]
    assert [type(norm) for norm in norms] == [nn.Identity, LayerNorm, LayerNorm, LayerNorm]
    layers = [block.attention for block in model.encoder.blocks]
    assert {type(layer) for layer in layers} == {MultiHeadAttention}
    assert [layer.position.theta for layer in layers] == [50.0, 7.0, 50.0, 7.0]
    assert {layer.position.rotary_dim for layer in layers} == {8}
    assert [layer.attention_fn is attention for layer in layers] == [True, False, True, False]
    assert (layers[1].attention_fn.func, layers[1].attention_fn.keywords) == (local_attention, {"radius": 3})
    assert {block.mlp.up.out_features for block in model.encoder.blocks} == {10}
    assert (ModernBertConfig().radius, config(local_attention=7).radius) == (64, 3)
    hidden, rest = split_params(model)  # the tied matrix and the bias of the decoder are not for Muon
    assert len(hidden) == 4 * 7 + 1
    assert any(p is model.encoder.embedding.weight for p in rest)


FIRST = {"encoder.embedding.weight": -0.02681426890194416, "head.weight": -0.16865375638008118}


def test_the_first_weights_and_the_first_loss():
    """Recorded studies begin with these."""
    model = ModernBertForMaskedLM(config())
    got = {name: float(dict(model.named_parameters())[name][0, 0].detach()) for name in FIRST}
    assert got == pytest.approx(FIRST, rel=1e-5)
    loss = F.cross_entropy(model(IDS).flatten(0, 1), IDS.flatten())
    assert loss.item() == pytest.approx(math.log(23), abs=0.3)
    assert not torch.equal(ModernBertForMaskedLM(config(seed=1)).head.weight, model.head.weight)
    wide = ModernBert(ModernBertConfig(n_layers=8, vocab_size=9))
    for part in (wide.blocks[3].attention.out_proj, wide.blocks[7].mlp.down):  # what writes begins smaller
        assert part.weight.std().item() == pytest.approx(1 / (part.in_features * 16) ** 0.5, rel=0.02)


def test_forward_and_backward_reach_every_parameter():
    model = small()
    F.cross_entropy(model(IDS).flatten(0, 1), IDS.flatten()).backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_meta(dtype):
    model = ModernBertForMaskedLM(config()).to("meta", dtype)
    ids = torch.zeros(2, 100, device="meta", dtype=torch.long)
    with NoCpu():
        logits = model(ids, at=ids[:, :5], key_mask=ids == 0)
        logits.sum().backward()
    assert (logits.shape, logits.dtype) == ((2, 5, 23), dtype)
    assert all(p.grad is not None for p in model.parameters())


def test_pickled_copied_saved_and_filled():
    model, file = small(), io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    filled = ModernBertForMaskedLM(config()).to("meta").eval().to_empty(device="cpu")
    filled.load_state_dict(model.state_dict(), strict=True)
    others = (pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False), copy.deepcopy(model), filled)
    assert all(torch.equal(other(IDS), model(IDS)) for other in others)


def test_trained_weights_are_kept_in_half_precision(tmp_path, monkeypatch):
    model = small(d_ff=10)
    origin = pretrained.Origin(ModernBertForMaskedLM, ModernBertConfig, "study", "arm", 0)
    monkeypatch.setitem(pretrained.MODELS, "small", origin)
    monkeypatch.setattr(pretrained, "verified", lambda path: tmp_path / path.removeprefix("weights/"))
    pretrained.save("small", model, tmp_path)
    back = pretrained.load("small")
    assert (back.config, back.training) == (model.config, False)
    assert torch.equal(back(IDS), copy.deepcopy(model).half().float()(IDS))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_captured_as_one_graph():
    model = small()
    torch.compiler.reset()
    got = torch.compile(model, backend="eager", fullgraph=True)(IDS)
    assert torch.allclose(got, model(IDS), atol=1e-4)
    assert torch.allclose(torch.export.export(model, (IDS,)).module()(IDS), model(IDS), atol=1e-4)


def test_under_autocast():
    model = small()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(IDS)
    assert logits.dtype == torch.bfloat16
    logits.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert (logits - model(IDS)).norm() < 0.1 * model(IDS).norm()


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: config(vocab_size=0), "vocab_size=0; it must be 1 or more"),
        (lambda: config(n_layers=0), "n_layers=0; it must be 1 or more"),
        (lambda: config(d_ff=0), "d_ff=0; it must be 1 or more"),
        (lambda: config(n_heads=3), "n_heads=3 does not divide d_model=16"),
        (lambda: config(n_heads=16), "d_model / n_heads=1; it must be even and at least 2"),
        (lambda: config(global_every=0), "global_every=0; it must be 1 or more"),
        (lambda: config(local_attention=-1), "local_attention=-1; it must be 0 or more"),
        (lambda: config(local_attention=6.0), "local_attention=6.0; it must be 0 or more, a whole number"),
        (lambda: config(global_theta=1.0), "global_theta=1.0; it must be above 1"),
        (lambda: config(local_theta=math.inf), "local_theta=inf; it must be above 1 and finite"),
        (lambda: small()(IDS[0]), "ids is torch.int64 (100,); needed is int64 or int32 (B, T)"),
        (lambda: small()(IDS + 1), "with vocab_size=23 the last is 22"),
        (lambda: small(unpad=True)(IDS, key_mask=IDS), "key_mask is torch.int64 (2, 100); needed is bool (2, 100)"),
        (lambda: small()(IDS, key_mask=IDS), "key_mask is torch.int64 (2, 100); needed is bool (2, 100)"),
        (lambda: small()(IDS, at=IDS[:1]), "at is torch.int64 (1, 100); needed is int64 (2, M)"),
        (lambda: small()(IDS, at=IDS + 90), "the text has 100 tokens"),
    ],
)
def test_bad_input_names_itself(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()
