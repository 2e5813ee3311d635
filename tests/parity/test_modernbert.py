"""Our ModernBERT against `transformers`' ModernBertForMaskedLM, mapped both ways: logits and all gradients."""

import re

import pytest
import torch
import torch.nn.functional as F
from transformers import ModernBertConfig as TheirConfig
from transformers import ModernBertForMaskedLM as Theirs
from transformers.models.modernbert import modeling_modernbert

from course_lib.attention.places import padded_positions
from course_lib.interop import modernbert_from_transformers, modernbert_to_transformers, oracle
from course_lib.models.modernbert import ModernBertConfig, ModernBertForMaskedLM
from tests.conftest import randomise, relative_error
from tests.parity.compare import assert_same_gradients, gradients

SMALL = {"vocab_size": 17, "d_model": 24, "n_heads": 3, "n_layers": 4, "local_attention": 6}
SIZES = {
    "every third": {},
    "every second": {"global_every": 2, "n_layers": 3, "local_theta": 30.0, "global_theta": 7.0},
    "every one": {"global_every": 1, "n_layers": 2},
    "one of all": {"vocab_size": 5, "d_model": 8, "n_heads": 1, "n_layers": 1},
    "narrow mlp, odd window": {"d_ff": 10, "n_heads": 2, "local_attention": 37, "n_layers": 3},
    "no one": {"global_every": None, "n_layers": 2},
    "itself alone": {"local_attention": 0, "n_layers": 2},
}
# Where a token sees itself alone, its query and key are asked nothing.
SILENT = {"itself alone": ("blocks.1.attention.q_proj.weight", "blocks.1.attention.k_proj.weight")}


@pytest.fixture(autouse=True)
def _float64_is_not_rounded(monkeypatch):
    """Theirs turns queries and keys in float32, whatever their type is; here in float64 where that is their type."""
    rotate_half = modeling_modernbert.rotate_half

    def turned(x, cos, sin):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide * cos + rotate_half(wide) * sin).to(x.dtype)

    def both(q, k, cos, sin, unsqueeze_dim=1):
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return turned(q, cos, sin), turned(k, cos, sin)

    monkeypatch.setattr(modeling_modernbert, "apply_rotary_pos_emb", both)


def of(name, **fields):
    return ModernBertConfig(**(SMALL | SIZES[name] | fields))


def theirs_of(config, attention="sdpa"):
    """Their model, built here and not by `interop`. Its eager attention makes weights in float32."""
    every = config.global_every or 99
    kinds = ["sliding_attention" if i % every or every == 99 else "full_attention" for i in range(config.n_layers)]
    thetas = {"full_attention": config.global_theta, "sliding_attention": config.local_theta}
    return Theirs(
        TheirConfig(
            vocab_size=config.vocab_size, hidden_size=config.d_model, num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads, intermediate_size=config.d_ff or config.d_model * 3 // 2,
            layer_types=kinds, local_attention=config.local_attention,
            rope_parameters={kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()},
            pad_token_id=None, bos_token_id=None, eos_token_id=None, cls_token_id=None, sep_token_id=None,
            attn_implementation=attention,
        )
    ).eval()  # fmt: skip


def text(config, length, rows=3):
    return torch.randint(config.vocab_size, (rows, length))


def under_our_names(model, config):
    return modernbert_from_transformers(gradients(model), config.n_layers)


def assert_same(ours, theirs, length, tolerance, zero=(), key_mask=None):
    """Logits, and gradients of a loss at all places that count, theirs under our names."""
    ids = text(ours.config, length)
    counts = torch.ones_like(ids).bool() if key_mask is None else key_mask
    seen = None if key_mask is None else key_mask.long()
    for model in (ours, theirs):
        model.zero_grad()
    # Only distances count, but angles are rounded to float32: both begin at the first token that counts.
    got = ours(ids, key_mask=key_mask)
    want = theirs(ids, attention_mask=seen, position_ids=padded_positions(counts)).logits
    assert relative_error(got[counts], want[counts]) < tolerance
    targets = text(ours.config, length)
    for logits in (got, want):
        F.cross_entropy(logits[counts], targets[counts]).backward()
    assert_same_gradients(gradients(ours), under_our_names(theirs, ours.config), tolerance, zero)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_ours_becomes_theirs(name, dtype, tolerance):
    """Texts of one block and of several, of lengths that no block divides: beyond the window in all but the last."""
    config = of(name)
    ours = randomise(ModernBertForMaskedLM(config)).to(dtype)
    theirs = theirs_of(config).to(dtype)
    theirs.load_state_dict(modernbert_to_transformers(ours.state_dict(), config.n_layers), strict=True)
    assert theirs.decoder.weight is theirs.model.embeddings.tok_embeddings.weight
    for length in (83, 37, 3):
        assert_same(ours, theirs, length, tolerance, SILENT.get(name, ()))


