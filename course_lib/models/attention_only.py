"""A transformer without MLPs: attention alone, to see what heads of two layers can do together."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_lib.attention.masks import causal
from course_lib.attention.multi_head import MultiHeadAttention, check_heads
from course_lib.checks import check_even, check_sizes
from course_lib.init import init_weights
from course_lib.models.inputs import check_ids
from course_lib.norms import LayerNorm, fused_layer_norm
from course_lib.positions import RotaryPosition


@dataclass(frozen=True)
class AttentionOnlyConfig:
    """Sizes of an AttentionOnly; __post_init__ raises ValueError on what cannot be. The defaults: 42,000 parameters."""

    vocab_size: int = 64
    d_model: int = 64
    n_heads: int = 1
    n_layers: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check_sizes(vocab_size=self.vocab_size, n_layers=self.n_layers)
        check_heads(self.d_model, self.n_heads, self.n_heads, None)
        check_even("head_dim", self.d_model // self.n_heads)


class AttentionOnly(nn.Module):
    """A causal decoder whose layers only add attention: ids (B, T) of tokens -> logits (B, T, V) of the next ones.

    Each layer is x + attention(norm(x)), with RoPE on all channels; the unembedding is a matrix of its own. Raises
    ValueError in forward for ids that are not (B, T) integers of the vocabulary.
    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits" (there without norms and biases, and
    with positions added to queries and keys).
    """

    def __init__(self, config: AttentionOnlyConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        position = RotaryPosition(config.d_model // config.n_heads)
        self.norms = nn.ModuleList(_norm(config) for _ in range(config.n_layers))
        self.attentions = nn.ModuleList(
            MultiHeadAttention(config.d_model, config.n_heads, mask=causal, position=position)
            for _ in range(config.n_layers)
        )
        self.final_norm = _norm(config)
        self.unembedding = nn.Linear(config.d_model, config.vocab_size, bias=False)
        # At first the stream must say which token stands here: embeddings of size 1, as torch draws them, and layers
        # that write next to nothing. With our usual sizes, 0.02 beside 0.3, no induction head formed in 500 steps.
        init_weights(self, config.seed, gains={"attentions.*.out_proj": 0.01})
        with torch.no_grad():
            self.embedding.weight.mul_(50)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> logits (B, T, V)."""
        check_ids(ids, self.config.vocab_size)
        x = self.embedding(ids)  # (B, T, C)
        for norm, attention in zip(self.norms, self.attentions, strict=True):
            x = x + attention(norm(x))
        return self.unembedding(self.final_norm(x))  # (B, T, V)


def _norm(config: AttentionOnlyConfig) -> LayerNorm:
    return LayerNorm(config.d_model, norm_fn=fused_layer_norm)
