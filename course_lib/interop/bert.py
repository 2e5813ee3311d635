"""A SparseBert that sees all, under the names of `transformers`' BERT (post-norm) and RoBERTa-PreLayerNorm (pre)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from course_lib.checks import check_choice
from course_lib.interop.states import State
from course_lib.models.sparse_bert import SparseBert

# Ours -> theirs. `{}` is the number of a block.
_SHARED = {
    "attention.q_proj": "attention.self.query",
    "attention.k_proj": "attention.self.key",
    "attention.v_proj": "attention.self.value",
    "attention.out_proj": "attention.output.dense",
    "mlp.up": "intermediate.dense",
    "mlp.down": "output.dense",
}
_BLOCK = {
    "post": _SHARED | {"attention_norm": "attention.output.LayerNorm", "mlp_norm": "output.LayerNorm"},
    "pre": _SHARED | {"attention_norm": "attention.LayerNorm", "mlp_norm": "intermediate.LayerNorm"},
}
_STEM = {"post": "bert", "pre": "roberta_prelayernorm"}
_TOP = {
    "post": {"head": "cls.predictions.transform.dense", "head_norm": "cls.predictions.transform.LayerNorm"},
    "pre": {
        "head": "lm_head.dense",
        "head_norm": "lm_head.layer_norm",
        "final_norm": "roberta_prelayernorm.LayerNorm",
    },
}
_DECODER = {"post": "cls.predictions", "pre": "lm_head"}


def bert_names(placement: str, n_layers: int) -> dict[str, str]:
    """Each parameter of a SparseBert with learned positions -> the name in their model.

    Raises ValueError for a placement other than "post" and "pre".
    """
    check_choice("placement", placement, _STEM)
    stem = _STEM[placement]
    modules = {"embedding_norm": f"{stem}.embeddings.LayerNorm"} | _TOP[placement]
    for i in range(n_layers):
        modules |= {
            f"blocks.{i}.{ours}": f"{stem}.encoder.layer.{i}.{theirs}" for ours, theirs in _BLOCK[placement].items()
        }
    names = {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in modules.items() for kind in ("weight", "bias")}
    return names | {
        "embedding.weight": f"{stem}.embeddings.word_embeddings.weight",
        "position.embedding.weight": f"{stem}.embeddings.position_embeddings.weight",
    }


def bert_to_transformers(state: Mapping[str, Tensor], placement: str, n_layers: int) -> dict[str, Tensor]:
    """The state dict of a SparseBert under their names; a segment's embedding and biases, which we lack, are 0.

    Raises ValueError for a tensor that is missing or has no place there, and as `bert_names` does.
    """
    state = State(state, "SparseBert with learned positions", n_layers)
    theirs = {name: state[ours] for ours, name in bert_names(placement, n_layers).items()}
    words, decoder = state["embedding.weight"], _DECODER[placement]
    nothing = words.new_zeros(len(words))
    state.done()
    return theirs | {
        f"{_STEM[placement]}.embeddings.token_type_embeddings.weight": words.new_zeros(1, words.shape[1]),
        f"{decoder}.decoder.weight": words,
        f"{decoder}.decoder.bias": nothing,
        f"{decoder}.bias": nothing,
    }


def bert_oracle(model: SparseBert) -> Any:
    """A BertForMaskedLM for post-norm, a RobertaPreLayerNormForMaskedLM for pre-norm, with our weights, in eval mode.

    Call it with `position_ids=torch.arange(T)[None]`: RoBERTa would count from its padding. Raises ValueError for what
    they do not have: a pattern other than "full", positions that are not learned, parallel blocks.
    """
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        RobertaPreLayerNormConfig,
        RobertaPreLayerNormForMaskedLM,
    )

    config = model.config
    if config.pattern != "full" or config.position != "learned" or config.placement not in _STEM:
        raise ValueError(
            f"pattern={config.pattern!r}, position={config.position!r}, placement={config.placement!r}: BERT sees all, "
            "its positions are learned, and its blocks are post-norm or pre-norm"
        )
    sizes: dict[str, Any] = {
        "vocab_size": config.vocab_size, "max_position_embeddings": config.max_positions,
        "hidden_size": config.d_model, "num_attention_heads": config.n_heads, "num_hidden_layers": config.n_layers,
        "intermediate_size": config.d_ff or 4 * config.d_model, "type_vocab_size": 1, "layer_norm_eps": 1e-5,
        "hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": 0.0, "hidden_act": "gelu",
        "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,  # a padding row would get no gradient
    }  # fmt: skip
    with torch.random.fork_rng([]):  # their first weights are drawn, and thrown away
        if config.placement == "post":
            theirs: Any = BertForMaskedLM(BertConfig(**sizes))
        else:
            theirs = RobertaPreLayerNormForMaskedLM(RobertaPreLayerNormConfig(**sizes))
    theirs = theirs.eval()
    theirs.set_attn_implementation("eager")
    theirs.to(model.embedding.weight)  # first: float64 weights would be rounded on their way into float32
    state = bert_to_transformers(model.state_dict(), config.placement, config.n_layers)
    theirs.load_state_dict(state, strict=True)
    return theirs