@pytest.mark.parametrize("name", SIZES)
def test_theirs_becomes_ours(name):
    config = of(name)
    theirs = randomise(theirs_of(config)).double()
    ours = ModernBertForMaskedLM(config).double()
    ours.load_state_dict(modernbert_from_transformers(theirs.state_dict(), config.n_layers), strict=True)
    assert_same(ours, theirs, 83, 1e-10, SILENT.get(name, ()))


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding(name, side):
    config, there = of(name), torch.ones(3, 83, dtype=torch.bool)
    there[1, 61:] = False
    there[2, 5:] = False
    ours = randomise(ModernBertForMaskedLM(config)).double()
    there = there if side == "right" else there.flip(1)
    assert_same(ours, oracle(ours), 83, 1e-10, SILENT.get(name, ()), there)


def test_the_round_trip_is_exact():
    config = of("narrow mlp, odd window")
    state = randomise(ModernBertForMaskedLM(config)).state_dict()
    there = modernbert_to_transformers(state, config.n_layers)
    back = modernbert_from_transformers(there, config.n_layers)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert there.keys() == theirs_of(config).state_dict().keys()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["every third", "every one"])
def test_in_bfloat16_the_error_is_at_most_twice_theirs(name, attention):
    """Against float64 with the same, rounded weights; the sums of squares of all errors, of logits and gradients."""
    config = of(name, d_model=96)
    exact, ids = randomise(ModernBertForMaskedLM(config)).bfloat16().double(), text(config, 83, rows=4)
    targets = text(config, 83, rows=4)
    ours = ModernBertForMaskedLM(config).bfloat16()
    ours.load_state_dict(exact.state_dict())
    theirs = oracle(ours)
    theirs.set_attn_implementation(attention)
    logits = {model: model(ids).logits if model is theirs else model(ids) for model in (exact, ours, theirs)}
    for result in logits.values():
        F.cross_entropy(result.flatten(0, 1).float(), targets.flatten()).backward()
    want, got, other = gradients(exact), gradients(ours), under_our_names(theirs, config)

    def error(result, which):
        pairs = [(logits[result], logits[exact])] if which == "logits" else [(which[n], want[n]) for n in want]
        return sum(((a.double() - b).norm() / b.norm().clamp(min=1e-3)) ** 2 for a, b in pairs).sqrt()

    assert 0 < error(ours, "logits") <= 2 * error(theirs, "logits")
    assert 0 < error(ours, got) <= 2 * error(theirs, other)


@pytest.mark.parametrize("name", ["every third", "every second", "narrow mlp, odd window"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_oracle_is_theirs_with_our_weights(dtype, name):
    ours = randomise(ModernBertForMaskedLM(of(name))).to(dtype)
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    theirs = oracle(ours)
    assert torch.equal(torch.rand(2), wanted)
    assert type(theirs) is Theirs
    assert not theirs.training
    assert theirs.dtype == dtype
    assert theirs.config._attn_implementation == ("sdpa" if dtype == torch.float64 else "eager")
    assert_same(ours, theirs, 83, 1e-10 if dtype == torch.float64 else 1e-5)
    for parameter in theirs.parameters():  # a copy: training it leaves ours alone
        parameter.data.zero_()
    assert ours.encoder.embedding.weight.abs().min() > 0


def test_the_default_model_at_its_start_against_theirs():
    """Beyond the default window of 64 to either side."""
    ours = ModernBertForMaskedLM(ModernBertConfig(n_layers=4)).eval()
    ids = text(ours.config, 300, rows=1)
    with torch.no_grad():
        assert relative_error(ours(ids), oracle(ours)(ids).logits) < 1e-5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("decoder.bias"), "state has no 'decoder.bias'"),
        (lambda state: state.update({"model.layers.0.attn_norm.weight": torch.ones(24)}), "attn_norm.weight'"),
        (lambda state: state.update({"decoder.weight": torch.ones(17, 24)}), "'decoder.weight' is not the embedding"),
    ],
)
def test_a_state_that_does_not_fit_says_so(change, words):
    config = of("every third")
    state = dict(theirs_of(config).state_dict())
    change(state)
    with pytest.raises(ValueError, match=re.escape(words)):
        modernbert_from_transformers(state, config.n_layers)
