"""SparseBert against BERT (post-norm) and RoBERTa-PreLayerNorm (pre-norm) of `transformers`: logits, all gradients."""

import pytest
import torch
import torch.nn.functional as F
from transformers import BertForMaskedLM, RobertaPreLayerNormForMaskedLM

from course_lib.attention import window
from course_lib.interop import bert_names, bert_to_transformers, oracle
from course_lib.models.sparse_bert import SparseBert, SparseBertConfig
from tests.conftest import randomise, relative_error
from tests.parity.compare import assert_same_gradients, gradients

SMALL = {
    "vocab_size": 17, "max_positions": 60, "d_model": 12, "n_heads": 3, "n_layers": 2, "pattern": "full",
    "position": "learned",
}  # fmt: skip
KINDS = {"post": BertForMaskedLM, "pre": RobertaPreLayerNormForMaskedLM}
SIZES = {
    "small": {},
    "narrow, deep": {"d_ff": 7, "n_layers": 3, "n_heads": 1},
    "one of all": {"d_model": 5, "n_heads": 1, "n_layers": 1, "max_positions": 9},
}


def small(**fields):
    return randomise(SparseBert(SparseBertConfig(**SMALL | fields))).double().eval()


def assert_same(ours, theirs, length, key_mask=None, seen=None, tolerance=1e-10, zero=("k_proj.bias",)):
    """Logits and gradients of a loss at all places that count."""
    config = ours.config
    ids = torch.randint(config.vocab_size, (3, length))
    counts = torch.ones_like(ids).bool() if key_mask is None else key_mask
    got = ours(ids, key_mask=key_mask)
    want = theirs(ids, attention_mask=seen, position_ids=torch.arange(length)[None]).logits
    assert relative_error(got[counts], want[counts]) < tolerance
    targets = torch.randint(config.vocab_size, ids.shape)
    for logits in (got, want):
        F.cross_entropy(logits[counts], targets[counts]).backward()
    names, their_gradients = bert_names(config.placement, config.n_layers), gradients(theirs)
    under_our_names = {ours: their_gradients[theirs] for ours, theirs in names.items()}
    assert_same_gradients(gradients(ours), under_our_names, tolerance, zero)


@pytest.mark.parametrize("placement", KINDS)
@pytest.mark.parametrize("name", SIZES)
def test_logits_and_gradients(name, placement):
    ours = small(placement=placement, **SIZES[name])
    theirs = oracle(ours)
    for length in (ours.config.max_positions, 2):
        for model in (ours, theirs):
            model.zero_grad()
        assert_same(ours, theirs, length)


@pytest.mark.parametrize("placement", KINDS)
def test_padding(placement):
    ours, there = small(placement=placement), torch.ones(3, 20, dtype=torch.bool)
    there[1, 13:] = False
    there[2, 1:] = False
    assert_same(ours, oracle(ours), 20, there, there.long())


@pytest.mark.parametrize("placement", KINDS)
@pytest.mark.parametrize("radius", [0, 2, 18])
def test_a_window_is_their_model_with_a_mask(placement, radius):
    """Theirs has no local attention, but takes any mask: all pairs farther than the radius are left out."""
    ours, places = small(placement=placement), torch.arange(60)
    far = ~window(radius).dense(places, places).expand(3, 1, 60, 60)
    seen = torch.zeros(3, 1, 60, 60).double().masked_fill(far, torch.finfo(torch.float64).min)  # added to the logits
    zero = ("k_proj.bias",) if radius else ("q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias")  # one key
    assert_same(ours.with_pattern(pattern="local", radius=radius), oracle(ours), 60, seen=seen, zero=zero)


@pytest.mark.parametrize("placement", KINDS)
def test_in_float32(placement):
    ours = small(placement=placement).float()
    assert_same(ours, oracle(ours), 60, tolerance=3e-5)


@pytest.mark.parametrize("placement", KINDS)
def test_the_default_sizes_at_their_start(placement):
    config = SparseBertConfig(pattern="full", position="learned", placement=placement, n_layers=2, max_positions=64)
    ours, ids = SparseBert(config).eval(), torch.randint(4000, (1, 64))
    with torch.no_grad():
        want = oracle(ours)(ids, position_ids=torch.arange(64)[None]).logits
        assert relative_error(ours(ids), want) < 1e-5


@pytest.mark.parametrize("placement", KINDS)
def test_the_oracle_is_theirs_with_a_copy_of_our_weights(placement):
    ours = small(placement=placement, dropout=0.2)
    torch.manual_seed(3)
    want = torch.rand(2)
    torch.manual_seed(3)
    theirs = oracle(ours)
    assert torch.equal(torch.rand(2), want)
    assert type(theirs) is KINDS[placement]
    assert not theirs.training
    assert theirs.dtype == torch.float64
    assert theirs.config._attn_implementation == "eager"
    assert (theirs.config.hidden_dropout_prob, theirs.config.attention_probs_dropout_prob) == (0.2, 0.0)
    state = bert_to_transformers(ours.state_dict(), placement, ours.config.n_layers)
    assert state.keys() == theirs.state_dict().keys()
    more = {p for name, p in theirs.named_parameters() if name not in bert_names(placement, 2).values()}
    assert sum(p.numel() for p in more) == 12 + 17  # a segment's embedding and the decoder's bias, all zero
    assert all(not p.any() for p in more)
    for parameter in theirs.parameters():
        parameter.data.zero_()
    assert all(p.abs().min() > 0 for p in ours.parameters())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pattern": "local"}, "pattern='local', position='learned', placement='pre': BERT sees all, its positions"),
        ({"pattern": "bigbird"}, "pattern='bigbird'"),
        ({"position": "sinusoidal"}, "pattern='full', position='sinusoidal'"),
        ({"position": "none"}, "position='none'"),
        ({"position": "rope", "d_model": 24}, "position='rope'"),
        ({"placement": "parallel"}, "placement='parallel'"),
    ],
)
def test_what_has_no_oracle_says_so(fields, words):
    with pytest.raises(ValueError, match=words):
        oracle(small(**fields))
