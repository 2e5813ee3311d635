"""GPT-2: a stack of causal transformer blocks on token and learned position embeddings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import positions
from course_lib.attention.kv_cache import Cache, KVCache
from course_lib.attention.masks import causal
from course_lib.attention.multi_head import MultiHeadAttention, check_heads
from course_lib.checks import check_above, check_choice, check_dropout, check_sizes
from course_lib.init import init_weights
from course_lib.mlp import MLP
from course_lib.models.inputs import check_ids, check_length, places_of
from course_lib.norms import LayerNorm, fused_layer_norm
from course_lib.transformer_block import PLACEMENTS, TransformerBlock


@dataclass(frozen=True)
class GPT2Config:
    """Sizes of a GPT2; __post_init__ raises ValueError on what cannot be. The defaults make 3.5 million parameters."""

    vocab_size: int = 4000
    max_positions: int = 256  # the longest text; learned positions end there
    d_model: int = 192
    n_heads: int = 6
    n_kv_heads: int | None = None  # None: as many as n_heads; 1: multi-query attention
    n_layers: int = 6
    d_ff: int | None = None  # None: 4 d_model
    dropout: float = 0.0  # of the embeddings and of what each part adds to the stream
    placement: str = "pre"  # of the norms; "post" is the order of the first transformer, "parallel" that of GPT-NeoX
    write_scale: float = 1.0  # of the matrices that write to the stream, at first, beside 1 / sqrt(2 n_layers)
    seed: int = 0

    def __post_init__(self) -> None:
        check_above("write_scale", self.write_scale, 0)
        check_sizes(vocab_size=self.vocab_size, max_positions=self.max_positions, n_layers=self.n_layers)
        if self.d_ff is not None:
            check_sizes(d_ff=self.d_ff)
        check_heads(self.d_model, self.n_heads, self.n_heads if self.n_kv_heads is None else self.n_kv_heads, None)
        check_dropout(self.dropout)
        check_choice("placement", self.placement, PLACEMENTS)


class GPT2(nn.Module):
    """A decoder-only language model: ids (B, T) of tokens -> logits (B, T, V) of the next ones.

    The unembedding is the token embedding (tied). At the start, what each part writes to the stream is scaled down by
    sqrt(2 n_layers), as in GPT-2, and by `write_scale`; other matrices begin as `init_weights` says. Dropout acts on
    the embeddings and on what the parts write, not on attention weights. Raises ValueError in forward for ids that are
    not (B, T) integers of the vocabulary, or for a text beyond max_positions.
    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3.
    """

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position = positions.make(
            "learned", d_model=config.d_model, n_heads=config.n_heads, max_positions=config.max_positions, causal=True
        )
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_block(config) for _ in range(config.n_layers))
        # A post-norm stream is normalised already.
        self.final_norm = nn.Identity() if config.placement == "post" else _norm(config)
        shrink = config.write_scale / math.sqrt(2 * config.n_layers)
        init_weights(self, config.seed, gains={"blocks.*.attention.out_proj": shrink, "blocks.*.mlp.down": shrink})

    def forward(
        self, ids: Tensor, caches: Sequence[Cache] | None = None, *, key_mask: Tensor | None = None,
        pos: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """ids (B, T) -> logits (B, T, V); with caches, one a block, ids are new tokens after those already in them.

        key_mask (B, S), of all tokens so far, is True for those that count: texts may be padded on the left. `pos`,
        (T,) or (B, T), are their places; None counts them from the first that counts.
        """
        check_ids(ids, self.config.vocab_size)
        check_length(ids, caches, self.config.max_positions)
        places, pos = places_of(ids, len(self.blocks), caches, key_mask, pos)
        x = self.dropout(self.position.embed(self.embedding(ids), pos))  # (B, T, C)
        for i, block in enumerate(self.blocks):
            x = block(x, places, cache=caches[i] if caches else None)
        return F.linear(self.final_norm(x), self.embedding.weight)  # (B, T, V)

    def new_caches(self) -> Sequence[Cache]:
        """An empty cache for each block, with room for max_positions tokens."""
        return [KVCache(self.config.max_positions) for _ in self.blocks]


def _norm(config: GPT2Config) -> LayerNorm:
    return LayerNorm(config.d_model, norm_fn=fused_layer_norm)


def _block(config: GPT2Config) -> TransformerBlock:
    return TransformerBlock(
        MultiHeadAttention(config.d_model, config.n_heads, n_kv_heads=config.n_kv_heads, mask=causal),
        MLP(config.d_model, config.d_ff or 4 * config.d_model, activation="gelu_tanh"),
        (_norm(config), _norm(config)),
        placement=config.placement,
        dropout=config.dropout,
    )
