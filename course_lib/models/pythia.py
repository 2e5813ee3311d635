"""Pythia: a decoder of the GPT-NeoX family whose positional scheme is a value of its config."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_lib.attention.kv_cache import Cache, KVCache, cached_length
from course_lib.attention.masks import causal
from course_lib.attention.multi_head import MultiHeadAttention, check_heads
from course_lib.block import PLACEMENTS, TransformerBlock
from course_lib.init import init_weights
from course_lib.mlp import MLP
from course_lib.models.ids import check_ids
from course_lib.norms import LayerNorm, fused_layer_norm
from course_lib.positions import (
    AlibiPosition,
    LearnedPosition,
    Position,
    RotaryPosition,
    ShawPosition,
    SinusoidalPosition,
    T5Position,
)
from course_lib.positions.absolute import AS_EMBEDDINGS
from course_lib.positions.alibi import UNIFORM_SLOPE

POSITIONS = ("rope", "alibi", "t5", "shaw", "sinusoidal", "learned", "none")
SLOPES = ("per_head", "uniform")


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
        for name in ("vocab_size", "max_positions", "n_layers", "d_ff"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}; it must be at least 1")
        check_heads(self.d_model, self.n_heads, self.n_heads, None)
        for name, allowed in (("position", POSITIONS), ("alibi_slopes", SLOPES), ("placement", PLACEMENTS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}; allowed are {', '.join(allowed)}")
        if not 0 < self.rotary_pct <= 1:
            raise ValueError(f"rotary_pct={self.rotary_pct}; allowed is above 0 to 1")
        if self.position == "rope" and (self.rotary_dim < 2 or self.rotary_dim % 2):
            raise ValueError(
                f"rotary_pct={self.rotary_pct}: of a head's {self.head_dim} channels {self.rotary_dim} would turn; the "
                "number must be even and at least 2"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}; allowed is 0 to below 1")
        self.scheme()  # refuses what the scheme cannot be

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.d_model // self.n_heads

    @property
    def rotary_dim(self) -> int:
        """How many channels of a head "rope" turns."""
        return int(self.head_dim * self.rotary_pct)

    def scheme(self) -> Position:
        """A new module of the positional scheme."""
        match self.position:
            case "rope":
                return RotaryPosition(
                    self.rotary_dim, self.rope_theta, extension=self.rope_extension, factor=self.rope_factor
                )
            case "alibi":
                return AlibiPosition(self.n_heads, UNIFORM_SLOPE if self.alibi_slopes == "uniform" else None)
            case "t5":
                return T5Position(self.n_heads, self.n_buckets, self.max_distance, bidirectional=False)
            case "shaw":
                return ShawPosition(self.head_dim, self.max_distance, bidirectional=False)
            case "sinusoidal":
                return SinusoidalPosition(self.d_model, AS_EMBEDDINGS)
            case "learned":
                return LearnedPosition(self.max_positions, self.d_model)
            case _:
                return Position()


class Pythia(nn.Module):
    """A decoder-only language model: ids (B, T) of tokens -> logits (B, T, V) of the next ones.

    In each block attention and MLP read the same stream, each through a norm of its own ("parallel"); the unembedding
    is a matrix of its own. Sinusoidal and learned positions act on the embeddings; RoPE, ALiBi and T5's biases are one
    module for all blocks; Shaw's vectors are each block's own. Raises ValueError in forward for ids that are not
    (B, T) integers and for a text beyond learned positions; the other schemes go on.
    Sources: Biderman et al. 2023, "Pythia", section 2.3; Black et al. 2022, "GPT-NeoX-20B", section 2.
    """

    def __init__(self, config: PythiaConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        scheme = config.scheme()
        embedded = config.position in ("sinusoidal", "learned")
        self.position = scheme if embedded else Position()
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            _block(config, None if embedded else config.scheme() if config.position == "shaw" else scheme)
            for _ in range(config.n_layers)
        )
        self.final_norm = nn.Identity() if config.placement == "post" else _norm(config)
        self.unembedding = nn.Linear(config.d_model, config.vocab_size, bias=False)
        shrink = 1 / math.sqrt(2 * config.n_layers)
        init_weights(self, config.seed, gains={"blocks.*.attention.out_proj": shrink, "blocks.*.mlp.down": shrink})

    def forward(self, ids: Tensor, caches: Sequence[Cache] | None = None) -> Tensor:
        """ids (B, T) -> logits (B, T, V); with caches, one a block, ids are new tokens after those already in them."""
        check_ids(ids)
        begin = cached_length(caches, len(self.blocks))
        pos = torch.arange(begin, begin + ids.shape[1], device=ids.device)
        if self.config.position == "learned" and begin + ids.shape[1] > self.config.max_positions:
            raise ValueError(
                f"ids: a text of {begin + ids.shape[1]} tokens; max_positions={self.config.max_positions} is the most "
                "that has learned positions"
            )
        x = self.dropout(self.position.embed(self.embedding(ids), pos))  # (B, T, C)
        for i, block in enumerate(self.blocks):
            x = block(x, cache=caches[i] if caches else None)
        return self.unembedding(self.final_norm(x))  # (B, T, V)

    def new_caches(self) -> list[KVCache]:
        """An empty cache for each block, with room for max_positions tokens."""
        return [KVCache(self.config.max_positions) for _ in self.blocks]


def _norm(config: PythiaConfig) -> LayerNorm:
    return LayerNorm(config.d_model, norm_fn=fused_layer_norm)


def _block(config: PythiaConfig, position: Position | None) -> TransformerBlock:
    return TransformerBlock(
        MultiHeadAttention(config.d_model, config.n_heads, mask=causal, position=position),
        MLP(config.d_model, config.d_ff or 4 * config.d_model),
        (_norm(config), _norm(config)),
        placement=config.placement,
        dropout=config.dropout,
    )
