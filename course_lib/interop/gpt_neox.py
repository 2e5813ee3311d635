"""Pythia's weights under two sets of names: ours, and those of `transformers`' GPTNeoXForCausalLM."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from course_lib.checks import check_at_least
from course_lib.interop.states import State, with_new_names
from course_lib.models.pythia import Pythia

# Ours -> theirs, of a block and around the blocks.
_BLOCK = {
    "attention_norm": "input_layernorm",
    "attention.out_proj": "attention.dense",
    "mlp_norm": "post_attention_layernorm",
    "mlp.up": "mlp.dense_h_to_4h",
    "mlp.down": "mlp.dense_4h_to_h",
}
_TOP = {
    "embedding.weight": "gpt_neox.embed_in.weight",
    "final_norm.weight": "gpt_neox.final_layer_norm.weight",
    "final_norm.bias": "gpt_neox.final_layer_norm.bias",
    "unembedding.weight": "lm_head.weight",
}
_OLD: dict[str, Any] = {
    "stem": "gpt_neox.", "heads": ("lm_head.",), "renamed": {"embed_out.weight": "lm_head.weight"},
    "buffers": r"(\.attention\.(masked_)?bias|rotary_emb\.inv_freq)$",
}  # fmt: skip
_QKV = ("attention.q_proj", "attention.k_proj", "attention.v_proj")
_ROPE_TYPES = {"none": "default", "interpolate": "linear"}


def pythia_to_transformers(state: Mapping[str, Tensor], n_layers: int, n_heads: int) -> dict[str, Tensor]:
    """The state dict of a Pythia with RoPE under the names of GPTNeoXForCausalLM.

    Raises ValueError for a tensor that is missing or has no place there, and heads that do not fit.
    """
    state = State(state, "Pythia with RoPE", n_layers)
    theirs = {name: state[ours] for ours, name in _TOP.items()}
    for i in range(n_layers):
        ours, there = f"blocks.{i}.", f"gpt_neox.layers.{i}."
        for kind in ("weight", "bias"):
            theirs |= {f"{there}{other}.{kind}": state[f"{ours}{name}.{kind}"] for name, other in _BLOCK.items()}
            # One matrix, whose rows are head by head those of query, key and value.
            heads = [_by_head(state[f"{ours}{name}.{kind}"], n_heads, 1) for name in _QKV]
            theirs[f"{there}attention.query_key_value.{kind}"] = torch.cat(heads, 1).flatten(0, 1)
    state.done()
    return theirs


def pythia_from_transformers(state: Mapping[str, Tensor], n_layers: int, n_heads: int) -> dict[str, Tensor]:
    """The state dict of a GPTNeoXForCausalLM under the names of our Pythia.

    The names of older files on the hub do as well: "embed_out", masks and angles among the weights. Raises ValueError
    for a tensor that is missing or has no place here, and heads that do not fit.
    """
    state = State(with_new_names(state, **_OLD), "GPTNeoXForCausalLM", n_layers)
    ours = {name: state[theirs] for name, theirs in _TOP.items()}
    for i in range(n_layers):
        here, there = f"blocks.{i}.", f"gpt_neox.layers.{i}."
        for kind in ("weight", "bias"):
            ours |= {f"{here}{name}.{kind}": state[f"{there}{other}.{kind}"] for name, other in _BLOCK.items()}
            heads = _by_head(state[f"{there}attention.query_key_value.{kind}"], n_heads, 3)
            parts = (part.flatten(0, 1) for part in heads.chunk(3, 1))
            ours |= {f"{here}{name}.{kind}": part for name, part in zip(_QKV, parts, strict=True)}
    state.done()
    return ours


def _by_head(tensor: Tensor, n_heads: int, parts: int) -> Tensor:
    """The rows of n_heads heads, each of `parts` equal parts: (H, parts D, ...)."""
    check_at_least("n_heads", n_heads, 1)
    if len(tensor) % (n_heads * parts):
        raise ValueError(f"n_heads={n_heads} does not fit: the {len(tensor) // parts} channels are not shared equally")
    return tensor.unflatten(0, (n_heads, -1))


def pythia_oracle(model: Pythia) -> Any:
    """A GPTNeoXForCausalLM with the weights of `model`, in eval mode.

    Its attention is the readable one; but for float64 the fused one: the other makes its weights in float32. Raises
    ValueError for what GPT-NeoX does not have: other schemes than RoPE, NTK-aware RoPE, post-norm.
    """
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = model.config
    if config.position != "rope" or config.rope_extension not in _ROPE_TYPES or config.placement == "post":
        raise ValueError(
            f"position={config.position!r}, rope_extension={config.rope_extension!r}, placement={config.placement!r}: "
            "GPT-NeoX has RoPE, as it is or interpolated, and parallel or pre-norm blocks"
        )
    rope: dict[str, Any] = {"rope_theta": config.rope_theta, "partial_rotary_factor": config.rotary_pct}
    rope["rope_type"] = _ROPE_TYPES[config.rope_extension]
    if config.rope_extension != "none":
        rope["factor"] = config.rope_factor
    with torch.random.fork_rng([]):  # their first weights are drawn, and thrown away
        theirs = GPTNeoXForCausalLM(
            GPTNeoXConfig(
                vocab_size=config.vocab_size, max_position_embeddings=config.max_positions, hidden_size=config.d_model,
                num_hidden_layers=config.n_layers, num_attention_heads=config.n_heads,
                intermediate_size=config.d_ff or 4 * config.d_model, hidden_act="gelu", rope_parameters=rope,
                use_parallel_residual=config.placement == "parallel", hidden_dropout=config.dropout,
                attention_dropout=0.0, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
            )
        ).eval()  # fmt: skip
    weight = model.embedding.weight
    theirs.set_attn_implementation("sdpa" if weight.dtype == torch.float64 else "eager")
    theirs.to(weight)  # first: float64 weights would be rounded on their way into float32
    theirs.load_state_dict(pythia_to_transformers(model.state_dict(), config.n_layers, config.n_heads), strict=True)
    return theirs
