"""GPT-2's weights under two sets of names: ours, and those of `transformers`' GPT2LMHeadModel."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from course_lib.interop.states import State, with_new_names
from course_lib.models.gpt2 import GPT2

# Ours -> theirs, of a block. Their matrices are (in, out), those of a Linear (out, in): transposed.
_BLOCK = {
    "attention_norm": "ln_1",
    "attention.out_proj": "attn.c_proj",
    "mlp_norm": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
_TOP = {
    "embedding.weight": "transformer.wte.weight",
    "position.embedding.weight": "transformer.wpe.weight",
    "final_norm.weight": "transformer.ln_f.weight",
    "final_norm.bias": "transformer.ln_f.bias",
}
_OLD: dict[str, Any] = {
    "stem": "transformer.", "heads": ("lm_head.",), "renamed": {}, "buffers": r"\.attn\.(masked_)?bias$",
}  # fmt: skip
_QKV = ("attention.q_proj", "attention.k_proj", "attention.v_proj")


def gpt2_to_transformers(state: Mapping[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    """The state dict of a GPT2 with full heads and pre-norm under the names of GPT2LMHeadModel.

    Raises ValueError for a tensor that is missing or has no place there.
    """
    state = State(state, "GPT2", n_layers)
    theirs = {name: state[ours] for ours, name in _TOP.items()}
    theirs["lm_head.weight"] = state["embedding.weight"]
    for i in range(n_layers):
        ours, there = f"blocks.{i}.", f"transformer.h.{i}."
        for kind in ("weight", "bias"):
            for name, other in _BLOCK.items():
                theirs[f"{there}{other}.{kind}"] = _turned(state[f"{ours}{name}.{kind}"])
            joined = torch.cat([state[f"{ours}{name}.{kind}"] for name in _QKV])
            theirs[f"{there}attn.c_attn.{kind}"] = _turned(joined)
    state.done()
    return theirs


def gpt2_from_transformers(state: Mapping[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    """The state dict of a GPT2LMHeadModel under the names of our GPT2.

    The names of older files on the hub do as well: without "transformer.", with masks among the weights. Raises
    ValueError for a tensor that is missing or has no place here, and an `lm_head` that is not the embedding.
    """
    state = State(with_new_names(state, **_OLD), "GPT2LMHeadModel", n_layers)
    if "lm_head.weight" in state:
        head, words = state["lm_head.weight"], state["transformer.wte.weight"]
        if head.shape != words.shape or not (head.is_meta or torch.equal(head, words)):
            raise ValueError("state: 'lm_head.weight' is not 'transformer.wte.weight'; in our GPT2 both are one matrix")
    ours = {name: state[theirs] for name, theirs in _TOP.items()}
    for i in range(n_layers):
        here, there = f"blocks.{i}.", f"transformer.h.{i}."
        for kind in ("weight", "bias"):
            for name, other in _BLOCK.items():
                ours[f"{here}{name}.{kind}"] = _turned(state[f"{there}{other}.{kind}"])
            parts = _turned(state[f"{there}attn.c_attn.{kind}"]).chunk(3)
            ours |= {f"{here}{name}.{kind}": part for name, part in zip(_QKV, parts, strict=True)}
    state.done()
    return ours


def gpt2_oracle(model: GPT2) -> Any:
    """A GPT2LMHeadModel with the weights of `model`, in eval mode.

    Raises ValueError for what GPT-2 does not have: shared key heads, post-norm.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    config = model.config
    if config.n_kv_heads not in (None, config.n_heads) or config.placement != "pre":
        raise ValueError(
            f"n_kv_heads={config.n_kv_heads}, placement={config.placement!r}: GPT-2 has as many key heads as query "
            "heads, and pre-norm"
        )
    with torch.random.fork_rng([]):  # their first weights are drawn, and thrown away
        theirs = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=config.vocab_size, n_positions=config.max_positions, n_embd=config.d_model,
                n_layer=config.n_layers, n_head=config.n_heads, n_inner=config.d_ff or 4 * config.d_model,
                resid_pdrop=config.dropout, embd_pdrop=config.dropout, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
            )
        ).eval()  # fmt: skip
    theirs.set_attn_implementation("eager")
    theirs.to(next(model.parameters()))  # first: float64 weights would be rounded on their way into float32
    theirs.load_state_dict(gpt2_to_transformers(model.state_dict(), config.n_layers), strict=True)
    return theirs


def _turned(weight: Tensor) -> Tensor:
    return weight.T if weight.ndim == 2 else weight
