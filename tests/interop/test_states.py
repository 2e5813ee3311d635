"""Weights as files on the hub name them are taken; what is missing or left over is named."""

import re

import pytest
import torch

from course_lib.interop import (
    bert_names,
    bert_to_transformers,
    gpt2_from_transformers,
    gpt2_to_transformers,
    pythia_from_transformers,
    pythia_to_transformers,
)
from course_lib.models.gpt2 import GPT2, GPT2Config
from course_lib.models.pythia import Pythia, PythiaConfig
from course_lib.models.sparse_bert import SparseBert, SparseBertConfig
from tests.conftest import randomise

SIZES = {"vocab_size": 20, "d_model": 16, "n_heads": 2, "n_layers": 2}
GPT = randomise(GPT2(GPT2Config(max_positions=8, **SIZES))).state_dict()
NEOX = randomise(Pythia(PythiaConfig(**SIZES))).state_dict()
AS_BERT = {"max_positions": 8, "position": "learned", "pattern": "full"}
BERT = randomise(SparseBert(SparseBertConfig(**AS_BERT, **SIZES))).state_dict()
THEIR_GPT, THEIR_NEOX = gpt2_to_transformers(GPT, 2), pythia_to_transformers(NEOX, 2, 2)
MASK = torch.ones(8, 8).tril().bool()[None, None]


def changed(state, old="", new="", **more):
    return {re.sub(old, new, name): tensor for name, tensor in state.items()} | more


def without(state, *names):
    assert set(names) <= set(state)
    return {name: tensor for name, tensor in state.items() if name not in names}


def assert_equal(got, want):
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], want[name]) for name in want)


GPT_FILES = {
    "today's": THEIR_GPT,
    "the file `gpt2`: bare, with masks, without a head": without(
        changed(THEIR_GPT, r"^transformer\.") | {f"h.{i}.attn.bias": MASK for i in range(2)}, "lm_head.weight"
    ),
    "older, with masks and what masked": THEIR_GPT
    | {f"transformer.h.{i}.attn.{name}": MASK for i in range(2) for name in ("bias", "masked_bias")},
    "tied, stored once": without(THEIR_GPT, "lm_head.weight"),
}
NEOX_FILES = {
    "today's": THEIR_NEOX,
    "the files `pythia-*`": changed(THEIR_NEOX, r"^lm_head", "embed_out")
    | {f"gpt_neox.layers.{i}.attention.{name}": MASK for i in range(2) for name in ("bias", "masked_bias")}
    | {f"gpt_neox.layers.{i}.attention.rotary_emb.inv_freq": torch.ones(4) for i in range(2)},
    "angles once": THEIR_NEOX | {"gpt_neox.rotary_emb.inv_freq": torch.ones(4)},
    "bare": changed(THEIR_NEOX, r"^gpt_neox\."),
}


@pytest.mark.parametrize("file", GPT_FILES)
def test_gpt2_by_the_names_of_its_files(file):
    assert_equal(gpt2_from_transformers(GPT_FILES[file], 2), GPT)


@pytest.mark.parametrize("file", NEOX_FILES)
def test_pythia_by_the_names_of_its_files(file):
    assert_equal(pythia_from_transformers(NEOX_FILES[file], 2, 2), NEOX)


def test_shapes_alone():
    """On `meta`, where tensors have no values."""
    state = {name: tensor.to("meta") for name, tensor in THEIR_GPT.items()}
    assert gpt2_from_transformers(state, 2).keys() == GPT.keys()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gpt2_from_transformers(THEIR_GPT, 3),
         "state has no 'transformer.h.2.ln_1.weight': it has 2 layers, n_layers=3"),
        (lambda: gpt2_from_transformers(THEIR_GPT, 1),
         "state has 'transformer.h.1.ln_1.weight' and 11 more: it has 2 layers, n_layers=1"),
        (lambda: gpt2_from_transformers(without(THEIR_GPT, "transformer.wpe.weight"), 2),
         "state has no 'transformer.wpe.weight': it has 28 others, such as 'transformer.wte.weight'"),
        (lambda: gpt2_from_transformers(THEIR_NEOX, 2), "is it of a GPT2LMHeadModel?"),
        (lambda: gpt2_from_transformers({}, 2), "state has no 'transformer.wte.weight': it is empty"),
        (lambda: gpt2_from_transformers(THEIR_GPT | {"score.weight": MASK}, 2),
         "state has 'score.weight': a GPT2LMHeadModel has no place for it; leave it out"),
        (lambda: gpt2_from_transformers(THEIR_GPT | {"lm_head.weight": THEIR_GPT["lm_head.weight"] + 1}, 2),
         "'lm_head.weight' is not 'transformer.wte.weight'"),
        (lambda: gpt2_from_transformers(THEIR_GPT, 2.0), "n_layers=2.0; it must be 1 or more, a whole number"),
        (lambda: gpt2_to_transformers(GPT, 1), "state has 'blocks.1.attention.q_proj.weight' and 15 more: it has 2"),
        (lambda: gpt2_to_transformers(without(GPT, "final_norm.bias"), 2), "state has no 'final_norm.bias'"),
        (lambda: pythia_from_transformers(without(THEIR_NEOX, "lm_head.weight"), 2, 2),
         "state has no 'lm_head.weight'"),
        (lambda: pythia_from_transformers(THEIR_NEOX, 2, 3),
         "n_heads=3 does not fit: the 16 channels are not shared equally"),
        (lambda: pythia_from_transformers(THEIR_NEOX, 2, 0), "n_heads=0; it must be 1 or more"),
        (lambda: pythia_to_transformers(NEOX, 3, 2), "state has no 'blocks.2.attention_norm.weight': it has 2 layers"),
        (lambda: pythia_to_transformers(NEOX | {"position.embedding.weight": MASK}, 2, 2),
         "state has 'position.embedding.weight': a Pythia with RoPE has no place for it"),
        (lambda: bert_to_transformers(BERT, "pre", 1), "state has 'blocks.1."),
        (lambda: bert_to_transformers(without(BERT, "head.bias"), "pre", 2), "state has no 'head.bias'"),
        (lambda: bert_names("parallel", 2), "placement='parallel'; allowed are 'post', 'pre'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call()
