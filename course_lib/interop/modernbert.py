"""ModernBERT's weights under two sets of names: ours, and those of `transformers`' ModernBertForMaskedLM."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from course_lib.interop.states import State, with_new_names
from course_lib.models.modernbert import ModernBertForMaskedLM

# Ours -> theirs, around the blocks and in one. All are weights without biases, but for the decoder.
_TOP = {
    "encoder.embedding.weight": "model.embeddings.tok_embeddings.weight",
    "encoder.embedding_norm.weight": "model.embeddings.norm.weight",
    "encoder.final_norm.weight": "model.final_norm.weight",
    "head.weight": "head.dense.weight",
    "head_norm.weight": "head.norm.weight",
    "bias": "decoder.bias",
}
_BLOCK = {
    "attention_norm": "attn_norm",
    "attention.out_proj": "attn.Wo",
    "mlp_norm": "mlp_norm",
    "mlp.down": "mlp.Wo",
}
# Several of ours are the rows of one matrix of theirs. Their MLP calls "input" what is activated: our gate.
_JOINED = {
    "attn.Wqkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "mlp.Wi": ("mlp.gate", "mlp.up"),
}
_OLD: dict[str, Any] = {"stem": "model.", "heads": ("head.", "decoder."), "renamed": {}, "buffers": r"inv_freq$"}


def _single(layer: int) -> dict[str, str]:
    """Names of a block, ours -> theirs; the first has no norm before its attention."""
    names = {ours: theirs for ours, theirs in _BLOCK.items() if layer or ours != "attention_norm"}
    return {
        f"encoder.blocks.{layer}.{ours}.weight": f"model.layers.{layer}.{theirs}.weight"
        for ours, theirs in names.items()
    }


def modernbert_to_transformers(state: Mapping[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    """The state dict of a ModernBertForMaskedLM, ours, under the names of theirs.

    Raises ValueError for a tensor that is missing or has no place there.
    """
    state = State(state, "ModernBertForMaskedLM", n_layers)
    theirs = {name: state[ours] for ours, name in _TOP.items()}
    theirs["decoder.weight"] = state["encoder.embedding.weight"]
    for i in range(n_layers):
        theirs |= {name: state[ours] for ours, name in _single(i).items()}
        for name, parts in _JOINED.items():
            rows = [state[f"encoder.blocks.{i}.{part}.weight"] for part in parts]
            theirs[f"model.layers.{i}.{name}.weight"] = torch.cat(rows)
    state.done()
    return theirs


def modernbert_from_transformers(state: Mapping[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    """The state dict of their ModernBertForMaskedLM under our names.

    Raises ValueError for a tensor that is missing or has no place here, and a decoder that is not the embedding.
    """
    state = State(with_new_names(state, **_OLD), "ModernBertForMaskedLM", n_layers)
    if "decoder.weight" in state:
        decoder, words = state["decoder.weight"], state[_TOP["encoder.embedding.weight"]]
        if decoder.shape != words.shape or not (decoder.is_meta or torch.equal(decoder, words)):
            raise ValueError("state: 'decoder.weight' is not the embedding; in our ModernBERT both are one matrix")
    ours = {name: state[theirs] for name, theirs in _TOP.items()}
    for i in range(n_layers):
        ours |= {name: state[theirs] for name, theirs in _single(i).items()}
        for name, parts in _JOINED.items():
            rows = state[f"model.layers.{i}.{name}.weight"].chunk(len(parts))
            ours |= {f"encoder.blocks.{i}.{part}.weight": own for part, own in zip(parts, rows, strict=True)}
    state.done()
    return ours


def modernbert_oracle(model: ModernBertForMaskedLM) -> Any:
    """Their ModernBertForMaskedLM with the weights of `model`, in eval mode.

    Its attention is the readable one; but for float64 the fused one: the other makes its weights in float32. It
    turns queries and keys in float32 all the same, so that in float64 both agree to 1e-6.
    """
    from transformers import ModernBertConfig
    from transformers import ModernBertForMaskedLM as Theirs

    config = model.config
    thetas = {"full_attention": config.global_theta, "sliding_attention": config.local_theta}
    sizes: dict[str, Any] = {
        "vocab_size": config.vocab_size, "hidden_size": config.d_model, "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads, "intermediate_size": config.d_ff or 3 * config.d_model // 2,
        "local_attention": config.local_attention,
        "layer_types": [
            "full_attention" if config.is_global(i) else "sliding_attention" for i in range(config.n_layers)
        ],
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()},
    }  # fmt: skip
    # A padding row of the embedding would get no gradient; and ids of special tokens may lie beyond a small vocabulary.
    sizes |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))
    with torch.random.fork_rng([]):  # their first weights are drawn, and thrown away
        theirs = Theirs(ModernBertConfig(**sizes)).eval()
    weight = model.encoder.embedding.weight
    theirs.set_attn_implementation("sdpa" if weight.dtype == torch.float64 else "eager")
    theirs.to(weight)  # first: float64 weights would be rounded on their way into float32
    theirs.load_state_dict(modernbert_to_transformers(model.state_dict(), config.n_layers), strict=True)
    return theirs
