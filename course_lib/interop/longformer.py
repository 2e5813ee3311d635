"""Longformer's attention under two sets of names: ours, and those of `transformers`' LongformerSelfAttention."""

from typing import Any

import torch
from torch import Tensor

from course_lib.attention.sparse_multi_head import GlobalLocalAttention

_NAMES = ("query", "key", "value")


def longformer_oracle(module: GlobalLocalAttention) -> Any:
    """A LongformerSelfAttention with the weights of `module`, in eval mode; call it with `longformer_masks`.

    It ends before our `out_proj`: (B, T, C) of the heads side by side; in their model the next module multiplies them.
    It needs a T that is a multiple of 2 radius, gives zeros for padding, and its softmax is computed in float32, in
    float64 too. Raises ValueError for what Longformer does not have: shared projections, no biases, random blocks, a
    position or a mask, a radius below 2.
    """
    from transformers import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    radius = module.radius
    lacks = {
        "separate_global=False": not len(module.global_proj),
        "bias=False": module.q_proj.bias is None,
        "blocks": module.blocks is not None,
        "position": module.position is not None,
        "mask": module.mask is not None,
        f"radius={radius}": radius < 2,
    }
    if any(lacks.values()):
        found = ", ".join(name for name, is_so in lacks.items() if is_so)
        raise ValueError(f"module has {found}; Longformer has projections of its global tokens' own, and no such thing")
    config = LongformerConfig(
        hidden_size=module.d_model, num_attention_heads=module.n_heads, attention_window=[2 * radius],
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    with torch.random.fork_rng([]):  # their first weights are drawn, and thrown away
        theirs = LongformerSelfAttention(config, layer_id=0).eval()
    theirs.to(module.q_proj.weight)
    ours = (module.q_proj, module.k_proj, module.v_proj, *module.global_proj)
    names = (*_NAMES, *(f"{name}_global" for name in _NAMES))
    state = {
        f"{name}.{kind}": tensor
        for name, linear in zip(names, ours, strict=True)
        for kind, tensor in linear.state_dict().items()
    }
    theirs.load_state_dict(state, strict=True)
    return theirs


def longformer_masks(global_mask: Tensor, key_mask: Tensor | None = None) -> dict[str, Any]:
    """Arguments of a LongformerSelfAttention for our masks, both bool (B, T), True = global, and True = may attend."""
    padding = torch.zeros_like(global_mask) if key_mask is None else ~key_mask
    chosen = global_mask & ~padding
    return {
        "attention_mask": 10_000.0 * chosen - 10_000.0 * padding,
        "is_index_masked": padding,
        "is_index_global_attn": chosen,
        "is_global_attn": bool(chosen.any()),
    }
