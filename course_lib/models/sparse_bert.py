"""SparseBert: an encoder whose attention pattern is a value of its config, with a head that fills in hidden tokens."""

from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.attention.local import block_of, local_attention
from course_lib.attention.masks import draw_blocks
from course_lib.attention.multi_head import MultiHeadAttention, check_heads
from course_lib.attention.sparse_multi_head import GlobalLocalAttention
from course_lib.block import PLACEMENTS, TransformerBlock
from course_lib.checks import check_at_least, kind_of
from course_lib.init import init_weights, seed_of
from course_lib.mlp import MLP
from course_lib.models.ids import check_ids
from course_lib.norms import LayerNorm, fused_layer_norm
from course_lib.positions import LearnedPosition, Position, RotaryPosition, SinusoidalPosition
from course_lib.positions.absolute import AS_EMBEDDINGS

PATTERNS = ("full", "local", "local_global", "bigbird")
POSITIONS = ("sinusoidal", "learned", "rope", "none")


@dataclass(frozen=True)
class SparseBertConfig:
    """Sizes and pattern of a SparseBert; __post_init__ raises ValueError on what cannot be."""

    vocab_size: int = 4000
    max_positions: int = 4096  # learned positions end there, and random blocks are drawn for so many tokens
    d_model: int = 128
    n_heads: int = 4
    n_layers: int = 4
    d_ff: int | None = None  # None: 4 d_model
    pattern: str = "local_global"
    radius: int = 64  # of the window, in all patterns but "full"
    n_global: int = 1  # the first tokens are global, unless forward is told others; in "local_global", "bigbird"
    separate_global: bool = False  # global tokens have projections of their own
    n_random: int = 2  # blocks of keys for each block of queries, in "bigbird"
    random_per_layer: bool = True  # each layer draws its own
    position: str = "sinusoidal"
    rope_theta: float = 10000.0  # of "rope", which turns all channels of a head
    dropout: float = 0.0  # of the embeddings and of what each part adds to the stream
    placement: str = "pre"  # of the norms
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("vocab_size", "max_positions", "n_layers", "d_ff"):
            if getattr(self, name) is not None:
                check_at_least(name, getattr(self, name), 1)
        for name in ("radius", "n_global", "n_random"):
            check_at_least(name, getattr(self, name), 0)
        check_heads(self.d_model, self.n_heads, self.n_heads, None)
        for name, allowed in (("pattern", PATTERNS), ("position", POSITIONS), ("placement", PLACEMENTS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}; allowed are {', '.join(allowed)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}; allowed is 0 to below 1")
        _position(self)  # refuses what the scheme cannot be

    @property
    def has_global(self) -> bool:
        """Whether the pattern knows global tokens."""
        return self.pattern in ("local_global", "bigbird")


class SparseBert(nn.Module):
    """A masked language model: ids (B, T), some of them hidden, -> logits (B, T, V) of what stands at each place.

    Embeddings, a norm, transformer blocks, a last norm, and a head: linear, GELU, LayerNorm, and the embedding again
    (tied). The pattern changes who sees whom, and no weight but those of separate_global: a state dict fits all.
    Raises ValueError in forward for ids that are not (B, T) integers, a text beyond learned positions or random
    blocks, and a global_mask where the pattern knows no global tokens.
    Sources: Devlin et al. 2019, "BERT", section 3; Beltagy et al. 2020, "Longformer"; Zaheer et al. 2020, "Big Bird".
    """

    def __init__(self, config: SparseBertConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position = _position(config)
        self.embedding_norm = _norm(config)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_block(config, layer) for layer in range(config.n_layers))
        self.final_norm = nn.Identity() if config.placement == "post" else _norm(config)
        self.head = nn.Linear(config.d_model, config.d_model)
        self.head_norm = _norm(config)
        init_weights(self, config.seed)

    def forward(
        self, ids: Tensor, *, at: Tensor | None = None, key_mask: Tensor | None = None,
        global_mask: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """ids (B, T) -> logits (B, T, V), or with places `at` (B, M) only those: (B, M, V).

        key_mask (B, T) is True for tokens that count, not padding; global_mask (T,) or (B, T) for global ones.
        """
        x = self.hidden(ids, key_mask=key_mask, global_mask=global_mask)  # (B, T, C)
        if at is not None:
            check_places(at, *ids.shape)
            x = x.gather(1, at.unsqueeze(-1).expand(-1, -1, x.shape[-1]))  # (B, M, C)
        return F.linear(self.head_norm(F.gelu(self.head(x))), self.embedding.weight)

    def hidden(self, ids: Tensor, *, key_mask: Tensor | None = None, global_mask: Tensor | None = None) -> Tensor:
        """ids (B, T) -> what the head reads, (B, T, C)."""
        config = self.config
        check_ids(ids)
        if ids.shape[1] > config.max_positions and (config.position == "learned" or config.pattern == "bigbird"):
            raise ValueError(f"ids: {ids.shape[1]} tokens; max_positions={config.max_positions} is the most")
        pos = torch.arange(ids.shape[1], device=ids.device)
        if config.has_global:
            global_mask = pos < config.n_global if global_mask is None else global_mask
        elif global_mask is not None:
            raise ValueError(f"global_mask: pattern={config.pattern!r} has no global tokens")
        x = self.dropout(self.embedding_norm(self.position.embed(self.embedding(ids), pos)))  # (B, T, C)
        for block in self.blocks:
            x = block(x, key_mask=key_mask, global_mask=global_mask)
        return self.final_norm(x)

    def with_pattern(self, **changes: object) -> "SparseBert":
        """A new model with the same weights and other fields of the config, such as pattern="local", radius=16.

        Raises ValueError for a field that there is not, or one that needs other weights.
        """
        if unknown := sorted(set(changes) - set(self.config.__dataclass_fields__)):
            raise ValueError(f"changes: {', '.join(unknown)} unknown; there are {', '.join(self.config.__dict__)}")
        other = SparseBert(replace(self.config, **changes)).to(self.embedding.weight)  # type: ignore[arg-type]
        own, its = dict(self.named_parameters()), dict(other.named_parameters())
        if {name: p.shape for name, p in own.items()} != {name: p.shape for name, p in its.items()}:
            raise ValueError(f"changes: {changes} need other weights than those of this model")
        other.load_state_dict(self.state_dict(), strict=True)
        for name, parameter in its.items():
            parameter.requires_grad_(own[name].requires_grad)
        return other.train(self.training)


def check_places(at: Tensor, batch: int, length: int) -> None:
    """Raise ValueError unless `at` is integers (batch, M) and, where it is on the CPU, from 0 to length - 1."""
    fits = isinstance(at, Tensor) and at.ndim == 2 and len(at) == batch and at.dtype == torch.int64
    if not fits:
        raise ValueError(f"at is {kind_of(at)}; needed is int64 ({batch}, M)")
    if at.device.type == "cpu" and at.numel() and not 0 <= int(at.min()) <= int(at.max()) < length:
        raise ValueError(f"at goes from {int(at.min())} to {int(at.max())}; the text has {length} tokens")


def _norm(config: SparseBertConfig) -> LayerNorm:
    return LayerNorm(config.d_model, norm_fn=fused_layer_norm)


def _position(config: SparseBertConfig) -> Position:
    if config.position == "learned":
        return LearnedPosition(config.max_positions, config.d_model)
    if config.position == "rope":
        return RotaryPosition(config.d_model // config.n_heads, config.rope_theta)
    return SinusoidalPosition(config.d_model, AS_EMBEDDINGS) if config.position == "sinusoidal" else Position()


def _attention(config: SparseBertConfig, layer: int) -> MultiHeadAttention:
    sizes = (config.d_model, config.n_heads)
    position = _position(config) if config.position == "rope" else None  # the others act before the first block
    if config.pattern == "full":
        return MultiHeadAttention(*sizes, position=position)
    if config.pattern == "local":
        near = partial(local_attention, radius=config.radius)
        return MultiHeadAttention(*sizes, position=position, attention_fn=near)
    blocks = None
    if config.pattern == "bigbird":
        n_blocks = -(-config.max_positions // block_of(config.radius))
        blocks = draw_blocks(n_blocks, config.n_random, seed_of(config.seed, layer * config.random_per_layer, "blocks"))
    return GlobalLocalAttention(
        *sizes, config.radius, position=position, blocks=blocks, separate_global=config.separate_global
    )


def _block(config: SparseBertConfig, layer: int) -> TransformerBlock:
    return TransformerBlock(
        _attention(config, layer),
        MLP(config.d_model, config.d_ff or 4 * config.d_model),
        (_norm(config), _norm(config)),
        placement=config.placement,
        dropout=config.dropout,
    )
