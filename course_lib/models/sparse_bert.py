"""SparseBert: an encoder whose attention pattern is a value of its config, with a head that fills in hidden tokens."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import positions
from course_lib.attention.big_bird import draw_blocks
from course_lib.attention.local import block_of, local_attention
from course_lib.attention.multi_head import MultiHeadAttention, check_heads
from course_lib.attention.sparse_multi_head import GlobalLocalAttention
from course_lib.checks import check_at_least, check_choice, check_dropout, check_sizes
from course_lib.init import init_weights, seed_of
from course_lib.mlp import MLP
from course_lib.models.inputs import check_ids, check_places, places_of
from course_lib.norms import LayerNorm, fused_layer_norm
from course_lib.transformer_block import PLACEMENTS, TransformerBlock

PATTERNS = ("full", "local", "local_global", "bigbird")


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
    position: str = "sinusoidal"  # as in `positions.make`
    rope_theta: float = 10000.0  # of "rope", which turns all channels of a head
    dropout: float = 0.0  # of the embeddings and of what each part adds to the stream
    placement: str = "pre"  # of the norms
    seed: int = 0

    def __post_init__(self) -> None:
        check_sizes(vocab_size=self.vocab_size, max_positions=self.max_positions, n_layers=self.n_layers)
        if self.d_ff is not None:
            check_sizes(d_ff=self.d_ff)
        for name in ("radius", "n_global", "n_random"):
            check_at_least(name, getattr(self, name), 0)
        check_heads(self.d_model, self.n_heads, self.n_heads, None)
        check_choice("pattern", self.pattern, PATTERNS)
        check_choice("placement", self.placement, PLACEMENTS)
        check_dropout(self.dropout)
        self.scheme()  # refuses what the scheme cannot be

    @property
    def has_global(self) -> bool:
        """Whether the pattern knows global tokens."""
        return self.pattern in ("local_global", "bigbird")

    def scheme(self) -> positions.Position:
        """A new module of the positional scheme."""
        return positions.make(
            self.position, d_model=self.d_model, n_heads=self.n_heads, max_positions=self.max_positions, causal=False,
            rope_theta=self.rope_theta,
        )  # fmt: skip

    def random_blocks(self, layer: int) -> Tensor | None:
        """The blocks of keys that a layer of "bigbird" draws, int64 (n_blocks, n_random); None for other patterns."""
        if self.pattern != "bigbird":
            return None
        n_blocks = -(-self.max_positions // block_of(self.radius))
        return draw_blocks(n_blocks, self.n_random, seed_of(self.seed, layer * self.random_per_layer, "blocks"))


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
        self.position, schemes = positions.spread(config.position, config.scheme, config.n_layers)
        self.embedding_norm = _norm(config)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_block(config, layer, scheme) for layer, scheme in enumerate(schemes))
        self.final_norm = nn.Identity() if config.placement == "post" else _norm(config)
        self.head = nn.Linear(config.d_model, config.d_model)
        self.head_norm = _norm(config)
        init_weights(self, config.seed)
        self.register_load_state_dict_post_hook(_draw_again)

    def forward(
        self, ids: Tensor, *, at: Tensor | None = None, key_mask: Tensor | None = None,
        global_mask: Tensor | None = None, pos: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """ids (B, T) -> logits (B, T, V), or with places `at` (B, M) only those: (B, M, V).

        key_mask (B, T) is True for tokens that count, not padding, which may stand at either end; global_mask (T,) or
        (B, T) for global ones; `pos`, (T,) or (B, T), are their places, by default counted from the first that counts.
        Random blocks are counted from the first token, whatever it is.
        """
        x = self.hidden(ids, key_mask=key_mask, global_mask=global_mask, pos=pos)  # (B, T, C)
        if at is not None:
            check_places(at, *ids.shape)
            x = x.gather(1, at.unsqueeze(-1).expand(-1, -1, x.shape[-1]))  # (B, M, C)
        return F.linear(self.head_norm(F.gelu(self.head(x))), self.embedding.weight)

    def hidden(
        self, ids: Tensor, *, key_mask: Tensor | None = None, global_mask: Tensor | None = None,
        pos: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """ids (B, T) -> what the head reads, (B, T, C); arguments as in `forward`."""
        config = self.config
        check_ids(ids, config.vocab_size)
        if ids.shape[1] > config.max_positions and (config.position == "learned" or config.pattern == "bigbird"):
            raise ValueError(f"ids: {ids.shape[1]} tokens; max_positions={config.max_positions} is the most")
        places, pos = places_of(ids, config.n_layers, None, key_mask, pos)
        if global_mask is not None and not config.has_global:
            raise ValueError(f"global_mask: pattern={config.pattern!r} has no global tokens")
        if global_mask is not None:
            places = replace(places, global_mask=global_mask)
        elif config.has_global:
            first = torch.arange(ids.shape[1], device=ids.device) if places.pos is None else places.pos
            chosen = (first >= 0) & (first < config.n_global)
            places = replace(places, global_mask=chosen, n_global=min(config.n_global, ids.shape[1]))
        x = self.dropout(self.embedding_norm(self.position.embed(self.embedding(ids), pos)))  # (B, T, C)
        for block in self.blocks:
            x = block(x, places)
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


def _norm(config: SparseBertConfig) -> LayerNorm:
    return LayerNorm(config.d_model, norm_fn=fused_layer_norm)


def _draw_again(model: Any, _: object) -> None:
    """Random blocks are drawn, not saved; a model made on `meta` has none until it gets its weights."""
    for layer, block in enumerate(model.blocks):
        if (blocks := model.config.random_blocks(layer)) is not None:
            block.attention.blocks = blocks.to(model.embedding.weight.device)


def _attention(config: SparseBertConfig, layer: int, position: positions.Position | None) -> MultiHeadAttention:
    sizes = (config.d_model, config.n_heads)
    if config.pattern == "full":
        return MultiHeadAttention(*sizes, position=position)
    if config.pattern == "local":
        near = partial(local_attention, radius=config.radius)
        return MultiHeadAttention(*sizes, position=position, attention_fn=near)
    return GlobalLocalAttention(
        *sizes,
        config.radius,
        position=position,
        blocks=config.random_blocks(layer),
        separate_global=config.separate_global,
    )


def _block(config: SparseBertConfig, layer: int, position: positions.Position | None) -> TransformerBlock:
    return TransformerBlock(
        _attention(config, layer, position),
        MLP(config.d_model, config.d_ff or 4 * config.d_model),
        (_norm(config), _norm(config)),
        placement=config.placement,
        dropout=config.dropout,
    )
