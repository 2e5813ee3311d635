"""Pythia: a decoder of the GPT-NeoX family whose positional scheme is a value of its config."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from course_lib import positions
from course_lib.attention.kv_cache import Cache, KVCache
from course_lib.attention.masks import causal
from course_lib.attention.multi_head import MultiHeadAttention, check_heads
from course_lib.checks import check_choice, check_dropout, check_sizes
from course_lib.init import init_weights
from course_lib.mlp import MLP
from course_lib.models.inputs import check_ids, check_length, places_of
from course_lib.norms import LayerNorm, fused_layer_norm
from course_lib.transformer_block import PLACEMENTS, TransformerBlock


@dataclass(frozen=True)
class PythiaConfig:
    """Sizes and positional scheme of a Pythia; __post_init__ raises ValueError on what cannot be."""

    vocab_size: int = 4000
    max_positions: int = 2048  # the longest text that a cache holds; learned positions end there
    d_model: int = 128
    n_heads: int = 4
    n_layers: int = 4
    d_ff: int | None = None  # None: 4 d_model
    position: str = "rope"
    rotary_pct: float = 0.25  # of "rope": the part of each head's channels that turns
    rope_theta: float = 10000.0
    rope_extension: str = "none"  # as in `rope_frequencies`
    rope_factor: float = 1.0
    alibi_slopes: str = "per_head"  # or "uniform": 1/16 for all
    max_distance: int = 128  # of "t5" and "shaw": distances beyond count as it
    n_buckets: int = 32  # of "t5"
    placement: str = "parallel"  # of attention and MLP, as in `TransformerBlock`
    dropout: float = 0.0  # of the embeddings and of what each part adds to the stream
    seed: int = 0

    def __post_init__(self) -> None:
        check_sizes(vocab_size=self.vocab_size, max_positions=self.max_positions, n_layers=self.n_layers)
        if self.d_ff is not None:
            check_sizes(d_ff=self.d_ff)
        check_heads(self.d_model, self.n_heads, self.n_heads, None)
        check_choice("placement", self.placement, PLACEMENTS)
        if not 0 < self.rotary_pct <= 1:
            raise ValueError(f"rotary_pct={self.rotary_pct}; allowed is above 0 to 1")
        if self.position == "rope" and (self.rotary_dim < 2 or self.rotary_dim % 2):
            raise ValueError(
                f"rotary_pct={self.rotary_pct}: of a head's {self.head_dim} channels {self.rotary_dim} would turn; the "
                "number must be even and at least 2"
            )
        check_dropout(self.dropout)
        self.scheme()  # refuses what the scheme cannot be

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.d_model // self.n_heads

    @property
    def rotary_dim(self) -> int:
        """How many channels of a head "rope" turns."""
        return int(self.head_dim * self.rotary_pct)

    def scheme(self) -> positions.Position:
        """A new module of the positional scheme."""
        return positions.make(
            self.position, d_model=self.d_model, n_heads=self.n_heads, max_positions=self.max_positions, causal=True,
            rotary_dim=self.rotary_dim, rope_theta=self.rope_theta, rope_extension=self.rope_extension,
            rope_factor=self.rope_factor, alibi_slopes=self.alibi_slopes, max_distance=self.max_distance,
            n_buckets=self.n_buckets,
        )  # fmt: skip


class Pythia(nn.Module):
    """A decoder-only language model: ids (B, T) of tokens -> logits (B, T, V) of the next ones.

    In each block attention and MLP read the same stream, each through a norm of its own ("parallel"); the unembedding
    is a matrix of its own. Sinusoidal and learned positions act on the embeddings; RoPE, ALiBi and T5's biases are one
    module for all blocks; Shaw's vectors are each block's own. Raises ValueError in forward for ids that are not
    (B, T) integers of the vocabulary, and for a text beyond learned positions; the other schemes go on.
    Sources: Biderman et al. 2023, "Pythia", section 2.3; Black et al. 2022, "GPT-NeoX-20B", section 2.
    """

    def __init__(self, config: PythiaConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position, schemes = positions.spread(config.position, config.scheme, config.n_layers)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_block(config, scheme) for scheme in schemes)
        self.final_norm = nn.Identity() if config.placement == "post" else _norm(config)
        self.unembedding = nn.Linear(config.d_model, config.vocab_size, bias=False)
        shrink = 1 / math.sqrt(2 * config.n_layers)
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
        if self.config.position == "learned":
            check_length(ids, caches, self.config.max_positions)
        places, pos = places_of(ids, len(self.blocks), caches, key_mask, pos)
        x = self.dropout(self.position.embed(self.embedding(ids), pos))  # (B, T, C)
        for i, block in enumerate(self.blocks):
            x = block(x, places, cache=caches[i] if caches else None)
        return self.unembedding(self.final_norm(x))  # (B, T, V)

    def new_caches(self) -> Sequence[Cache]:
        """An empty cache for each block, with room for max_positions tokens."""
        return [KVCache(self.config.max_positions) for _ in self.blocks]


def _norm(config: PythiaConfig) -> LayerNorm:
    return LayerNorm(config.d_model, norm_fn=fused_layer_norm)


def _block(config: PythiaConfig, position: positions.Position | None) -> TransformerBlock:
    return TransformerBlock(
        MultiHeadAttention(config.d_model, config.n_heads, mask=causal, position=position),
        MLP(config.d_model, config.d_ff or 4 * config.d_model),
        (_norm(config), _norm(config)),
        placement=config.placement,
        dropout=config.dropout,
    )
