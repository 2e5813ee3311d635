"""GPT2 against `transformers`' GPT2LMHeadModel, through the mappers, both ways: logits and all gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import GPT2Config as TheirConfig
from transformers import GPT2LMHeadModel

from course_lib.interop import gpt2_from_transformers, gpt2_to_transformers, oracle
from course_lib.models.gpt2 import GPT2, GPT2Config
from tests.conftest import randomise, relative_error
from tests.parity.compare import assert_same_gradients, gradients

SIZES = {
    "small": {"vocab_size": 11, "max_positions": 9, "d_model": 8, "n_heads": 2, "n_layers": 2},
    "one of all": {"vocab_size": 5, "max_positions": 7, "d_model": 6, "n_heads": 1, "n_layers": 1},
    "narrow mlp": {"vocab_size": 17, "max_positions": 8, "d_model": 12, "n_heads": 4, "n_layers": 3, "d_ff": 10},
    "all heads": {"vocab_size": 9, "max_positions": 16, "d_model": 9, "n_heads": 3, "n_kv_heads": 3, "n_layers": 2},
}  # fmt: skip


def theirs_of(config):
    """Their model, built here and not by `interop`."""
    sizes = {"n_embd": config.d_model, "n_head": config.n_heads, "n_layer": config.n_layers, "n_inner": config.d_ff}
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    theirs = GPT2LMHeadModel(
        TheirConfig(
            vocab_size=config.vocab_size, n_positions=config.max_positions, **sizes, **dropout,
            bos_token_id=0, eos_token_id=0, attn_implementation="eager",
        )
    )  # fmt: skip
    return theirs.eval()


def text(config, length, rows=3):
    return torch.randint(config.vocab_size, (rows, length))


def assert_same(ours, theirs, ids, tolerance):
    """Logits, and gradients of a loss at all places, theirs under our names."""
    got, want = ours(ids), theirs(ids).logits
    assert relative_error(got, want) < tolerance
    targets = torch.randint(ours.config.vocab_size, ids.shape)
    for logits in (got, want):
        F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    their_gradients = gpt2_from_transformers(gradients(theirs), ours.config.n_layers)  # the tied matrix is there once
    assert_same_gradients(gradients(ours), their_gradients, tolerance, zero=("k_proj.bias",))


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_ours_becomes_theirs(name, dtype, tolerance):
    config = GPT2Config(**SIZES[name])
    ours = randomise(GPT2(config)).to(dtype)
    theirs = theirs_of(config).to(dtype)
    theirs.load_state_dict(gpt2_to_transformers(ours.state_dict(), config.n_layers), strict=True)
    assert theirs.lm_head.weight is theirs.transformer.wte.weight
    for length in (config.max_positions, 2):
        ours.zero_grad()
        theirs.zero_grad()
        assert_same(ours, theirs, text(config, length), tolerance)


@pytest.mark.parametrize("name", SIZES)
def test_theirs_becomes_ours(name):
    config = GPT2Config(**SIZES[name])
    theirs = randomise(theirs_of(config)).double()
    ours = GPT2(config).double()
    ours.load_state_dict(gpt2_from_transformers(theirs.state_dict(), config.n_layers), strict=True)
    assert_same(ours, theirs, text(config, config.max_positions), 1e-10)


def test_the_round_trip_is_exact():
    config = GPT2Config(**SIZES["narrow mlp"])
    state = randomise(GPT2(config)).state_dict()
    there = gpt2_to_transformers(state, config.n_layers)
    back = gpt2_from_transformers(there, config.n_layers)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert there.keys() == theirs_of(config).state_dict().keys()


@pytest.mark.parametrize("name", ["narrow mlp", "all heads"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_oracle_is_theirs_with_our_weights(dtype, name):
    config = GPT2Config(**SIZES[name], dropout=0.2)
    ours = randomise(GPT2(config)).to(dtype)
    theirs = oracle(ours)
    assert type(theirs) is GPT2LMHeadModel
    assert not theirs.training
    assert theirs.dtype == dtype
    assert theirs.config._attn_implementation == "eager"
    assert (theirs.config.resid_pdrop, theirs.config.embd_pdrop, theirs.config.attn_pdrop) == (0.2, 0.2, 0.0)
    assert_same(ours.eval(), theirs, text(config, 8), 1e-10 if dtype == torch.float64 else 2e-5)
    for parameter in theirs.parameters():  # a copy: training it leaves ours alone
        parameter.data.zero_()
    assert ours.embedding.weight.abs().min() > 0


def test_the_default_model_at_its_start_against_theirs():
    ours = GPT2(GPT2Config(n_layers=2)).eval()
    ids = text(ours.config, 256, rows=1)
    with torch.no_grad():
        assert relative_error(ours(ids), oracle(ours)(ids).logits) < 1e-5


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: GPT2(GPT2Config(**SIZES["small"] | {"n_kv_heads": 1})), "n_kv_heads=1, placement='pre'"),
        (lambda: GPT2(GPT2Config(**SIZES["small"], placement="post")), "n_kv_heads=None, placement='post'"),
        (lambda: nn.Linear(2, 2), "model is a Linear"),
    ],
)
def test_what_has_no_oracle_says_so(model, words):
    with pytest.raises(ValueError, match=words):
        oracle(model())


def test_asking_the_oracle_draws_no_random_number():
    ours = GPT2(GPT2Config(vocab_size=9, max_positions=4, d_model=8, n_heads=2, n_layers=1))
    torch.manual_seed(3)
    want = torch.rand(2)
    torch.manual_seed(3)
    oracle(ours)
    assert torch.equal(torch.rand(2), want)
