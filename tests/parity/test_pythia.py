"""Pythia against `transformers`' GPTNeoXForCausalLM, through the mappers, both ways: logits and all gradients."""

import re

import pytest
import torch
import torch.nn.functional as F
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from course_lib.interop import oracle, pythia_from_transformers, pythia_to_transformers
from course_lib.models.pythia import Pythia, PythiaConfig
from tests.conftest import randomise, relative_error
from tests.parity.compare import assert_same_gradients, gradients

SMALL = {"vocab_size": 17, "max_positions": 40, "d_model": 24, "n_heads": 3, "n_layers": 2}
SIZES = {
    "a quarter turns": {},
    "all turn": {"rotary_pct": 1.0},
    "pre": {"placement": "pre"},
    "pre, all turn": {"placement": "pre", "rotary_pct": 1.0, "n_layers": 3},
    "one of all": {"vocab_size": 5, "d_model": 10, "n_heads": 1, "n_layers": 1, "rotary_pct": 0.6},
    "narrow mlp": {"d_ff": 10, "n_heads": 2, "rotary_pct": 0.5, "rope_theta": 100.0},
    "interpolated": {"rope_extension": "interpolate", "rope_factor": 3.0},
}


def of(name, **fields):
    return PythiaConfig(**(SMALL | SIZES[name] | fields))


def theirs_of(config, attention="sdpa"):
    """Their model, built here and not by `interop`. Its eager attention makes weights in float32."""
    extended = config.rope_extension == "interpolate"
    rope = {"rope_type": "linear", "factor": config.rope_factor} if extended else {"rope_type": "default"}
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=config.vocab_size, hidden_size=config.d_model, num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads, intermediate_size=config.d_ff or 4 * config.d_model,
            rope_parameters=rope | {"rope_theta": config.rope_theta, "partial_rotary_factor": config.rotary_pct},
            max_position_embeddings=config.max_positions, use_parallel_residual=config.placement == "parallel",
            bos_token_id=0, eos_token_id=0, attn_implementation=attention,
        )
    ).eval()  # fmt: skip


def text(config, length, rows=3):
    return torch.randint(config.vocab_size, (rows, length))


def loss(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def under_our_names(model, config):
    return pythia_from_transformers(gradients(model), config.n_layers, config.n_heads)


def assert_same(ours, theirs, ids, tolerance):
    """Logits, and gradients of a loss at all places, theirs under our names. No gradient is zero where keys turn."""
    got, want = ours(ids), theirs(ids, use_cache=False).logits
    assert relative_error(got, want) < tolerance
    targets = torch.randint(ours.config.vocab_size, ids.shape)
    for logits in (got, want):
        loss(logits, targets).backward()
    assert_same_gradients(gradients(ours), under_our_names(theirs, ours.config), tolerance)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_ours_becomes_theirs(name, dtype, tolerance):
    config = of(name)
    ours = randomise(Pythia(config)).to(dtype)
    theirs = theirs_of(config).to(dtype)
    theirs.load_state_dict(pythia_to_transformers(ours.state_dict(), config.n_layers, config.n_heads), strict=True)
    assert theirs.lm_head.weight is not theirs.gpt_neox.embed_in.weight
    for length in (40, 3):
        ours.zero_grad()
        theirs.zero_grad()
        assert_same(ours, theirs, text(config, length), tolerance)


@pytest.mark.parametrize("name", SIZES)
def test_theirs_becomes_ours(name):
    config = of(name)
    theirs = randomise(theirs_of(config)).double()
    ours = Pythia(config).double()
    state = pythia_from_transformers(theirs.state_dict(), config.n_layers, config.n_heads)
    ours.load_state_dict(state, strict=True)
    assert_same(ours, theirs, text(config, 40), 1e-10)


@pytest.mark.parametrize("name", ["a quarter turns", "pre"])
def test_beyond_the_longest_training_text_both_go_on(name):
    config = of(name)
    ours = randomise(Pythia(config)).double()
    assert_same(ours, oracle(ours), text(config, 100), 1e-10)


def test_the_round_trip_is_exact():
    config = of("narrow mlp")
    state = randomise(Pythia(config)).state_dict()
    there = pythia_to_transformers(state, config.n_layers, config.n_heads)
    back = pythia_from_transformers(there, config.n_layers, config.n_heads)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert there.keys() == theirs_of(config).state_dict().keys()


@pytest.mark.parametrize("placement", ["parallel", "pre"])
@pytest.mark.parametrize("rotary_pct", [0.25, 1.0])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_in_bfloat16_the_error_is_at_most_twice_theirs(placement, rotary_pct, attention):
    """Against float64 with the same, rounded weights; the sums of squares of all errors, of logits and gradients."""
    config = of("a quarter turns", placement=placement, rotary_pct=rotary_pct, d_model=96)
    exact, ids = randomise(Pythia(config)).bfloat16().double(), text(config, 40, rows=4)
    targets = text(config, 40, rows=4)
    ours = Pythia(config).bfloat16()
    ours.load_state_dict(exact.state_dict())
    theirs = oracle(ours)
    theirs.set_attn_implementation(attention)
    logits = {model: model(ids) if isinstance(model, Pythia) else model(ids).logits for model in (exact, ours, theirs)}
    for result in logits.values():
        loss(result.float(), targets).backward()
    want, got, other = gradients(exact), gradients(ours), under_our_names(theirs, config)

    def error(result, which):
        pairs = [(logits[result], logits[exact])] if which == "logits" else [(which[n], want[n]) for n in want]
        return sum(((a.double() - b).norm() / b.norm().clamp(min=1e-3)) ** 2 for a, b in pairs).sqrt()

    assert 0 < error(ours, "logits") <= 2 * error(theirs, "logits")
    assert 0 < error(ours, got) <= 2 * error(theirs, other)


@pytest.mark.parametrize("name", ["a quarter turns", "pre", "narrow mlp", "interpolated"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_oracle_is_theirs_with_our_weights(dtype, name):
    config = of(name, dropout=0.2)
    ours = randomise(Pythia(config)).to(dtype)
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    theirs = oracle(ours)
    assert torch.equal(torch.rand(2), wanted)
    assert type(theirs) is GPTNeoXForCausalLM
    assert not theirs.training
    assert theirs.dtype == dtype
    assert theirs.config._attn_implementation == ("sdpa" if dtype == torch.float64 else "eager")
    assert (theirs.config.hidden_dropout, theirs.config.attention_dropout) == (0.2, 0.0)
    assert_same(ours.eval(), theirs, text(config, 40), 1e-10 if dtype == torch.float64 else 1e-5)
    for parameter in theirs.parameters():  # a copy: training it leaves ours alone
        parameter.data.zero_()
    assert ours.embedding.weight.abs().min() > 0


def test_the_default_model_at_its_start_against_theirs():
    ours = Pythia(PythiaConfig(n_layers=2)).eval()
    ids = text(ours.config, 256, rows=1)
    with torch.no_grad():
        assert relative_error(ours(ids), oracle(ours)(ids).logits) < 1e-5


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"position": "alibi"}, "position='alibi', rope_extension='none', placement='parallel': GPT-NeoX has RoPE"),
        ({"position": "none"}, "position='none'"),
        ({"rope_extension": "ntk", "rope_factor": 2.0, "rotary_pct": 1.0}, "rope_extension='ntk'"),
        ({"placement": "post"}, "placement='post'"),
    ],
)
def test_what_has_no_oracle_says_so(fields, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        oracle(Pythia(PythiaConfig(**SMALL | fields)))
